//! Vectors and live packets of the data channel.

use super::cbc_hmac::CbcSealer;
use super::*;
use crate::error::{OpenError, SealError};
use crate::random::SecureRandom;
use crate::testutil::{hex, isolate, live_client_source, live_server_source, unhex, unhex_vec};
use crate::{RandomError, Secret, derive_key_block};

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

/// The keys of an opener whose peer is `forge`: CBC with SHA-256, server opens.
fn cbc_pair() -> (DataKeys, CbcSealer, KeyBlock) {
    let block = KeyBlock::filled(|out| out.fill(0x6b));
    let keys =
        DataKeys::new(DataCipher::Aes256Cbc, AuthDigest::Sha256, &block, Role::Server).unwrap();
    let peer = CbcSealer::new(&[0x6b; 32], AuthDigest::Sha256, &Secret::new([0x6b; 64])).unwrap();
    (keys, peer, block)
}

/// A packet with a right MAC over any plaintext blocks.
fn forge(peer: &CbcSealer, plain: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 32];
    body.extend([0x11; 16]);
    body.extend(plain);
    peer.seal_in_place([0x11; 16], &mut body).unwrap();
    [&[0x30], body.as_slice()].concat()
}

#[test]
fn authentic_cbc_packets_with_bad_insides_are_refused() {
    let (mut keys, peer, _) = cbc_pair();
    let block = |id: u32, fill: u8, last: u8| {
        let mut plain = [fill; 16];
        plain[..4].copy_from_slice(&id.to_be_bytes());
        plain[15] = last;
        plain
    };
    let before = keys.opener.window;
    for (plain, expected) in [
        (block(1, 0, 0), OpenError::Padding),
        (block(1, 17, 17), OpenError::Padding),
        (block(1, 255, 255), OpenError::Padding),
        (block(1, 2, 3), OpenError::Padding),
        ([16; 16], OpenError::Padding),
        ([13; 16], OpenError::Padding),
        (block(0, 12, 12), OpenError::ZeroId),
    ] {
        assert_eq!(keys.opener.open(&mut forge(&peer, &plain)), Err(expected), "{plain:?}");
        assert_eq!(keys.opener.window, before);
    }
    // The limits of what is right: no payload at all, and one byte of padding.
    assert_eq!(keys.opener.open(&mut forge(&peer, &block(1, 12, 12))).unwrap(), b"");
    assert_eq!(keys.opener.open(&mut forge(&peer, &block(2, 7, 1))).unwrap(), [7; 11]);
}

#[test]
fn cbc_lengths_that_cannot_be_are_refused_before_the_mac() {
    let (mut keys, peer, _) = cbc_pair();
    let good = forge(&peer, &[12; 32]);
    for len in 0..good.len() {
        let expected = match len.checked_sub(1 + 32 + 16) {
            Some(text) if text > 0 && text % 16 == 0 => OpenError::Authentication,
            _ => OpenError::TooShort,
        };
        assert_eq!(keys.opener.open(&mut good[..len].to_vec()), Err(expected), "{len}");
    }
}

#[test]
fn an_authentic_gcm_packet_with_id_zero_is_refused() {
    let block = KeyBlock::filled(|out| out.fill(0x6c));
    for cipher in [DataCipher::Aes128Gcm, DataCipher::Aes192Gcm, DataCipher::Aes256Gcm] {
        let mut keys = DataKeys::new(cipher, AuthDigest::Sha1, &block, Role::Server).unwrap();
        let peer =
            aead::AeadKey::new(&vec![0x6c; cipher.key_len()], Secret::new([0x6c; 8])).unwrap();
        let mut text = *b"payload";
        let tag = peer.seal(0, &[0; 4], &mut text).unwrap();
        let mut packet = [&[0x30, 0, 0, 0, 0][..], &tag, &text].concat();
        let before = keys.opener.window;
        assert_eq!(keys.opener.open(&mut packet), Err(OpenError::ZeroId));
        assert_eq!(keys.opener.window, before);
    }
}

#[test]
fn gcm_stops_at_the_block_limit_and_asks_for_a_key_before() {
    let _audit = isolate();
    let block = KeyBlock::filled(|out| out.fill(0x6d));
    let mut keys =
        DataKeys::new(DataCipher::Aes256Gcm, AuthDigest::Sha1, &block, Role::Server).unwrap();
    let mut out = Vec::new();
    keys.sealer.usage = limits::GcmUsage::from_raw((1 << 36) / 8 * 7 - 90);
    assert!(!keys.sealer.needs_rekey() && !keys.needs_rekey());
    keys.sealer.seal(V2, &[0; 1400], &mut Fixed(vec![]), &mut out).unwrap();
    assert!(keys.sealer.needs_rekey() && keys.needs_rekey());
    keys.sealer.usage = limits::GcmUsage::from_raw((1 << 36) - 2);
    keys.sealer.seal(V2, &[0; 1400], &mut Fixed(vec![]), &mut out).unwrap();
    let len = out.len();
    let refused = keys.sealer.seal(V2, &[0; 1400], &mut Fixed(vec![]), &mut out);
    assert_eq!((refused, out.len()), (Err(SealError::Exhausted), len));
    assert_eq!(keys.sealer.packets_sealed(), 2);
    // A batch that would cross the limit is refused as a whole.
    keys.sealer.usage = limits::GcmUsage::from_raw((1 << 36) - 100);
    let batch = |keys: &mut DataKeys, n: usize, out: &mut Vec<u8>| {
        keys.sealer.seal_batch(V2, &vec![&[0; 1400][..]; n], &mut Fixed(vec![]), out)
    };
    assert_eq!(batch(&mut keys, 3, &mut out), Err(SealError::Exhausted));
    assert_eq!((keys.sealer.packets_sealed(), out.len()), (2, len));
    assert_eq!(batch(&mut keys, 2, &mut out), Ok(()));
    // The receiving direction asks too.
    keys.opener.usage = limits::GcmUsage::from_raw(1 << 36);
    assert!(keys.opener.needs_rekey());
}

#[test]
fn the_peers_packet_ids_near_their_end_ask_for_a_key() {
    let block = KeyBlock::filled(|out| out.fill(0x6e));
    let mut keys =
        DataKeys::new(DataCipher::Aes256Cbc, AuthDigest::Sha1, &block, Role::Server).unwrap();
    keys.opener.window.accept(0xfeff_ffff).unwrap();
    assert!(!keys.needs_rekey());
    keys.opener.window.accept(0xff00_0000).unwrap();
    assert!(keys.opener.needs_rekey() && keys.needs_rekey());
}

#[test]
fn aes_gcm_and_ring_agree() {
    use aes_gcm::aead::inout::InOutBuf;
    use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit};

    fn check<C: AeadInOut + KeyInit>(key: &[u8]) {
        let ours = aead::AeadKey::new(key, Secret::new(*b"implicit")).unwrap();
        let theirs = C::new_from_slice(key).unwrap();
        for len in (0..100).chain([576, 1400, 1999]) {
            let id = u32::try_from(len).unwrap() + 1;
            let aad = &b"12345678"[..if len % 2 == 0 { 4 } else { 8 }];
            let plain: Vec<u8> = (0..=255).cycle().skip(len % 7).take(len).collect();
            let mut a = plain.clone();
            let tag = ours.seal(id, aad, &mut a).unwrap();
            let mut b = plain.clone();
            let nonce = [&id.to_be_bytes()[..], b"implicit"].concat();
            let nonce = nonce.as_slice().try_into().unwrap();
            let buffer = InOutBuf::from(b.as_mut_slice());
            let other = theirs.encrypt_inout_detached(nonce, aad, buffer).unwrap();
            assert_eq!((&a, tag.as_slice()), (&b, other.as_slice()), "{len}");
            ours.open(id, aad, tag, &mut b).unwrap();
            assert_eq!(b, plain);
        }
    }
    check::<Aes128Gcm>(&[3; 16]);
    check::<Aes256Gcm>(&[3; 32]);
}
