//! Data packets: round trips, damage, replays, the end of a key.

use proptest::prelude::*;
use tunnelhead_crypto::{
    AuthDigest, CryptoError, DataCipher, DataHeader, DataKeys, KeyBlock, MAX_BATCH, MAX_PAYLOAD,
    NonceAuditor, OpenError, RandomError, Role, SealError,
};

use crate::support::{Broken, V1, V2, block, export, formats, pair, random, seal};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What one side seals the other opens, in both directions, with ids from 1 without gaps.
    #[test]
    fn round_trip(
        format in prop::sample::select(formats()),
        v2 in any::<bool>(),
        from_server in any::<bool>(),
        material in prop::array::uniform32(any::<u8>()),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..5),
    ) {
        let _audit = NonceAuditor::isolate();
        let mut bytes = [0x5a; 256];
        bytes.chunks_mut(32).zip(1..).for_each(|(chunk, n)| {
            chunk.copy_from_slice(&material);
            chunk[0] = n;
        });
        let (server, client) = pair(format, &KeyBlock::from_bytes(bytes));
        let (mut from, mut to) = if from_server { (server, client) } else { (client, server) };
        let header = if v2 { V2 } else { V1 };
        for (n, payload) in payloads.iter().enumerate() {
            // Appends behind what is there.
            let mut out = b"before".to_vec();
            from.sealer.seal(header, payload, &mut random(), &mut out).unwrap();
            prop_assert_eq!(&out[..6], b"before");
            let packet = &mut out[6..];
            prop_assert_eq!(packet.len(), from.sealer.sealed_len(header, payload.len()));
            prop_assert_eq!(packet[0], if v2 { 9 << 3 | 5 } else { 6 << 3 | 5 });
            if v2 {
                prop_assert_eq!(&packet[1..4], &[0xab, 0xcd, 0xef]);
            }
            prop_assert_eq!(&*to.opener.open(packet).unwrap(), payload.as_slice());
            prop_assert_eq!(from.sealer.packets_sealed(), n as u64 + 1);
        }
    }

    /// Any bytes at all: an error, no panic, nothing changed.
    #[test]
    fn noise_is_refused(
        format in prop::sample::select(formats()),
        first in any::<u8>(),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (_, mut client) = pair(format, &block(1));
        let before = export(&client);
        let mut packet = [&[first][..], &rest].concat();
        prop_assert!(client.opener.open(&mut packet).is_err());
        prop_assert_eq!(export(&client), before);
    }
}

/// True if the byte at `at` of a packet is authenticated or its damage shows otherwise.
///
/// Free are: the key id in the low bits of the first byte, and peer ids, where the header is not
/// part of what is authenticated (CBC, and GCM in P_DATA_V1).
fn flip_must_be_refused(format: (DataCipher, AuthDigest), header: DataHeader, at: usize) -> bool {
    let header_len = if header.peer_id.is_some() { 4 } else { 1 };
    at >= header_len || format.0.is_aead() && header.peer_id.is_some()
}

#[test]
fn every_flipped_byte_is_refused_and_changes_nothing() {
    for format in formats() {
        for header in [V1, V2] {
            let _audit = NonceAuditor::isolate();
            let (mut server, mut client) = pair(format, &block(2));
            // A window with history, so that a change would show.
            for _ in 0..3 {
                client.opener.open(&mut seal(&mut server, header, b"earlier")).unwrap();
            }
            let packet = seal(&mut server, header, b"a payload of some length, 38 bytes long");
            let before = export(&client);
            for at in 0..packet.len() {
                for bit in 0..8 {
                    let mut damaged = packet.clone();
                    damaged[at] ^= 1 << bit;
                    let opcode_hit = at == 0 && bit >= 3;
                    if !flip_must_be_refused(format, header, at) && !opcode_hit {
                        continue;
                    }
                    let refused = client.opener.open(&mut damaged);
                    assert!(
                        matches!(
                            refused,
                            Err(OpenError::Authentication
                                | OpenError::NotData
                                | OpenError::TooShort)
                        ),
                        "{format:?} {header:?} byte {at} bit {bit}: {refused:?}"
                    );
                    assert_eq!(export(&client), before, "{format:?} byte {at} bit {bit}");
                }
            }
            // Untouched it still opens.
            client.opener.open(&mut packet.clone()).unwrap();
            assert_ne!(export(&client), before);
        }
    }
}

#[test]
fn cut_and_extended_packets_are_refused() {
    let _audit = NonceAuditor::isolate();
    for format in formats() {
        let (mut server, mut client) = pair(format, &block(3));
        let packet = seal(&mut server, V2, &[7; 100]);
        let before = export(&client);
        for len in 0..packet.len() {
            assert!(client.opener.open(&mut packet[..len].to_vec()).is_err(), "{format:?} {len}");
        }
        for more in [1, 15, 16, 17, 32] {
            let mut longer = packet.clone();
            longer.extend(vec![0; more]);
            assert!(client.opener.open(&mut longer).is_err(), "{format:?} +{more}");
        }
        assert_eq!(export(&client), before);
    }
}

#[test]
fn other_opcodes_are_no_data() {
    let (_, mut client) = pair(formats()[0], &block(4));
    for first in 0..=255u8 {
        let mut packet = [first, 1, 2, 3, 4, 5];
        let result = client.opener.open(&mut packet);
        match first >> 3 {
            6 | 9 => assert_eq!(result, Err(OpenError::TooShort)),
            _ => assert_eq!(result, Err(OpenError::NotData)),
        }
    }
    assert_eq!(client.opener.open(&mut []), Err(OpenError::TooShort));
}

#[test]
fn a_captured_packet_is_refused_at_every_later_position() {
    let _audit = NonceAuditor::isolate();
    for format in formats() {
        let (mut server, mut client) = pair(format, &block(5));
        let mut captured: Vec<Vec<u8>> = Vec::new();
        for n in 0..150 {
            let packet = seal(&mut server, V2, &[n; 9]);
            client.opener.open(&mut packet.clone()).unwrap();
            captured.push(packet);
            if n % 40 == 39 {
                // The window survives the way into another process.
                client = DataKeys::import(&mut export(&client).as_slice()).unwrap();
            }
            if n % 10 == 9 {
                for old in &captured {
                    assert_eq!(client.opener.open(&mut old.clone()), Err(OpenError::Replay));
                }
            }
        }
    }
}

#[test]
fn packets_out_of_order_pass_once_inside_the_window() {
    let _audit = NonceAuditor::isolate();
    for format in formats() {
        let (mut server, mut client) = pair(format, &block(6));
        let packets: Vec<_> = (0..66).map(|n| seal(&mut server, V1, &[n])).collect();
        client.opener.open(&mut packets[65].clone()).unwrap();
        for (n, packet) in packets.iter().enumerate() {
            let result = client.opener.open(&mut packet.clone()).is_ok();
            assert_eq!(result, (2..65).contains(&n), "{format:?} packet {n}");
        }
    }
}

#[test]
fn directions_and_keys_are_apart() {
    let _audit = NonceAuditor::isolate();
    for format in formats() {
        let (mut server, mut client) = pair(format, &block(7));
        let (_, mut other) = pair(format, &block(8));
        let packet = seal(&mut server, V2, b"for the client");
        let refused = Err(OpenError::Authentication);
        assert_eq!(server.opener.open(&mut packet.clone()), refused, "reflected");
        assert_eq!(other.opener.open(&mut packet.clone()), refused, "another key");
        client.opener.open(&mut packet.clone()).unwrap();
    }
}

#[test]
fn the_packet_ids_end_without_wrapping() {
    let _audit = NonceAuditor::isolate();
    for format in formats() {
        let (mut server, mut client) = pair(format, &block(9));
        server.sealer.set_next_packet_id_for_test(0xfeff_ffff);
        client.opener.open(&mut seal(&mut server, V2, b"x")).unwrap();
        assert!(!server.needs_rekey() && !client.needs_rekey());
        client.opener.open(&mut seal(&mut server, V2, b"x")).unwrap();
        assert!(server.sealer.needs_rekey() && client.opener.needs_rekey());

        server.sealer.set_next_packet_id_for_test(0xffff_fffe);
        client.opener.open(&mut seal(&mut server, V2, b"the last one")).unwrap();
        for _ in 0..3 {
            let mut out = b"kept".to_vec();
            let refused = server.sealer.seal(V2, b"x", &mut random(), &mut out);
            assert_eq!(refused, Err(SealError::Exhausted));
            assert_eq!(out, b"kept");
        }
        // Nor does a hand-over start anew.
        let mut server = DataKeys::import(&mut export(&server).as_slice()).unwrap();
        let refused = server.sealer.seal(V2, b"x", &mut random(), &mut Vec::new());
        assert_eq!(refused, Err(SealError::Exhausted));
    }
}

#[test]
fn refused_seals_append_nothing_and_leave_no_gap() {
    let _audit = NonceAuditor::isolate();
    for format in formats() {
        let (mut server, mut client) = pair(format, &block(10));
        let before = export(&server);
        let mut out = b"kept".to_vec();
        let too_high = DataHeader { key_id: 8, peer_id: None };
        let too_wide = DataHeader { key_id: 0, peer_id: Some(1 << 24) };
        for header in [too_high, too_wide] {
            let refused = server.sealer.seal(header, b"x", &mut random(), &mut out);
            assert_eq!(refused, Err(SealError::Header));
        }
        let long = vec![0; MAX_PAYLOAD + 1];
        let refused = server.sealer.seal(V2, &long, &mut random(), &mut out);
        assert_eq!(refused, Err(SealError::TooLong));
        if !format.0.is_aead() {
            let refused = server.sealer.seal(V2, b"x", &mut Broken, &mut out);
            assert_eq!(refused, Err(SealError::Random(RandomError)));
        }
        assert_eq!(out, b"kept");
        assert_eq!(export(&server), before);
        // The longest one passes, and the header limits too.
        let header = DataHeader { key_id: 7, peer_id: Some(0x00ff_ffff) };
        let mut packet = seal(&mut server, header, &long[1..]);
        assert_eq!(client.opener.open(&mut packet).unwrap(), &long[1..]);
        assert_eq!(server.sealer.packets_sealed(), 1);
    }
}

#[test]
fn a_zero_cipher_key_is_refused() {
    for (cipher, digest) in formats() {
        for slot in [0, 128] {
            // All but the used part is set, in one slot.
            let mut bytes = [0xff; 256];
            bytes[slot..slot + cipher.key_len()].fill(0);
            for role in [Role::Server, Role::Client] {
                let block = KeyBlock::from_bytes(bytes);
                let refused = DataKeys::new(cipher, digest, &block, role);
                assert_eq!(refused.unwrap_err(), CryptoError::ZeroKey, "{cipher:?} {slot}");
            }
        }
    }
}

#[test]
fn cbc_never_repeats_an_iv_and_takes_it_from_the_source() {
    let _audit = NonceAuditor::isolate();
    let (mut server, _) = pair((DataCipher::Aes256Cbc, AuthDigest::Sha1), &block(11));
    let mut source = random();
    let ivs: std::collections::HashSet<Vec<u8>> = (0..500)
        .map(|_| {
            let mut out = Vec::new();
            server.sealer.seal(V2, b"same payload", &mut source, &mut out).unwrap();
            out[24..40].to_vec()
        })
        .collect();
    assert_eq!(ivs.len(), 500);
}

#[test]
#[should_panic(expected = "with the same key")]
fn the_auditor_catches_a_copied_state() {
    let (mut server, _) = pair((DataCipher::Aes256Gcm, AuthDigest::Sha1), &block(12));
    seal(&mut server, V2, b"one");
    let mut copy = DataKeys::import(&mut export(&server).as_slice()).unwrap();
    seal(&mut copy, V2, b"two, in the successor");
    seal(&mut server, V2, b"two, in the predecessor");
}

#[test]
fn both_sides_may_use_one_key_block() {
    // Same block, same ids, but other directions: nothing for the auditor.
    let (mut server, mut client) = pair((DataCipher::Aes256Gcm, AuthDigest::Sha1), &block(13));
    for _ in 0..3 {
        server.opener.open(&mut seal(&mut client, V2, b"up")).unwrap();
        client.opener.open(&mut seal(&mut server, V2, b"down")).unwrap();
    }
    let recorded = NonceAuditor::isolate();
    assert_eq!(NonceAuditor::keys_recorded(), 0);
    drop(recorded);
    assert!(NonceAuditor::keys_recorded() >= 2);
}

proptest! {
    /// A batch is what single seals give, framed; also with unequal lengths and few packets.
    #[test]
    fn a_batch_is_the_same_as_one_by_one(
        format in prop::sample::select(formats()),
        v2 in any::<bool>(),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..=MAX_BATCH),
    ) {
        let header = if v2 { V2 } else { V1 };
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let mut expected = b"before".to_vec();
        {
            let _audit = NonceAuditor::isolate();
            let (mut server, _) = pair(format, &block(14));
            let mut source = random();
            for payload in &payloads {
                let len = server.sealer.sealed_len(header, payload.len());
                expected.extend(u16::try_from(len).unwrap().to_be_bytes());
                server.sealer.seal(header, payload, &mut source, &mut expected).unwrap();
            }
        }
        let _audit = NonceAuditor::isolate();
        let (mut server, _) = pair(format, &block(14));
        let mut out = b"before".to_vec();
        server.sealer.seal_batch(header, &payloads, &mut random(), &mut out).unwrap();
        prop_assert_eq!(out, expected);
        prop_assert_eq!(server.sealer.packets_sealed(), payloads.len() as u64);
    }
}

#[test]
fn refused_batches_append_nothing_and_leave_no_gap() {
    let _audit = NonceAuditor::isolate();
    for format in formats() {
        let (mut server, _) = pair(format, &block(15));
        let before = export(&server);
        let mut out = b"kept".to_vec();
        let payload: &[u8] = &[1; 100];
        let mut refuse = |header, payloads: &[&[u8]], expected| {
            let refused = server.sealer.seal_batch(header, payloads, &mut random(), &mut out);
            assert_eq!(refused, Err(expected));
            assert_eq!(out, b"kept");
            assert_eq!(export(&server), before);
        };
        refuse(DataHeader { key_id: 8, peer_id: None }, &[payload], SealError::Header);
        refuse(V2, &[payload; MAX_BATCH + 1], SealError::TooLong);
        refuse(V2, &[payload, &[0; MAX_PAYLOAD], payload], SealError::TooLong);
        if !format.0.is_aead() {
            let refused = server.sealer.seal_batch(V2, &[payload; 3], &mut Broken, &mut out);
            assert_eq!(refused, Err(SealError::Random(RandomError)));
            assert_eq!(export(&server), before);
        }
        // Three ids are left: four packets are too many, three are not.
        server.sealer.set_next_packet_id_for_test(0xffff_fffc);
        let refused = server.sealer.seal_batch(V2, &[payload; 4], &mut random(), &mut out);
        assert_eq!(refused, Err(SealError::Exhausted));
        assert_eq!(out, b"kept");
        server.sealer.seal_batch(V2, &[payload; 3], &mut random(), &mut out).unwrap();
        assert_eq!(server.sealer.packets_sealed(), 0xffff_fffe);
    }
}

#[test]
#[should_panic(expected = "with the same key")]
fn the_auditor_catches_a_copied_state_in_a_batch() {
    let (mut server, _) = pair((DataCipher::Aes256Gcm, AuthDigest::Sha1), &block(16));
    let mut copy = DataKeys::import(&mut export(&server).as_slice()).unwrap();
    let payloads: [&[u8]; 2] = [b"one", b"two"];
    for keys in [&mut server, &mut copy] {
        keys.sealer.seal_batch(V2, &payloads, &mut random(), &mut Vec::new()).unwrap();
    }
}
