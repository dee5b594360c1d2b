//! The reference client against the session, in memory and in virtual time: every profile of
//! `docs/ROUTEROS.md` that should log in does, and the client finds nothing to complain about.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a failed step is the report")]
#![expect(clippy::indexing_slicing, reason = "test code: a failed step is the report")]

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tunnelhead::proto::client::{
    Client, ClientConfig, ClientEvent, ClientWrap, Quirks, SwitchPolicy,
};
use tunnelhead::proto::session::{
    Allowed, Assignment, CloseReason, Event, Identity, Session, SessionConfig, TlsTask, Verdict,
    WrapConfig,
};
use tunnelhead::tls::TlsEngine;
use tunnelhead::tls::null::{NullConfig, NullEngine, NullRole};
use tunnelhead_crypto::{
    AuthDigest, DataCipher, FastRandom, KeyDirection, Metadata, NonceAuditor, Secret, SecretBytes,
    SecureRandom, StaticKey, TlsCryptV2ClientKey, TlsCryptV2ServerKey,
};

const STOCK: &str = "IV_VER=2.6.14\nIV_MTU=1600\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM\n\
    IV_PROTO=990\n";

/// Client, server, the wires between them and the clock.
struct Duet {
    client: Client,
    server: Session,
    now: Instant,
    rng: FastRandom,
    /// Decides about chunks and order.
    dice: FastRandom,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    client_tls: BTreeMap<u32, NullEngine>,
    server_tls: BTreeMap<u32, NullEngine>,
    at_server: Vec<Vec<u8>>,
    at_client: Vec<Vec<u8>>,
    connected: bool,
    up: bool,
    client_rekeys: usize,
    server_rekeys: usize,
    client_closed: Option<String>,
    server_closed: Option<CloseReason>,
    violations: Vec<String>,
    seed: u64,
}

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn random(seed: u64, stream: u8) -> FastRandom {
    let mut bytes = [stream; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    FastRandom::from_seed(bytes)
}

fn server_config(wrap: WrapConfig) -> SessionConfig {
    SessionConfig {
        wrap,
        ciphers: vec![DataCipher::Aes256Gcm, DataCipher::Aes256Cbc],
        ping: Duration::from_secs(20),
        restart: Duration::from_secs(90),
        management: Ipv4Addr::new(100, 127, 255, 254),
        tun_mtu: 1500,
        hand_window: Duration::from_secs(60),
        transition_window: Duration::from_secs(3600),
        linger: Duration::from_secs(2),
        linger_max: Duration::from_secs(30),
        auth_failed_linger: Duration::from_secs(5),
        rekey_after: None,
        credential_key: Secret::new([3; 32]),
        preauth_bytes: 64 * 1024,
    }
}

impl Duet {
    fn new(seed: u64, client: ClientConfig, wrap: WrapConfig) -> Self {
        let now = start();
        let mut rng = random(seed, 1);
        let client = Client::new(client, now, 1_700_000_000, &mut rng).unwrap();
        let config = Arc::new(server_config(wrap));
        let server = Session::new(config, now, 1_700_000_000, &mut rng).unwrap();
        Self {
            client,
            server,
            now,
            rng,
            dice: random(seed, 2),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            client_tls: BTreeMap::new(),
            server_tls: BTreeMap::new(),
            at_server: Vec::new(),
            at_client: Vec::new(),
            connected: false,
            up: false,
            client_rekeys: 0,
            server_rekeys: 0,
            client_closed: None,
            server_closed: None,
            violations: Vec::new(),
            seed,
        }
    }

    fn roll(&mut self, below: usize) -> usize {
        let mut bytes = [0; 4];
        self.dice.fill(&mut bytes).unwrap();
        usize::try_from(u32::from_be_bytes(bytes)).unwrap() % below.max(1)
    }

    fn chunk(&mut self, len: usize) -> usize {
        match self.roll(4) {
            0 => 1,
            1 => 1 + self.roll(40),
            2 => 1 + self.roll(1500),
            _ => len,
        }
        .min(len)
    }

    /// Runs until neither side has anything left to do at this moment.
    fn settle(&mut self) {
        for _ in 0..200_000 {
            let mut busy = self.drain_client() | self.drain_server();
            if !self.to_server.is_empty() && self.server_closed.is_none() {
                let len = self.chunk(self.to_server.len());
                let mut bytes: Vec<u8> = self.to_server.drain(..len).collect();
                let sink = &mut self.at_server;
                // An error shows as the close reason.
                let _ = self.server.handle_link(self.now, &mut bytes, &mut |packet| {
                    sink.push(packet.to_vec());
                });
                busy = true;
            }
            if !self.to_client.is_empty() && self.client_closed.is_none() {
                let len = self.chunk(self.to_client.len());
                let mut bytes: Vec<u8> = self.to_client.drain(..len).collect();
                let sink = &mut self.at_client;
                self.client.handle_link(self.now, &mut bytes, &mut |packet| {
                    sink.push(packet.to_vec());
                });
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("seed {}: the two never settle", self.seed);
    }

    fn drain_client(&mut self) -> bool {
        let mut out = Vec::new();
        let mut busy = self.client.poll_transmit(self.now, &mut out);
        self.to_server.extend(out);
        while let Some(event) = self.client.poll_event() {
            busy = true;
            match event {
                ClientEvent::Tls(TlsTask { engine, op }) => {
                    let seed = self.seed * 1000 + u64::from(engine.0);
                    let tls = self.client_tls.entry(engine.0).or_insert_with(|| {
                        NullEngine::new(NullConfig::new(NullRole::Client, seed))
                    });
                    let answer = tls.handle(op);
                    if !answer.is_nothing() {
                        let answer = answer.for_engine(engine);
                        self.client.handle_tls_answer(self.now, answer, &mut self.rng);
                    }
                }
                ClientEvent::Connected { .. } => self.connected = true,
                ClientEvent::KeysChanged { .. } => self.client_rekeys += 1,
                ClientEvent::ProtocolViolation(what) => self.violations.push(what),
                ClientEvent::Close(reason) => self.client_closed = Some(reason),
                _ => {}
            }
        }
        busy
    }

    fn drain_server(&mut self) -> bool {
        let mut out = Vec::new();
        let mut busy = self.server.poll_transmit(self.now, &mut out);
        self.to_client.extend(out);
        while let Some(event) = self.server.poll_event() {
            busy = true;
            match event {
                Event::Tls(TlsTask { engine, op }) => {
                    let seed = self.seed * 1000 + 500 + u64::from(engine.0);
                    let answered = !matches!(
                        op,
                        tunnelhead::proto::session::TlsOp::Open
                            | tunnelhead::proto::session::TlsOp::Close
                    );
                    let tls = self.server_tls.entry(engine.0).or_insert_with(|| {
                        NullEngine::new(NullConfig::new(NullRole::Server, seed))
                    });
                    let answer = tls.handle(op).for_engine(engine);
                    if answered {
                        let _ = self.server.handle_tls_answer(self.now, answer, &mut self.rng);
                    }
                }
                Event::AuthNeeded { ticket, request } => {
                    assert_eq!(request.username, b"bob");
                    let identity = Identity("bob".into());
                    let allowed = Allowed { identity, cipher: None, auth: None };
                    self.server.handle_verdict(self.now, ticket, Verdict::Allow(allowed));
                }
                Event::AssignmentNeeded { ticket, .. } => {
                    let assignment = Assignment {
                        address: Ipv4Addr::new(100, 64, 7, 9),
                        prefix_len: 24,
                        gateway: Ipv4Addr::new(100, 64, 7, 1),
                    };
                    self.server.handle_assignment(self.now, ticket, Ok(assignment));
                }
                Event::Up => self.up = true,
                Event::KeysChanged { .. } => self.server_rekeys += 1,
                Event::Close(reason) => self.server_closed = Some(reason),
                _ => {}
            }
        }
        busy
    }

    /// Lets time pass, stopping at every deadline on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let next = [self.client.poll_timeout(), self.server.poll_timeout()];
            self.now = next.into_iter().flatten().min().unwrap_or(end).clamp(self.now, end);
            self.client.handle_timeout(self.now, &mut self.rng);
            let _ = self.server.handle_timeout(self.now, &mut self.rng);
            self.settle();
            if self.now >= end {
                return;
            }
        }
    }

    fn exchange_packets(&mut self, count: usize) {
        for number in 0..count {
            let mut packet = vec![0x45; 60];
            packet[..8].copy_from_slice(&(number as u64).to_be_bytes());
            packet[0] = 0x45;
            let mut out = Vec::new();
            self.client.send_packet(self.now, &packet, &mut self.rng, &mut out).unwrap();
            self.to_server.extend(out.drain(..));
            self.server.seal(self.now, &packet, &mut self.rng, &mut out).unwrap();
            self.to_client.extend(out);
            if self.roll(3) == 0 {
                self.settle();
            }
        }
        self.settle();
        let (at_server, at_client) =
            (std::mem::take(&mut self.at_server), std::mem::take(&mut self.at_client));
        assert_eq!((at_server.len(), at_client.len()), (count, count), "seed {}", self.seed);
        assert_eq!(at_server, at_client, "seed {}", self.seed);
    }

    fn fine(&self) {
        assert_eq!(self.violations, Vec::<String>::new(), "seed {}", self.seed);
        assert_eq!(self.client_closed, None, "seed {}", self.seed);
        assert_eq!(self.server_closed, None, "seed {}", self.seed);
    }
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
            let mut duet = Duet::new(seed, config, WrapConfig::None);
            duet.pass(Duration::from_secs(3));
            assert!(
                duet.connected,
                "{name} {seed}: {:?} {:?}",
                duet.violations, duet.server_closed
            );
            duet.exchange_packets(20);
            assert!(duet.up);
            for round in 1..=9 {
                if round % 2 == 0 {
                    assert!(duet.client.start_rekey(duet.now));
                } else {
                    duet.server.start_rekey(duet.now).unwrap();
                }
                duet.exchange_packets(20);
                duet.pass(Duration::from_secs(1));
                assert_eq!((duet.client_rekeys, duet.server_rekeys), (round, round), "{name}");
                duet.exchange_packets(5);
                duet.pass(Duration::from_secs(61));
                duet.exchange_packets(5);
            }
            duet.fine();
            assert_eq!(switch == SwitchPolicy::Immediately, name == "stock 2.4");
        }
    }
}

#[test]
fn every_wrapping_carries_logins_and_renegotiations() {
    for seed in 0..4 {
        let _audit = NonceAuditor::isolate();
        for (index, (client, server)) in wraps(&mut random(seed, 9)).into_iter().enumerate() {
            let mut duet = Duet::new(
                seed * 10 + index as u64,
                ClientConfig { wrap: client, ..base() },
                server,
            );
            duet.pass(Duration::from_secs(3));
            assert!(duet.connected, "{index}: {:?} {:?}", duet.violations, duet.server_closed);
            duet.exchange_packets(5);
            assert!(duet.client.start_rekey(duet.now));
            duet.pass(Duration::from_secs(61));
            duet.server.start_rekey(duet.now).unwrap();
            duet.pass(Duration::from_secs(61));
            assert_eq!((duet.client_rekeys, duet.server_rekeys), (2, 2));
            duet.exchange_packets(5);
            duet.fine();
        }
    }
}

#[test]
fn both_sides_may_begin_a_rekey_at_once() {
    for seed in 0..20 {
        let _audit = NonceAuditor::isolate();
        let mut duet = Duet::new(seed, base(), WrapConfig::None);
        duet.pass(Duration::from_secs(3));
        assert!(duet.client.start_rekey(duet.now));
        duet.server.start_rekey(duet.now).unwrap();
        duet.exchange_packets(10);
        duet.pass(Duration::from_secs(70));
        duet.exchange_packets(10);
        assert_eq!((duet.client_rekeys, duet.server_rekeys), (1, 1), "seed {seed}");
        duet.fine();
    }
}

#[test]
fn a_client_that_never_pings_stays_for_ten_restart_periods() {
    let _audit = NonceAuditor::isolate();
    let quiet = cbc(None, AuthDigest::Sha1, Quirks::default());
    let mut duet = Duet::new(1, quiet, WrapConfig::None);
    duet.pass(Duration::from_secs(900));
    duet.exchange_packets(3);
    duet.fine();
    assert!(duet.client.stats().pings_in >= 40);
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
    let mut duet = Duet::new(1, config, WrapConfig::None);
    duet.pass(Duration::from_secs(10));
    assert!(!duet.connected);
    assert_eq!(duet.client_closed.as_deref(), Some("the login failed"));
    assert_eq!(duet.server_closed.map(|reason| reason.code()), Some("cipher_unsupported"));
}
