//! Helpers of these tests.

use tunnelhead_crypto::{
    AuthDigest, DataCipher, DataHeader, DataKeys, FastRandom, KeyBlock, RandomError, Role,
    SecureRandom, StaticKey,
};

pub(crate) const V1: DataHeader = DataHeader { key_id: 5, peer_id: None };
pub(crate) const V2: DataHeader = DataHeader { key_id: 5, peer_id: Some(0x00ab_cdef) };

/// Every format of the data channel.
pub(crate) fn formats() -> Vec<(DataCipher, AuthDigest)> {
    DataCipher::ALL
        .into_iter()
        .flat_map(|cipher| {
            let digests: &[AuthDigest] =
                if cipher.is_aead() { &[AuthDigest::Sha1] } else { &AuthDigest::ALL };
            digests.iter().map(move |digest| (cipher, *digest))
        })
        .collect()
}

/// Key material that differs between tests by `seed`.
pub(crate) fn block(seed: u8) -> KeyBlock {
    let mut bytes = [0; 256];
    FastRandom::from_seed([seed; 32]).fill(&mut bytes).unwrap();
    KeyBlock::from_bytes(bytes)
}

pub(crate) fn static_key(seed: u8) -> StaticKey {
    StaticKey::from(block(seed))
}

/// Server and client with the same keys.
pub(crate) fn pair(format: (DataCipher, AuthDigest), block: &KeyBlock) -> (DataKeys, DataKeys) {
    let side = |role| DataKeys::new(format.0, format.1, block, role).unwrap();
    (side(Role::Server), side(Role::Client))
}

pub(crate) fn random() -> FastRandom {
    FastRandom::from_seed([0xee; 32])
}

pub(crate) fn seal(keys: &mut DataKeys, header: DataHeader, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    keys.sealer.seal(header, payload, &mut random(), &mut out).unwrap();
    out
}

pub(crate) fn export(keys: &DataKeys) -> Vec<u8> {
    let mut out = Vec::new();
    keys.export(&mut out);
    out
}

/// A source that always fails.
pub(crate) struct Broken;

impl SecureRandom for Broken {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), RandomError> {
        Err(RandomError)
    }
}
