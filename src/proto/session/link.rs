//! The two ends of a session and the wrapping of its control packets.

use tunnelhead_crypto::{ControlWrap, KeyBlock, Role, StaticKey};

use super::SessionConfig;
use super::config::WrapConfig;
use super::error::SessionError;
use super::key_state::Channel;
use super::stats::SessionStats;
use crate::proto::wire::{
    ControlPacket, FirstByte, KeyId, Opcode, PushFrameError, SessionId, push_frame,
};

/// Acknowledgements in one packet. Clients before 2.6 and RouterOS take no more.
/// Source: OpenVPN reliable.h `CONTROL_SEND_ACK_MAX`.
const MAX_ACKS_SENT: usize = 4;

/// Session ids and control-channel keys.
#[derive(Debug)]
pub(super) struct Link {
    /// Our session id.
    pub(super) own: SessionId,
    /// The client's session id.
    pub(super) peer: SessionId,
    /// Unix time of the session's begin, part of each replay id that we send.
    pub(super) unix_time: u32,
    /// Wraps the first key's packets, and all of them without dynamic tls-crypt.
    pub(super) wrap: ControlWrap,
    /// The static key behind `wrap`; dynamic tls-crypt mixes it in.
    pub(super) base: Option<StaticKey>,
    /// Wraps the packets of all later keys, if negotiated.
    /// Source: OpenVPN ssl.c `tls_session_generate_dynamic_tls_crypt_key`.
    pub(super) dynamic: Option<ControlWrap>,
}

impl Link {
    /// Opens the first packet of a connection. Changes nothing outside; nothing is answered if it
    /// fails.
    pub(super) fn open_first(
        config: &SessionConfig,
        own: SessionId,
        unix_time: u32,
        frame: &[u8],
    ) -> Result<(Self, u32), SessionError> {
        let first = FirstByte::decode(*frame.first().ok_or(SessionError::FirstPacket)?)
            .map_err(|_| SessionError::FirstPacket)?;
        if first.opcode == Opcode::HardResetClientV1 {
            return Err(SessionError::Closed(super::CloseReason::KeyMethod1));
        }
        let expected = match &config.wrap {
            WrapConfig::TlsCryptV2 { .. } => Opcode::HardResetClientV3,
            _ => Opcode::HardResetClientV2,
        };
        if first.opcode != expected || first.key_id != KeyId::FIRST {
            return Err(SessionError::FirstPacket);
        }
        let mut packet = frame;
        let (mut wrap, base) = match &config.wrap {
            WrapConfig::None => (ControlWrap::none(), None),
            WrapConfig::TlsAuth { key, direction, digest } => {
                (ControlWrap::tls_auth(key, *direction, *digest), Some(key.duplicate()))
            }
            WrapConfig::TlsCrypt { key } => {
                (ControlWrap::tls_crypt(key, Role::Server), Some(key.duplicate()))
            }
            WrapConfig::TlsCryptV2 { server_key } => {
                let (key, _metadata, inner) =
                    server_key.split_and_unwrap(frame).map_err(SessionError::FirstUnwrap)?;
                packet = inner;
                (ControlWrap::tls_crypt(&key, Role::Server), Some(key))
            }
        };
        let mut plain = Vec::new();
        wrap.unwrap(packet, &mut plain).map_err(SessionError::FirstUnwrap)?;
        let reset = ControlPacket::decode(&plain).map_err(|_| SessionError::FirstPacket)?;
        // A reset that acknowledges something belongs to another session. Ids 0 and 1: RouterOS.
        let id = reset.message_id.filter(|id| *id <= 1).ok_or(SessionError::FirstPacket)?;
        if !reset.acks.is_empty() {
            return Err(SessionError::FirstPacket);
        }
        let link = Self { own, peer: reset.session_id, unix_time, wrap, base, dynamic: None };
        Ok((link, id))
    }

    /// Opens a control packet into `plain`: opcode, session id and the rest in clear layout.
    pub(super) fn open(
        &mut self,
        config: &SessionConfig,
        first: FirstByte,
        frame: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        let mut packet = frame;
        if matches!(first.opcode, Opcode::HardResetClientV3 | Opcode::ControlWkcV1) {
            // The wrapped key is appended; the session has it already, so it is only taken off.
            let WrapConfig::TlsCryptV2 { server_key } = &config.wrap else {
                return Err(SessionError::Closed(super::CloseReason::UnexpectedPacket));
            };
            packet = server_key.split_and_unwrap(frame).map_err(SessionError::Unwrap)?.2;
        }
        self.wrap_of(first.key_id).unwrap(packet, plain).map_err(SessionError::Unwrap)
    }

    /// Refuses a packet of another session.
    pub(super) fn check(&self, packet: &ControlPacket<'_>) -> Result<(), SessionError> {
        use super::CloseReason::{SecondSession, SessionIdMismatch};
        if packet.session_id != self.peer {
            let reset =
                matches!(packet.opcode, Opcode::HardResetClientV2 | Opcode::HardResetClientV3);
            let reason = if reset { SecondSession } else { SessionIdMismatch };
            return Err(SessionError::Closed(reason));
        }
        match packet.acks.remote() {
            Some(remote) if remote != self.own => Err(SessionError::Closed(SessionIdMismatch)),
            _ => Ok(()),
        }
    }

    /// Appends frames with what the channel has to send: messages that carry acknowledgements, then
    /// acknowledgements alone.
    pub(super) fn transmit(
        &mut self,
        channel: &mut Channel,
        stats: &mut SessionStats,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        let mut plain = Vec::new();
        while let Some(message) = channel.send.next_to_send() {
            let packet = ControlPacket {
                opcode: message.opcode,
                key_id: channel.key_id,
                session_id: self.own,
                acks: channel.acks.take(MAX_ACKS_SENT, self.peer),
                message_id: Some(message.id),
                payload: &message.payload,
            };
            self.emit(&packet, &mut plain, stats, out)?;
        }
        while !channel.acks.is_empty() {
            let packet = ControlPacket {
                opcode: Opcode::AckV1,
                key_id: channel.key_id,
                session_id: self.own,
                acks: channel.acks.take(MAX_ACKS_SENT, self.peer),
                message_id: None,
                payload: &[],
            };
            self.emit(&packet, &mut plain, stats, out)?;
        }
        Ok(())
    }

    /// Makes the key for the control packets of all later keys. `exported` comes from the first TLS
    /// session.
    pub(super) fn enable_dynamic(&mut self, exported: &KeyBlock) {
        let base = self.base.take();
        self.dynamic = Some(ControlWrap::dynamic_tls_crypt(exported, base.as_ref(), Role::Server));
    }

    fn wrap_of(&mut self, key_id: KeyId) -> &mut ControlWrap {
        match &mut self.dynamic {
            Some(dynamic) if key_id != KeyId::FIRST => dynamic,
            _ => &mut self.wrap,
        }
    }

    fn emit(
        &mut self,
        packet: &ControlPacket<'_>,
        plain: &mut Vec<u8>,
        stats: &mut SessionStats,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        plain.clear();
        packet.encode(plain);
        let unix_time = self.unix_time;
        let wrap = self.wrap_of(packet.key_id);
        push_frame(out, |out| wrap.wrap(plain, unix_time, out)).map_err(|error| match error {
            PushFrameError::Body(error) => SessionError::Wrap(error),
            PushFrameError::Size(_) => SessionError::Closed(super::CloseReason::Internal),
        })?;
        stats.control_tx += 1;
        Ok(())
    }
}
