//! Simulation: the reference client against the session in virtual time, one seed an ordering.
//!
//! `TUNNELHEAD_SIM_SEED=n` replays one seed; `TUNNELHEAD_SIM_RUNS=n` changes how many are run.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a failed step is the report")]

mod dead_authenticator;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tunnelhead::proto::client::{ClientConfig, Quirks, SwitchPolicy};
use tunnelhead::proto::session::WrapConfig;
use tunnelhead::testing::world::{Faults, World};
use tunnelhead_crypto::{AuthDigest, DataCipher, NonceAuditor, SecretBytes};

/// Orderings in a test run.
const RUNS: u64 = 100_000;
/// What the orderings of a run must have met, each at least so often a thousand.
const COVERAGE_PERMILLE: u64 = 20;

/// What happened over all runs, so that a simulation that does nothing can't pass.
#[derive(Default)]
struct Seen {
    connected: AtomicU64,
    rekeys: AtomicU64,
    hand_overs: AtomicU64,
    lost_answers: AtomicU64,
    resets: AtomicU64,
    packets: AtomicU64,
}

/// A client that the seed chooses: one of the kinds that log in.
fn client_of(world_seed: u64) -> ClientConfig {
    let base = ClientConfig {
        username: Some(b"bob".to_vec()),
        password: Some(SecretBytes::from(b"secret".to_vec())),
        ..ClientConfig::default()
    };
    let quirks = Quirks { ifconfig_is_netmask: true, ..Quirks::default() };
    let router = |digest, peer_info: Option<&str>, quirks| ClientConfig {
        username: Some(b"bob".to_vec()),
        password: Some(SecretBytes::from(b"secret".to_vec())),
        cipher: DataCipher::Aes256Cbc,
        digest: Some(digest),
        peer_info: peer_info.map(str::to_owned),
        data_v2: peer_info.is_some(),
        quirks,
        ..ClientConfig::default()
    };
    match world_seed % 5 {
        0 => base,
        1 => ClientConfig { switch: SwitchPolicy::Immediately, ..base },
        2 => router(AuthDigest::Sha1, None, Quirks { second_reset: true, ..quirks }),
        3 => {
            router(AuthDigest::Sha256, Some("IV_PROTO=2\n"), Quirks { early_hello: true, ..quirks })
        }
        _ => ClientConfig {
            quirks: Quirks { repeat_acks: true, ..Quirks::default() },
            max_acks: 4,
            ..base
        },
    }
}

/// One ordering. Everything that happens comes from the seed.
fn run(seed: u64, seen: &Seen) {
    let _audit = NonceAuditor::isolate();
    let faults = match seed % 4 {
        0 => Faults::default(),
        1 | 2 => Faults { late: Duration::from_millis(1 + seed % 3000), lost_permille: 0 },
        _ => Faults { late: Duration::from_millis(200), lost_permille: 60 },
    };
    let mut world = World::new(seed, client_of(seed), WrapConfig::None, faults).unwrap();
    let reset_at = (seed % 16 == 15).then(|| world.roll(24));
    for step in 0..24 {
        if world.over() {
            break;
        }
        if reset_at == Some(step) {
            // The connection is gone: whatever the session holds now must only be dropped.
            seen.resets.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match world.roll(8) {
            0 => {
                let _ = world.server.start_rekey(world.now);
            }
            1 => {
                let _ = world.client.start_rekey(world.now);
            }
            2 => {
                let (towards_server, ms) = (world.roll(2) == 0, world.roll(5000));
                world.stall(towards_server, Duration::from_millis(u64::from(ms)));
            }
            3 => {
                world.hand_over();
            }
            4 | 5 => {
                let (up, down) = (world.roll(6), world.roll(6));
                world.send_packets(up, down);
            }
            6 => world.settle(),
            _ => {
                let most = match world.roll(4) {
                    0 => 20,
                    1 => 700,
                    2 => 3000,
                    _ => 30_000,
                };
                let ms = world.roll(most);
                world.pass(Duration::from_millis(u64::from(ms)));
            }
        }
    }
    // From here on the world is kind: what can still succeed has to.
    world.faults = Faults::default();
    world.pass(Duration::from_secs(130));
    assert!(world.violations.is_empty(), "{:?}", world.violations);
    if world.lost == 0 {
        assert!(world.connected && world.up, "not connected: {:?}", world.server_closed);
        world.send_packets(3, 3);
        world.settle();
        world.fine();
    } else {
        seen.lost_answers.fetch_add(1, Ordering::Relaxed);
        // A lost answer may cost this session; it must not leave it hanging half-way.
        assert!(world.over() || (world.connected && world.up), "hangs after a lost answer");
    }
    seen.connected.fetch_add(u64::from(world.connected), Ordering::Relaxed);
    seen.rekeys.fetch_add(u64::from(world.server_rekeys > 0), Ordering::Relaxed);
    seen.hand_overs.fetch_add(u64::from(world.hand_overs > 0), Ordering::Relaxed);
    seen.packets.fetch_add(world.server.stats().rx_packets, Ordering::Relaxed);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_ordering_ends_well() {
    let seen = Seen::default();
    if let Some(seed) = number("TUNNELHEAD_SIM_SEED") {
        return run(seed, &seen);
    }
    let runs = number("TUNNELHEAD_SIM_RUNS").unwrap_or(RUNS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= runs {
                        break;
                    }
                    if catch_unwind(AssertUnwindSafe(|| run(seed, &seen))).is_err() {
                        panic!("TUNNELHEAD_SIM_SEED={seed} replays this failure");
                    }
                }
            });
        }
    });
    let counts = [
        ("connected", &seen.connected),
        ("rekeys", &seen.rekeys),
        ("hand-overs", &seen.hand_overs),
        ("lost answers", &seen.lost_answers),
        ("resets", &seen.resets),
    ];
    for (what, count) in counts {
        let count = count.load(Ordering::Relaxed);
        println!("{what}: {count} of {runs} orderings");
        assert!(count * 1000 >= runs * COVERAGE_PERMILLE, "{what} too seldom: {count} of {runs}");
    }
    println!("packets from clients: {}", seen.packets.load(Ordering::Relaxed));
}

#[test]
fn a_seed_replays_byte_for_byte() {
    let trace = |seed| {
        let _audit = NonceAuditor::isolate();
        let mut world =
            World::new(seed, client_of(seed), WrapConfig::None, Faults::default()).unwrap();
        world.pass(Duration::from_secs(5));
        world.send_packets(20, 20);
        world.settle();
        (world.server.stats().values(), world.client.stats().data_out)
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7).0, trace(8).0);
}
