//! tls-crypt: control packets encrypted and authenticated.
//!
//! ```text
//! wire        opcode (1) | session id (8) | replay id (8) | tag (32) | ciphertext
//! tag         HMAC-SHA256(Ka, opcode | session id | replay id | plaintext)
//! ciphertext  AES-256-CTR(Ke, IV = tag[0..16], plaintext)
//! ```

use aes::Aes256Enc;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::{CtrCore, flavors};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::codec::Reader;
use crate::credential::ct_eq;
use crate::error::{ImportError, UnwrapError, WrapError};
use crate::key_block::{Role, Slot};
use crate::mac::keyed;
use crate::secret::Secret;
use crate::static_key::StaticKey;

use super::HEAD_LEN;
use super::replay_id::ReplayIds;

/// Length of the tag in bytes.
pub(super) const TAG_LEN: usize = 32;

/// Length of what is authenticated in the clear: opcode, session id, replay id.
const AD_LEN: usize = HEAD_LEN + 8;

/// The keys of one direction: Ke and Ka, 32 bytes each.
pub(super) struct DirectionKeys {
    raw_cipher: Secret<32>,
    raw_mac: Secret<32>,
    cipher: Aes256Enc,
    mac: Hmac<Sha256>,
}

impl DirectionKeys {
    pub(super) fn new(raw_cipher: Secret<32>, raw_mac: Secret<32>) -> Self {
        Self {
            cipher: Aes256Enc::new(raw_cipher.expose().into()),
            mac: keyed(raw_mac.expose()),
            raw_cipher,
            raw_mac,
        }
    }

    fn of_slot(key: &StaticKey, slot: Slot) -> Self {
        let block = key.key_block();
        Self::new(
            Secret::prefix(block.cipher_material(slot)),
            Secret::prefix(block.mac_material(slot)),
        )
    }

    pub(super) fn tag(&self, parts: &[&[u8]]) -> [u8; TAG_LEN] {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Encrypts or decrypts in place; the counter begins with the first half of the tag.
    pub(super) fn apply_keystream(&self, tag: &[u8; TAG_LEN], text: &mut [u8]) {
        let mut iv = [0; 16];
        iv.copy_from_slice(&tag[..16]);
        let core =
            CtrCore::<&Aes256Enc, flavors::Ctr128BE>::inner_iv_init(&self.cipher, &iv.into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(text);
    }

    fn export(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.raw_cipher.expose());
        out.extend_from_slice(self.raw_mac.expose());
    }

    fn import(reader: &mut Reader<'_>) -> Result<Self, ImportError> {
        Ok(Self::new(reader.secret()?, reader.secret()?))
    }
}

/// tls-crypt for one session and key.
pub(super) struct TlsCrypt {
    send: DirectionKeys,
    receive: DirectionKeys,
    ids: ReplayIds,
}

impl TlsCrypt {
    pub(super) fn new(key: &StaticKey, role: Role) -> Self {
        let send = Slot::tls_crypt_send(role);
        Self {
            send: DirectionKeys::of_slot(key, send),
            receive: DirectionKeys::of_slot(key, send.other()),
            ids: ReplayIds::new(),
        }
    }

    pub(super) fn wrap(
        &mut self,
        plain: &[u8],
        unix_time: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), WrapError> {
        let (head, rest) = plain.split_at_checked(HEAD_LEN).ok_or(WrapError::TooShort)?;
        let id = self.ids.next(unix_time)?;
        self.wrap_with(id, head, rest, out);
        Ok(())
    }

    /// Wraps behind any head.
    pub(super) fn wrap_with(&self, id: [u8; 8], head: &[u8], rest: &[u8], out: &mut Vec<u8>) {
        let tag = self.send.tag(&[head, &id, rest]);
        out.reserve(head.len().saturating_add(rest.len()).saturating_add(self.overhead()));
        out.extend_from_slice(head);
        out.extend_from_slice(&id);
        out.extend_from_slice(&tag);
        let start = out.len();
        out.extend_from_slice(rest);
        self.send.apply_keystream(&tag, out.get_mut(start..).unwrap_or_default());
    }

    pub(super) fn unwrap(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<(), UnwrapError> {
        let (ad, body) = wire.split_first_chunk::<AD_LEN>().ok_or(UnwrapError::TooShort)?;
        let (tag, text) = body.split_first_chunk::<TAG_LEN>().ok_or(UnwrapError::TooShort)?;
        let (head, id) = ad.split_first_chunk::<HEAD_LEN>().ok_or(UnwrapError::TooShort)?;
        let id = id.first_chunk::<8>().ok_or(UnwrapError::TooShort)?;
        plain.extend_from_slice(head);
        plain.extend_from_slice(text);
        let rest = plain.get_mut(HEAD_LEN..).unwrap_or_default();
        self.receive.apply_keystream(tag, rest);
        // The tag covers the plaintext, so it can be checked only now; a forged plaintext is wiped.
        let accepted = if ct_eq(&self.receive.tag(&[ad, rest]), tag) {
            self.ids.accept(*id)
        } else {
            Err(UnwrapError::Authentication)
        };
        if accepted.is_err() {
            plain.zeroize();
        }
        accepted
    }

    pub(super) const fn overhead(&self) -> usize {
        8 + TAG_LEN
    }

    pub(super) fn export(&self, out: &mut Vec<u8>) {
        self.send.export(out);
        self.receive.export(out);
        self.ids.export(out);
    }

    pub(super) fn import(reader: &mut Reader<'_>) -> Result<Self, ImportError> {
        Ok(Self {
            send: DirectionKeys::import(reader)?,
            receive: DirectionKeys::import(reader)?,
            ids: ReplayIds::import(reader)?,
        })
    }
}
