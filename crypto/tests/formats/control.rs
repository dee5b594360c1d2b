//! Control packets: every wrapping, damage, replays, wrapped client keys.

use proptest::prelude::*;
use tunnelhead_crypto::{
    AuthDigest, ControlWrap, CryptoError, FastRandom, KeyDirection, KeyFileError, MAX_METADATA_LEN,
    Metadata, Role, StaticKey, TlsCryptV2ClientKey, TlsCryptV2ServerKey, UnwrapError, WrapError,
};

use crate::support::{Broken, block, random, static_key};

const TIME: u32 = 1_700_000_000;
const PLAIN: &[u8] = b"\x20sessionI\x01\0\0\0\0sessionJ\0\0\0\x01some bytes of TLS";

/// Client and server of every wrapping.
fn pairs() -> Vec<(ControlWrap, ControlWrap)> {
    use KeyDirection::{Bidirectional, Inverse, Normal};
    let key = static_key(40);
    let mut pairs = vec![
        (ControlWrap::none(), ControlWrap::none()),
        (ControlWrap::tls_crypt(&key, Role::Client), ControlWrap::tls_crypt(&key, Role::Server)),
        (
            ControlWrap::dynamic_tls_crypt(&block(41), Some(&key), Role::Client),
            ControlWrap::tls_crypt(&StaticKey::from(block(41).xor(key.key_block())), Role::Server),
        ),
        (
            ControlWrap::dynamic_tls_crypt(&block(41), None, Role::Client),
            ControlWrap::tls_crypt(&static_key(41), Role::Server),
        ),
    ];
    for digest in AuthDigest::ALL {
        for (client, server) in
            [(Inverse, Normal), (Normal, Inverse), (Bidirectional, Bidirectional)]
        {
            pairs.push((
                ControlWrap::tls_auth(&key, client, digest),
                ControlWrap::tls_auth(&key, server, digest),
            ));
        }
    }
    pairs
}

fn wrap(from: &mut ControlWrap, plain: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    from.wrap(plain, TIME, &mut out).unwrap();
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

fn export(wrap: &ControlWrap) -> Vec<u8> {
    let mut out = Vec::new();
    wrap.export(&mut out);
    out
}

#[test]
fn round_trip_at_every_small_size_both_ways() {
    for (mut client, mut server) in pairs() {
        let mut plain = b"left from before".to_vec();
        for len in 9..80 {
            let wire = wrap(&mut client, &[len; 80][..usize::from(len)]);
            assert_eq!(wire.len(), usize::from(len) + client.overhead());
            server.unwrap(&wire, &mut plain).unwrap();
            assert_eq!(plain, vec![len; usize::from(len)], "{client:?}");
            let wire = wrap(&mut server, &plain.clone());
            client.unwrap(&wire, &mut plain).unwrap();
            assert_eq!(plain, vec![len; usize::from(len)], "{client:?}");
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_and_changes_nothing() {
    for (mut client, mut server) in pairs() {
        if client.overhead() == 0 {
            continue;
        }
        let mut plain = Vec::new();
        server.unwrap(&wrap(&mut client, PLAIN), &mut plain).unwrap();
        let wire = wrap(&mut client, PLAIN);
        let before = export(&server);
        for at in 0..wire.len() {
            for bit in 0..8 {
                let mut damaged = wire.clone();
                damaged[at] ^= 1 << bit;
                let refused = server.unwrap(&damaged, &mut plain);
                assert_eq!(refused, Err(UnwrapError::Authentication), "{client:?} {at}.{bit}");
                assert!(plain.is_empty());
                assert_eq!(export(&server), before, "{client:?} {at}.{bit}");
            }
        }
        server.unwrap(&wire, &mut plain).unwrap();
        assert_eq!(plain, PLAIN);
    }
}

#[test]
fn cut_packets_are_refused() {
    for (mut client, mut server) in pairs() {
        let wire = wrap(&mut client, PLAIN);
        let fixed = 9 + client.overhead();
        let before = export(&server);
        for len in 0..wire.len() {
            let refused = server.unwrap(&wire[..len], &mut Vec::new());
            if len < fixed {
                assert_eq!(refused, Err(UnwrapError::TooShort), "{client:?} {len}");
            } else if client.overhead() > 0 {
                assert_eq!(refused, Err(UnwrapError::Authentication), "{client:?} {len}");
            }
        }
        assert_eq!(export(&server), before);
    }
}

#[test]
fn packets_too_short_to_wrap_are_refused() {
    for (mut client, _) in pairs() {
        let before = export(&client);
        let mut out = b"kept".to_vec();
        for len in 0..9 {
            assert_eq!(client.wrap(&PLAIN[..len], TIME, &mut out), Err(WrapError::TooShort));
        }
        assert_eq!(out, b"kept");
        assert_eq!(export(&client), before);
    }
}

#[test]
fn replays_and_reflections_are_refused_also_after_a_hand_over() {
    for (mut client, mut server) in pairs() {
        if client.overhead() == 0 {
            continue;
        }
        let mut plain = Vec::new();
        let wires: Vec<_> = (0..80).map(|_| wrap(&mut client, PLAIN)).collect();
        for wire in &wires {
            server.unwrap(wire, &mut plain).unwrap();
            assert_eq!(server.unwrap(wire, &mut plain), Err(UnwrapError::Replay));
            assert!(plain.is_empty());
        }
        let mut successor = ControlWrap::import(&mut export(&server).as_slice()).unwrap();
        for wire in &wires {
            assert_eq!(successor.unwrap(wire, &mut plain), Err(UnwrapError::Replay));
        }
        // The counter goes on too: what the successor sends is new to the client.
        let first = wrap(&mut server, PLAIN);
        let mut successor = ControlWrap::import(&mut export(&server).as_slice()).unwrap();
        let second = wrap(&mut successor, PLAIN);
        client.unwrap(&first, &mut plain).unwrap();
        client.unwrap(&second, &mut plain).unwrap();
        // A packet sent back to its sender: only tls-auth without direction has one key for both.
        let mut other = ControlWrap::import(&mut export(&client).as_slice()).unwrap();
        let reflected = other.unwrap(&wrap(&mut client, PLAIN), &mut plain);
        if format!("{client:?}").contains("TlsCrypt") {
            assert_eq!(reflected, Err(UnwrapError::Authentication));
        }
    }
}

#[test]
fn another_key_digest_or_direction_is_refused() {
    let key = static_key(42);
    let mut plain = Vec::new();
    let wire = wrap(&mut ControlWrap::tls_crypt(&key, Role::Client), PLAIN);
    for mut server in [
        ControlWrap::tls_crypt(&static_key(43), Role::Server),
        ControlWrap::tls_crypt(&key, Role::Client),
        ControlWrap::tls_auth(&key, KeyDirection::Normal, AuthDigest::Sha1),
    ] {
        assert_eq!(server.unwrap(&wire, &mut plain), Err(UnwrapError::Authentication));
    }
    let mut client = ControlWrap::tls_auth(&key, KeyDirection::Inverse, AuthDigest::Sha256);
    let wire = wrap(&mut client, PLAIN);
    for mut server in [
        ControlWrap::tls_auth(&static_key(43), KeyDirection::Normal, AuthDigest::Sha256),
        ControlWrap::tls_auth(&key, KeyDirection::Inverse, AuthDigest::Sha256),
        ControlWrap::tls_auth(&key, KeyDirection::Bidirectional, AuthDigest::Sha256),
        ControlWrap::tls_auth(&key, KeyDirection::Normal, AuthDigest::Sha1),
        ControlWrap::tls_crypt(&key, Role::Server),
    ] {
        assert_eq!(server.unwrap(&wire, &mut plain), Err(UnwrapError::Authentication));
    }
}

proptest! {
    #[test]
    fn noise_is_refused(
        which in 0usize..16,
        wire in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (_, mut server) = pairs().swap_remove(which);
        let before = export(&server);
        let mut plain = Vec::new();
        let result = server.unwrap(&wire, &mut plain);
        if server.overhead() > 0 {
            prop_assert!(result.is_err());
            prop_assert!(plain.is_empty());
        }
        prop_assert_eq!(export(&server), before);
    }

    #[test]
    fn client_keys_go_both_ways(
        kind in any::<u8>(),
        value in prop::collection::vec(any::<u8>(), 0..MAX_METADATA_LEN),
    ) {
        let metadata = match kind {
            0 => Metadata::User(value),
            1 => Metadata::Timestamp(value.len() as u64),
            2 => Metadata::Empty,
            kind => Metadata::Other { kind, value },
        };
        let server = TlsCryptV2ServerKey::generate(&mut random()).unwrap();
        let client = TlsCryptV2ClientKey::generate(&server, &metadata, &mut random()).unwrap();
        let packet = [b"inner", client.wrapped.as_slice()].concat();
        let (key, found, inner) = server.split_and_unwrap(&packet).unwrap();
        prop_assert!(key.ct_eq(&client.key));
        prop_assert_eq!(found, metadata);
        prop_assert_eq!(inner, b"inner");
    }

    #[test]
    fn noise_is_no_client_key(packet in prop::collection::vec(any::<u8>(), 0..1200)) {
        let server = TlsCryptV2ServerKey::generate(&mut random()).unwrap();
        prop_assert!(server.split_and_unwrap(&packet).is_err());
    }
}

#[test]
fn a_tls_crypt_v2_client_comes_in() {
    let server_key = TlsCryptV2ServerKey::generate(&mut random()).unwrap();
    let metadata = Metadata::Timestamp(u64::from(TIME));
    let client_key = TlsCryptV2ClientKey::generate(&server_key, &metadata, &mut random()).unwrap();
    assert_eq!(client_key.wrapped.len(), 299);
    let mut client = ControlWrap::tls_crypt(&client_key.key, Role::Client);
    let reset = b"\x50sessionI\0\0\0\0\0";
    let mut packet = wrap(&mut client, reset);
    packet.extend(&client_key.wrapped);
    assert_eq!(packet.len(), 353);

    let (key, found, inner) = server_key.split_and_unwrap(&packet).unwrap();
    assert_eq!(found, metadata);
    let mut server = ControlWrap::tls_crypt(&key, Role::Server);
    let mut plain = Vec::new();
    server.unwrap(inner, &mut plain).unwrap();
    assert_eq!(plain, reset);
    client.unwrap(&wrap(&mut server, PLAIN), &mut plain).unwrap();
    assert_eq!(plain, PLAIN);
}

#[test]
fn damaged_client_keys_are_refused() {
    let server = TlsCryptV2ServerKey::generate(&mut random()).unwrap();
    let other = TlsCryptV2ServerKey::generate(&mut FastRandom::from_seed([9; 32])).unwrap();
    let metadata = Metadata::User(b"who".to_vec());
    let wrapped = server.wrap_client_key(&static_key(44), &metadata).unwrap();
    let packet = [b"inner", wrapped.as_slice()].concat();
    server.split_and_unwrap(&packet).unwrap();
    assert_eq!(other.split_and_unwrap(&packet).unwrap_err(), UnwrapError::Authentication);
    for at in 5..packet.len() {
        let mut damaged = packet.clone();
        damaged[at] ^= 1;
        let refused = server.split_and_unwrap(&damaged).unwrap_err();
        let expected = if at < packet.len() - 2 {
            UnwrapError::Authentication
        } else if at == packet.len() - 1 {
            // One byte less or more than the key: the MAC does not match.
            UnwrapError::Authentication
        } else {
            UnwrapError::WrappedKeyLength
        };
        assert_eq!(refused, expected, "byte {at}");
    }
    for (packet, expected) in [
        (vec![], UnwrapError::TooShort),
        (vec![0], UnwrapError::TooShort),
        (vec![0, 0], UnwrapError::WrappedKeyLength),
        (vec![0xff, 0xff], UnwrapError::WrappedKeyLength),
        // The key alone, with no packet before it.
        (wrapped, UnwrapError::WrappedKeyLength),
        // A length below the least possible.
        ([&[7; 400][..], &[0x01, 0x21]].concat(), UnwrapError::WrappedKeyLength),
        ([&[7; 400][..], &[0x01, 0x22]].concat(), UnwrapError::Authentication),
        // A length above the greatest possible.
        ([&[7; 2000][..], &[0x04, 0x01]].concat(), UnwrapError::WrappedKeyLength),
        ([&[7; 2000][..], &[0x04, 0x00]].concat(), UnwrapError::Authentication),
    ] {
        assert_eq!(server.split_and_unwrap(&packet).unwrap_err(), expected, "{}", packet.len());
    }
}

#[test]
fn metadata_has_a_limit() {
    let server = TlsCryptV2ServerKey::generate(&mut random()).unwrap();
    let most = Metadata::User(vec![0; MAX_METADATA_LEN - 1]);
    assert_eq!(server.wrap_client_key(&static_key(45), &most).unwrap().len(), 1024);
    let more = Metadata::User(vec![0; MAX_METADATA_LEN]);
    let refused = server.wrap_client_key(&static_key(45), &more).unwrap_err();
    assert_eq!(refused, CryptoError::MetadataTooLong { len: 735, max: 734 });
    let refused = TlsCryptV2ClientKey::generate(&server, &more, &mut random()).unwrap_err();
    assert_eq!(refused, CryptoError::MetadataTooLong { len: 735, max: 734 });
}

#[test]
fn key_files_go_both_ways() {
    let server = TlsCryptV2ServerKey::generate(&mut random()).unwrap();
    let again = TlsCryptV2ServerKey::parse_pem(&server.to_pem()).unwrap();
    assert_eq!(again.to_pem(), server.to_pem());
    assert_eq!(server.duplicate().to_pem(), server.to_pem());
    let metadata = Metadata::User(b"branch-42".to_vec());
    let client = TlsCryptV2ClientKey::generate(&again, &metadata, &mut random()).unwrap();
    let again = TlsCryptV2ClientKey::parse_pem(&client.to_pem()).unwrap();
    assert!(again.key.ct_eq(&client.key));
    assert_eq!(again.wrapped, client.wrapped);
}

#[test]
fn damaged_key_files_are_refused() {
    let server = TlsCryptV2ServerKey::generate(&mut random()).unwrap();
    let pem = server.to_pem();
    let err = |text: &str| TlsCryptV2ServerKey::parse_pem(text).unwrap_err();
    assert!(matches!(err(""), KeyFileError::NoBegin { .. }));
    assert!(matches!(err(&pem.replace("-----END", "-----")), KeyFileError::NoEnd { .. }));
    let lines: Vec<&str> = pem.lines().collect();
    let short = [&lines[..2], &lines[3..]].concat().join("\n");
    assert_eq!(err(&short), KeyFileError::Length { found: 80, expected: 128 });
    let zero = format!("{}\n{}\n{}\n", lines[0], "A".repeat(170) + "A=", lines[lines.len() - 1]);
    assert_eq!(err(&zero), KeyFileError::ZeroKey);

    let client = TlsCryptV2ClientKey::generate(&server, &Metadata::Empty, &mut random()).unwrap();
    let pem = client.to_pem();
    // A server key is no client key and the other way round.
    assert!(matches!(err(&pem), KeyFileError::NoBegin { .. }));
    let err = |text: &str| TlsCryptV2ClientKey::parse_pem(text).unwrap_err();
    assert!(matches!(err(&server.to_pem()), KeyFileError::NoBegin { .. }));
    let lines: Vec<&str> = pem.lines().collect();
    for keep in [2, 5, lines.len() - 2] {
        let cut = [&lines[..keep], &lines[lines.len() - 1..]].concat().join("\n");
        assert!(matches!(err(&cut), KeyFileError::Length { .. }), "{keep}");
    }
}

#[test]
fn no_key_without_randomness() {
    assert!(StaticKey::generate(&mut Broken).is_err());
    assert!(TlsCryptV2ServerKey::generate(&mut Broken).is_err());
    let server = TlsCryptV2ServerKey::generate(&mut random()).unwrap();
    assert!(TlsCryptV2ClientKey::generate(&server, &Metadata::Empty, &mut Broken).is_err());
}
