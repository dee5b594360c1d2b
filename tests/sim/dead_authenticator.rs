//! A thousand tunnels renew their keys while nobody can say who may log in.

use std::time::{Duration, Instant};

use tunnelhead::proto::client::ClientConfig;
use tunnelhead::proto::session::{CloseReason, DenyReason, Identity, Shut, Verdict, WrapConfig};
use tunnelhead::testing::world::{Faults, World};
use tunnelhead_crypto::{NonceAuditor, SecretBytes};

const TUNNELS: u64 = 1000;
const OUTAGE: Duration = Duration::from_secs(600);
/// How often a router renews its keys here; far more often than any does.
const REKEY_EVERY: Duration = Duration::from_secs(55);
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the authenticator is like during the outage.
#[derive(Clone, Copy, Debug)]
enum Authenticator {
    /// Nobody listens: an error at once.
    Refuses,
    /// Takes the question and never answers: the time-out decides.
    Hangs,
    /// Says no.
    SaysNo,
}

impl Authenticator {
    /// When it is known what became of the question, and what.
    fn verdict(self, asked: Instant) -> (Instant, Verdict) {
        match self {
            Self::Refuses => (asked, Verdict::Deny(DenyReason::Unavailable)),
            Self::Hangs => (asked + TIMEOUT, Verdict::Deny(DenyReason::Unavailable)),
            Self::SaysNo => {
                let (reason, text) = (DenyReason::Refused, "not paid".into());
                (asked, Verdict::Refuse { reason, text })
            }
        }
    }
}

/// One tunnel through the outage: rekeys of the router, and why the server ended it, if it did.
fn tunnel(seed: u64, authenticator: Authenticator) -> (usize, Option<CloseReason>) {
    let _audit = NonceAuditor::isolate();
    let client = ClientConfig {
        username: Some(b"bob".to_vec()),
        password: Some(SecretBytes::from(b"secret".to_vec())),
        ..ClientConfig::default()
    };
    let mut world = World::new(seed, client, WrapConfig::None, Faults::default()).unwrap();
    let begin = world.roll(55_000);
    world.pass(Duration::from_millis(u64::from(begin)));
    assert!(world.up, "seed {seed}");
    let identity = Identity("bob".into());
    let end = world.now + OUTAGE;
    let mut open: Vec<(Instant, Verdict)> = Vec::new();
    let mut asked = 0;
    while world.now < end && !world.over() {
        let _ = world.client.start_rekey(world.now);
        let next = world.now + REKEY_EVERY;
        while world.now < next && !world.over() {
            world.send_packets(1, 1);
            world.pass(TIMEOUT);
            for request in std::mem::take(&mut world.presented) {
                assert_eq!(
                    (&*request.username, request.password.expose()),
                    (&b"bob"[..], &b"secret"[..])
                );
                asked += 1;
                open.push(authenticator.verdict(world.now));
            }
            let now = world.now;
            for (_, verdict) in open.extract_if(.., |(at, _)| *at <= now) {
                if verdict.ends_tunnel_of(&identity) {
                    world.server.shut(now, Shut::Quiet);
                    world.settle();
                }
            }
        }
    }
    if !world.over() {
        world.settle();
        world.fine();
    }
    assert_eq!(asked, world.server_rekeys, "seed {seed}: each rekey is shown once");
    (world.client_rekeys, world.server_closed)
}

#[test]
fn a_dead_authenticator_ends_no_tunnel_that_renews_its_keys() {
    for authenticator in [Authenticator::Refuses, Authenticator::Hangs] {
        let mut rekeys = 0;
        for seed in 0..TUNNELS {
            let (renewed, closed) = tunnel(seed, authenticator);
            assert_eq!(closed, None, "seed {seed}, {authenticator:?}");
            assert!(renewed >= 10, "seed {seed}, {authenticator:?}: {renewed} rekeys");
            rekeys += renewed;
        }
        println!("{authenticator:?}: {rekeys} rekeys of {TUNNELS} tunnels, none lost");
    }
}

#[test]
fn an_explicit_refusal_at_a_rekey_ends_the_tunnel() {
    for seed in 0..20 {
        let (renewed, closed) = tunnel(seed, Authenticator::SaysNo);
        assert_eq!(closed, Some(CloseReason::ShutDown), "seed {seed}");
        assert_eq!(renewed, 1, "seed {seed}");
    }
}
