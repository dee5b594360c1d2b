//! What a client has to say.

use thiserror::Error;
use tunnelhead_crypto::{DataCipher, SealError};

use crate::proto::negotiate::ParsedPush;
use crate::proto::session::TlsTask;
use crate::proto::wire::PushFrameError;

/// An event of the client.
#[derive(Debug)]
pub enum ClientEvent {
    /// Work for the TLS engine of one key. [`TlsOp::Open`](crate::proto::session::TlsOp::Open)
    /// makes a client-side engine and is followed by an empty `Input`; the first bytes of the
    /// handshake may come with the answer of either, so carry both answers back.
    Tls(TlsTask),
    /// The push reply is in and the data keys are made: packets flow.
    Connected {
        /// What was pushed.
        push: Box<ParsedPush>,
        /// The data cipher.
        cipher: DataCipher,
    },
    /// The login failed; [`Self::Close`] follows.
    AuthFailed(Option<String>),
    /// The server asks to reconnect; [`Self::Close`] follows.
    Restart(Option<String>),
    /// The server asks to stop; [`Self::Close`] follows.
    Halt(Option<String>),
    /// The server leaves; [`Self::Close`] follows.
    Exit,
    /// A renegotiation is done: data keys exist for this key id.
    KeysChanged {
        /// The new key.
        key_id: u8,
    },
    /// The server did something that it must not do.
    ProtocolViolation(String),
    /// The client is done; close the connection. Comes once.
    Close(String),
}

/// Why a packet was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendRefused {
    /// Not connected, or no longer.
    #[error("the client is not connected")]
    NotConnected,
    /// The packet could not be sealed or framed.
    #[error("the packet can't be sent: {0}")]
    Seal(#[from] PushFrameError<SealError>),
}

/// Counters of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Control packets received, acknowledgements included.
    pub control_in: u64,
    /// Control packets sent, acknowledgements included.
    pub control_out: u64,
    /// Data packets received and authentic, pings included.
    pub data_in: u64,
    /// Data packets sent, pings included.
    pub data_out: u64,
    /// Pings received.
    pub pings_in: u64,
    /// Push requests sent.
    pub push_requests: u64,
    /// Renegotiations finished.
    pub rekeys: u64,
    /// Violations reported.
    pub violations: u64,
}
