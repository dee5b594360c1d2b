//! The data channel of the client.

use std::time::Instant;

use tunnelhead_crypto::{DataHeader, SecureRandom};

use super::event::SendRefused;
use super::machine::Client;
use crate::proto::control::iv_proto;
use crate::proto::wire::{FirstByte, Opcode, push_frame};

/// The payload of a ping. Source: OpenVPN 2 `ping_string`.
const PING: [u8; 16] = [
    0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb, 0x07, 0xed, 0x2d, 0x0a, 0x98, 0x1f, 0xc7, 0x48,
];

impl Client {
    /// Appends one framed data packet with `packet` inside.
    ///
    /// # Errors
    /// [`SendRefused`]; nothing was appended.
    pub fn send_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        rng: &mut dyn SecureRandom,
        out: &mut Vec<u8>,
    ) -> Result<(), SendRefused> {
        let agreed = self.agreed.filter(|_| !self.closed).ok_or(SendRefused::NotConnected)?;
        let key = self
            .sending_index(now)
            .and_then(|index| self.keys.get_mut(index))
            .ok_or(SendRefused::NotConnected)?;
        let header = DataHeader { key_id: key.id.get(), peer_id: agreed.peer_id };
        let data = key.data.as_mut().ok_or(SendRefused::NotConnected)?;
        push_frame(out, |out| data.keys.sealer.seal(header, packet, rng, out))?;
        let spent = data.keys.needs_rekey();
        self.stats.data_out += 1;
        self.last_sent = now;
        if spent {
            self.start_rekey(now);
        }
        Ok(())
    }

    /// Appends one framed data packet, sealed under a key of the caller's choice, to test a server
    /// with. False if there is no such key.
    pub fn send_packet_with_key(
        &mut self,
        key_id: u8,
        packet: &[u8],
        rng: &mut dyn SecureRandom,
        out: &mut Vec<u8>,
    ) -> bool {
        let peer_id = self.agreed.and_then(|agreed| agreed.peer_id);
        let key = self.keys.iter_mut().find(|key| key.id.get() == key_id);
        let Some(data) = key.and_then(|key| key.data.as_mut()) else { return false };
        let header = DataHeader { key_id, peer_id };
        push_frame(out, |out| data.keys.sealer.seal(header, packet, rng, out)).is_ok()
    }

    /// The key to send with: the newest whose time has come, else the oldest. While a third key is
    /// negotiated, the oldest is not used: the server is about to forget it.
    pub(super) fn sending_index(&self, now: Instant) -> Option<usize> {
        let negotiating = self.keys.last().is_some_and(|key| key.data.is_none());
        let ready = |index: &usize| {
            let data = self.keys.get(*index).and_then(|key| key.data.as_ref());
            data.is_some_and(|data| now >= data.send_from)
        };
        let usable = |index: &usize| self.keys.get(*index).is_some_and(|key| key.data.is_some());
        let mut indexes = (0..self.keys.len()).filter(usable);
        let first = if negotiating { indexes.next_back() } else { indexes.next() };
        (0..self.keys.len()).rev().find(ready).max(first)
    }

    pub(super) fn send_ping(&mut self, now: Instant, rng: &mut dyn SecureRandom) {
        let mut out = std::mem::take(&mut self.out);
        if let Err(error) = self.send_packet(now, &PING, rng, &mut out) {
            self.close(error.to_string());
        }
        self.out = out;
    }

    pub(super) fn handle_data(
        &mut self,
        now: Instant,
        first: FirstByte,
        frame: &mut [u8],
        sink: &mut dyn FnMut(&mut [u8]),
    ) {
        let key_id = first.key_id.get();
        if first.opcode == Opcode::DataV2 && !self.announced.supports(iv_proto::DATA_V2) {
            self.violation("a data packet with a peer id, which was not announced");
        }
        let key = self.keys.iter_mut().find(|key| key.id == first.key_id);
        let Some(data) = key.and_then(|key| key.data.as_mut()) else {
            return self.fatal(format!("a data packet of key {key_id}, which does not exist"));
        };
        let payload = match data.keys.opener.open(frame) {
            Ok(payload) => payload,
            Err(error) => return self.fatal(format!("a data packet of key {key_id}: {error}")),
        };
        data.received += 1;
        let (id, expected) = (data.keys.opener.highest_packet_id(), data.received);
        self.stats.data_in += 1;
        self.last_received = now;
        if payload == PING {
            self.stats.pings_in += 1;
        } else {
            sink(payload);
        }
        if u64::from(id) != expected {
            self.fatal(format!("data packet {id} of key {key_id} came where {expected} was due"));
        } else if self.keys.iter().any(|k| k.data.as_ref().is_some_and(|d| d.keys.needs_rekey())) {
            self.start_rekey(now);
        }
    }
}
