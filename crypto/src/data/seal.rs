//! The sending direction of a data key.

use std::fmt;

use crate::algorithm::{AuthDigest, DataCipher};
#[cfg(feature = "testing")]
use crate::audit::{AuditKey, NonceAuditor};
use crate::error::{CryptoError, SealError};
use crate::packet_id::SendCounter;
use crate::random::SecureRandom;

use super::aead::{AeadKey, TAG_LEN};
use super::cbc_hmac::{BLOCK, CbcSealer, NotSealed};
use super::limits::GcmUsage;
use super::state::KeyMaterial;
use super::{DataHeader, MAX_BATCH, MAX_PAYLOAD, MAX_PEER_ID, OPCODE_DATA_V1, OPCODE_DATA_V2};

/// Length of the packet id in front of a GCM tag.
const ID_LEN: usize = 4;

/// Seals packets with one key; owns that key's packet ids.
pub struct DataSealer {
    pub(super) material: KeyMaterial,
    engine: Engine,
    pub(super) counter: SendCounter,
    pub(super) usage: GcmUsage,
    #[cfg(feature = "testing")]
    audit: AuditKey,
}

enum Engine {
    Gcm(AeadKey),
    Cbc(CbcSealer),
}

impl DataSealer {
    pub(super) fn new(material: KeyMaterial) -> Result<Self, CryptoError> {
        let engine = if material.cipher.is_aead() {
            AeadKey::new(material.cipher_key(), material.implicit_iv())
                .map(Engine::Gcm)
                .map_err(|_| CryptoError::KeyLength)?
        } else {
            CbcSealer::new(material.cipher_key(), material.digest, material.mac_material())
                .map(Engine::Cbc)
                .map_err(|_| CryptoError::KeyLength)?
        };
        Ok(Self {
            #[cfg(feature = "testing")]
            audit: material.audit_key(),
            material,
            engine,
            counter: SendCounter::new(),
            usage: GcmUsage::default(),
        })
    }

    /// Appends one data packet to `out`: header and sealed body, without the length that frames it
    /// on TCP. Packet ids start at 1 and have no gaps, also after errors; send the packets in the
    /// order in which they were sealed.
    ///
    /// An empty payload is sealed like any other, but OpenVPN takes such a packet for an error.
    ///
    /// # Errors
    /// [`SealError`]; `out` and the packet ids are as before.
    pub fn seal(
        &mut self,
        header: DataHeader,
        payload: &[u8],
        random: &mut dyn SecureRandom,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let (header, covered) = encode_header(header)?;
        let header = header.get(..if covered { 4 } else { 1 }).unwrap_or_default();
        self.seal_with(header, covered, payload, random, out)
    }

    /// Appends up to [`MAX_BATCH`] data packets, each behind its length as u16 big-endian, the form
    /// in which they go over TCP. The same bytes as from [`Self::seal`] one by one, but with CBC
    /// the packets are encrypted side by side, in a fraction of the time.
    ///
    /// # Errors
    /// [`SealError`]; then none was sealed, `out` and the packet ids are as before.
    /// [`SealError::TooLong`] also for more than [`MAX_BATCH`] payloads.
    pub fn seal_batch(
        &mut self,
        header: DataHeader,
        payloads: &[&[u8]],
        random: &mut dyn SecureRandom,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let header_len = header.wire_len();
        let (bytes, covered) = encode_header(header)?;
        let wire = bytes.get(..header_len).unwrap_or_default();
        if payloads.len() > MAX_BATCH {
            return Err(SealError::TooLong);
        }
        if payloads.is_empty() {
            return Ok(());
        }
        let mut usage = self.usage;
        for payload in payloads {
            if u16::try_from(self.sealed_len(header, payload.len())).is_err() {
                return Err(SealError::TooLong);
            }
            if matches!(&self.engine, Engine::Gcm(_)) {
                if usage.is_exhausted() {
                    return Err(SealError::Exhausted);
                }
                usage.add_packet(payload.len());
            }
        }
        let mut ivs = [[0; BLOCK]; MAX_BATCH];
        let ivs = ivs.get_mut(..payloads.len()).unwrap_or_default();
        if matches!(&self.engine, Engine::Cbc(_)) {
            // Before the ids are taken: a failure must not leave a gap.
            random.fill(ivs.as_flattened_mut())?;
        }
        let count = u32::try_from(payloads.len()).map_err(|_| SealError::TooLong)?;
        let first_id = self.counter.take_many(count).ok_or(SealError::Exhausted)?;
        self.usage = usage;
        #[cfg(feature = "testing")]
        for id in (first_id..).take(payloads.len()) {
            NonceAuditor::record(self.audit, id);
        }
        let put_len = |len: usize, out: &mut Vec<u8>| {
            // Checked above for every payload.
            let len = u16::try_from(len).unwrap_or_default();
            out.extend_from_slice(&len.to_be_bytes());
        };
        let start = out.len();
        let sealed = match &self.engine {
            Engine::Gcm(key) => payloads.iter().zip(first_id..).try_for_each(|(payload, id)| {
                put_len(self.sealed_len(header, payload.len()), out);
                seal_gcm(key, id, wire, covered, payload, out)
            }),
            Engine::Cbc(key) => {
                let head = |body_len: usize, out: &mut Vec<u8>| {
                    put_len(header_len.saturating_add(body_len), out);
                    out.extend_from_slice(wire);
                };
                key.seal_batch(ivs, first_id, payloads, head, out)
                    .map_err(|NotSealed| SealError::TooLong)
            }
        };
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    /// Seals behind any header bytes; `covered` says whether GCM authenticates them.
    pub(super) fn seal_with(
        &mut self,
        header: &[u8],
        covered: bool,
        payload: &[u8],
        random: &mut dyn SecureRandom,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(SealError::TooLong);
        }
        if self.is_exhausted() {
            return Err(SealError::Exhausted);
        }
        match &self.engine {
            Engine::Gcm(key) => {
                let id = self.counter.take().ok_or(SealError::Exhausted)?;
                self.usage.add_packet(payload.len());
                #[cfg(feature = "testing")]
                NonceAuditor::record(self.audit, id);
                seal_gcm(key, id, header, covered, payload, out)
            }
            Engine::Cbc(key) => {
                // Before the id is taken: a failure must not leave a gap.
                let mut iv = [0; BLOCK];
                random.fill(&mut iv)?;
                let id = self.counter.take().ok_or(SealError::Exhausted)?;
                #[cfg(feature = "testing")]
                NonceAuditor::record(self.audit, id);
                let start = out.len();
                out.extend_from_slice(header);
                key.seal(iv, id, payload, out).map_err(|NotSealed| {
                    out.truncate(start);
                    SealError::TooLong
                })
            }
        }
    }

    /// The cipher.
    pub const fn cipher(&self) -> DataCipher {
        self.material.cipher
    }

    /// The digest; without meaning for GCM.
    pub const fn digest(&self) -> AuthDigest {
        self.material.digest
    }

    /// True from packet id 0xFF000000, or with GCM from 7/8 of the blocks a key may carry: start a
    /// new key now.
    pub const fn needs_rekey(&self) -> bool {
        self.counter.needs_rekey() || self.usage.needs_rekey()
    }

    /// Number of packets sealed with this key.
    pub fn packets_sealed(&self) -> u64 {
        u64::from(self.counter.last())
    }

    /// Length of what [`Self::seal`] appends for a payload of this length.
    pub fn sealed_len(&self, header: DataHeader, payload_len: usize) -> usize {
        let body = match &self.engine {
            Engine::Gcm(_) => payload_len.saturating_add(ID_LEN + TAG_LEN),
            Engine::Cbc(key) => key.sealed_len(payload_len),
        };
        header.wire_len().saturating_add(body)
    }

    /// Makes `next` the id of the next packet, to test the end of a key's life.
    #[cfg(feature = "testing")]
    pub fn set_next_packet_id_for_test(&mut self, next: u32) {
        if let Some(counter) = next.checked_sub(1).and_then(SendCounter::after) {
            self.counter = counter;
        }
    }

    const fn is_exhausted(&self) -> bool {
        self.counter.is_exhausted()
            || matches!(&self.engine, Engine::Gcm(_)) && self.usage.is_exhausted()
    }
}

impl fmt::Debug for DataSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSealer")
            .field("cipher", &self.cipher())
            .field("packets_sealed", &self.packets_sealed())
            .finish_non_exhaustive()
    }
}

/// Header bytes, and true if all four count (P_DATA_V2).
fn encode_header(header: DataHeader) -> Result<([u8; 4], bool), SealError> {
    if header.key_id > 7 {
        return Err(SealError::Header);
    }
    match header.peer_id {
        None => Ok(([OPCODE_DATA_V1 << 3 | header.key_id, 0, 0, 0], false)),
        Some(peer_id) if peer_id <= MAX_PEER_ID => {
            let [_, a, b, c] = peer_id.to_be_bytes();
            Ok(([OPCODE_DATA_V2 << 3 | header.key_id, a, b, c], true))
        }
        Some(_) => Err(SealError::Header),
    }
}

fn seal_gcm(
    key: &AeadKey,
    id: u32,
    header: &[u8],
    covered: bool,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SealError> {
    let start = out.len();
    out.reserve(header.len().saturating_add(ID_LEN + TAG_LEN).saturating_add(payload.len()));
    out.extend_from_slice(header);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0; TAG_LEN]);
    out.extend_from_slice(payload);
    let aad_start = if covered { 0 } else { header.len() };
    let sealed = out.get_mut(start..).and_then(|packet| {
        let (head, body) = packet.split_at_mut_checked(header.len().wrapping_add(ID_LEN))?;
        let (tag, text) = body.split_first_chunk_mut::<TAG_LEN>()?;
        *tag = key.seal(id, head.get(aad_start..)?, text).ok()?;
        Some(())
    });
    if sealed.is_none() {
        // Only a text beyond GCM's own limit, far above MAX_PAYLOAD, could get here.
        out.truncate(start);
        return Err(SealError::TooLong);
    }
    Ok(())
}
