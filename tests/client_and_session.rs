//! The reference client against the session, in memory and in virtual time: every profile of
//! `docs/ROUTEROS.md` that should log in does, and the client finds nothing to complain about.

#![expect(clippy::unwrap_used, reason = "test code: a failed step is the report")]

use std::time::Duration;

use tunnelhead::proto::client::{ClientConfig, ClientWrap, Quirks, SwitchPolicy};
use tunnelhead::proto::session::WrapConfig;
use tunnelhead::testing::world::{Faults, World, random};
use tunnelhead_crypto::{
    AuthDigest, DataCipher, FastRandom, KeyDirection, Metadata, NonceAuditor, SecretBytes,
    StaticKey, TlsCryptV2ClientKey, TlsCryptV2ServerKey,
};

const STOCK: &str = "IV_VER=2.6.14\nIV_MTU=1600\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM\n\
    IV_PROTO=990\n";

/// A world without faults.
fn meet(seed: u64, client: ClientConfig, wrap: WrapConfig) -> World {
    World::new(seed, client, wrap, Faults::default()).unwrap()
}

/// Sends packets both ways and sees them arrive.
fn exchange(world: &mut World, count: u32) {
    world.send_packets(count, count);
    world.settle();
    world.fine();
}

fn base() -> ClientConfig {
    ClientConfig {
        username: Some(b"bob".to_vec()),
        password: Some(SecretBytes::from(b"secret".to_vec())),
        peer_info: Some(STOCK.to_owned()),
        ..ClientConfig::default()
    }
}

fn cbc(peer_info: Option<&str>, digest: AuthDigest, quirks: Quirks) -> ClientConfig {
    ClientConfig {
        cipher: DataCipher::Aes256Cbc,
        digest: Some(digest),
        peer_info: peer_info.map(str::to_owned),
        quirks: Quirks {
            ifconfig_is_netmask: true,
            no_continuation: true,
            stalls_on_routes: true,
            ..quirks
        },
        data_v2: peer_info.is_some(),
        pings: false,
        ..base()
    }
}

/// The profiles that log in on the standard listener.
fn profiles() -> Vec<(&'static str, ClientConfig)> {
    let none = Quirks::default();
    let second = Quirks { second_reset: true, ..none };
    let early = Quirks { early_hello: true, ..none };
    let iv = Some("IV_PROTO=2\n");
    let gcm = |peer_info, digest, quirks| ClientConfig {
        cipher: DataCipher::Aes256Gcm,
        digest,
        ..cbc(peer_info, AuthDigest::Sha1, quirks)
    };
    vec![
        ("P1", cbc(None, AuthDigest::Sha1, second)),
        ("P1b", cbc(None, AuthDigest::Sha1, none)),
        ("P2", cbc(None, AuthDigest::Sha256, early)),
        ("P2 with peer info", cbc(iv, AuthDigest::Sha512, early)),
        ("P3", cbc(iv, AuthDigest::Sha1, none)),
        ("P4", gcm(None, None, early)),
        ("P4 with peer info", gcm(iv, None, early)),
        ("P4b", gcm(iv, Some(AuthDigest::Sha256), none)),
        (
            "empty options",
            ClientConfig { options: Some(String::new()), ..cbc(iv, AuthDigest::Sha1, none) },
        ),
        (
            "stock 2.6",
            ClientConfig { quirks: Quirks { repeat_acks: true, ..none }, max_acks: 4, ..base() },
        ),
        (
            "stock 2.4",
            ClientConfig {
                peer_info: Some("IV_VER=2.4.12\nIV_NCP=2\nIV_PROTO=2\n".to_owned()),
                switch: SwitchPolicy::Immediately,
                ..base()
            },
        ),
    ]
}

fn wraps(rng: &mut FastRandom) -> Vec<(ClientWrap, WrapConfig)> {
    let key = StaticKey::generate(rng).unwrap();
    let text = key.to_text();
    let copy = || StaticKey::parse(&text).unwrap();
    let v2 = TlsCryptV2ServerKey::generate(rng).unwrap();
    let metadata = Metadata::Timestamp(0);
    let own = TlsCryptV2ClientKey::generate(&v2, &metadata, rng).unwrap();
    vec![
        (ClientWrap::None, WrapConfig::None),
        (
            ClientWrap::TlsAuth {
                key: copy(),
                direction: KeyDirection::Inverse,
                digest: AuthDigest::Sha1,
            },
            WrapConfig::TlsAuth {
                key: copy(),
                direction: KeyDirection::Normal,
                digest: AuthDigest::Sha1,
            },
        ),
        (ClientWrap::TlsCrypt { key: copy() }, WrapConfig::TlsCrypt { key: copy() }),
        (ClientWrap::TlsCryptV2 { key: own }, WrapConfig::TlsCryptV2 { server_key: v2 }),
    ]
}

#[test]
fn every_profile_logs_in_passes_packets_and_rekeys() {
    for seed in 0..8 {
        for (name, config) in profiles() {
            let _audit = NonceAuditor::isolate();
            let switch = config.switch;
            let mut world = meet(seed, config, WrapConfig::None);
            world.pass(Duration::from_secs(3));
            assert!(
                world.connected,
                "{name} {seed}: {:?} {:?}",
                world.violations, world.server_closed
            );
            exchange(&mut world, 20);
            assert!(world.up);
            for round in 1..=9 {
                if round % 2 == 0 {
                    assert!(world.client.start_rekey(world.now));
                } else {
                    world.server.start_rekey(world.now).unwrap();
                }
                exchange(&mut world, 20);
                world.pass(Duration::from_secs(1));
                assert_eq!((world.client_rekeys, world.server_rekeys), (round, round), "{name}");
                exchange(&mut world, 5);
                world.pass(Duration::from_secs(61));
                exchange(&mut world, 5);
            }
            world.fine();
            assert_eq!(switch == SwitchPolicy::Immediately, name == "stock 2.4");
        }
    }
}

#[test]
fn every_wrapping_carries_logins_and_renegotiations() {
    for seed in 0..4 {
        let _audit = NonceAuditor::isolate();
        for (index, (client, server)) in wraps(&mut random(seed, 9)).into_iter().enumerate() {
            let mut world =
                meet(seed * 10 + index as u64, ClientConfig { wrap: client, ..base() }, server);
            world.pass(Duration::from_secs(3));
            assert!(world.connected, "{index}: {:?} {:?}", world.violations, world.server_closed);
            exchange(&mut world, 5);
            assert!(world.client.start_rekey(world.now));
            world.pass(Duration::from_secs(61));
            world.server.start_rekey(world.now).unwrap();
            world.pass(Duration::from_secs(61));
            assert_eq!((world.client_rekeys, world.server_rekeys), (2, 2));
            exchange(&mut world, 5);
            world.fine();
        }
    }
}

#[test]
fn both_sides_may_begin_a_rekey_at_once() {
    for seed in 0..20 {
        let _audit = NonceAuditor::isolate();
        let mut world = meet(seed, base(), WrapConfig::None);
        world.pass(Duration::from_secs(3));
        assert!(world.client.start_rekey(world.now));
        world.server.start_rekey(world.now).unwrap();
        exchange(&mut world, 10);
        world.pass(Duration::from_secs(70));
        exchange(&mut world, 10);
        assert_eq!((world.client_rekeys, world.server_rekeys), (1, 1), "seed {seed}");
        world.fine();
    }
}

#[test]
fn a_client_that_never_pings_stays_for_ten_restart_periods() {
    let _audit = NonceAuditor::isolate();
    let quiet = cbc(None, AuthDigest::Sha1, Quirks::default());
    let mut world = meet(1, quiet, WrapConfig::None);
    world.pass(Duration::from_secs(900));
    exchange(&mut world, 3);
    world.fine();
    assert!(world.client.stats().pings_in >= 40);
}

#[test]
fn the_factory_default_cipher_is_refused_with_its_name() {
    let _audit = NonceAuditor::isolate();
    let options = "V4,dev-type tun,link-mtu 1543,tun-mtu 1500,proto TCPv4_CLIENT,cipher BF-CBC,\
        auth SHA1,keysize 128,key-method 2,tls-client";
    let config = ClientConfig {
        options: Some(options.to_owned()),
        ..cbc(None, AuthDigest::Sha1, Quirks::default())
    };
    let mut world = meet(1, config, WrapConfig::None);
    world.pass(Duration::from_secs(10));
    assert!(!world.connected);
    assert_eq!(world.client_closed.as_deref(), Some("the login failed"));
    assert_eq!(world.server_closed.map(|reason| reason.code()), Some("cipher_unsupported"));
}
