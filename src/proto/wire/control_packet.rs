//! Control packets after unwrapping:
//!
//! ```text
//! u8 opcode/key id | sender's session id (8) | u8 n | n × u32 acknowledged ids
//!   | receiver's session id (8), only if n > 0 | u32 message id, not in ACK_V1 | payload
//! ```

use thiserror::Error;

use super::opcode::{FirstByte, KeyId, MessageId, Opcode, SessionId, WireError};
use super::reader::{Reader, Truncated};
use super::writer::put_u32;

/// Most acknowledgements in a packet. Source: OpenVPN 2 reliable.h `RELIABLE_ACK_SIZE`.
pub const MAX_ACKS: usize = 8;

/// Acknowledged message ids and whom they are addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AckList {
    ids: [MessageId; MAX_ACKS],
    len: usize,
    remote: Option<SessionId>,
}

impl AckList {
    /// Acknowledges nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Acknowledges the first [`MAX_ACKS`] of `ids`; `remote` is the receiver's session id.
    pub fn new(ids: &[MessageId], remote: SessionId) -> Self {
        let mut list = Self::default();
        for (slot, id) in list.ids.iter_mut().zip(ids) {
            *slot = *id;
            list.len += 1;
        }
        list.remote = (list.len > 0).then_some(remote);
        list
    }

    /// The acknowledged ids.
    pub fn ids(&self) -> &[MessageId] {
        self.ids.get(..self.len).unwrap_or_default()
    }

    /// The receiver's session id as the sender knows it; present iff there are ids.
    pub fn remote(&self) -> Option<SessionId> {
        self.remote
    }

    /// True if nothing is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Bytes that are no control packet. On TCP each of these ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlPacketError {
    /// The first byte is no packet.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The packet ends in the middle of a field.
    #[error("control packet: {0}")]
    Truncated(#[from] Truncated),
    /// The opcode is a data packet or one of key method 1.
    #[error("{0:?} is not a supported control packet")]
    NotControl(Opcode),
    /// A session id of zeros.
    #[error("a session id of zeros")]
    ZeroSession,
    /// More than [`MAX_ACKS`] acknowledgements.
    #[error("{0} acknowledgements in one packet")]
    TooManyAcks(u8),
}

/// A control packet in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPacket<'a> {
    /// What it is; never a data opcode.
    pub opcode: Opcode,
    /// The key it belongs to.
    pub key_id: KeyId,
    /// The sender's session id.
    pub session_id: SessionId,
    /// What it acknowledges.
    pub acks: AckList,
    /// Its number; `None` in `ACK_V1` only.
    pub message_id: Option<MessageId>,
    /// TLS bytes; for resets empty or early-negotiation data that is ignored.
    pub payload: &'a [u8],
}

impl<'a> ControlPacket<'a> {
    /// Reads a packet. Bytes after the end of an `ACK_V1` are ignored.
    ///
    /// # Errors
    /// [`ControlPacketError`]: the peer broke the format; close.
    pub fn decode(plain: &'a [u8]) -> Result<Self, ControlPacketError> {
        let mut reader = Reader::new(plain);
        let FirstByte { opcode, key_id } = FirstByte::decode(reader.u8()?)?;
        if !opcode.is_control() {
            return Err(ControlPacketError::NotControl(opcode));
        }
        let session_id = SessionId::new(reader.array()?).ok_or(ControlPacketError::ZeroSession)?;
        let acks = read_acks(&mut reader)?;
        let (message_id, payload) = match opcode {
            Opcode::AckV1 => (None, &[][..]),
            _ => (Some(reader.u32()?), reader.rest()),
        };
        Ok(Self { opcode, key_id, session_id, acks, message_id, payload })
    }

    /// Appends the packet. In an `ACK_V1`, message id and payload are left out; in any other packet
    /// a missing message id is written as 0.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FirstByte { opcode: self.opcode, key_id: self.key_id }.encode());
        out.extend_from_slice(self.session_id.bytes());
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_ACKS by construction")]
        out.push(self.acks.ids().len() as u8);
        for id in self.acks.ids() {
            put_u32(out, *id);
        }
        if let Some(remote) = self.acks.remote {
            out.extend_from_slice(remote.bytes());
        }
        if self.opcode != Opcode::AckV1 {
            put_u32(out, self.message_id.unwrap_or(0));
            out.extend_from_slice(self.payload);
        }
    }
}

fn read_acks(reader: &mut Reader<'_>) -> Result<AckList, ControlPacketError> {
    let count = reader.u8()?;
    let mut acks = AckList::none();
    let Some(slots) = acks.ids.get_mut(..usize::from(count)) else {
        return Err(ControlPacketError::TooManyAcks(count));
    };
    for slot in slots {
        *slot = reader.u32()?;
    }
    acks.len = usize::from(count);
    if count > 0 {
        acks.remote = Some(SessionId::new(reader.array()?).ok_or(ControlPacketError::ZeroSession)?);
    }
    Ok(acks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn sid(bytes: &str) -> SessionId {
        SessionId::new(hex(bytes).try_into().unwrap()).unwrap()
    }

    #[test]
    fn reads_the_packets_of_a_recorded_session() {
        let reset = hex("38 0c87e1b4ec892597 00 00000000");
        let packet = ControlPacket::decode(&reset).unwrap();
        assert_eq!(packet.opcode, Opcode::HardResetClientV2);
        assert_eq!(packet.session_id, sid("0c87e1b4ec892597"));
        assert_eq!((packet.message_id, packet.payload), (Some(0), &[][..]));
        assert!(packet.acks.is_empty() && packet.acks.remote().is_none());

        let answer = hex("40 5cc254075bf85830 01 00000000 0c87e1b4ec892597 00000000");
        let packet = ControlPacket::decode(&answer).unwrap();
        assert_eq!(packet.opcode, Opcode::HardResetServerV2);
        assert_eq!(packet.acks, AckList::new(&[0], sid("0c87e1b4ec892597")));

        let ack = hex("28 0c87e1b4ec892597 01 00000000 5cc254075bf85830");
        let packet = ControlPacket::decode(&ack).unwrap();
        assert_eq!((packet.opcode, packet.message_id), (Opcode::AckV1, None));

        let hello = hex(
            "20 4313b1d429df801f 03 00000002 00000001 00000000 035cf550806eea65 00000002 160301",
        );
        let packet = ControlPacket::decode(&hello).unwrap();
        assert_eq!(packet.acks.ids(), [2, 1, 0]);
        assert_eq!((packet.message_id, packet.payload), (Some(2), &[0x16, 3, 1][..]));

        for bytes in [reset, answer, ack, hello] {
            let mut out = Vec::new();
            ControlPacket::decode(&bytes).unwrap().encode(&mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn every_prefix_of_a_packet_is_refused() {
        let whole = hex("40 5cc254075bf85830 01 00000000 0c87e1b4ec892597 00000000");
        for len in 0..whole.len() {
            assert_eq!(
                ControlPacket::decode(&whole[..len]),
                Err(ControlPacketError::Truncated(Truncated)),
                "length {len}"
            );
        }
    }

    #[test]
    fn malformed_packets_are_refused_each_for_its_reason() {
        use ControlPacketError as E;
        for (bytes, error) in [
            ("00", E::Wire(WireError::UnknownOpcode(0))),
            ("60", E::Wire(WireError::UnknownOpcode(12))),
            ("30 00", E::NotControl(Opcode::DataV1)),
            ("48 00", E::NotControl(Opcode::DataV2)),
            ("08 0c87e1b4ec892597 00 00000000", E::NotControl(Opcode::HardResetClientV1)),
            ("38 0000000000000000 00 00000000", E::ZeroSession),
            ("20 0c87e1b4ec892597 01 00000000 0000000000000000 00000001", E::ZeroSession),
            ("20 0c87e1b4ec892597 09 00000000", E::TooManyAcks(9)),
            ("28 0c87e1b4ec892597 ff 00000000", E::TooManyAcks(255)),
        ] {
            assert_eq!(ControlPacket::decode(&hex(bytes)), Err(error), "{bytes}");
        }
    }

    #[test]
    fn eight_acknowledgements_are_the_limit() {
        let remote = sid("0000000000000001");
        let nine: Vec<u32> = (0..9).collect();
        let acks = AckList::new(&nine, remote);
        assert_eq!(acks.ids(), &nine[..8]);
        assert_eq!(AckList::new(&[], remote), AckList::none());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            opcode in prop::sample::select(vec![3_u8, 4, 5, 7, 8, 10, 11]),
            key in 0..8_u8,
            own in any::<[u8; 8]>(),
            ids in prop::collection::vec(any::<u32>(), 0..=8),
            remote in any::<[u8; 8]>(),
            id in any::<u32>(),
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let opcode = Opcode::from_number(opcode).unwrap();
            let Some(session_id) = SessionId::new(own) else { return Ok(()) };
            let Some(remote) = SessionId::new(remote) else { return Ok(()) };
            let is_ack = opcode == Opcode::AckV1;
            let packet = ControlPacket {
                opcode,
                key_id: KeyId::new(key).unwrap(),
                session_id,
                acks: AckList::new(&ids, remote),
                message_id: (!is_ack).then_some(id),
                payload: if is_ack { &[] } else { &payload },
            };
            let mut bytes = Vec::new();
            packet.encode(&mut bytes);
            prop_assert_eq!(ControlPacket::decode(&bytes), Ok(packet));
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(prop_oneof![0..12_u8, any::<u8>()], 0..80)
        ) {
            if let Ok(packet) = ControlPacket::decode(&bytes) {
                let mut out = Vec::new();
                packet.encode(&mut out);
                prop_assert!(bytes.starts_with(&out));
            }
        }
    }
}
