//! The raw keys of one direction, and data keys as bytes for another process.

use crate::algorithm::{AuthDigest, DataCipher};
#[cfg(feature = "testing")]
use crate::audit::AuditKey;
use crate::codec::{EXPORT_VERSION, Reader};
use crate::error::{CryptoError, ImportError};
use crate::key_block::{KeyBlock, Slot};
use crate::mac::MAX_MAC_LEN;
use crate::packet_id::SendCounter;
use crate::replay::ReplayWindow;
use crate::secret::Secret;

use super::aead::IMPLICIT_IV_LEN;
use super::limits::GcmUsage;
use super::{DataKeys, DataOpener, DataSealer};

/// Longest cipher key in bytes.
const MAX_KEY_LEN: usize = 32;

/// The raw keys of one direction, kept for [`DataKeys::export`]; what the algorithms don't use of
/// the slot is zero.
pub(super) struct KeyMaterial {
    pub(super) cipher: DataCipher,
    pub(super) digest: AuthDigest,
    slot: Slot,
    key: Secret<MAX_KEY_LEN>,
    /// HMAC key with CBC, implicit IV in the first 8 bytes with GCM.
    mac: Secret<MAX_MAC_LEN>,
}

impl KeyMaterial {
    pub(super) fn take(
        cipher: DataCipher,
        digest: AuthDigest,
        block: &KeyBlock,
        slot: Slot,
    ) -> Result<Self, CryptoError> {
        Self::new(
            cipher,
            digest,
            slot,
            Secret::prefix(block.cipher_material(slot)),
            Secret::prefix(block.mac_material(slot)),
        )
    }

    fn new(
        cipher: DataCipher,
        digest: AuthDigest,
        slot: Slot,
        key: Secret<MAX_KEY_LEN>,
        mac: Secret<MAX_MAC_LEN>,
    ) -> Result<Self, CryptoError> {
        let mac_len = if cipher.is_aead() { IMPLICIT_IV_LEN } else { digest.output_len() };
        let (key, mac) = (key.keep(cipher.key_len()), mac.keep(mac_len));
        if key.expose().iter().all(|byte| *byte == 0) {
            return Err(CryptoError::ZeroKey);
        }
        Ok(Self { cipher, digest, slot, key, mac })
    }

    pub(super) fn cipher_key(&self) -> &[u8] {
        self.key.expose().get(..self.cipher.key_len()).unwrap_or_default()
    }

    pub(super) fn implicit_iv(&self) -> Secret<IMPLICIT_IV_LEN> {
        Secret::prefix(self.mac.expose())
    }

    pub(super) const fn mac_material(&self) -> &Secret<MAX_MAC_LEN> {
        &self.mac
    }

    #[cfg(feature = "testing")]
    pub(super) fn audit_key(&self) -> AuditKey {
        let direction = u8::from(self.slot == Slot::One);
        AuditKey::new(&[
            self.cipher.name().as_bytes(),
            self.key.expose(),
            self.mac.expose(),
            &[direction],
        ])
    }

    fn export(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.expose());
        out.extend_from_slice(self.mac.expose());
    }

    fn import(
        cipher: DataCipher,
        digest: AuthDigest,
        slot: Slot,
        reader: &mut Reader<'_>,
    ) -> Result<Self, CryptoError> {
        Self::new(cipher, digest, slot, reader.secret()?, reader.secret()?)
    }
}

/// Length of exported data keys in bytes.
const EXPORT_LEN: usize = 4 + 2 * (MAX_KEY_LEN + MAX_MAC_LEN) + 4 + 8 + 4 + 8 + 8;

impl DataKeys {
    /// Appends keys, counters and replay window to `out`, to be read back by [`Self::import`] in
    /// another process. The bytes are as secret as the keys. From then on either this value or the
    /// imported one may seal, never both: sealing here must have ended before.
    pub fn export(&self, out: &mut Vec<u8>) {
        let material = &self.sealer.material;
        // Room for all of it at once: growing would leave copies of the keys behind.
        out.reserve(EXPORT_LEN);
        out.push(EXPORT_VERSION);
        out.push(material.cipher.code());
        out.push(material.digest.code());
        out.push(u8::from(material.slot == Slot::One));
        material.export(out);
        self.opener.material.export(out);
        out.extend_from_slice(&self.sealer.counter.last().to_be_bytes());
        out.extend_from_slice(&self.sealer.usage.raw().to_be_bytes());
        out.extend_from_slice(&self.opener.window.highest().to_be_bytes());
        out.extend_from_slice(&self.opener.window.seen().to_be_bytes());
        out.extend_from_slice(&self.opener.usage.raw().to_be_bytes());
    }

    /// Reads one exported value from the front of `input` and moves `input` behind it; the next
    /// packet sealed has the id after the last one sealed before the export.
    ///
    /// # Errors
    /// [`CryptoError::Import`] or [`CryptoError::ZeroKey`] for bytes that no export writes;
    /// `input` stays where it was.
    pub fn import(input: &mut &[u8]) -> Result<Self, CryptoError> {
        let mut reader = Reader(input);
        reader.version()?;
        let cipher = DataCipher::from_code(reader.u8()?).ok_or(ImportError::Field("cipher"))?;
        let digest = AuthDigest::from_code(reader.u8()?).ok_or(ImportError::Field("digest"))?;
        let send = match reader.u8()? {
            0 => Slot::Zero,
            1 => Slot::One,
            _ => return Err(ImportError::Field("direction").into()),
        };
        let mut sealer = DataSealer::new(KeyMaterial::import(cipher, digest, send, &mut reader)?)?;
        let mut opener =
            DataOpener::new(KeyMaterial::import(cipher, digest, send.other(), &mut reader)?)?;
        sealer.counter =
            SendCounter::after(reader.u32()?).ok_or(ImportError::Field("packet id"))?;
        sealer.usage = GcmUsage::from_raw(reader.u64()?);
        let (highest, seen) = (reader.u32()?, reader.u64()?);
        opener.window =
            ReplayWindow::restore(highest, seen).ok_or(ImportError::Field("replay window"))?;
        opener.usage = GcmUsage::from_raw(reader.u64()?);
        *input = reader.0;
        Ok(Self { sealer, opener })
    }
}
