//! The data channel: IP packets sealed into and opened from data packets.
//!
//! ```text
//! P_DATA_V1  u8 opcode|key id                    | body      opcode 6
//! P_DATA_V2  u8 opcode|key id, u24 peer id       | body      opcode 9
//! body, GCM  u32 packet id | tag (16) | ciphertext           AAD: V2 header and packet id; V1 packet id alone
//! body, CBC  HMAC | IV (16) | ciphertext                     packet id in front of the plaintext
//! ```
//! All integers are big-endian. With GCM in P_DATA_V1 and with CBC the header is not authenticated:
//! who uses the key id or peer id of a packet must not rely on it.

mod aead;
mod cbc_hmac;
mod lanes;
mod limits;
mod open;
mod seal;
mod state;
#[cfg(test)]
mod tests;

use crate::algorithm::{AuthDigest, DataCipher};
use crate::error::CryptoError;
use crate::key_block::{KeyBlock, Role, Slot};

pub use self::open::DataOpener;
pub use self::seal::DataSealer;
use self::state::KeyMaterial;

/// Opcode of a data packet with a one-byte header. Source: OpenVPN 2 P_DATA_V1.
const OPCODE_DATA_V1: u8 = 6;
/// Opcode of a data packet with a four-byte header. Source: OpenVPN 2 P_DATA_V2.
const OPCODE_DATA_V2: u8 = 9;

/// Longest payload that is sealed, in bytes; more than an IP packet can't be.
pub const MAX_PAYLOAD: usize = 65_535;

/// Most packets that [`DataSealer::seal_batch`] takes at once.
pub const MAX_BATCH: usize = lanes::LANES;

/// Highest peer id (24 bits).
pub const MAX_PEER_ID: u32 = 0x00ff_ffff;

/// What stands in front of a data packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The key, 0..=7.
    pub key_id: u8,
    /// `None`: P_DATA_V1. `Some`: P_DATA_V2 with this peer id, at most [`MAX_PEER_ID`].
    pub peer_id: Option<u32>,
}

impl DataHeader {
    /// Length on the wire: 1 or 4 bytes.
    const fn wire_len(self) -> usize {
        match self.peer_id {
            None => 1,
            Some(_) => 4,
        }
    }
}

/// The keys of one key id in both directions, with counters and replay window.
///
/// It is neither `Clone` nor copied by [`Self::export`] in the sense that both copies may be used:
/// after an export either this value or the one imported from it may seal, never both.
#[derive(Debug)]
pub struct DataKeys {
    /// The sending direction.
    pub sealer: DataSealer,
    /// The receiving direction.
    pub opener: DataOpener,
}

impl DataKeys {
    /// Sets both directions up from derived or exported key material. `digest` counts with CBC
    /// ciphers only. The client sends with slot 0, the server with slot 1.
    ///
    /// # Errors
    /// [`CryptoError::ZeroKey`] if a cipher key is all zero.
    pub fn new(
        cipher: DataCipher,
        digest: AuthDigest,
        block: &KeyBlock,
        role: Role,
    ) -> Result<Self, CryptoError> {
        Self::with_slots(
            cipher,
            digest,
            block,
            Slot::data_send(role),
            Slot::data_send(role).other(),
        )
    }

    fn with_slots(
        cipher: DataCipher,
        digest: AuthDigest,
        block: &KeyBlock,
        send: Slot,
        receive: Slot,
    ) -> Result<Self, CryptoError> {
        Ok(Self {
            sealer: DataSealer::new(KeyMaterial::take(cipher, digest, block, send)?)?,
            opener: DataOpener::new(KeyMaterial::take(cipher, digest, block, receive)?)?,
        })
    }

    /// The cipher of both directions.
    pub const fn cipher(&self) -> DataCipher {
        self.sealer.cipher()
    }

    /// The digest of both directions; without meaning for GCM.
    pub const fn digest(&self) -> AuthDigest {
        self.sealer.digest()
    }

    /// True when a new key is due in either direction: long before the limits that
    /// [`crate::SealError::Exhausted`] stands for.
    pub const fn needs_rekey(&self) -> bool {
        self.sealer.needs_rekey() || self.opener.needs_rekey()
    }
}
