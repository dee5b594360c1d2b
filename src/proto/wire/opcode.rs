//! The first byte of a packet (opcode and key id), session ids and message ids.

use thiserror::Error;
use tunnelhead_crypto::{RandomError, SecureRandom};

/// What a packet is. Numbers: 5 bits, the upper part of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Start of a session with key method 1; obsolete, refused.
    HardResetClientV1 = 1,
    /// Answer to it; obsolete, refused.
    HardResetServerV1 = 2,
    /// Start of a renegotiation; the key id is the new one.
    SoftResetV1 = 3,
    /// A chunk of the TLS stream.
    ControlV1 = 4,
    /// Acknowledgements only.
    AckV1 = 5,
    /// Data with a one-byte header.
    DataV1 = 6,
    /// Start of a session, key method 2.
    HardResetClientV2 = 7,
    /// The server's answer to any client reset.
    HardResetServerV2 = 8,
    /// Data with a four-byte header that holds a peer id.
    DataV2 = 9,
    /// Start of a session with a tls-crypt-v2 wrapped key appended.
    HardResetClientV3 = 10,
    /// A control packet with a wrapped key appended.
    ControlWkcV1 = 11,
}

impl Opcode {
    /// The opcode with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::HardResetClientV1,
            2 => Self::HardResetServerV1,
            3 => Self::SoftResetV1,
            4 => Self::ControlV1,
            5 => Self::AckV1,
            6 => Self::DataV1,
            7 => Self::HardResetClientV2,
            8 => Self::HardResetServerV2,
            9 => Self::DataV2,
            10 => Self::HardResetClientV3,
            11 => Self::ControlWkcV1,
            _ => return None,
        })
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// True for the two data opcodes.
    pub fn is_data(self) -> bool {
        matches!(self, Self::DataV1 | Self::DataV2)
    }

    /// True for the opcodes with the control packet layout that are in use (not key method 1).
    pub fn is_control(self) -> bool {
        !self.is_data() && !matches!(self, Self::HardResetClientV1 | Self::HardResetServerV1)
    }
}

/// Names one key of a session: 0 for the first, then 1..=7 in a circle that leaves 0 out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u8);

impl KeyId {
    /// The first key of a session.
    pub const FIRST: Self = Self(0);

    /// The key id with this number, 0..=7.
    pub fn new(number: u8) -> Option<Self> {
        (number < 8).then_some(Self(number))
    }

    /// The id of the next renegotiation: 0→1, …, 6→7, 7→1.
    #[must_use]
    pub fn next(self) -> Self {
        if self.0 >= 7 { Self(1) } else { Self(self.0 + 1) }
    }

    /// Its number, 0..=7.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// The number of a control message: per key and direction, from 0, without gaps.
pub type MessageId = u32;

/// Eight random bytes that a side chose for a session; never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 8]);

impl SessionId {
    /// The id with these bytes; `None` if all are zero, which means "undefined" on the wire.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// A fresh random id.
    ///
    /// # Errors
    /// [`RandomError`] if the generator fails; end this session.
    pub fn generate(rng: &mut dyn SecureRandom) -> Result<Self, RandomError> {
        let mut bytes = [0; 8];
        rng.fill(&mut bytes)?;
        if bytes == [0; 8] {
            bytes = [0xff; 8];
        }
        Ok(Self(bytes))
    }

    /// Its bytes in wire order.
    pub fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// A first byte that is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The opcode is not one of 1..=11.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u8),
}

/// The first byte of every packet: `opcode << 3 | key_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstByte {
    /// What the packet is.
    pub opcode: Opcode,
    /// The key it belongs to.
    pub key_id: KeyId,
}

impl FirstByte {
    /// Splits a first byte.
    ///
    /// # Errors
    /// [`WireError::UnknownOpcode`]: not OpenVPN, or a newer version; close.
    pub fn decode(byte: u8) -> Result<Self, WireError> {
        let number = byte >> 3;
        let opcode = Opcode::from_number(number).ok_or(WireError::UnknownOpcode(number))?;
        Ok(Self { opcode, key_id: KeyId(byte & 7) })
    }

    /// Joins both parts.
    pub fn encode(self) -> u8 {
        self.opcode.number() << 3 | self.key_id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_decodes_to_what_it_encodes_from_or_is_refused() {
        for byte in 0..=255_u8 {
            match FirstByte::decode(byte) {
                Ok(first) => {
                    assert_eq!(first.encode(), byte);
                    assert!((1..=11).contains(&(byte >> 3)));
                }
                Err(WireError::UnknownOpcode(number)) => {
                    assert_eq!(number, byte >> 3);
                    assert!(number == 0 || number > 11);
                }
            }
        }
    }

    #[test]
    fn the_bytes_of_real_packets() {
        for (byte, opcode) in [
            (0x38, Opcode::HardResetClientV2),
            (0x40, Opcode::HardResetServerV2),
            (0x48, Opcode::DataV2),
            (0x50, Opcode::HardResetClientV3),
            (0x20, Opcode::ControlV1),
            (0x28, Opcode::AckV1),
        ] {
            assert_eq!(FirstByte { opcode, key_id: KeyId::FIRST }.encode(), byte);
        }
    }

    #[test]
    fn key_ids_go_round_without_zero() {
        let mut key = KeyId::FIRST;
        let mut seen = Vec::new();
        for _ in 0..9 {
            key = key.next();
            seen.push(key.get());
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 1, 2]);
        assert_eq!(KeyId::new(8), None);
        assert_eq!(KeyId::new(7).map(KeyId::get), Some(7));
    }

    #[test]
    fn the_zero_session_id_is_refused() {
        assert_eq!(SessionId::new([0; 8]), None);
        let id = SessionId::new([0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(id.map(|id| *id.bytes()), Some([0, 0, 0, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn data_and_obsolete_opcodes_are_no_control_packets() {
        let control: Vec<u8> =
            (1..=11).filter(|n| Opcode::from_number(*n).is_some_and(Opcode::is_control)).collect();
        assert_eq!(control, [3, 4, 5, 7, 8, 10, 11]);
    }
}
