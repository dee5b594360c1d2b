//! Bytes of the connection in and out: frames, wrapping, control packets.

use std::ops::ControlFlow;
use std::time::Instant;

use tunnelhead_crypto::{ControlWrap, WrapError};

use super::channel::Packet;
use super::config::ClientWrap;
use super::machine::{Client, Push};
use crate::proto::session::TlsOp;
use crate::proto::wire::{
    AckList, ControlPacket, FirstByte, KeyId, Opcode, PushFrameError, push_frame,
};

/// TLS bytes in one control packet at most: what every client can take.
const SERVER_PAYLOAD: usize = 1100;

impl Client {
    /// Takes bytes of the connection in any chunking. Inner packets go to `sink`; pings do not.
    pub fn handle_link(&mut self, now: Instant, bytes: &mut [u8], sink: &mut dyn FnMut(&mut [u8])) {
        let mut frames = std::mem::take(&mut self.frames);
        let result = frames.feed(bytes, &mut |frame| {
            self.handle_frame(now, frame, sink);
            if self.closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.frames = frames;
        if let Err(error) = result {
            self.fatal(error.to_string());
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: &mut [u8], sink: &mut dyn FnMut(&mut [u8])) {
        if frame.len() > self.config.max_frame {
            return self.fatal(format!("a frame of {} bytes", frame.len()));
        }
        let Some(Ok(first)) = frame.first().map(|byte| FirstByte::decode(*byte)) else {
            return self.fatal("a frame that is no packet");
        };
        if first.opcode.is_data() {
            self.handle_data(now, first, frame, sink);
        } else {
            self.handle_control(now, first.key_id, frame);
        }
    }

    fn handle_control(&mut self, now: Instant, key_id: KeyId, frame: &[u8]) {
        let mut plain = Vec::new();
        if let Err(error) = self.wrap_of(key_id).unwrap(frame, &mut plain) {
            return self.fatal(format!("a control packet can't be unwrapped: {error}"));
        }
        match ControlPacket::decode(&plain) {
            Ok(packet) => self.handle_packet(now, &packet),
            Err(error) => self.fatal(format!("a control packet can't be read: {error}")),
        }
    }

    fn handle_packet(&mut self, now: Instant, packet: &ControlPacket<'_>) {
        self.stats.control_in += 1;
        match (self.remote, packet.opcode) {
            (None, Opcode::HardResetServerV2) => self.remote = Some(packet.session_id),
            (None, other) => return self.fatal(format!("{other:?} before the server's reset")),
            (Some(remote), _) if remote != packet.session_id => {
                return self.fatal("a control packet of another session");
            }
            (Some(_), Opcode::SoftResetV1 | Opcode::ControlV1 | Opcode::AckV1) => {}
            (Some(_), other) => return self.fatal(format!("an unexpected {other:?}")),
        }
        if packet.acks.remote().is_some_and(|remote| remote != self.own) {
            return self.fatal("acknowledgements for another session");
        }
        let Some(index) = self.key_of(now, packet) else {
            let what = format!("{:?} for key {}", packet.opcode, packet.key_id.get());
            return self.fatal(format!("{what}, which does not exist"));
        };
        self.last_received = now;
        self.handle_acks_and_payload(index, packet);
        self.progress(now, packet.key_id);
    }

    /// The key of a packet; a soft reset of the server makes the next one.
    fn key_of(&mut self, now: Instant, packet: &ControlPacket<'_>) -> Option<usize> {
        let known = self.keys.iter().position(|key| key.id == packet.key_id);
        if known.is_some() || packet.opcode != Opcode::SoftResetV1 {
            return known;
        }
        let newest = self.keys.last()?;
        if newest.data.is_none() || packet.key_id != newest.id.next() {
            return None;
        }
        self.add_key(packet.key_id, now);
        Some(self.keys.len() - 1)
    }

    fn handle_acks_and_payload(&mut self, index: usize, packet: &ControlPacket<'_>) {
        let Some(key) = self.keys.get_mut(index) else { return };
        let (key_id, engine, tls_open) = (key.id.get(), key.engine, key.tls_open);
        let first_of_key = !key.channel.peer_reset_seen();
        let mut violations = key.channel.handle_acks(packet.acks.ids());
        let received = packet.message_id.map(|id| key.channel.receive(id));
        match received {
            Some(Err(what)) => return self.fatal(format!("key {key_id}: {what}")),
            Some(Ok(Some(what))) => violations.push(what),
            Some(Ok(None)) | None => {}
        }
        let is_reset = matches!(packet.opcode, Opcode::HardResetServerV2 | Opcode::SoftResetV1);
        if packet.message_id.is_some() && first_of_key != is_reset {
            violations.push(format!("{:?} is not in its place", packet.opcode));
        }
        if packet.payload.len() > SERVER_PAYLOAD {
            violations.push(format!("{} TLS bytes in one packet", packet.payload.len()));
        }
        for what in violations {
            self.violation(format!("key {key_id}: {what}"));
        }
        if is_reset {
            // All data of the key before the last was sent, and so received, before this packet.
            while self.keys.len() > 2 {
                self.drop_oldest();
            }
        } else if !packet.payload.is_empty() {
            if tls_open {
                self.task(engine, TlsOp::Input(packet.payload.to_vec()));
            } else {
                self.fatal("TLS bytes before the client spoke");
            }
        }
    }

    /// Takes the steps that have become possible for a key.
    pub(super) fn progress(&mut self, now: Instant, key_id: KeyId) {
        let Some(index) = self.keys.iter().position(|key| key.id == key_id) else { return };
        let Some(key) = self.keys.get_mut(index) else { return };
        key.active |= key.server.is_some() && key.channel.all_acked();
        let (active, reset_acked) = (key.active, key.channel.reset_acked());
        if reset_acked {
            self.open_tls(index);
        }
        if key_id == KeyId::FIRST && active && matches!(self.push, Push::NotYet) {
            self.push = Push::Asking {
                next: now + self.config.push_delay,
                give_up: now + self.config.hand_window,
            };
        }
    }

    /// Appends everything that is ready to be sent; true if anything was.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        out.append(&mut self.out);
        if self.closed {
            return out.len() > before;
        }
        for index in 0..self.keys.len() {
            while let Some((key_id, packet)) = self.next_packet(index) {
                self.transmit(now, key_id, &packet, out);
            }
        }
        out.len() > before
    }

    fn next_packet(&mut self, index: usize) -> Option<(KeyId, Packet)> {
        let config = &self.config;
        let key = self.keys.get_mut(index)?;
        let packet = key.channel.next_packet(
            config.send_window,
            config.max_acks,
            config.quirks.repeat_acks,
        )?;
        Some((key.id, packet))
    }

    fn transmit(&mut self, now: Instant, key_id: KeyId, packet: &Packet, out: &mut Vec<u8>) {
        // Before the server's reset there is nothing to acknowledge.
        let acks = self.remote.map_or_else(AckList::none, |r| AckList::new(&packet.acks, r));
        let mut plain = Vec::new();
        ControlPacket {
            opcode: packet.opcode,
            key_id,
            session_id: self.own,
            acks,
            message_id: packet.id,
            payload: &packet.payload,
        }
        .encode(&mut plain);
        let unix_time = self.unix_time;
        let wrapped_key = match &self.config.wrap {
            ClientWrap::TlsCryptV2 { key } if packet.opcode == Opcode::HardResetClientV3 => {
                key.wrapped.clone()
            }
            _ => Vec::new(),
        };
        let wrap = self.wrap_of(key_id);
        let result = push_frame(out, |out| {
            wrap.wrap(&plain, unix_time, out)?;
            out.extend_from_slice(&wrapped_key);
            Ok::<(), WrapError>(())
        });
        match result {
            Ok(()) => {
                self.stats.control_out += 1;
                self.last_sent = now;
            }
            Err(PushFrameError::Body(error)) => self.close(format!("can't wrap: {error}")),
            Err(PushFrameError::Size(len)) => {
                self.close(format!("a control packet of {len} bytes"))
            }
        }
    }

    fn wrap_of(&mut self, key_id: KeyId) -> &mut ControlWrap {
        match &mut self.dynamic {
            Some(dynamic) if key_id != KeyId::FIRST => dynamic,
            _ => &mut self.wrap,
        }
    }
}
