//! A session that ends politely: the peer is told, may acknowledge for a while, and changes nothing
//! any more. The end can't be postponed by anything that it sends.

use std::time::Instant;

use tunnelhead_crypto::SecretBytes;

use super::error::{CloseReason, SessionError};
use super::event::TlsAnswer;
use super::key_state::{Channel, Op};
use super::link::Link;
use super::shared::Shared;
use crate::proto::wire::{ControlPacket, Opcode};

/// A session that waits for its end.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) link: Link,
    pub(super) channel: Channel,
    /// Written once the key is active: before that an old client does not read it.
    pub(super) farewell: Option<SecretBytes>,
    /// Closed then.
    pub(super) until: Instant,
    pub(super) reason: CloseReason,
    /// Close as soon as the farewell is acknowledged.
    pub(super) hurry: bool,
}

impl Closing {
    /// Writes the farewell if the key is active; true if the end has come.
    pub(super) fn advance(&mut self, shared: &mut Shared) -> Result<bool, SessionError> {
        if self.channel.is_active()
            && let Some(farewell) = self.farewell.take()
        {
            self.channel.write(Op::Message, farewell, shared)?;
        }
        Ok(self.hurry && self.farewell.is_none() && self.channel.is_settled())
    }

    /// A control packet of this session, opened and checked.
    pub(super) fn control(
        &mut self,
        packet: &ControlPacket<'_>,
        shared: &mut Shared,
    ) -> Result<bool, SessionError> {
        let known = matches!(
            packet.opcode,
            Opcode::HardResetClientV2
                | Opcode::HardResetClientV3
                | Opcode::ControlV1
                | Opcode::ControlWkcV1
                | Opcode::AckV1
        );
        if !known || packet.key_id != self.channel.key_id {
            shared.stats.drop_closing += 1;
            return Ok(false);
        }
        self.channel.accept(packet, shared)?;
        self.advance(shared)
    }

    /// An answer of the TLS engine; what the peer said is of no interest any more.
    pub(super) fn tls(
        &mut self,
        answer: TlsAnswer,
        shared: &mut Shared,
    ) -> Result<bool, SessionError> {
        if !self.channel.owns(answer.engine) {
            shared.stats.stale_answers += 1;
            return Ok(false);
        }
        self.channel.take_answer(&answer, shared)?;
        if answer.error.is_some() {
            self.channel.engine_is_gone();
            self.farewell = None;
        }
        self.advance(shared)
    }
}
