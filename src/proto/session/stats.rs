//! Counters of one session and the plain view of it that the API shows.

use std::net::Ipv4Addr;
use std::time::Instant;

use tunnelhead_crypto::{AuthDigest, DataCipher};

use super::event::{ClientCertificate, Identity};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one session; they only rise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct SessionStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl SessionStats {
            /// Name of each counter, in the order of [`Self::values`].
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// All counters, in the order of [`Self::NAMES`].
            #[must_use]
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name),*]
            }

            /// The inverse of [`Self::values`]; missing values are zero, surplus is ignored.
            #[must_use]
            pub fn from_values(values: impl IntoIterator<Item = u64>) -> Self {
                let mut values = values.into_iter();
                Self { $($name: values.next().unwrap_or(0),)* }
            }
        }
    };
}

counters! {
    /// Bytes of the TCP stream received.
    link_rx_bytes,
    /// Bytes of the TCP stream made for sending.
    link_tx_bytes,
    /// Inner packets received, without pings and the like.
    rx_packets,
    /// Bytes of inner packets received.
    rx_bytes,
    /// Inner packets sealed.
    tx_packets,
    /// Bytes of inner packets sealed.
    tx_bytes,
    /// Pings received.
    pings_rx,
    /// Pings sent.
    pings_tx,
    /// Control packets received, acknowledgements included.
    control_rx,
    /// Control packets sent, acknowledgements included.
    control_tx,
    /// Rekeys completed.
    rekeys,
    /// Rekeys given up: the session went on with the key it had.
    rekeys_failed,
    /// Times that the push reply was sent.
    push_replies,
    /// Data packets dropped because no key of their key id exists (yet, or any more).
    drop_no_key,
    /// Payloads dropped because they carry compression framing.
    drop_compressed,
    /// Data packets with nothing in them.
    drop_empty,
    /// OCC messages, which are not answered in TLS mode.
    drop_occ,
    /// Data packets dropped because the session is being closed.
    drop_closing,
    /// Control packets of a key that is neither current nor being made.
    drop_unknown_key,
    /// Control packets with an opcode that has no meaning at that moment.
    drop_unexpected,
    /// Control messages beyond the receive window.
    drop_out_of_window,
    /// Control messages received again; acknowledged again.
    duplicates,
    /// Acknowledgements of messages that were never sent or were acknowledged before.
    foreign_acks,
    /// Control messages of a key whose TLS engine is closed; acknowledged.
    after_linger,
    /// Push requests that came too often or too late.
    drop_push_request,
    /// Commands inside TLS that are unknown or malformed.
    unknown_commands,
    /// Answers to questions that are no longer open.
    stale_answers,
}

/// The phase of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing valid has been received; nothing has been sent.
    AwaitReset,
    /// The TLS handshake or the key exchange is going on.
    Handshake,
    /// The authenticator or the address pool is being asked.
    Authentication,
    /// Logged in; the push reply waits for its request or for an acknowledgement.
    Push,
    /// The push reply was sent.
    Established,
    /// Packets flow both ways.
    Up,
    /// The end was announced to the peer.
    Closing,
    /// Over.
    Closed,
}

impl Phase {
    /// Stable name for metrics and the API.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::AwaitReset => "await_reset",
            Self::Handshake => "handshake",
            Self::Authentication => "authentication",
            Self::Push => "push",
            Self::Established => "established",
            Self::Up => "up",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// What there is to know about a session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Drawn when the session began; the same after export and import, different for the next
    /// session of the same router.
    pub generation: u64,
    /// How far it got.
    pub phase: Phase,
    /// The account, once authenticated.
    pub identity: Option<Identity>,
    /// The tunnel address, once assigned.
    pub address: Option<Ipv4Addr>,
    /// The data cipher, once agreed.
    pub cipher: Option<DataCipher>,
    /// The digest, once agreed; without meaning for AES-GCM.
    pub digest: Option<AuthDigest>,
    /// TLS version of the latest finished handshake, as the library names it.
    pub tls_version: Option<String>,
    /// TLS cipher suite of the latest finished handshake.
    pub tls_suite: Option<String>,
    /// The client certificate of the login, if one was presented.
    pub certificate: Option<ClientCertificate>,
    /// The client's options string, as sent.
    pub options: Option<String>,
    /// The client's peer info, as sent.
    pub peer_info: Option<String>,
    /// True if data packets to the client carry a peer id (`P_DATA_V2`).
    pub data_v2: bool,
    /// True if data keys come from the TLS exporter, false for the PRF.
    pub key_export: bool,
    /// True if rekeys are wrapped with a key made by the first handshake.
    pub dynamic_wrap: bool,
    /// Key id of the key that seals.
    pub key_id: Option<u8>,
    /// True while a rekey is going on.
    pub rekeying: bool,
    /// True if the client has ever sent a ping.
    pub client_pings: bool,
    /// When the session began.
    pub since: Instant,
    /// When the push reply was sent.
    pub established_at: Option<Instant>,
    /// When something authentic was last received.
    pub last_heard: Option<Instant>,
    /// The counters.
    pub stats: SessionStats,
}
