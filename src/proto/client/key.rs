//! One key of the client: its control channel, its TLS engine, its key exchange, its data keys.

use std::time::Instant;

use tunnelhead_crypto::{DataKeys, KeySource};

use super::channel::Channel;
use crate::proto::control::{KeyMethod2, MessageReader};
use crate::proto::session::{EngineId, TlsFacts};
use crate::proto::wire::{KeyId, Opcode};

/// A key from its reset to its end.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: KeyId,
    pub(super) engine: EngineId,
    pub(super) created: Instant,
    pub(super) channel: Channel,
    pub(super) tls_open: bool,
    pub(super) facts: Option<Box<TlsFacts>>,
    /// The client's random material, made when key method 2 was written.
    pub(super) own: Option<KeySource>,
    /// The server's message.
    pub(super) server: Option<KeyMethod2>,
    /// Plaintext before the server's message is whole.
    pub(super) plaintext: Vec<u8>,
    pub(super) messages: MessageReader,
    /// Both messages are through and acknowledged.
    pub(super) active: bool,
    pub(super) data: Option<Data>,
}

/// Data keys in use.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) keys: DataKeys,
    /// When the client starts to send with them.
    pub(super) send_from: Instant,
    /// When a renegotiation is due.
    pub(super) rekey_at: Option<Instant>,
    /// Data packets received; the id of the next one is one more.
    pub(super) received: u64,
}

impl Key {
    /// A key whose reset waits to be sent.
    pub(super) fn new(id: KeyId, engine: EngineId, reset: Opcode, now: Instant) -> Self {
        let mut channel = Channel::default();
        channel.push(reset, Vec::new());
        Self {
            id,
            engine,
            created: now,
            channel,
            tls_open: false,
            facts: None,
            own: None,
            server: None,
            plaintext: Vec::new(),
            messages: MessageReader::new(),
            active: false,
            data: None,
        }
    }
}
