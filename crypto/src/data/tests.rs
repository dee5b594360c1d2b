//! Vectors and live packets of the data channel.

use super::*;
use crate::error::OpenError;
use crate::random::SecureRandom;
use crate::testutil::{hex, isolate, live_client_source, live_server_source, unhex, unhex_vec};
use crate::{RandomError, derive_key_block};

const PING: &str = "2a187bf3641eb4cb07ed2d0a981fc748";

/// Gives out fixed bytes.
struct Fixed(Vec<u8>);

impl SecureRandom for Fixed {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        out.copy_from_slice(&self.0[..out.len()]);
        Ok(())
    }
}

/// The key block of the live session of OpenVPN 2.4.12, reference section 13.1.
fn live_cbc_block() -> KeyBlock {
    derive_key_block(
        &live_client_source(),
        &live_server_source(),
        &unhex("0c87e1b4ec892597"),
        &unhex("5cc254075bf85830"),
    )
}

/// The used parts of the exported keys of OpenVPN 2.6.14, reference section 13.2.
fn live_gcm_block() -> KeyBlock {
    KeyBlock::filled(|out| {
        let parts = [
            (0, "a185ac2c859fea8f6c227cfe67f12e47a9c5b2302c20066e1aa6a258bd2739f2"),
            (64, "f58b1798f1cf9b13"),
            (128, "cf6e7616e283c850a430c8740c8b3e34286fdac675ca26a23de2f93249eaa106"),
            (192, "d7cfb6536aa87abc"),
        ];
        for (at, text) in parts {
            let bytes = unhex_vec(text);
            out[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    })
}

const V2: DataHeader = DataHeader { key_id: 0, peer_id: Some(0) };

/// `sender` seals the ping as on the wire of the real client, the other side opens it.
fn check_live(cipher: DataCipher, block: &KeyBlock, sender: Role, iv: &str, wire: &str) {
    let _audit = isolate();
    let receiver = if sender == Role::Server { Role::Client } else { Role::Server };
    let mut wire = unhex_vec(wire);
    let mut keys = DataKeys::new(cipher, AuthDigest::Sha1, block, sender).unwrap();
    let mut out = Vec::new();
    keys.sealer.seal(V2, &unhex_vec(PING), &mut Fixed(unhex_vec(iv)), &mut out).unwrap();
    assert_eq!(hex(&out), hex(&wire));
    assert_eq!(keys.sealer.sealed_len(V2, 16), wire.len());
    let mut keys = DataKeys::new(cipher, AuthDigest::Sha1, block, receiver).unwrap();
    assert_eq!(hex(keys.opener.open(&mut wire.clone()).unwrap()), PING);
    assert_eq!(keys.opener.open(&mut wire.clone()), Err(OpenError::Replay));
    // The sender's own direction has other keys.
    let mut keys = DataKeys::new(cipher, AuthDigest::Sha1, block, sender).unwrap();
    assert_eq!(keys.opener.open(&mut wire), Err(OpenError::Authentication));
}

#[test]
fn live_cbc_pings_both_ways() {
    check_live(
        DataCipher::Aes256Cbc,
        &live_cbc_block(),
        Role::Server,
        "f62b34d5360e131ef9ff3f04f10678f6",
        "48000000 17df802e5d4740fc3a62cc0954dfeb162fd5ef73 f62b34d5360e131ef9ff3f04f10678f6
         a9d8763d5c563469825e31e62f4e690263d01af87246daf80f14f5759a514c54",
    );
    check_live(
        DataCipher::Aes256Cbc,
        &live_cbc_block(),
        Role::Client,
        "e6f734e3e2efcd9da61532b182d9dfb5",
        "48000000 196396112e6d7382541f9c829250e97772838c64 e6f734e3e2efcd9da61532b182d9dfb5
         2cf78b6518651358461041499ba0cd967636b90b2ef340ba5706f6d7d2faf77e",
    );
}

#[test]
fn live_gcm_pings_both_ways() {
    check_live(
        DataCipher::Aes256Gcm,
        &live_gcm_block(),
        Role::Server,
        "",
        "48000000 00000001 eed5370381c5ef369ca5bd51fcf9daa7 44fd0b3828776d37a16e0a4fc2beb3ba",
    );
    check_live(
        DataCipher::Aes256Gcm,
        &live_gcm_block(),
        Role::Client,
        "",
        "48000000 00000001 acf8585c4460c222b9ea72de1bfb44b1 79b17bc4df4d74fcf7c21855ba0ee5ea",
    );
}

#[test]
fn gcm_matches_openvpn_unit_test() {
    // OpenVPN test_ssl.c known vectors: slot 0 both ways, a header that is no real opcode.
    let _audit = isolate();
    let block = KeyBlock::filled(|out| {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = b"abcdefgh01234567ABCDEFGHjkuchenl"[i % 32] ^ u8::try_from(i).unwrap();
        }
    });
    let mut keys = DataKeys::with_slots(
        DataCipher::Aes256Gcm,
        AuthDigest::Sha1,
        &block,
        Slot::Zero,
        Slot::Zero,
    )
    .unwrap();
    let payload = b"The quick little fox jumps over the bureaucratic hurdles";
    let mut out = Vec::new();
    let header = unhex_vec("07000017");
    keys.sealer.seal_with(&header, true, payload, &mut Fixed(vec![]), &mut out).unwrap();
    assert_eq!(
        hex(&out),
        "07000017000000011fdd908f0e9dc25e79d832020d58e73f\
         2262f977d6bb2118fa0ea82e6b1706d949aefcb5efcbbacd5c09a9ab45f4d391\
         d3f68794cb0b82c3d33389b61622b3281598e2ff6d5cc38b"
    );
    assert_eq!(keys.opener.open_with(4, true, &mut out.clone()).unwrap(), payload);
    assert_eq!(keys.opener.open(&mut out), Err(OpenError::NotData));
}
