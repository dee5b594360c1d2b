//! What crosses the border between a session and its driver: slow work going out, answers coming
//! back. Plain data; no socket, clock, thread or TLS library.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tunnelhead_crypto::{AuthDigest, DataCipher, KeyBlock, SecretBytes};

use super::error::CloseReason;
use crate::proto::control::{OptionsString, PeerInfo};

/// Names one question of a session; an answer with a dead ticket is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub(crate) u64);

/// Names one TLS engine of a session; rises with every key of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineId(pub u32);

/// Who a router is: its NAME in the account directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub Arc<str>);

/// One operation for the TLS engine of one key. Operations of one engine are executed in order.
#[derive(Debug)]
pub struct TlsTask {
    /// The engine.
    pub engine: EngineId,
    /// What to do with it.
    pub op: TlsOp,
}

/// The operations of a TLS engine.
#[derive(Debug)]
pub enum TlsOp {
    /// Make a server-side engine; no answer.
    Open,
    /// Bytes of the TLS stream from the peer.
    Input(Vec<u8>),
    /// One message to encrypt, as a single TLS write.
    Write(SecretBytes),
    /// Drop the engine; no answer.
    Close,
}

/// What a TLS engine has to say after an operation.
#[derive(Debug)]
pub struct TlsAnswer {
    /// The engine.
    pub engine: EngineId,
    /// Bytes of the TLS stream for the peer.
    pub ciphertext: Vec<u8>,
    /// Decrypted bytes from the peer.
    pub plaintext: SecretBytes,
    /// Given once, with the answer in which the handshake was completed.
    pub established: Option<Box<TlsFacts>>,
    /// The engine failed and is gone; `ciphertext` may hold a last alert.
    pub error: Option<String>,
}

/// Facts of a completed TLS handshake.
#[derive(Debug)]
pub struct TlsFacts {
    /// Protocol version, as the library names it ("TLSv1.2").
    pub version: String,
    /// Cipher suite, as the library names it.
    pub suite: String,
    /// The verified certificate of the client, if it sent one.
    pub client_certificate: Option<ClientCertificate>,
    /// Exported keying material, label `EXPORTER-OpenVPN-datakeys`, 256 bytes, no context.
    pub data_keys: KeyBlock,
    /// Exported keying material, label `EXPORTER-OpenVPN-dynamic-tls-crypt`, 256 bytes, no context.
    pub dynamic_wrap: KeyBlock,
}

/// The client's certificate after verification against the client CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The one common name, byte for byte.
    pub common_name: Vec<u8>,
    /// SHA-256 of the DER form.
    pub fingerprint: [u8; 32],
    /// Serial number, hexadecimal, lower case.
    pub serial: String,
    /// SHA-256 of the issuer's name, in a form in which equal names are the same bytes.
    pub issuer_hash: [u8; 32],
    /// The CAs between this certificate and the one that we trust.
    pub intermediates: Vec<CertificateId>,
}

impl ClientCertificate {
    /// Who issued it, and under which number.
    pub fn id(&self) -> CertificateId {
        CertificateId { issuer_hash: self.issuer_hash, serial: self.serial.clone() }
    }
}

/// What a revocation list calls a certificate by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateId {
    /// SHA-256 of the issuer's name, in a form in which equal names are the same bytes.
    pub issuer_hash: [u8; 32],
    /// Serial number, hexadecimal, lower case.
    pub serial: String,
}

/// What a client presented, for the authenticator.
#[derive(Debug)]
pub struct AuthRequest {
    /// User name as sent, without the terminating NUL; empty if absent.
    pub username: Vec<u8>,
    /// Password as sent, without the terminating NUL; empty if absent.
    pub password: SecretBytes,
    /// True if the user name or the password was longer than what is accepted on the wire.
    pub too_long: bool,
    /// The verified client certificate, if one was presented.
    pub certificate: Option<ClientCertificate>,
    /// The client's options string.
    pub options: OptionsString,
    /// The client's peer info; empty if absent.
    pub peer_info: PeerInfo,
}

/// The digest that an account prescribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountAuth {
    /// This digest, also named in the options string.
    Digest(AuthDigest),
    /// `auth=null`: only with AES-GCM.
    Null,
}

/// An accepted login.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// The account.
    pub identity: Identity,
    /// The data cipher that the account prescribes.
    pub cipher: Option<DataCipher>,
    /// The digest that the account prescribes.
    pub auth: Option<AccountAuth>,
}

/// Why a login was refused. The peer sees the same bytes for every reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// No account has this user name.
    UnknownUser,
    /// The password is wrong.
    WrongPassword,
    /// The account is disabled.
    Disabled,
    /// The account wants a client certificate and none was presented.
    CertificateMissing,
    /// The certificate belongs to somebody else.
    CertificateMismatch,
    /// User name or password longer than what is accepted.
    TooLong,
    /// Too many failures of late.
    BackOff,
    /// Two routers fight for one identity; the incumbent stays.
    Clone,
    /// An operator has shut it out for a while.
    Banned,
    /// The authenticator gave no answer in time, failed, or is overloaded.
    Unavailable,
    /// An authenticator from outside refused; it alone knows why.
    Refused,
    /// The authenticator named an address that this router can not have.
    AddressConflict,
}

impl DenyReason {
    /// Stable name for metrics and the API.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::WrongPassword => "wrong_password",
            Self::Disabled => "disabled",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateMismatch => "certificate_mismatch",
            Self::TooLong => "credentials_too_long",
            Self::BackOff => "back_off",
            Self::Clone => "clone",
            Self::Banned => "banned",
            Self::Unavailable => "authenticator_unavailable",
            Self::Refused => "refused_by_authenticator",
            Self::AddressConflict => "address_conflict",
        }
    }

    /// Whether somebody has looked at the credential and said no. Anything else is our own
    /// trouble: it keeps newcomers out and ends no established tunnel.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::UnknownUser
            | Self::WrongPassword
            | Self::Disabled
            | Self::CertificateMissing
            | Self::CertificateMismatch
            | Self::TooLong
            | Self::Refused => true,
            Self::BackOff
            | Self::Clone
            | Self::Banned
            | Self::Unavailable
            | Self::AddressConflict => false,
        }
    }
}

/// The authenticator's answer.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Let in.
    Allow(Allowed),
    /// Refuse.
    Deny(DenyReason),
    /// Refuse, and let our log and our operator know what the authenticator said. The peer sees
    /// what it sees for [`Self::Deny`].
    Refuse {
        /// The reason.
        reason: DenyReason,
        /// The authenticator's sentence, bounded and printable.
        text: Arc<str>,
    },
}

impl Verdict {
    /// Whether an established tunnel whose credential was judged again has to end: an explicit
    /// refusal, or an acceptance as somebody else. An authenticator that is dead, slow or
    /// overloaded ends nothing.
    pub fn ends_tunnel_of(&self, identity: &Identity) -> bool {
        match self {
            Self::Allow(allowed) => allowed.identity != *identity,
            Self::Deny(reason) | Self::Refuse { reason, .. } => reason.is_refusal(),
        }
    }
}

/// The address of an accepted login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The router's tunnel address.
    pub address: Ipv4Addr,
    /// Length of the prefix that is pushed as netmask.
    pub prefix_len: u8,
    /// The gateway of the router's block.
    pub gateway: Ipv4Addr,
}

/// Why an accepted login got no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssignmentRefused {
    /// Every address of the pool is taken or in quarantine.
    PoolFull,
    /// Another session of the same identity holds the address and stays.
    Clone,
    /// A first lease could not be recorded.
    StoreDegraded,
}

impl AssignmentRefused {
    /// Stable name for metrics and the API.
    pub fn code(self) -> &'static str {
        match self {
            Self::PoolFull => "pool_full",
            Self::Clone => "clone",
            Self::StoreDegraded => "store_degraded",
        }
    }
}

/// What a session wants from its driver. Drained with `poll_event` after every call that brings
/// something in.
#[derive(Debug)]
pub enum Event {
    /// Slow work for a TLS engine. Every `Input` and every `Write` is answered exactly once, in
    /// order; `Open` and `Close` are not answered.
    Tls(TlsTask),
    /// A client asks to be let in.
    AuthNeeded {
        /// Comes back with the verdict.
        ticket: Ticket,
        /// What the client presented.
        request: Box<AuthRequest>,
    },
    /// A client was let in and a cipher agreed; it needs an address.
    AssignmentNeeded {
        /// Comes back with the assignment.
        ticket: Ticket,
        /// Who it is.
        identity: Identity,
    },
    /// The push reply is on its way: the session may move to its shard.
    Established,
    /// Packets can flow both ways.
    Up,
    /// A rekey presented the credential of the login, and [`super::SessionConfig::judge_rekeys`]
    /// asks for another look at it. Nothing waits for the outcome; a refusal ends the session
    /// from outside.
    RekeyPresented {
        /// What the client presented.
        request: Box<AuthRequest>,
    },
    /// A rekey is done; sealing goes on with this key.
    KeysChanged {
        /// Its key id, 1..=7.
        key_id: u8,
    },
    /// The end, once for each session: write what `poll_transmit` still gives if the reason's
    /// disposition says so, then close the connection.
    Close(CloseReason),
}

/// How to end a session from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Tell the client to reconnect, if its TLS engine still lives.
    Restart,
    /// Just close.
    Quiet,
}
