//! AES-GCM over a buffer in place: `ring` for 128 and 256 bit, `aes-gcm` for 192, which ring lacks.

use aes::Aes192;
use aes::cipher::consts::U12;
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, Tag, UnboundKey};

use crate::secret::Secret;

/// Length of the tag in bytes.
pub(super) const TAG_LEN: usize = 16;

/// Length of the part of the nonce that comes from the key material.
pub(super) const IMPLICIT_IV_LEN: usize = 8;

/// The tag is wrong, or the input longer than GCM allows; the buffer's content is lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed;

/// An AES-GCM key with its implicit IV.
pub(super) struct AeadKey {
    cipher: Cipher,
    implicit_iv: Secret<IMPLICIT_IV_LEN>,
}

enum Cipher {
    Ring(Box<LessSafeKey>),
    Aes192(Box<AesGcm<Aes192, U12>>),
}

impl AeadKey {
    /// # Errors
    /// Never for keys of 16, 24 or 32 bytes.
    pub(super) fn new(key: &[u8], implicit_iv: Secret<IMPLICIT_IV_LEN>) -> Result<Self, Failed> {
        let ring_key = |algorithm: &'static Algorithm| {
            UnboundKey::new(algorithm, key).map(LessSafeKey::new).map(Box::new).map_err(|_| Failed)
        };
        let cipher = match key.len() {
            16 => Cipher::Ring(ring_key(&AES_128_GCM)?),
            32 => Cipher::Ring(ring_key(&AES_256_GCM)?),
            _ => Cipher::Aes192(AesGcm::new_from_slice(key).map(Box::new).map_err(|_| Failed)?),
        };
        Ok(Self { cipher, implicit_iv })
    }

    /// Encrypts `text` in place and returns the tag.
    pub(super) fn seal(
        &self,
        packet_id: u32,
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Failed> {
        let nonce = self.nonce(packet_id);
        match &self.cipher {
            Cipher::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
                    .map_err(|_| Failed)?;
                tag.as_ref().try_into().map_err(|_| Failed)
            }
            Cipher::Aes192(key) => key
                .encrypt_inout_detached(&nonce.into(), aad, text.into())
                .map(Into::into)
                .map_err(|_| Failed),
        }
    }

    /// Checks the tag and decrypts `text` in place.
    pub(super) fn open(
        &self,
        packet_id: u32,
        aad: &[u8],
        tag: [u8; TAG_LEN],
        text: &mut [u8],
    ) -> Result<(), Failed> {
        let nonce = self.nonce(packet_id);
        match &self.cipher {
            Cipher::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place_separate_tag(nonce, Aad::from(aad), Tag::from(tag), text, 0..)
                    .map(|_| ())
                    .map_err(|_| Failed)
            }
            Cipher::Aes192(key) => key
                .decrypt_inout_detached(&nonce.into(), aad, text.into(), &tag.into())
                .map_err(|_| Failed),
        }
    }

    /// Packet id as on the wire (big-endian), then the implicit IV.
    fn nonce(&self, packet_id: u32) -> [u8; 12] {
        let [a, b, c, d] = packet_id.to_be_bytes();
        let [e, f, g, h, i, j, k, l] = *self.implicit_iv.expose();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}
