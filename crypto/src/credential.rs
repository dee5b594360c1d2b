//! Keyed tags over credentials, and the one comparison of secret bytes.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::mac::keyed;
use crate::secret::Secret;

/// Compares two byte strings in time that depends on their lengths only.
#[must_use]
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// HMAC-SHA256 over `parts`, each preceded by its length as u64 big-endian, so that no two lists
/// of parts give the same input.
pub fn credential_tag(key: &Secret<32>, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac: Hmac<Sha256> = keyed(key.expose());
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_hmac_sha256_of_length_prefixed_parts() {
        let mut input = Vec::new();
        input.extend(5u64.to_be_bytes());
        input.extend(b"alice");
        input.extend(2u64.to_be_bytes());
        input.extend(b"pw");
        let key = openssl::pkey::PKey::hmac(&[9; 32]).unwrap();
        let mut signer =
            openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
        signer.update(&input).unwrap();
        let tag = credential_tag(&Secret::new([9; 32]), &[b"alice", b"pw"]);
        assert_eq!(signer.sign_to_vec().unwrap(), tag);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = Secret::new([9; 32]);
        let tag = credential_tag(&key, &[b"ab", b"c"]);
        assert_ne!(tag, credential_tag(&key, &[b"a", b"bc"]));
        assert_ne!(tag, credential_tag(&key, &[b"abc"]));
        assert_ne!(tag, credential_tag(&key, &[b"ab", b"c", b""]));
        assert_ne!(tag, credential_tag(&Secret::new([8; 32]), &[b"ab", b"c"]));
    }

    #[test]
    fn ct_eq_compares_content_and_length() {
        assert!(ct_eq(b"same", b"same"));
        assert!(!ct_eq(b"same", b"sama"));
        assert!(!ct_eq(b"same", b"sam"));
        assert!(ct_eq(b"", b""));
    }
}
