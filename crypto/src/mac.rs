//! HMAC with a key state that is made once and copied per packet.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use crate::algorithm::AuthDigest;
use crate::credential::ct_eq;
use crate::secret::Secret;

/// Longest HMAC key and output in bytes.
pub(crate) const MAX_MAC_LEN: usize = 64;

/// An HMAC keyed with as many bytes as its output is long. In a box each, for the reason given at
/// the keys of AES-CBC.
pub(crate) enum MacKey {
    Sha1(Box<Hmac<Sha1>>),
    Sha256(Box<Hmac<Sha256>>),
    Sha384(Box<Hmac<Sha384>>),
    Sha512(Box<Hmac<Sha512>>),
}

impl MacKey {
    /// Keys the HMAC with the first `digest.output_len()` bytes of `material`.
    pub(crate) fn new(digest: AuthDigest, material: &Secret<MAX_MAC_LEN>) -> Self {
        let material = material.expose();
        match digest {
            AuthDigest::Sha1 => Self::Sha1(Box::new(keyed(&material[..20]))),
            AuthDigest::Sha256 => Self::Sha256(Box::new(keyed(&material[..32]))),
            AuthDigest::Sha384 => Self::Sha384(Box::new(keyed(&material[..48]))),
            AuthDigest::Sha512 => Self::Sha512(Box::new(keyed(material))),
        }
    }

    /// The MAC of `parts`, one behind the other.
    pub(crate) fn compute(&self, parts: &[&[u8]]) -> MacOutput {
        match self {
            Self::Sha1(mac) => run(&**mac, parts),
            Self::Sha256(mac) => run(&**mac, parts),
            Self::Sha384(mac) => run(&**mac, parts),
            Self::Sha512(mac) => run(&**mac, parts),
        }
    }

    /// Compares in constant time.
    pub(crate) fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        ct_eq(self.compute(parts).as_slice(), tag)
    }
}

/// A MAC of up to 64 bytes.
pub(crate) struct MacOutput {
    bytes: [u8; MAX_MAC_LEN],
    len: usize,
}

impl MacOutput {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A keyed HMAC; for HMAC types only, which take keys of any length.
#[expect(clippy::expect_used, reason = "RFC 2104: an HMAC takes keys of any length")]
pub(crate) fn keyed<M: KeyInit + Mac>(key: &[u8]) -> M {
    <M as KeyInit>::new_from_slice(key).expect("an HMAC takes keys of any length")
}

fn run<M: Mac + Clone>(mac: &M, parts: &[&[u8]]) -> MacOutput {
    let mut mac = mac.clone();
    for part in parts {
        mac.update(part);
    }
    let tag = mac.finalize().into_bytes();
    let mut bytes = [0; MAX_MAC_LEN];
    for (out, byte) in bytes.iter_mut().zip(tag.iter()) {
        *out = *byte;
    }
    MacOutput { bytes, len: tag.len() }
}
