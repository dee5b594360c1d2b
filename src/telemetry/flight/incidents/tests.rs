//! Planted causes in a synthetic fleet with noise: each has to be named first.

use std::time::Duration;

use super::*;
use crate::telemetry::clock;
use crate::telemetry::flight::capture::Trace;
use crate::telemetry::flight::hello::tests::hello;
use crate::telemetry::flight::{Flight, KeyExchange, Record};
use crate::telemetry::flight::{Limits, Recorder};

/// Routers of the synthetic fleet.
const ROUTERS: u32 = 2000;
/// 2026-11-22 02:58:00 UTC.
const NIGHT_MS: u64 = 1_795_316_280_000;
const CIPHERS: [&str; 2] = ["AES-256-GCM", "AES-256-CBC"];

/// A fleet of four kinds of clients on two listeners in eight /16 networks.
struct Stage {
    recorder: Recorder,
    now_ms: u64,
    next: u64,
    certificates: u32,
    random: u64,
}

impl Stage {
    /// Everybody is up since an hour; a few have flapped since, strangers knock.
    fn new() -> Self {
        let mut stage = Self {
            recorder: Recorder::new(Limits::default()),
            now_ms: NIGHT_MS - 3_600_000,
            next: 1,
            certificates: 0,
            random: 20_261_122,
        };
        for router in 0..ROUTERS {
            stage.log_in(router);
        }
        stage.now_ms = NIGHT_MS - 600_000;
        for router in [3, 700, 1500, 1999] {
            stage.fall(router, "peer_closed");
            stage.now_ms += 7000;
            stage.log_in(router);
        }
        stage.fall(42, "peer_dead");
        stage.refuse(77, "wrong_password");
        for stranger in 0..300_u32 {
            let source = IpAddr::V4(Ipv4Addr::from_bits(0xc633_6400 + stranger % 9));
            let (flight, accepted) = stage.flight(source, 0);
            let (record, trace) = flight.failed(accepted, "not_openvpn", "");
            stage.recorder.failed(None, record, trace);
        }
        stage.now_ms = NIGHT_MS;
        stage
    }

    fn name(router: u32) -> Arc<str> {
        format!("router-{router:04}").into()
    }

    /// Eight /16 networks, a /24 for each fifty routers in them.
    fn source(router: u32) -> IpAddr {
        let (net, host) = (router % 8, router / 8);
        Ipv4Addr::from_bits(0x0a00_0000 | net << 16 | (host / 50) << 8 | (host % 50 + 1)).into()
    }

    fn listener(router: u32) -> usize {
        usize::from(router % 5 == 4)
    }

    fn options(router: u32) -> &'static str {
        match router % 7 {
            0..=2 => "V4,dev-type tun,cipher AES-256-CBC,auth SHA1",
            3..=4 => "V4,dev-type tun,cipher AES-128-CBC,auth SHA1",
            5 => "V4,dev-type tun,cipher AES-256-GCM,auth [null-digest]",
            _ => "V4,dev-type tun,cipher AES-256-CBC,auth SHA256",
        }
    }

    fn flight(&mut self, source: IpAddr, listener: usize) -> (Flight, std::time::Instant) {
        let (id, now) = (self.next, clock::now());
        self.next += 1;
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let port = 1024 + u16::try_from(self.random >> 50).unwrap();
        let source = SocketAddr::new(source, port);
        let mut flight = Flight::new(id, now, self.now_ms, source, listener, false);
        flight.served_with(self.certificates);
        (flight, now)
    }

    /// As far as the key exchange.
    fn begun(&mut self, router: u32) -> (Flight, std::time::Instant) {
        let (mut flight, now) = self.flight(Self::source(router), Self::listener(router));
        flight.tls_input(now, &hello(0x0303, &[0x2f, 0x35], &[]));
        flight.tls_established(now, "TLSv1.2", "X", None);
        let name = Self::name(router);
        let said = KeyExchange {
            username: name.as_bytes(),
            options: Self::options(router),
            peer_info: if router.is_multiple_of(2) { "IV_PROTO=2\n" } else { "" },
        };
        flight.key_exchange(now, said);
        (flight, now)
    }

    fn log_in(&mut self, router: u32) {
        let (mut flight, _) = self.begun(router);
        flight.allowed(Self::name(router));
        let (record, trace) = flight.logged_in();
        let id = record.id;
        self.recorder.logged_in(record, trace);
        self.recorder.up(&Self::name(router), id, self.now_ms);
    }

    fn fall(&mut self, router: u32, reason: &'static str) {
        let name = Self::name(router);
        let client = self.recorder.fleet.routers[&name].client;
        self.recorder.down(&name, client, self.now_ms, reason);
    }

    /// A login that is refused after the key exchange.
    fn refuse(&mut self, router: u32, reason: &'static str) {
        let (mut flight, now) = self.begun(router);
        if !matches!(reason, "wrong_password" | "disabled" | "authenticator_unavailable") {
            flight.allowed(Self::name(router));
        }
        let (record, trace) = flight.failed(now, reason, "");
        self.recorder.failed(Some(Self::name(router)), record, trace);
    }

    /// A login that fails before it has given a name.
    fn nameless(&mut self, router: u32, fail: fn(Flight, std::time::Instant) -> (Record, Trace)) {
        let (flight, now) = self.flight(Self::source(router), Self::listener(router));
        let (record, trace) = fail(flight, now);
        self.recorder.failed(None, record, trace);
    }

    /// What `why --fleet` says, and how long it took.
    fn incidents(&self) -> Vec<Incident> {
        let context = Context {
            now_ms: self.now_ms + 60_000,
            from_ms: self.now_ms - 900_000,
            listeners: &[
                ("0.0.0.0:8443".parse().unwrap(), "none"),
                ("0.0.0.0:9443".parse().unwrap(), "tls-auth"),
            ],
            certificate: Some((1_895_316_280, "vpn.example.net")),
            certificates_changed_ms: (self.certificates > 0).then_some(NIGHT_MS - 60_000),
            ciphers: &CIPHERS,
            strangers: true,
        };
        self.incidents_with(&context)
    }

    fn incidents_with(&self, context: &Context<'_>) -> Vec<Incident> {
        let began = clock::now();
        let found = find(&self.recorder.fleet, context, &|_| true);
        let took = clock::now() - began;
        assert!(took < Duration::from_secs(1), "{took:?}");
        for incident in &found {
            println!("{} | {}", incident.sentence, incident.command);
        }
        found
    }
}

fn trust_fails(mut flight: Flight, now: std::time::Instant) -> (Record, Trace) {
    flight.received(now, &[0, 14, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0]);
    flight.tls_input(now, &hello(0x0303, &[0x2f, 0x35], &[]));
    flight.tls_output(now);
    flight.tls_input(now, &[21, 3, 3, 0, 2, 2, 48]);
    flight.tls_failed("the peer does not know the CA of our certificate");
    flight.failed(now, "tls", "")
}

#[test]
fn a_server_certificate_that_expired_is_named_first() {
    let mut stage = Stage::new();
    // The concentrator was restarted in between; all fall within four seconds.
    for router in 0..ROUTERS - 14 {
        stage.now_ms = NIGHT_MS + u64::from(router) * 2;
        stage.fall(router, "peer_closed");
    }
    for router in 0..ROUTERS - 14 {
        stage.now_ms = NIGHT_MS + 8000 + u64::from(router) * 5;
        stage.nameless(router, trust_fails);
    }
    let context = Context {
        now_ms: NIGHT_MS + 120_000,
        from_ms: NIGHT_MS - 780_000,
        certificate: Some((NIGHT_MS / 1000, "vpn.example.net")),
        ..Context::default()
    };
    let first = &stage.incidents_with(&context)[0];
    assert_eq!(first.cause, "server_certificate");
    assert_eq!((first.count, first.of), (1986, 2000));
    assert!(
        first.sentence.starts_with("1,986 of 2,000 routers fell within 4 s at 2026-11-22 02:58:00"),
        "{}",
        first.sentence
    );
    assert!(
        first
            .sentence
            .contains("certificate of vpn.example.net expired at 2026-11-22 02:58:00 UTC"),
        "{}",
        first.sentence
    );
    assert_eq!(first.command, "tunnelhead doctor");
}

#[test]
fn a_server_certificate_that_was_replaced_is_named_first() {
    let mut stage = Stage::new();
    stage.certificates = 1;
    // Only those that happen to reconnect meet it.
    for router in (0..ROUTERS).step_by(3) {
        stage.now_ms = NIGHT_MS + u64::from(router) * 20;
        stage.fall(router, "connection_reset");
        stage.now_ms += 3000;
        stage.nameless(router, trust_fails);
    }
    let first = &stage.incidents()[0];
    assert_eq!((first.cause, first.count), ("server_certificate", 667));
    assert!(
        first.sentence.contains("was changed at 2026-11-22 02:57:00 UTC"),
        "{}",
        first.sentence
    );
    assert_eq!(first.shared[0].0, "server_certificate");
}

#[test]
fn a_listener_with_a_wrong_key_is_named_first() {
    let mut stage = Stage::new();
    let behind: Vec<u32> = (0..ROUTERS).filter(|router| Stage::listener(*router) == 1).collect();
    for router in &behind {
        stage.now_ms = NIGHT_MS + u64::from(*router);
        stage.fall(*router, "peer_closed");
        stage.now_ms += 5000;
        stage.nameless(*router, |mut flight, now| {
            flight.received(now, &[0, 3, 0x38, 9, 9]);
            flight.failed(now, "first_packet", "")
        });
    }
    let first = &stage.incidents()[0];
    assert_eq!((first.cause, first.count, first.of), ("wrap_mismatch", 400, 400));
    assert_eq!(first.shared, [("listener", "of listener 0.0.0.0:9443 (tls-auth)".to_owned())]);
    assert!(first.sentence.starts_with("All 400 routers of listener"), "{}", first.sentence);
}

#[test]
fn a_network_that_is_gone_is_named_first() {
    let mut stage = Stage::new();
    let lost: Vec<u32> = (0..ROUTERS).filter(|router| router % 8 == 5).collect();
    for router in &lost {
        stage.now_ms = NIGHT_MS + u64::from(*router) * 10;
        stage.fall(*router, if router % 16 == 5 { "tcp_timeout" } else { "peer_dead" });
    }
    let first = &stage.incidents()[0];
    assert_eq!((first.cause, first.count, first.of), ("lost", 250, 250));
    assert_eq!(first.shared, [("source", "in 10.5.0.0/16".to_owned())]);
    assert!(first.command.starts_with("tunnelhead why router-"), "{}", first.command);
}

#[test]
fn a_cipher_that_was_taken_away_is_named_first() {
    let mut stage = Stage::new();
    let old: Vec<u32> = (0..ROUTERS).filter(|router| matches!(router % 7, 3 | 4)).collect();
    for router in &old {
        stage.now_ms = NIGHT_MS + u64::from(*router) * 3;
        stage.fall(*router, "peer_closed");
        stage.refuse(*router, "cipher_not_allowed");
    }
    let all = stage.incidents();
    let first = &all[0];
    assert_eq!(first.cause, "cipher");
    // With and without peer info they are two kinds; together they are all of them.
    let of_cipher: usize = all.iter().filter(|i| i.cause == "cipher").map(|i| i.count).sum();
    assert_eq!(of_cipher, old.len());
    assert!(first.sentence.contains("AES-256-GCM, AES-256-CBC"), "{}", first.sentence);
    // One firmware alone is told by what it says.
    let mut stage = Stage::new();
    let one: Vec<u32> = old.into_iter().filter(|router| router.is_multiple_of(2)).collect();
    for router in &one {
        stage.fall(*router, "peer_closed");
        stage.refuse(*router, "cipher_not_allowed");
    }
    let first = &stage.incidents()[0];
    assert_eq!((first.cause, first.count, first.of), ("cipher", one.len(), one.len()));
    assert_eq!(
        first.shared,
        [("client", "with \"IV_PROTO=2, cipher AES-128-CBC, auth SHA1\"".to_owned())]
    );
}

#[test]
fn an_authenticator_that_is_down_is_named_first() {
    let mut stage = Stage::new();
    for router in (0..ROUTERS).step_by(2) {
        stage.now_ms = NIGHT_MS + u64::from(router) * 100;
        stage.fall(router, "connection_reset");
        stage.refuse(router, "authenticator_unavailable");
        stage.refuse(router, "authenticator_unavailable");
    }
    let first = &stage.incidents()[0];
    assert_eq!((first.cause, first.count), ("authenticator_unavailable", 1000));
    assert_eq!(first.shared, []);
}

#[test]
fn a_full_pool_and_disabled_accounts_are_named_first() {
    for (reason, cause) in
        [("pool_full", "pool_full"), ("store_degraded", "store_degraded"), ("disabled", "disabled")]
    {
        let mut stage = Stage::new();
        for router in 100..600 {
            stage.fall(
                router,
                if reason == "disabled" { "account_disabled" } else { "peer_closed" },
            );
            stage.refuse(router, reason);
        }
        let first = &stage.incidents()[0];
        assert_eq!((first.cause, first.count), (cause, 500), "{}", first.sentence);
    }
}

#[test]
fn noise_alone_is_told_as_what_it_is() {
    let stage = Stage::new();
    let all = stage.incidents();
    assert!(all.iter().all(|incident| incident.count <= 5 || incident.of == 0), "{all:?}");
    let strangers = all.iter().find(|incident| incident.of == 0).unwrap();
    assert!(
        strangers.sentence.starts_with("300 attempts from 9 addresses"),
        "{}",
        strangers.sentence
    );
}

#[test]
fn whoever_is_in_trouble_now_goes_before_many_who_are_back() {
    let mut stage = Stage::new();
    for router in 0..ROUTERS {
        stage.fall(router, "peer_closed");
    }
    stage.now_ms += 20_000;
    for router in 0..ROUTERS {
        if router % 8 == 2 {
            stage.refuse(router, "disabled");
        } else {
            stage.log_in(router);
        }
    }
    let all = stage.incidents();
    assert_eq!((all[0].cause, all[0].count, all[0].recovered), ("disabled", 250, 0));
    assert_eq!((all[1].cause, all[1].count, all[1].recovered), ("lost", 1750, 1750));
    assert!(all[1].sentence.ends_with("; all are back."), "{}", all[1].sentence);
}

#[test]
fn who_may_not_see_a_router_is_not_told_of_it() {
    let mut stage = Stage::new();
    for router in 0..ROUTERS {
        stage.refuse(router, "pool_full");
        stage.fall(router, "peer_closed");
        stage.refuse(router, "pool_full");
    }
    let context = Context {
        now_ms: stage.now_ms + 1000,
        from_ms: stage.now_ms - 900_000,
        ..Context::default()
    };
    let all = find(&stage.recorder.fleet, &context, &|name| name.ends_with('7'));
    assert_eq!((all[0].count, all[0].of), (200, 200));
    assert!(all.iter().all(|incident| incident.of != 0), "no strangers");
    assert!(all.iter().flat_map(|incident| &incident.examples).all(|name| name.ends_with('7')));
}

#[test]
fn nobody_knocking_with_the_name_of_a_router_that_is_up_makes_trouble_for_it() {
    let mut stage = Stage::new();
    let before = stage.incidents().len();
    for _ in 0..500 {
        stage.refuse(8, "wrong_password");
    }
    let names: Vec<Incident> = stage.incidents();
    assert_eq!(names.len(), before);
    assert!(names.iter().all(|incident| !incident.examples.contains(&Stage::name(8))));
}
