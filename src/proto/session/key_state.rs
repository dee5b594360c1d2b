//! The control channel of one key: reliability in both directions and the TLS engine behind it.
//!
//! ```text
//! engine: Live ──linger over──> Closed       (a closed engine never comes back)
//! ```
//! With the engine closed, messages are still acknowledged, and then discarded and counted.

use std::collections::VecDeque;

use tunnelhead_crypto::SecretBytes;

use super::error::{CloseReason, SessionError};
use super::event::{EngineId, Event, TlsAnswer, TlsOp, TlsTask};
use super::shared::Shared;
use crate::proto::control::{Message, MessageReader};
use crate::proto::reliable::{Accept, AckQueue, RecvQueue, SendQueue};
use crate::proto::wire::{ControlPacket, KeyId, Opcode};

/// TLS bytes in one control packet: fits every client's buffers with any wrapping.
const CHUNK: usize = 1100;

/// What one control message costs of an engine's input budget beyond its payload.
const MESSAGE_COST: usize = 16;

/// TLS operations under way at most.
const MAX_OPS: usize = 256;

/// An operation that waits for its answer; answers come in the order of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// So many bytes of TLS from the peer.
    Input(usize),
    /// Our key exchange message.
    KeyExchange,
    /// A control message: push reply, AUTH_FAILED, RESTART.
    Message,
}

#[derive(Debug)]
enum Engine {
    Live(Box<Live>),
    Closed,
}

#[derive(Debug)]
struct Live {
    id: EngineId,
    /// The driver was told to make it.
    opened: bool,
    pending: VecDeque<Op>,
    /// Bytes handed over and not answered.
    unanswered: usize,
    /// Bytes and messages received in all, in bytes.
    charged: usize,
    /// Our key exchange message has been encrypted.
    exchanged: bool,
}

/// The control channel of one key.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) key_id: KeyId,
    pub(super) send: SendQueue,
    pub(super) recv: RecvQueue,
    pub(super) acks: AckQueue,
    /// Commands inside TLS.
    pub(super) messages: MessageReader,
    engine: Engine,
}

impl Channel {
    /// A channel with an engine that is opened by the first TLS byte. The first message that it
    /// sends is `reset`.
    pub(super) fn new(key_id: KeyId, reset: Opcode, shared: &mut Shared) -> Self {
        let mut channel = Self::parked(key_id);
        let live = Live {
            id: shared.new_engine(),
            opened: false,
            pending: VecDeque::new(),
            unanswered: 0,
            charged: 0,
            exchanged: false,
        };
        channel.engine = Engine::Live(Box::new(live));
        // An empty queue takes a message.
        let _ = channel.send.push(reset, Vec::new());
        channel
    }

    /// A channel without an engine.
    pub(super) fn parked(key_id: KeyId) -> Self {
        Self {
            key_id,
            send: SendQueue::new(),
            recv: RecvQueue::new(),
            acks: AckQueue::new(),
            messages: MessageReader::new(),
            engine: Engine::Closed,
        }
    }

    /// Takes in a packet of this key: acknowledgements, then the message if there is one.
    ///
    /// # Errors
    /// The peer made us hold or handle more than it may.
    pub(super) fn accept(
        &mut self,
        packet: &ControlPacket<'_>,
        shared: &mut Shared,
    ) -> Result<(), SessionError> {
        for id in packet.acks.ids() {
            if !self.send.handle_ack(*id) {
                shared.stats.foreign_acks += 1;
            }
        }
        let Some(id) = packet.message_id else { return Ok(()) };
        // The payload of a reset is early-negotiation data, never TLS.
        let payload = match packet.opcode {
            Opcode::ControlV1 | Opcode::ControlWkcV1 => packet.payload,
            _ => &[],
        };
        self.accept_message(id, payload, shared)
    }

    /// Takes in one message. Also used for the reset that made the channel.
    pub(super) fn accept_message(
        &mut self,
        id: u32,
        payload: &[u8],
        shared: &mut Shared,
    ) -> Result<(), SessionError> {
        match self.recv.accept(id, payload) {
            Accept::OutOfWindow => {
                shared.stats.drop_out_of_window += 1;
                return Ok(());
            }
            Accept::Duplicate => shared.stats.duplicates += 1,
            Accept::Deliver | Accept::Buffered => {}
        }
        if !self.acks.note(id) {
            // More messages in one read than any client has under way.
            return Err(SessionError::Closed(CloseReason::ControlFlood));
        }
        while let Some(payload) = self.recv.pop_in_order() {
            self.input(payload, shared)?;
        }
        self.check_memory(shared)
    }

    /// Gives the next bytes of the TLS stream to the engine.
    fn input(&mut self, payload: Vec<u8>, shared: &mut Shared) -> Result<(), SessionError> {
        let Engine::Live(live) = &mut self.engine else {
            shared.stats.after_linger += 1;
            return Ok(());
        };
        live.charged = live.charged.saturating_add(payload.len() + MESSAGE_COST);
        if live.charged > shared.config.preauth_bytes {
            return Err(SessionError::Closed(CloseReason::ControlFlood));
        }
        if payload.is_empty() {
            return Ok(());
        }
        live.unanswered += payload.len();
        // Bytes that the driver has not fetched yet grow; one operation, one answer.
        if let Some(Event::Tls(TlsTask { engine, op: TlsOp::Input(bytes) })) =
            shared.events.back_mut()
            && *engine == live.id
            && let Some(Op::Input(count)) = live.pending.back_mut()
        {
            *count += payload.len();
            bytes.extend_from_slice(&payload);
            return Ok(());
        }
        let len = payload.len();
        live.submit(Op::Input(len), TlsOp::Input(payload), shared)
    }

    /// Asks the engine to encrypt a message; false if there is no engine.
    ///
    /// # Errors
    /// Too many operations are under way.
    pub(super) fn write(
        &mut self,
        op: Op,
        message: SecretBytes,
        shared: &mut Shared,
    ) -> Result<bool, SessionError> {
        let Engine::Live(live) = &mut self.engine else { return Ok(false) };
        live.submit(op, TlsOp::Write(message), shared)?;
        Ok(true)
    }

    /// Gives each command in decrypted bytes to `each`; malformed ones are counted.
    pub(super) fn commands(
        &mut self,
        plain: &[u8],
        shared: &mut Shared,
        each: &mut dyn FnMut(Message, &mut Shared),
    ) {
        let bad = self.messages.bad();
        self.messages.push(plain, &mut |message| each(message, shared));
        shared.stats.unknown_commands += self.messages.bad().saturating_sub(bad);
    }

    /// True if `engine` is this channel's.
    pub(super) fn owns(&self, engine: EngineId) -> bool {
        matches!(&self.engine, Engine::Live(live) if live.id == engine)
    }

    /// Takes in what the engine has to send; the rest of the answer is the caller's.
    ///
    /// # Errors
    /// The peer does not acknowledge and too much waits for it.
    pub(super) fn take_answer(
        &mut self,
        answer: &TlsAnswer,
        shared: &Shared,
    ) -> Result<(), SessionError> {
        let Engine::Live(live) = &mut self.engine else { return Ok(()) };
        match live.pending.pop_front() {
            Some(Op::Input(len)) => live.unanswered = live.unanswered.saturating_sub(len),
            Some(Op::KeyExchange) => live.exchanged = true,
            Some(Op::Message) | None => {}
        }
        for chunk in answer.ciphertext.chunks(CHUNK) {
            self.send
                .push(Opcode::ControlV1, chunk.to_vec())
                .map_err(|_| SessionError::Closed(CloseReason::Memory))?;
        }
        self.check_memory(shared)
    }

    /// True once the peer has acknowledged our key exchange message: the key is active.
    /// Source: OpenVPN ssl.c, states S_SENT_KEY to S_ACTIVE of the server.
    pub(super) fn is_active(&self) -> bool {
        matches!(&self.engine, Engine::Live(live) if live.exchanged) && self.send.all_acked()
    }

    /// True if nothing that was written waits to be encrypted, sent or acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        let writing = match &self.engine {
            Engine::Live(live) => live.pending.iter().any(|op| !matches!(op, Op::Input(_))),
            Engine::Closed => false,
        };
        !writing && self.send.all_acked()
    }

    /// True if no TLS operation waits for its answer.
    pub(super) fn is_idle(&self) -> bool {
        match &self.engine {
            Engine::Live(live) => live.pending.is_empty(),
            Engine::Closed => true,
        }
    }

    /// True while there is an engine.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.engine, Engine::Live(_))
    }

    /// Drops the engine for good.
    pub(super) fn close_engine(&mut self, shared: &mut Shared) {
        if let Engine::Live(live) = std::mem::replace(&mut self.engine, Engine::Closed)
            && live.opened
        {
            shared.task(live.id, TlsOp::Close);
        }
        self.messages = MessageReader::new();
    }

    /// Forgets an engine that failed at the driver's side.
    pub(super) fn engine_is_gone(&mut self) {
        self.engine = Engine::Closed;
        self.messages = MessageReader::new();
    }

    /// Bytes that the peer makes us hold in this channel.
    pub(super) fn held_bytes(&self) -> usize {
        let unanswered = match &self.engine {
            Engine::Live(live) => live.unanswered,
            Engine::Closed => 0,
        };
        unanswered
            .saturating_add(self.send.queued_bytes())
            .saturating_add(self.recv.buffered_bytes())
    }

    fn check_memory(&self, shared: &Shared) -> Result<(), SessionError> {
        if self.held_bytes() > shared.config.preauth_bytes {
            return Err(SessionError::Closed(CloseReason::Memory));
        }
        Ok(())
    }
}

impl Live {
    fn submit(&mut self, op: Op, task: TlsOp, shared: &mut Shared) -> Result<(), SessionError> {
        if self.pending.len() >= MAX_OPS {
            return Err(SessionError::Closed(CloseReason::ControlFlood));
        }
        if !self.opened {
            self.opened = true;
            shared.task(self.id, TlsOp::Open);
        }
        self.pending.push_back(op);
        shared.task(self.id, task);
        Ok(())
    }
}
