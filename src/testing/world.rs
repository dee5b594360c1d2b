//! A reference client and a server session in one process, with virtual time and a stand-in for
//! TLS: the same seed gives the same run, byte for byte.
//!
//! The world is a stream in each direction, a clock, and slow answers (TLS, authenticator, address).
//! [`Faults`] says how badly it treats them. Both ends check everything they receive: packets
//! arrive in order, each once; the client watches the server's manners; every seal is recorded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tunnelhead_crypto::{DataCipher, FastRandom, RandomError, Secret, SecureRandom};

use crate::proto::client::{Client, ClientConfig, ClientEvent};
use crate::proto::session::{
    Allowed, Assignment, AuthRequest, CloseReason, Event, Identity, Session, SessionConfig, Ticket,
    TlsAnswer, TlsOp, TlsTask, Verdict, WrapConfig,
};
use crate::tls::TlsEngine as _;
use crate::tls::null::{NullConfig, NullEngine, NullRole};

/// Where virtual time begins; only differences count.
#[must_use]
pub fn origin() -> Instant {
    crate::telemetry::clock::now()
}

/// A generator of its own for each purpose of a run.
#[must_use]
pub fn random(seed: u64, stream: u8) -> FastRandom {
    let mut bytes = [stream; 32];
    for (to, from) in bytes.iter_mut().zip(seed.to_be_bytes()) {
        *to = from;
    }
    FastRandom::from_seed(bytes)
}

/// The settings that the simulated server runs with.
#[must_use]
pub fn server_config(wrap: WrapConfig) -> SessionConfig {
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
        judge_rekeys: true,
        preauth_bytes: 64 * 1024,
        frame_bytes: 2048,
    }
}

/// How badly the world treats its two.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Answers to slow questions come this much later at most; zero: at once.
    pub late: Duration,
    /// Of a thousand answers this many never come.
    pub lost_permille: u32,
}

#[derive(Debug)]
enum Slow {
    ServerTls(TlsAnswer),
    Verdict(Ticket, Verdict),
    Assignment(Ticket, Assignment),
}

/// Client, server, the streams between them and the clock.
pub struct World {
    /// The client.
    pub client: Client,
    /// The server.
    pub server: Session,
    /// Virtual time.
    pub now: Instant,
    /// How badly it goes.
    pub faults: Faults,
    /// The client is connected.
    pub connected: bool,
    /// The server has reported that packets can flow.
    pub up: bool,
    /// Rekeys that the client has finished.
    pub client_rekeys: usize,
    /// Rekeys that the server has finished.
    pub server_rekeys: usize,
    /// Credentials that rekeys have presented; whoever plays the authenticator takes them.
    pub presented: Vec<AuthRequest>,
    /// Why the client closed, if it did.
    pub client_closed: Option<String>,
    /// Why the server closed, if it did.
    pub server_closed: Option<CloseReason>,
    /// What the client had to complain about.
    pub violations: Vec<String>,
    /// Answers that were lost.
    pub lost: usize,
    /// Hand-overs that worked.
    pub hand_overs: usize,
    config: Arc<SessionConfig>,
    rng: FastRandom,
    dice: FastRandom,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// The stream stands still until then.
    server_deaf_until: Instant,
    client_deaf_until: Instant,
    client_tls: BTreeMap<u32, NullEngine>,
    server_tls: BTreeMap<u32, NullEngine>,
    /// Engines of the server whose answers are lost.
    dead: BTreeSet<u32>,
    slow: Vec<(Instant, Slow)>,
    last_server_tls: Instant,
    at_server: VecDeque<Vec<u8>>,
    at_client: VecDeque<Vec<u8>>,
    sent_up: u64,
    sent_down: u64,
    got_up: u64,
    got_down: u64,
    seed: u64,
}

impl World {
    /// A client and a server that have not met yet.
    ///
    /// # Errors
    /// Never with the generators used here.
    pub fn new(
        seed: u64,
        client: ClientConfig,
        wrap: WrapConfig,
        faults: Faults,
    ) -> Result<Self, RandomError> {
        let now = origin();
        let mut rng = random(seed, 1);
        let config = Arc::new(server_config(wrap));
        Ok(Self {
            client: Client::new(client, now, 1_700_000_000, &mut rng)?,
            server: Session::new(Arc::clone(&config), now, 1_700_000_000, &mut rng)?,
            now,
            faults,
            connected: false,
            up: false,
            client_rekeys: 0,
            server_rekeys: 0,
            presented: Vec::new(),
            client_closed: None,
            server_closed: None,
            violations: Vec::new(),
            lost: 0,
            hand_overs: 0,
            config,
            rng,
            dice: random(seed, 2),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            server_deaf_until: now,
            client_deaf_until: now,
            client_tls: BTreeMap::new(),
            server_tls: BTreeMap::new(),
            dead: BTreeSet::new(),
            slow: Vec::new(),
            last_server_tls: now,
            at_server: VecDeque::new(),
            at_client: VecDeque::new(),
            sent_up: 0,
            sent_down: 0,
            got_up: 0,
            got_down: 0,
            seed,
        })
    }

    /// A number below `below`, from the seed.
    pub fn roll(&mut self, below: u32) -> u32 {
        let mut bytes = [0; 4];
        // The generator of a seed doesn't fail.
        let _ = self.dice.fill(&mut bytes);
        u32::from_be_bytes(bytes) % below.max(1)
    }

    /// True once either side has closed.
    #[must_use]
    pub fn over(&self) -> bool {
        self.client_closed.is_some() || self.server_closed.is_some()
    }

    /// The stream towards the server (`true`) or the client stands still for a while.
    pub fn stall(&mut self, towards_server: bool, time: Duration) {
        let until = self.now + time;
        if towards_server {
            self.server_deaf_until = until;
        } else {
            self.client_deaf_until = until;
        }
    }

    /// Writes the server's session out and reads it back, as another process would. False if the
    /// session can't be written out at the moment.
    ///
    /// # Panics
    /// If what was written can't be read.
    pub fn hand_over(&mut self) -> bool {
        let mut bytes = Vec::new();
        if self.server.export(self.now, &mut bytes).is_err() {
            return false;
        }
        match Session::import(Arc::clone(&self.config), self.now, &bytes) {
            Ok(session) => self.server = session,
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
        // The old process's engines are gone with it.
        self.server_tls.clear();
        self.slow.retain(|(_, slow)| !matches!(slow, Slow::ServerTls(_)));
        self.hand_overs += 1;
        true
    }

    /// Sends numbered packets both ways, as far as both sides can.
    ///
    /// # Panics
    /// If a connected side can't send.
    pub fn send_packets(&mut self, up: u32, down: u32) {
        for _ in 0..up {
            if !self.connected || self.over() {
                break;
            }
            let packet = self.packet(self.sent_up);
            let mut out = Vec::new();
            let sent = self.client.send_packet(self.now, &packet, &mut self.rng, &mut out);
            assert!(sent.is_ok(), "seed {}: client: {sent:?}", self.seed);
            self.sent_up += 1;
            self.to_server.extend(out);
        }
        for _ in 0..down {
            if !self.up || self.over() {
                break;
            }
            let packet = self.packet(self.sent_down);
            let mut out = Vec::new();
            while self.server.poll_transmit(self.now, &mut out) {}
            let sent = self.server.seal(self.now, &packet, &mut self.rng, &mut out);
            assert!(sent.is_ok(), "seed {}: server: {sent:?}", self.seed);
            self.sent_down += 1;
            self.to_client.extend(out);
        }
    }

    fn packet(&mut self, number: u64) -> Vec<u8> {
        let len = 40 + self.roll(1400);
        let mut packet = vec![0x45; usize::try_from(len).unwrap_or(40)];
        for (to, from) in packet.iter_mut().skip(20).zip(number.to_be_bytes()) {
            *to = from;
        }
        packet
    }

    /// Runs until nothing is left to do at this moment.
    ///
    /// # Panics
    /// If it never ends, or a packet arrives twice, late or changed.
    pub fn settle(&mut self) {
        for _ in 0..200_000 {
            let busy = self.drain_client()
                | self.drain_server()
                | self.answer()
                | self.deliver_to_server()
                | self.deliver_to_client();
            self.check_arrivals();
            if !busy {
                return;
            }
        }
        panic!("seed {}: the two never settle", self.seed);
    }

    fn chunk(&mut self, len: usize) -> usize {
        let chunk = match self.roll(6) {
            0 => 1,
            1 => 1 + self.roll(40),
            2 => 1 + self.roll(1500),
            _ => u32::MAX,
        };
        usize::try_from(chunk).unwrap_or(len).min(len)
    }

    fn deliver_to_server(&mut self) -> bool {
        if self.to_server.is_empty()
            || self.server_closed.is_some()
            || self.now < self.server_deaf_until
        {
            return false;
        }
        let len = self.chunk(self.to_server.len());
        let mut bytes: Vec<u8> = self.to_server.drain(..len).collect();
        let sink = &mut self.at_server;
        // An error shows as the close event.
        let _ = self.server.handle_link(self.now, &mut bytes, &mut |packet| {
            sink.push_back(packet.to_vec());
        });
        true
    }

    fn deliver_to_client(&mut self) -> bool {
        if self.to_client.is_empty()
            || self.client_closed.is_some()
            || self.now < self.client_deaf_until
        {
            return false;
        }
        let len = self.chunk(self.to_client.len());
        let mut bytes: Vec<u8> = self.to_client.drain(..len).collect();
        let sink = &mut self.at_client;
        self.client.handle_link(self.now, &mut bytes, &mut |packet| {
            sink.push_back(packet.to_vec());
        });
        true
    }

    fn check_arrivals(&mut self) {
        for (queue, count) in
            [(&mut self.at_server, &mut self.got_up), (&mut self.at_client, &mut self.got_down)]
        {
            for packet in queue.drain(..) {
                let number = packet.get(20..28).and_then(|bytes| bytes.try_into().ok());
                let number = number.map(u64::from_be_bytes);
                assert_eq!(number, Some(*count), "seed {}: lost, repeated or changed", self.seed);
                *count += 1;
            }
        }
    }

    fn drain_client(&mut self) -> bool {
        let mut out = Vec::new();
        let mut busy = self.client.poll_transmit(self.now, &mut out);
        self.to_server.extend(out);
        while let Some(event) = self.client.poll_event() {
            busy = true;
            match event {
                ClientEvent::Tls(TlsTask { engine, op }) => {
                    let config = NullConfig::new(NullRole::Client, self.engine_seed(engine.0));
                    let tls =
                        self.client_tls.entry(engine.0).or_insert_with(|| NullEngine::new(config));
                    let answer = tls.handle(op);
                    // A client does its TLS before it reads on.
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
                    let answered = !matches!(op, TlsOp::Open | TlsOp::Close);
                    let seed = self.engine_seed(500 + engine.0);
                    let config = NullConfig::new(NullRole::Server, seed);
                    let tls =
                        self.server_tls.entry(engine.0).or_insert_with(|| NullEngine::new(config));
                    let answer = tls.handle(op).for_engine(engine);
                    // An engine that is lost stays lost: no answer of it comes after a missing one.
                    if answered && !self.dead.contains(&engine.0) && self.loses() {
                        self.dead.insert(engine.0);
                    }
                    if answered && !self.dead.contains(&engine.0) {
                        let due = self.due().max(self.last_server_tls);
                        self.last_server_tls = due;
                        self.slow.push((due, Slow::ServerTls(answer)));
                    }
                }
                Event::AuthNeeded { ticket, request } => {
                    assert_eq!(request.username, b"bob", "seed {}", self.seed);
                    let allowed =
                        Allowed { identity: Identity("bob".into()), cipher: None, auth: None };
                    if !self.loses() {
                        let due = self.due();
                        self.slow.push((due, Slow::Verdict(ticket, Verdict::Allow(allowed))));
                    }
                }
                Event::AssignmentNeeded { ticket, .. } => {
                    let assignment = Assignment {
                        address: Ipv4Addr::new(100, 64, 7, 9),
                        prefix_len: 24,
                        gateway: Ipv4Addr::new(100, 64, 7, 1),
                    };
                    if !self.loses() {
                        let due = self.due();
                        self.slow.push((due, Slow::Assignment(ticket, assignment)));
                    }
                }
                Event::Up => self.up = true,
                Event::KeysChanged { .. } => self.server_rekeys += 1,
                Event::RekeyPresented { request } => self.presented.push(*request),
                Event::Close(reason) => self.server_closed = Some(reason),
                Event::Established => {}
            }
        }
        busy
    }

    fn engine_seed(&self, engine: u32) -> u64 {
        self.seed.wrapping_mul(1000).wrapping_add(u64::from(engine))
    }

    fn loses(&mut self) -> bool {
        let lost = self.faults.lost_permille > 0 && self.roll(1000) < self.faults.lost_permille;
        self.lost += usize::from(lost);
        lost
    }

    fn due(&mut self) -> Instant {
        let late = u32::try_from(self.faults.late.as_millis()).unwrap_or(u32::MAX);
        if late == 0 {
            return self.now;
        }
        let late = self.roll(late);
        self.now + Duration::from_millis(u64::from(late))
    }

    /// Gives the answers that are due; those of one engine stay in order.
    fn answer(&mut self) -> bool {
        let mut due = Vec::new();
        let now = self.now;
        let mut index = 0;
        while let Some((at, _)) = self.slow.get(index) {
            if *at <= now {
                due.push(self.slow.remove(index).1);
            } else {
                index += 1;
            }
        }
        let busy = !due.is_empty();
        for slow in due {
            match slow {
                Slow::ServerTls(answer) => {
                    let _ = self.server.handle_tls_answer(now, answer, &mut self.rng);
                }
                Slow::Verdict(ticket, verdict) => self.server.handle_verdict(now, ticket, verdict),
                Slow::Assignment(ticket, assignment) => {
                    self.server.handle_assignment(now, ticket, Ok(assignment));
                }
            }
        }
        busy
    }

    /// Lets time pass, stopping at every deadline on the way.
    ///
    /// # Panics
    /// As [`Self::settle`].
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let answers = self.slow.iter().map(|(at, _)| *at);
            let deaf = [self.server_deaf_until, self.client_deaf_until];
            let next = [self.client.poll_timeout(), self.server.poll_timeout()]
                .into_iter()
                .flatten()
                .chain(answers)
                .chain(deaf.into_iter().filter(|at| *at > self.now))
                .min();
            self.now = next.unwrap_or(end).clamp(self.now, end);
            self.client.handle_timeout(self.now, &mut self.rng);
            let _ = self.server.handle_timeout(self.now, &mut self.rng);
            self.settle();
            if self.now >= end {
                return;
            }
        }
    }

    /// Both sides are well and every packet has arrived.
    ///
    /// # Panics
    /// If not.
    pub fn fine(&self) {
        let seed = self.seed;
        assert_eq!(self.violations, Vec::<String>::new(), "seed {seed}");
        assert_eq!(self.client_closed, None, "seed {seed}");
        assert_eq!(self.server_closed, None, "seed {seed}");
        assert_eq!((self.got_up, self.got_down), (self.sent_up, self.sent_down), "seed {seed}");
    }
}
