//! What ends a session and what a session refuses, each with a stable code and one sentence.

use std::sync::Arc;

use thiserror::Error;
use tunnelhead_crypto::{CryptoError, OpenError, RandomError, UnwrapError, WrapError};

use super::event::{AssignmentRefused, DenyReason};
use crate::proto::control::Km2Error;
use crate::proto::negotiate::CipherRefusal;
use crate::proto::wire::{ControlPacketError, FrameError, WireError};

/// Why a session ended. `code` is for metrics and the API, `Display` for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The first bytes are not OpenVPN over TCP.
    NotOpenVpn {
        /// What they look like, if they look like something.
        looks_like: Option<&'static str>,
    },
    /// The first packet is none that may begin a session on this listener.
    FirstPacket,
    /// The peer speaks key method 1, gone since OpenVPN 2.4.
    KeyMethod1,
    /// A frame of length zero or longer than what is accepted.
    BadFrame,
    /// A packet could not be parsed.
    Malformed,
    /// A control packet failed its tls-auth or tls-crypt check.
    ControlWrap,
    /// A control packet names another session.
    SessionIdMismatch,
    /// A hard reset of another session on the same connection.
    SecondSession,
    /// A packet that has no place in a login.
    UnexpectedPacket,
    /// A data packet failed its authentication.
    DataAuthentication,
    /// A data packet was received twice.
    DataReplay,
    /// A data packet could not be parsed.
    DataMalformed,
    /// The peer made us hold more bytes than a session may.
    Memory,
    /// The peer sent more TLS bytes or messages than one key needs.
    ControlFlood,
    /// The peer began rekeys in a loop.
    RekeyFlood,
    /// TLS failed.
    Tls {
        /// What the library says.
        detail: String,
    },
    /// The key exchange message could not be parsed.
    KeyExchange,
    /// The login was refused.
    Denied(DenyReason),
    /// The login was refused by an authenticator that says why.
    Refused {
        /// The reason.
        reason: DenyReason,
        /// Its sentence, bounded and printable.
        text: Arc<str>,
    },
    /// No cipher could be agreed on.
    Cipher(CipherRefusal),
    /// An accepted login got no address.
    Assignment(AssignmentRefused),
    /// The login was not finished in time.
    LoginTimeout,
    /// The peer, which used to ping, fell silent.
    PeerDead,
    /// The peer said that it leaves.
    PeerExit,
    /// A rekey presented another credential than the login.
    CredentialChanged,
    /// A rekey was not finished although the peer may already use its key.
    RekeyUnfinished,
    /// The key reached its hard limit and no rekey replaced it.
    KeyExhausted,
    /// We ended it: disconnect, disable, shut-down.
    ShutDown,
    /// The operating system gave no randomness, or a key could not be made.
    Internal,
}

impl CloseReason {
    /// Stable name for metrics and the API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotOpenVpn { .. } => "not_openvpn",
            Self::FirstPacket => "first_packet",
            Self::KeyMethod1 => "key_method_1",
            Self::BadFrame => "bad_frame",
            Self::Malformed => "malformed",
            Self::ControlWrap => "control_wrap",
            Self::SessionIdMismatch => "session_id_mismatch",
            Self::SecondSession => "second_session",
            Self::UnexpectedPacket => "unexpected_packet",
            Self::DataAuthentication => "data_authentication",
            Self::DataReplay => "data_replay",
            Self::DataMalformed => "data_malformed",
            Self::Memory => "memory",
            Self::ControlFlood => "control_flood",
            Self::RekeyFlood => "rekey_flood",
            Self::Tls { .. } => "tls",
            Self::KeyExchange => "key_exchange",
            Self::Denied(reason) | Self::Refused { reason, .. } => reason.code(),
            Self::Cipher(refusal) => refusal.code(),
            Self::Assignment(refused) => refused.code(),
            Self::LoginTimeout => "login_timeout",
            Self::PeerDead => "peer_dead",
            Self::PeerExit => "peer_exit",
            Self::CredentialChanged => "credential_changed",
            Self::RekeyUnfinished => "rekey_unfinished",
            Self::KeyExhausted => "key_exhausted",
            Self::ShutDown => "shut_down",
            Self::Internal => "internal",
        }
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotOpenVpn { looks_like: Some(what) } => {
                return write!(
                    f,
                    "The peer does not speak OpenVPN over TCP; it looks like {what}."
                );
            }
            Self::NotOpenVpn { looks_like: None } => "The peer does not speak OpenVPN over TCP.",
            Self::FirstPacket => {
                "The first packet may not begin a session here; check that both sides use the same \
                 control-channel key (tls-auth, tls-crypt, tls-crypt-v2 or none)."
            }
            Self::KeyMethod1 => "The client speaks key method 1, which is not supported.",
            Self::BadFrame => "The peer sent a frame of a length that is not accepted.",
            Self::Malformed => "The peer sent a packet that could not be parsed.",
            Self::ControlWrap => {
                "A control packet failed its tls-auth or tls-crypt check; the keys may differ."
            }
            Self::SessionIdMismatch => "A control packet named another session.",
            Self::SecondSession => "The peer began another session on the same connection.",
            Self::UnexpectedPacket => "The peer sent a packet that has no place in a login.",
            Self::DataAuthentication => {
                "A data packet failed its authentication; cipher, digest or keys may differ."
            }
            Self::DataReplay => "A data packet was received twice.",
            Self::DataMalformed => "A data packet could not be parsed.",
            Self::Memory => "The peer made the session hold more bytes than it may.",
            Self::ControlFlood => "The peer sent more control messages than one key needs.",
            Self::RekeyFlood => "The peer renewed its keys in a loop.",
            Self::Tls { detail } => {
                return write!(f, "TLS failed: {}.", detail.trim_end_matches('.'));
            }
            Self::KeyExchange => "The client's key exchange message could not be parsed.",
            Self::Denied(reason) => match reason {
                DenyReason::UnknownUser => "No account has this user name.",
                DenyReason::WrongPassword => "The password is wrong.",
                DenyReason::Disabled => "The account is disabled.",
                DenyReason::CertificateMissing => {
                    "The account wants a client certificate and none was presented."
                }
                DenyReason::CertificateMismatch => "The certificate belongs to another account.",
                DenyReason::TooLong => "The user name or the password is too long.",
                DenyReason::BackOff => "There were too many failed logins of late.",
                DenyReason::Clone => "Another router is logged in with this account and stays.",
                DenyReason::Banned => "An operator has shut the router out for a while.",
                DenyReason::Unavailable => "The authenticator gave no answer.",
                DenyReason::Refused => "The authenticator refused.",
                DenyReason::AddressConflict => {
                    "The authenticator named an address that this router can not have."
                }
            },
            Self::Refused { reason, text } => {
                return write!(f, "{} It says: {text}", Self::Denied(*reason));
            }
            Self::Cipher(refusal) => return write!(f, "No cipher could be agreed on: {refusal}."),
            Self::Assignment(refused) => assignment_text(*refused),
            Self::LoginTimeout => "The login was not finished in time.",
            Self::PeerDead => "The peer fell silent.",
            Self::PeerExit => "The peer said that it leaves.",
            Self::CredentialChanged => {
                "A rekey presented another credential than the login did; a new login decides."
            }
            Self::RekeyUnfinished => "A rekey was begun and never confirmed.",
            Self::KeyExhausted => "The key reached its limit and the peer did not renew it.",
            Self::ShutDown => "The session was ended from our side.",
            Self::Internal => "No randomness or no key could be had.",
        })
    }
}

/// Text of a refused assignment on the wire and in our log.
pub(super) fn assignment_text(refused: AssignmentRefused) -> &'static str {
    match refused {
        AssignmentRefused::PoolFull => "Every address of the pool is taken.",
        AssignmentRefused::Clone => "Another router is logged in with this account and stays.",
        AssignmentRefused::StoreDegraded => "A new address can not be recorded at the moment.",
    }
}

/// What to do with the connection after a [`SessionError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Close and send nothing: the peer has proved nothing yet.
    Silent,
    /// Send what `poll_transmit` still gives, then close.
    Drain,
}

/// An error that ends the session; the connection is to be closed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The stream is not made of acceptable frames.
    #[error("bad frame")]
    Frame(#[source] FrameError),
    /// The first packet is none that may begin a session.
    #[error("the first packet may not begin a session")]
    FirstPacket,
    /// The first packet of the stream did not even parse or unwrap.
    #[error("the first packet could not be opened")]
    FirstUnwrap(#[source] UnwrapError),
    /// A packet could not be parsed.
    #[error("malformed packet")]
    Wire(#[from] WireError),
    /// An opened control packet could not be parsed.
    #[error("malformed control packet")]
    Packet(#[from] ControlPacketError),
    /// A control packet failed its wrapping check.
    #[error("control packet refused")]
    Unwrap(#[source] UnwrapError),
    /// A control packet could not be wrapped.
    #[error("control packet could not be wrapped")]
    Wrap(#[source] WrapError),
    /// A data packet failed.
    #[error("data packet refused")]
    Data(#[source] OpenError),
    /// The key exchange message is malformed.
    #[error("malformed key exchange")]
    KeyExchange(#[from] Km2Error),
    /// A key could not be made.
    #[error("key derivation failed")]
    Crypto(#[from] CryptoError),
    /// No randomness.
    #[error("no randomness")]
    Random(#[from] RandomError),
    /// The session ended for this reason.
    #[error("session closed: {0}")]
    Closed(CloseReason),
}

impl SessionError {
    /// Why the session ended.
    #[must_use]
    pub fn reason(&self) -> CloseReason {
        match self {
            Self::Frame(_) => CloseReason::BadFrame,
            Self::FirstPacket | Self::FirstUnwrap(_) => CloseReason::FirstPacket,
            Self::Wire(_) | Self::Packet(_) => CloseReason::Malformed,
            Self::Unwrap(_) => CloseReason::ControlWrap,
            Self::Data(error) => match error {
                OpenError::Authentication => CloseReason::DataAuthentication,
                OpenError::Replay => CloseReason::DataReplay,
                _ => CloseReason::DataMalformed,
            },
            Self::KeyExchange(_) => CloseReason::KeyExchange,
            Self::Wrap(_) | Self::Crypto(_) | Self::Random(_) => CloseReason::Internal,
            Self::Closed(reason) => reason.clone(),
        }
    }

    /// What to do with the connection.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.reason().disposition()
    }
}

impl CloseReason {
    /// What to do with the connection: the one place where this is decided.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotOpenVpn { .. }
            | Self::FirstPacket
            | Self::KeyMethod1
            | Self::BadFrame
            | Self::Malformed
            | Self::ControlWrap
            | Self::SessionIdMismatch
            | Self::SecondSession
            | Self::UnexpectedPacket
            | Self::DataAuthentication
            | Self::DataReplay
            | Self::DataMalformed
            | Self::Memory
            | Self::ControlFlood
            | Self::RekeyFlood
            | Self::KeyExchange
            | Self::KeyExhausted
            | Self::PeerDead
            | Self::LoginTimeout
            | Self::Internal => Disposition::Silent,
            Self::Tls { .. }
            | Self::Denied(_)
            | Self::Refused { .. }
            | Self::Cipher(_)
            | Self::Assignment(_)
            | Self::PeerExit
            | Self::CredentialChanged
            | Self::RekeyUnfinished
            | Self::ShutDown => Disposition::Drain,
        }
    }
}

/// A packet was not sealed; it is dropped.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealRefused {
    /// The session can not carry packets (yet, or any more).
    #[error("the tunnel is not up")]
    NotUp,
    /// The key reached its hard limit; the session ends at the next `handle_timeout`.
    #[error("the key is exhausted")]
    Exhausted,
    /// The packet is longer than what fits into a frame.
    #[error("packet of {0} bytes is too long")]
    TooLong(usize),
    /// No randomness for an initialisation vector.
    #[error("no randomness")]
    Random,
}

/// A rekey was not started.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RekeyRefused {
    /// The session is not up.
    #[error("the tunnel is not up")]
    NotUp,
    /// One is going on.
    #[error("a rekey is going on")]
    InFlight,
}

/// A session can not be written out right now.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportRefused {
    /// Only a session that is up can be written out.
    #[error("the tunnel is not up")]
    NotUp,
    /// Not during a rekey; it ends within the hand window.
    #[error("a rekey is going on")]
    Rekeying,
    /// TLS operations or events are outstanding; drain them first.
    #[error("operations are outstanding")]
    Busy,
}

/// Bytes that are not an exported session.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The bytes end too early, go on too long or hold an impossible value.
    #[error("the exported session is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a version that this one does not know.
    #[error("the exported session has version {0}, which is not known")]
    Version(u8),
    /// Keys or counters are impossible.
    #[error("the exported session holds impossible keys")]
    Crypto(#[from] CryptoError),
    /// No randomness.
    #[error("no randomness")]
    Random(#[from] RandomError),
}
