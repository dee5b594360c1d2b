//! The client role as a sans-IO state machine: the reference client of the tests.
//!
//! Written from the wire facts (`docs/PROTOCOL.md`), not from the server role, so that both do not
//! share a mistake; only the codecs of `wire`, `control` and `negotiate` and the cryptography are
//! common. It watches the server closely: everything that a real client would stumble over, and
//! every rule that the server set itself, is a [`ClientEvent::ProtocolViolation`].
//!
//! ```text
//! reset sent ──> reset acked ──> TLS ──> key method 2 written ──> server's read
//!   ──> push requested ──> push reply: data keys ──> Connected ──(soft reset)──> next key, no push
//! ```
//!
//! Bytes, time and randomness come in through `handle_*`; bytes and events leave through `poll_*`.
//! After any `handle_*` call: drain [`Client::poll_transmit`], then [`Client::poll_event`], then ask
//! [`Client::poll_timeout`]. TLS is somebody else's: [`TlsTask`](crate::proto::session::TlsTask)s
//! go out and [`TlsAnswer`](crate::proto::session::TlsAnswer)s come back, with
//! [`TlsOp::Open`](crate::proto::session::TlsOp::Open) meaning a client-side engine.

mod channel;
mod config;
mod data;
mod event;
mod exchange;
mod key;
mod link;
mod machine;
mod push;
#[cfg(test)]
mod tests;

pub use config::{ClientConfig, ClientWrap, Quirks, SwitchPolicy};
pub use event::{ClientEvent, ClientStats, SendRefused};
pub use machine::Client;
