//! AES-CBC with HMAC, encrypt-then-MAC: `HMAC | IV | ciphertext`, HMAC over IV and ciphertext.
//!
//! A ciphertext can be decrypted only as [`Verified`], and only a matching MAC makes one.

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
    KeyInit,
};
use aes::{Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc};

use crate::algorithm::AuthDigest;
use crate::mac::{MAX_MAC_LEN, MacKey};
use crate::secret::Secret;

use super::lanes::{self, LANES, Lane};

/// Length of a block and of the IV in bytes.
pub(super) const BLOCK: usize = 16;

/// Length of the packet id at the front of the plaintext.
pub(super) const ID_LEN: usize = 4;

pub(super) type Block = Array<u8, U16>;

/// The key length fits none of AES.
#[derive(Debug)]
pub(super) struct BadKeyLength;

/// The plaintext is not a whole number of blocks; our own mistake.
#[derive(Debug)]
pub(super) struct NotSealed;

/// Seals with one key.
pub(super) struct CbcSealer {
    cipher: Encrypt,
    mac: MacKey,
    mac_len: usize,
}

/// Each key in a box of its own: an enum as large as its largest variant would carry whatever lay
/// on the stack into the heap, key bytes among it, and never wipe it.
enum Encrypt {
    Aes128(Box<Aes128Enc>),
    Aes192(Box<Aes192Enc>),
    Aes256(Box<Aes256Enc>),
}

impl CbcSealer {
    pub(super) fn new(
        key: &[u8],
        digest: AuthDigest,
        mac_material: &Secret<MAX_MAC_LEN>,
    ) -> Result<Self, BadKeyLength> {
        let cipher = match key.len() {
            16 => Encrypt::Aes128(boxed(key)?),
            24 => Encrypt::Aes192(boxed(key)?),
            _ => Encrypt::Aes256(boxed(key)?),
        };
        Ok(Self { cipher, mac: MacKey::new(digest, mac_material), mac_len: digest.output_len() })
    }

    /// Length of the sealed body for a payload of `payload_len` bytes.
    pub(super) const fn sealed_len(&self, payload_len: usize) -> usize {
        let plain = payload_len.saturating_add(ID_LEN);
        self.mac_len + BLOCK + plain.saturating_add(BLOCK - plain % BLOCK)
    }

    /// Appends the sealed body to `out`.
    ///
    /// # Errors
    /// Never in practice; but if it fails, no plaintext is left in `out`.
    pub(super) fn seal(
        &self,
        iv: [u8; BLOCK],
        id: u32,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), NotSealed> {
        let start = out.len();
        self.lay_out(iv, id, payload, out);
        let sealed = out.get_mut(start..).and_then(|body| self.seal_in_place(iv, body));
        if sealed.is_none() {
            out.truncate(start);
            return Err(NotSealed);
        }
        Ok(())
    }

    /// Appends a body that is yet to be sealed: room for the MAC, IV, plaintext.
    fn lay_out(&self, iv: [u8; BLOCK], id: u32, payload: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.sealed_len(payload.len()));
        out.resize(out.len().saturating_add(self.mac_len), 0);
        out.extend_from_slice(&iv);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(payload);
        pad(payload.len().wrapping_add(ID_LEN), out);
    }

    /// Appends one sealed body for each payload, each behind `head(length of the body)`; the ids
    /// follow each other from `first_id`.
    ///
    /// # Errors
    /// Never in practice; but if it fails, no plaintext is left in `out`.
    pub(super) fn seal_batch(
        &self,
        ivs: &[[u8; BLOCK]],
        first_id: u32,
        payloads: &[&[u8]],
        head: impl Fn(usize, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Result<(), NotSealed> {
        let start = out.len();
        for ((payload, iv), id) in payloads.iter().zip(ivs).zip(first_id..) {
            head(self.sealed_len(payload.len()), out);
            self.lay_out(*iv, id, payload, out);
        }
        let batch = out.get_mut(start..).unwrap_or_default();
        if self.seal_laid_out(payloads, batch).is_none() {
            out.truncate(start);
            return Err(NotSealed);
        }
        Ok(())
    }

    /// Encrypts up to [`LANES`] bodies side by side, then authenticates them. All heads have the
    /// same length.
    fn seal_laid_out(&self, payloads: &[&[u8]], batch: &mut [u8]) -> Option<()> {
        let bodies = payloads.iter().map(|payload| self.sealed_len(payload.len())).sum::<usize>();
        let head_len = batch.len().checked_sub(bodies)?.checked_div(payloads.len())?;
        let mut lanes: [Lane<'_>; LANES] = std::array::from_fn(|_| Lane::default());
        let mut rest = &mut *batch;
        for (lane, payload) in lanes.iter_mut().zip(payloads) {
            let packet_len = head_len.checked_add(self.sealed_len(payload.len()))?;
            let (packet, behind) = rest.split_at_mut_checked(packet_len)?;
            let text = packet.get_mut(head_len.checked_add(self.mac_len)?..)?;
            let (blocks, []) = Block::slice_as_chunks_mut(text) else { return None };
            *lane = blocks;
            rest = behind;
        }
        match &self.cipher {
            Encrypt::Aes128(cipher) => lanes::encrypt(&**cipher, &mut lanes),
            Encrypt::Aes192(cipher) => lanes::encrypt(&**cipher, &mut lanes),
            Encrypt::Aes256(cipher) => lanes::encrypt(&**cipher, &mut lanes),
        }
        let mut rest = batch;
        for payload in payloads {
            let (_, behind) = rest.split_at_mut_checked(head_len)?;
            let (body, behind) = behind.split_at_mut_checked(self.sealed_len(payload.len()))?;
            let (mac, text) = body.split_at_mut_checked(self.mac_len)?;
            mac.copy_from_slice(self.mac.compute(&[text]).as_slice());
            rest = behind;
        }
        Some(())
    }

    /// Seals a body `room for the MAC | IV | plaintext`.
    pub(super) fn seal_in_place(&self, iv: [u8; BLOCK], body: &mut [u8]) -> Option<()> {
        let (mac, rest) = body.split_at_mut_checked(self.mac_len)?;
        let (blocks, []) = Block::slice_as_chunks_mut(rest.get_mut(BLOCK..)?) else { return None };
        self.encrypt(iv, blocks);
        mac.copy_from_slice(self.mac.compute(&[rest]).as_slice());
        Some(())
    }

    fn encrypt(&self, iv: [u8; BLOCK], blocks: &mut [Block]) {
        fn run<C: BlockCipherEncrypt<BlockSize = U16>>(
            cipher: &C,
            iv: Block,
            blocks: &mut [Block],
        ) {
            cbc::Encryptor::inner_iv_init(cipher, &iv).encrypt_blocks(blocks);
        }
        match &self.cipher {
            Encrypt::Aes128(cipher) => run(&**cipher, iv.into(), blocks),
            Encrypt::Aes192(cipher) => run(&**cipher, iv.into(), blocks),
            Encrypt::Aes256(cipher) => run(&**cipher, iv.into(), blocks),
        }
    }
}

fn boxed<C: KeyInit>(key: &[u8]) -> Result<Box<C>, BadKeyLength> {
    C::new_from_slice(key).map(Box::new).map_err(|_| BadKeyLength)
}

/// PKCS#7: appends 1..=16 bytes, each holding their number, up to a whole block.
fn pad(plain_len: usize, out: &mut Vec<u8>) {
    let missing = BLOCK - plain_len % BLOCK;
    let value = u8::try_from(missing).unwrap_or_default();
    out.extend(std::iter::repeat_n(value, missing));
}

/// Opens with one key.
pub(super) struct CbcOpener {
    cipher: Decrypt,
    mac: MacKey,
    mac_len: usize,
}

enum Decrypt {
    Aes128(Box<Aes128Dec>),
    Aes192(Box<Aes192Dec>),
    Aes256(Box<Aes256Dec>),
}

/// Why a body did not become a [`Verified`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotVerified {
    /// Too short for MAC, IV and one block, or not a whole number of blocks.
    Length,
    /// The MAC is wrong.
    Mac,
}

/// The padding is wrong, or there is no room for a packet id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadPadding;

impl CbcOpener {
    pub(super) fn new(
        key: &[u8],
        digest: AuthDigest,
        mac_material: &Secret<MAX_MAC_LEN>,
    ) -> Result<Self, BadKeyLength> {
        let cipher = match key.len() {
            16 => Decrypt::Aes128(boxed(key)?),
            24 => Decrypt::Aes192(boxed(key)?),
            _ => Decrypt::Aes256(boxed(key)?),
        };
        Ok(Self { cipher, mac: MacKey::new(digest, mac_material), mac_len: digest.output_len() })
    }

    /// Checks the MAC of a body `HMAC | IV | ciphertext`, in constant time.
    pub(super) fn verify<'k, 'p>(
        &'k self,
        body: &'p mut [u8],
    ) -> Result<Verified<'k, 'p>, NotVerified> {
        let (tag, rest) = body.split_at_mut_checked(self.mac_len).ok_or(NotVerified::Length)?;
        let text_len = rest.len().checked_sub(BLOCK).ok_or(NotVerified::Length)?;
        if text_len == 0 || text_len % BLOCK != 0 {
            return Err(NotVerified::Length);
        }
        if !self.mac.verify(&[rest], tag) {
            return Err(NotVerified::Mac);
        }
        let (iv, text) = rest.split_first_chunk_mut().ok_or(NotVerified::Length)?;
        Ok(Verified { cipher: &self.cipher, iv: *iv, text })
    }
}

/// A ciphertext whose MAC was right: the only thing that can be decrypted.
pub(super) struct Verified<'k, 'p> {
    cipher: &'k Decrypt,
    iv: [u8; BLOCK],
    text: &'p mut [u8],
}

impl<'p> Verified<'_, 'p> {
    /// Decrypts in place; returns packet id and payload.
    ///
    /// The padding check need not be constant in time: only a holder of the key gets here.
    pub(super) fn decrypt(self) -> Result<(u32, &'p mut [u8]), BadPadding> {
        fn run<C: BlockCipherDecrypt<BlockSize = U16>>(
            cipher: &C,
            iv: Block,
            blocks: &mut [Block],
        ) {
            cbc::Decryptor::inner_iv_init(cipher, &iv).decrypt_blocks(blocks);
        }
        let (blocks, []) = Block::slice_as_chunks_mut(self.text) else { return Err(BadPadding) };
        match self.cipher {
            Decrypt::Aes128(cipher) => run(&**cipher, self.iv.into(), blocks),
            Decrypt::Aes192(cipher) => run(&**cipher, self.iv.into(), blocks),
            Decrypt::Aes256(cipher) => run(&**cipher, self.iv.into(), blocks),
        }
        let last = *self.text.last().ok_or(BadPadding)?;
        let missing = usize::from(last);
        if missing == 0 || missing > BLOCK {
            return Err(BadPadding);
        }
        let plain_len = self.text.len().checked_sub(missing).ok_or(BadPadding)?;
        let (plain, padding) = self.text.split_at_mut_checked(plain_len).ok_or(BadPadding)?;
        if padding.iter().any(|byte| *byte != last) {
            return Err(BadPadding);
        }
        let (id, payload) = plain.split_first_chunk_mut::<ID_LEN>().ok_or(BadPadding)?;
        Ok((u32::from_be_bytes(*id), payload))
    }
}
