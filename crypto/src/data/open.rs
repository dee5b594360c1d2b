//! The receiving direction of a data key.

use std::fmt;

use crate::algorithm::DataCipher;
use crate::error::{CryptoError, OpenError};
use crate::packet_id::REKEY_AT_ID;
use crate::replay::{Refused, ReplayWindow};

use super::aead::{AeadKey, TAG_LEN};
use super::cbc_hmac::{BadPadding, CbcOpener, NotVerified};
use super::limits::GcmUsage;
use super::state::KeyMaterial;
use super::{OPCODE_DATA_V1, OPCODE_DATA_V2};

/// Opens packets with one key; owns that key's replay window.
pub struct DataOpener {
    pub(super) material: KeyMaterial,
    engine: Engine,
    pub(super) window: ReplayWindow,
    pub(super) usage: GcmUsage,
}

enum Engine {
    Gcm(AeadKey),
    Cbc(CbcOpener),
}

impl DataOpener {
    pub(super) fn new(material: KeyMaterial) -> Result<Self, CryptoError> {
        let engine = if material.cipher.is_aead() {
            AeadKey::new(material.cipher_key(), material.implicit_iv())
                .map(Engine::Gcm)
                .map_err(|_| CryptoError::KeyLength)?
        } else {
            CbcOpener::new(material.cipher_key(), material.digest, material.mac_material())
                .map(Engine::Cbc)
                .map_err(|_| CryptoError::KeyLength)?
        };
        Ok(Self { material, engine, window: ReplayWindow::new(), usage: GcmUsage::default() })
    }

    /// Opens a whole data packet, from its first byte, in place; returns the payload.
    ///
    /// Tag or MAC come first, then padding, then the packet id; only a packet that passed them all
    /// changes the replay window. After an error the packet's bytes are worthless.
    ///
    /// # Errors
    /// [`OpenError`]; how many failures to bear is the caller's decision.
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a mut [u8], OpenError> {
        let first = *packet.first().ok_or(OpenError::TooShort)?;
        let (header_len, covered) = match first >> 3 {
            OPCODE_DATA_V1 => (1, false),
            OPCODE_DATA_V2 => (4, true),
            _ => return Err(OpenError::NotData),
        };
        self.open_with(header_len, covered, packet)
    }

    /// Opens behind a header of `header_len` bytes; `covered` says whether GCM authenticates it.
    pub(super) fn open_with<'a>(
        &mut self,
        header_len: usize,
        covered: bool,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let (id, payload) = match &self.engine {
            Engine::Gcm(key) => {
                let opened = open_gcm(key, header_len, covered, packet)?;
                // Counted whether or not it is a replay: the key was used.
                self.usage.add_packet(opened.1.len());
                opened
            }
            Engine::Cbc(key) => {
                let body = packet.get_mut(header_len..).ok_or(OpenError::TooShort)?;
                let verified = key.verify(body).map_err(|reason| match reason {
                    NotVerified::Length => OpenError::TooShort,
                    NotVerified::Mac => OpenError::Authentication,
                })?;
                verified.decrypt().map_err(|BadPadding| OpenError::Padding)?
            }
        };
        self.window.accept(id).map_err(|refused| match refused {
            Refused::Zero => OpenError::ZeroId,
            Refused::Replay => OpenError::Replay,
        })?;
        Ok(payload)
    }

    /// The cipher.
    pub const fn cipher(&self) -> DataCipher {
        self.material.cipher
    }

    /// The highest packet id that was authentic, 0 if none.
    pub const fn highest_packet_id(&self) -> u32 {
        self.window.highest()
    }

    /// True when the peer's packet ids or, with GCM, blocks under this key come near their limit.
    pub const fn needs_rekey(&self) -> bool {
        self.window.highest() >= REKEY_AT_ID || self.usage.needs_rekey()
    }
}

impl fmt::Debug for DataOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataOpener")
            .field("cipher", &self.cipher())
            .field("highest_packet_id", &self.window.highest())
            .finish_non_exhaustive()
    }
}

fn open_gcm<'a>(
    key: &AeadKey,
    header_len: usize,
    covered: bool,
    packet: &'a mut [u8],
) -> Result<(u32, &'a mut [u8]), OpenError> {
    let head_len = header_len.saturating_add(4);
    let (head, body) = packet.split_at_mut_checked(head_len).ok_or(OpenError::TooShort)?;
    let (tag, text) = body.split_first_chunk_mut::<TAG_LEN>().ok_or(OpenError::TooShort)?;
    let id_bytes = head.last_chunk::<4>().ok_or(OpenError::TooShort)?;
    let id = u32::from_be_bytes(*id_bytes);
    let aad: &[u8] = if covered { head } else { id_bytes };
    key.open(id, aad, *tag, text).map_err(|_| OpenError::Authentication)?;
    Ok((id, text))
}
