use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::telemetry::clock;
use crate::telemetry::flight::{Flight, KeyExchange};

fn flight(id: u64, source: u32, username: &str) -> (Flight, Instant) {
    let now = clock::now();
    let source = SocketAddr::new(Ipv4Addr::from_bits(source).into(), 4000);
    let mut flight = Flight::new(id, now, id * 1000, source, 0, false);
    flight.received(now, &[0, 14, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0]);
    if !username.is_empty() {
        let said = KeyExchange { username: username.as_bytes(), options: "V4", peer_info: "" };
        flight.key_exchange(now, said);
    }
    (flight, now)
}

fn fail(recorder: &mut Recorder, router: Option<&str>, id: u64, source: u32, username: &str) {
    let (flight, now) = flight(id, source, username);
    let reason = if router.is_some() { "wrong_password" } else { "unknown_user" };
    let (record, trace) = flight.failed(now, reason, "");
    recorder.failed(router.map(Arc::from), record, trace);
}

fn log_in(recorder: &mut Recorder, router: &str, id: u64, source: u32) {
    let (mut flight, _) = flight(id, source, router);
    flight.allowed(router.into());
    let (record, trace) = flight.logged_in();
    recorder.logged_in(record, trace);
    recorder.up(router, id, id * 1000 + 50);
}

fn owner(router: &str) -> Owner {
    Owner::Router(router.into())
}

fn is_stranger(owner: &Owner) -> bool {
    matches!(owner, Owner::Stranger(_))
}

/// Sums of everything that is kept have to be what the counters say.
fn check(recorder: &Recorder) {
    let all: Vec<&Attempt> = recorder.attempts.values().collect();
    let in_rings: usize = recorder.owners.values().map(VecDeque::len).sum();
    assert_eq!(in_rings, all.len());
    let spare: usize = recorder
        .owners
        .iter()
        .filter(|(owner, _)| !is_stranger(owner))
        .flat_map(|(_, ring)| ring.iter().rev().skip(1))
        .map(|seq| recorder.attempts[seq].cost)
        .sum();
    assert_eq!(spare, recorder.spare_bytes);
    for (stranger, bytes) in
        [(false, recorder.router_traces.bytes), (true, recorder.stranger_traces.bytes)]
    {
        let traces = all.iter().filter(|a| is_stranger(&a.owner) == stranger);
        let kept: usize = traces.filter_map(|a| a.trace.as_ref()).map(|t| t.size()).sum();
        assert_eq!(kept, bytes);
    }
    let strangers = all.iter().filter(|a| is_stranger(&a.owner)).count();
    assert_eq!(strangers, recorder.strangers.len());
    assert!(strangers <= recorder.limits.strangers);
    assert!(recorder.spare_bytes <= recorder.limits.record_bytes);
    assert!(recorder.router_traces.bytes <= recorder.limits.trace_bytes);
    assert!(recorder.stranger_traces.bytes <= recorder.limits.stranger_trace_bytes);
}

#[test]
fn a_flood_of_strangers_displaces_only_strangers() {
    let mut recorder = Recorder::new(Limits::default());
    log_in(&mut recorder, "home", 1, 0x0a00_0001);
    fail(&mut recorder, Some("other"), 2, 0x0a00_0002, "other");
    for id in 0..20_000_u32 {
        let name = format!("guess-{id}");
        fail(&mut recorder, None, 100 + u64::from(id), 0x0b00_0000 + id / 3, &name);
    }
    check(&recorder);
    assert_eq!(recorder.strangers.len(), 1024);
    assert_eq!(recorder.of(&owner("home")).len(), 1);
    assert_eq!(recorder.of(&owner("other")).len(), 1);
    assert!(recorder.of_stranger(b"guess-19999").len() == 1);
    assert!(recorder.of_stranger(b"guess-1").is_empty());
}

#[test]
fn one_address_can_not_take_the_places_of_all_strangers() {
    let mut recorder = Recorder::new(Limits::default());
    fail(&mut recorder, None, 1, 0x0b00_0001, "typo");
    for id in 0..5000 {
        fail(&mut recorder, None, 10 + id, 0x0b00_0002, &format!("guess-{id}"));
    }
    check(&recorder);
    assert_eq!(recorder.strangers.len(), 1 + STRANGERS_EACH);
    assert_eq!(recorder.of_stranger(b"typo").len(), 1);
}

#[test]
fn strangers_with_a_routers_name_do_not_displace_its_own_attempts() {
    let mut recorder = Recorder::new(Limits::default());
    log_in(&mut recorder, "r", 1, 0x0a00_0001);
    fail(&mut recorder, Some("r"), 2, 0x0a00_0001, "r");
    for id in 0..1000_u32 {
        fail(&mut recorder, Some("r"), 10 + u64::from(id), 0x0b00_0000 + id, "r");
    }
    check(&recorder);
    let ids: Vec<u64> = recorder.of(&owner("r")).iter().map(|a| a.record.id).collect();
    assert_eq!(ids.len(), 8);
    assert!(ids.contains(&1) && ids.contains(&2), "{ids:?}");
    assert_eq!(ids[0], 1009, "the newest comes first");
}

#[test]
fn the_same_failure_in_a_row_is_one_attempt_with_a_number() {
    let mut recorder = Recorder::new(Limits::default());
    for id in 1..=300 {
        fail(&mut recorder, Some("r"), id, 0x0a00_0001, "r");
    }
    let kept = recorder.of(&owner("r"));
    assert_eq!((kept.len(), kept[0].times, kept[0].first_ms), (1, 300, 1000));
    assert_eq!(kept[0].record.id, 300);
    // After a good one the count begins anew.
    log_in(&mut recorder, "r", 301, 0x0a00_0001);
    fail(&mut recorder, Some("r"), 302, 0x0a00_0001, "r");
    assert_eq!(recorder.of(&owner("r"))[0].times, 1);
    check(&recorder);
}

#[test]
fn an_attempt_without_a_name_from_a_known_address_is_kept_there() {
    let mut recorder = Recorder::new(Limits::default());
    log_in(&mut recorder, "r", 1, 0x0a00_0001);
    fail(&mut recorder, None, 2, 0x0a00_0001, "");
    fail(&mut recorder, None, 3, 0x0a00_0009, "");
    let at = |host: u32| Owner::Source(Ipv4Addr::from_bits(0x0a00_0000 + host).into());
    assert_eq!(recorder.of(&at(1)).len(), 1);
    assert_eq!(recorder.of(&at(9)).len(), 0);
    assert_eq!(recorder.strangers.len(), 1);
}

#[test]
fn a_login_becomes_a_tunnel_or_a_failure() {
    let mut recorder = Recorder::new(Limits::default());
    log_in(&mut recorder, "r", 1, 0x0a00_0001);
    let up = &recorder.of(&owner("r"))[0];
    assert_eq!((up.record.outcome.code(), up.record.at(Step::Up)), ("up", Some(50)));
    recorder.down("r", 1, 90_000, "peer_closed");
    assert_eq!(recorder.of(&owner("r"))[0].record.outcome, Outcome::Up, "it was a good login");

    let (mut flight, now) = flight(2, 0x0a00_0001, "r");
    flight.allowed("r".into());
    flight.push_reply(now, "AES-256-CBC", "SHA1");
    let (record, trace) = flight.logged_in();
    recorder.logged_in(record, trace);
    recorder.down("r", 2, 4000, "connection_reset");
    let lost = &recorder.of(&owner("r"))[0].record;
    assert_eq!(explain::cause(lost), "left_after_push_reply");
}

#[test]
fn only_the_last_attempt_of_a_router_keeps_its_trace_and_bytes_are_bounded() {
    let limits = Limits { trace_bytes: 20_000, ..Limits::default() };
    let mut recorder = Recorder::new(limits);
    for router in 0..200_u32 {
        for id in 0..3_u32 {
            let name = format!("r{router}");
            log_in(&mut recorder, &name, u64::from(router * 10 + id + 1), 0x0a00_0000 + router);
        }
    }
    check(&recorder);
    let traced = recorder.of(&owner("r199"));
    assert!(traced[0].trace.is_some() && traced[1].trace.is_none());
    assert!(recorder.of(&owner("r0"))[0].trace.is_none(), "older ones had to go");
    assert_eq!(recorder.of(&owner("r0")).len(), 3);
}

#[test]
fn memory_has_a_bound_and_the_newest_of_each_router_stays() {
    let limits = Limits { record_bytes: 40_000, ..Limits::default() };
    let mut recorder = Recorder::new(limits);
    for round in 0..8_u32 {
        for router in 0..100_u32 {
            let id = u64::from(round * 1000 + router + 1);
            log_in(&mut recorder, &format!("r{router}"), id, 0x0a00_0000 + router);
        }
    }
    check(&recorder);
    for router in 0..100 {
        assert_eq!(recorder.of(&owner(&format!("r{router}")))[0].record.id, 7001 + router);
    }
    recorder.forget("r5");
    assert!(recorder.of(&owner("r5")).is_empty());
    check(&recorder);
}

#[test]
fn a_walk_sees_every_attempt_once_and_the_newest_first() {
    let mut recorder = Recorder::new(Limits::default());
    for id in 1..=100 {
        fail(&mut recorder, None, id, u32::try_from(id).unwrap(), "x");
    }
    let (mut before, mut seen) = (u64::MAX, Vec::new());
    loop {
        let (page, next) = recorder.walk(before, 7);
        seen.extend(page.iter().map(|a| a.record.id));
        let Some(next) = next else { break };
        before = next;
        // What comes in meanwhile does not shift the pages.
        fail(&mut recorder, None, 1000 + before, 0x0c00_0000, "y");
    }
    let expected: Vec<u64> = (1..=100).rev().collect();
    assert_eq!(seen, expected);
}

proptest! {
    #[test]
    fn the_counters_agree_with_what_is_kept(
        steps in prop::collection::vec((0..5_u8, 0..6_u32, 0..4_u32), 0..200)
    ) {
        let limits = Limits {
            attempts_each: 3,
            record_bytes: 3000,
            strangers: 5,
            trace_bytes: 2500,
            stranger_trace_bytes: 1000,
        };
        let mut recorder = Recorder::new(limits);
        for (id, (what, who, place)) in (1..).zip(steps) {
            let name = format!("r{who}");
            let source = 0x0a00_0000 + place;
            match what {
                0 => log_in(&mut recorder, &name, id, source),
                1 => fail(&mut recorder, Some(&name), id, source, &name),
                2 => fail(&mut recorder, None, id, source, &name),
                3 => fail(&mut recorder, None, id, source, ""),
                _ if who == 0 => recorder.forget(&name),
                _ => recorder.down(&name, id - 1, id * 1000, "peer_closed"),
            }
            check(&recorder);
        }
    }
}
