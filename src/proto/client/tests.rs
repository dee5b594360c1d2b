//! The client against a scripted peer: the peer says exactly what a test tells it to.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataCipher, DataHeader, DataKeys, FastRandom, KeyBlock, KeyDirection,
    KeySource, Role, Secret, SecretBytes, StaticKey, derive_key_block,
};

use super::*;
use crate::proto::control::{KeyMethod2, Message};
use crate::proto::session::{EngineId, TlsAnswer, TlsFacts, TlsOp, TlsTask};
use crate::proto::wire::{
    AckList, ControlPacket, FirstByte, FrameDecoder, KeyId, Opcode, SessionId, push_frame,
};

const PUSH: &str = "PUSH_REPLY,route-gateway 100.64.7.1,topology subnet,ping 20,ping-restart 90,\
    ifconfig 100.64.7.9 255.255.255.0";
const PEER_ID: [u8; 8] = [7; 8];

/// What the peer has seen: key, opcode, message id, acknowledged ids, payload.
type Seen = (u8, Opcode, Option<u32>, Vec<u32>, Vec<u8>);

/// A client, the clock, and a peer that does nothing by itself.
struct Stage {
    client: Client,
    rng: FastRandom,
    /// Different in every stage of the process: no two may make the same data keys.
    seed: u32,
    now: Instant,
    wrap: ControlWrap,
    dynamic: Option<ControlWrap>,
    frames: FrameDecoder,
    remote: Option<SessionId>,
    next_id: [u32; 8],
    data: Vec<(u8, DataKeys)>,
    inner: Vec<Vec<u8>>,
    events: Vec<ClientEvent>,
    engines_closed: usize,
}

impl Stage {
    fn new(config: ClientConfig) -> Self {
        let wrap = match &config.wrap {
            ClientWrap::None => ControlWrap::none(),
            ClientWrap::TlsAuth { key, direction, digest } => {
                ControlWrap::tls_auth(key, direction.peer(), *digest)
            }
            ClientWrap::TlsCrypt { key } => ControlWrap::tls_crypt(key, Role::Server),
            ClientWrap::TlsCryptV2 { key } => ControlWrap::tls_crypt(&key.key, Role::Server),
        };
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let seed = STAGES.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [5; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        let mut rng = FastRandom::from_seed(bytes);
        let now = start();
        let client = Client::new(config, now, 1_700_000_000, &mut rng).unwrap();
        Self {
            client,
            rng,
            seed,
            now,
            wrap,
            dynamic: None,
            frames: FrameDecoder::new(),
            remote: None,
            next_id: [0; 8],
            data: Vec::new(),
            inner: Vec::new(),
            events: Vec::new(),
            engines_closed: 0,
        }
    }

    /// What the client has sent since the last call. Data packets are opened into `inner`.
    fn sent(&mut self) -> Vec<Seen> {
        let mut out = Vec::new();
        self.client.poll_transmit(self.now, &mut out);
        self.read(&mut out)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Vec<Seen> {
        let mut frames = Vec::new();
        self.frames
            .feed(bytes, &mut |frame| {
                frames.push(frame.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        frames.into_iter().filter_map(|frame| self.read_frame(frame)).collect()
    }

    fn read_frame(&mut self, mut frame: Vec<u8>) -> Option<Seen> {
        let first = FirstByte::decode(frame[0]).unwrap();
        if first.opcode.is_data() {
            let keys = self.data.iter_mut().find(|(id, _)| *id == first.key_id.get());
            let payload = keys.unwrap().1.opener.open(&mut frame).unwrap();
            self.inner.push(payload.to_vec());
            return None;
        }
        let wrap = match &mut self.dynamic {
            Some(dynamic) if first.key_id != KeyId::FIRST => dynamic,
            _ => &mut self.wrap,
        };
        if first.opcode == Opcode::HardResetClientV3 {
            let [.., high, low] = frame[..] else { panic!("no wrapped key") };
            frame.truncate(frame.len() - usize::from(u16::from_be_bytes([high, low])));
        }
        let mut plain = Vec::new();
        wrap.unwrap(&frame, &mut plain).unwrap();
        let packet = ControlPacket::decode(&plain).unwrap();
        self.remote.get_or_insert(packet.session_id);
        assert_eq!(Some(packet.session_id), self.remote);
        assert!(packet.acks.remote().is_none_or(|remote| *remote.bytes() == PEER_ID));
        Some((
            packet.key_id.get(),
            packet.opcode,
            packet.message_id,
            packet.acks.ids().to_vec(),
            packet.payload.to_vec(),
        ))
    }

    /// The peer sends one control packet.
    fn say(&mut self, key: u8, opcode: Opcode, id: Option<u32>, acks: &[u32], payload: &[u8]) {
        let mut plain = Vec::new();
        ControlPacket {
            opcode,
            key_id: KeyId::new(key).unwrap(),
            session_id: SessionId::new(PEER_ID).unwrap(),
            acks: AckList::new(acks, self.remote.unwrap()),
            message_id: id,
            payload,
        }
        .encode(&mut plain);
        let wrap = match &mut self.dynamic {
            Some(dynamic) if key > 0 => dynamic,
            _ => &mut self.wrap,
        };
        let mut out = Vec::new();
        push_frame(&mut out, |out| wrap.wrap(&plain, 1_700_000_001, out)).unwrap();
        self.give(&mut out);
    }

    fn give(&mut self, bytes: &mut [u8]) {
        let inner = &mut self.inner;
        self.client.handle_link(self.now, bytes, &mut |packet| inner.push(packet.to_vec()));
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    /// The peer's next message of a key, which acknowledges `acks`.
    fn message(&mut self, key: u8, opcode: Opcode, acks: &[u32], payload: &[u8]) {
        let id = self.next_id[usize::from(key)];
        self.next_id[usize::from(key)] += 1;
        self.say(key, opcode, Some(id), acks, payload);
    }

    /// Acknowledges everything that the client sends until it is silent.
    fn acknowledge(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        loop {
            let seen = self.sent();
            if seen.is_empty() {
                return all;
            }
            for (key, _, id, _, _) in &seen {
                if let Some(id) = id {
                    self.say(*key, Opcode::AckV1, None, &[*id], b"");
                }
            }
            all.extend(seen);
        }
    }

    fn tls(&mut self, engine: u32, plaintext: &[u8], ciphertext: &[u8], facts: bool) {
        let established = facts.then(|| {
            Box::new(TlsFacts {
                version: "TLSv1.3".into(),
                suite: "X".into(),
                client_certificate: None,
                data_keys: exported(self.seed, engine),
                dynamic_wrap: KeyBlock::from_bytes([0xba; 256]),
            })
        });
        let answer = TlsAnswer {
            engine: EngineId(engine),
            ciphertext: ciphertext.to_vec(),
            plaintext: SecretBytes::from(plaintext.to_vec()),
            established,
            error: None,
        };
        self.client.handle_tls_answer(self.now, answer, &mut self.rng);
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    /// The client's key method 2 as it went to TLS.
    fn key_method2(&mut self) -> KeyMethod2 {
        let write = self.take_tasks().into_iter().find_map(|task| match task.op {
            TlsOp::Write(bytes) => Some(bytes),
            _ => None,
        });
        KeyMethod2::decode_client(write.unwrap().expose(), true).unwrap().unwrap().0
    }

    fn take_tasks(&mut self) -> Vec<TlsTask> {
        let mut tasks = Vec::new();
        let mut others = Vec::new();
        for event in self.events.drain(..) {
            match event {
                ClientEvent::Tls(task) => tasks.push(task),
                other => others.push(other),
            }
        }
        self.events = others;
        self.engines_closed += tasks.iter().filter(|t| matches!(t.op, TlsOp::Close)).count();
        tasks
    }

    fn violations(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                ClientEvent::ProtocolViolation(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    fn closed(&self) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            ClientEvent::Close(reason) => Some(reason.as_str()),
            _ => None,
        })
    }

    fn connected(&self) -> bool {
        self.events.iter().any(|event| matches!(event, ClientEvent::Connected { .. }))
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now, &mut self.rng);
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    /// Runs one key from the peer's reset to its key method 2; makes the peer's data keys.
    fn exchange(&mut self, key: u8, engine: u32, export: bool, setup: (DataCipher, AuthDigest)) {
        self.tls(engine, b"", b"hello", false);
        self.acknowledge();
        self.message(key, Opcode::ControlV1, &[], b"server hello");
        self.tls(engine, b"", b"finished", true);
        let own = self.key_method2();
        self.tls(engine, b"", b"key method 2", false);
        self.acknowledge();
        let server = source(9);
        let message = KeyMethod2::encode_server(&server, "V4,tls-server").unwrap();
        let sid = self.remote.unwrap();
        let block = if export {
            exported(self.seed, engine)
        } else {
            derive_key_block(&own.source, &server, sid.bytes(), &PEER_ID)
        };
        let keys = DataKeys::new(setup.0, setup.1, &block, Role::Server).unwrap();
        self.data.push((key, keys));
        self.message(key, Opcode::ControlV1, &[], b"server key method 2");
        self.tls(engine, message.expose(), b"", false);
        self.acknowledge();
    }

    /// Up to the point where the client asks for its configuration.
    fn log_in(&mut self, export: bool, setup: (DataCipher, AuthDigest)) {
        self.sent();
        self.message(0, Opcode::HardResetServerV2, &[0], b"");
        self.exchange(0, 0, export, setup);
        self.take_tasks();
        self.advance(Duration::from_secs(1));
        let request = self.take_tasks();
        assert!(matches!(&request[..], [TlsTask { op: TlsOp::Write(bytes), .. }]
            if bytes.expose() == b"PUSH_REQUEST\0"));
    }

    fn push(&mut self, reply: &str) {
        let mut bytes = reply.as_bytes().to_vec();
        bytes.push(0);
        self.tls(0, &bytes, b"", false);
    }

    /// The peer seals one packet; the header as given.
    fn sealed(&mut self, key: u8, peer_id: Option<u32>, payload: &[u8]) -> Vec<u8> {
        let keys = self.data.iter_mut().find(|(id, _)| *id == key).map(|(_, keys)| keys).unwrap();
        let header = DataHeader { key_id: key, peer_id };
        let mut out = Vec::new();
        let rng = &mut self.rng;
        push_frame(&mut out, |out| keys.sealer.seal(header, payload, rng, out)).unwrap();
        out
    }

    fn send(&mut self, payload: &[u8]) -> u8 {
        let mut out = Vec::new();
        self.client.send_packet(self.now, payload, &mut self.rng, &mut out).unwrap();
        let key = FirstByte::decode(out[2]).unwrap().key_id.get();
        assert!(self.read(&mut out).is_empty());
        assert_eq!(self.inner.pop().as_deref(), Some(payload));
        key
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an origin for virtual time; it never advances by itself"
)]
fn start() -> Instant {
    Instant::now()
}

fn source(byte: u8) -> KeySource {
    KeySource {
        pre_master: Secret::new([0; 48]),
        random1: Secret::new([byte; 32]),
        random2: Secret::new([byte + 1; 32]),
    }
}

fn exported(seed: u32, engine: u32) -> KeyBlock {
    let mut bytes = [0x40; 256];
    for half in bytes.chunks_exact_mut(128) {
        half[..4].copy_from_slice(&seed.to_be_bytes());
        half[4..8].copy_from_slice(&engine.to_be_bytes());
        half[64..68].copy_from_slice(&seed.to_be_bytes());
    }
    bytes[255] = 1;
    KeyBlock::from_bytes(bytes)
}

fn router() -> ClientConfig {
    ClientConfig {
        username: Some(b"bob".to_vec()),
        password: Some(SecretBytes::from(b"secret".to_vec())),
        cipher: DataCipher::Aes256Cbc,
        peer_info: None,
        data_v2: false,
        pings: false,
        ..ClientConfig::default()
    }
}

const CBC: (DataCipher, AuthDigest) = (DataCipher::Aes256Cbc, AuthDigest::Sha1);
const GCM: (DataCipher, AuthDigest) = (DataCipher::Aes256Gcm, AuthDigest::Sha1);

#[test]
fn an_old_router_logs_in_and_passes_packets() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    stage.push(PUSH);
    assert!(stage.connected(), "{:?}", stage.events);
    let mut packet = stage.sealed(0, None, b"to the router");
    stage.give(&mut packet);
    assert_eq!(stage.inner.pop().as_deref(), Some(&b"to the router"[..]));
    assert_eq!(stage.send(b"from the router"), 0);
    assert_eq!(stage.violations(), Vec::<&str>::new());
}

#[test]
fn a_stock_client_uses_exported_keys_and_the_peer_id() {
    let mut stage = Stage::new(ClientConfig::default());
    stage.log_in(true, GCM);
    stage.push(&format!(
        "{PUSH},peer-id 3,cipher AES-256-GCM,protocol-flags tls-ekm dyn-tls-crypt,tun-mtu 1500"
    ));
    assert!(stage.connected());
    let mut packet = stage.sealed(0, Some(0), b"down");
    stage.give(&mut packet);
    assert_eq!(stage.inner.pop().as_deref(), Some(&b"down"[..]));
    let mut out = Vec::new();
    stage.client.send_packet(stage.now, b"up", &mut stage.rng, &mut out).unwrap();
    assert_eq!(out[2..6], [0x48, 0, 0, 3]);
    assert_eq!(stage.violations(), Vec::<&str>::new());
}

#[test]
fn the_handshake_starts_as_each_profile_does() {
    let mut plain = Stage::new(router());
    assert_eq!(plain.sent(), [(0, Opcode::HardResetClientV2, Some(0), vec![], vec![])]);
    assert!(plain.client.poll_event().is_none(), "TLS waits for the acknowledged reset");
    plain.message(0, Opcode::HardResetServerV2, &[], b"");
    assert!(plain.events.is_empty(), "a reset without the acknowledgement stalls");
    plain.say(0, Opcode::AckV1, None, &[0], b"");
    let tasks = plain.take_tasks();
    assert!(matches!(tasks[0].op, TlsOp::Open));
    assert!(matches!(&tasks[1].op, TlsOp::Input(bytes) if bytes.is_empty()));
    assert_eq!(plain.sent(), [(0, Opcode::AckV1, None, vec![0], vec![])]);

    let quirks = Quirks { second_reset: true, ..Quirks::default() };
    let mut old = Stage::new(ClientConfig { quirks, ..router() });
    let ids: Vec<_> = old.sent().into_iter().map(|(_, opcode, id, _, _)| (opcode, id)).collect();
    let reset = Opcode::HardResetClientV2;
    assert_eq!(ids, [(reset, Some(0)), (reset, Some(1))]);
    old.message(0, Opcode::HardResetServerV2, &[0, 1], b"");
    old.tls(0, b"", b"hello", false);
    let hello = (0, Opcode::ControlV1, Some(2), vec![0], b"hello".to_vec());
    assert_eq!(old.sent(), [hello]);

    let quirks = Quirks { early_hello: true, ..Quirks::default() };
    let mut early = Stage::new(ClientConfig { quirks, ..router() });
    early.events.extend(std::iter::from_fn(|| early.client.poll_event()));
    assert_eq!(early.take_tasks().len(), 2);
    early.tls(0, b"", b"hello", false);
    let sent = early.sent();
    assert_eq!(sent[0].1, reset);
    assert_eq!(sent[1], (0, Opcode::ControlV1, Some(1), vec![], b"hello".to_vec()));
    early.message(0, Opcode::HardResetServerV2, &[0, 1], b"");
    assert!(early.take_tasks().is_empty(), "TLS is not opened twice");
}

#[test]
fn every_wrapping_carries_the_handshake() {
    let key = || StaticKey::generate(&mut FastRandom::from_seed([1; 32])).unwrap();
    for wrap in [
        ClientWrap::TlsAuth {
            key: key(),
            direction: KeyDirection::Inverse,
            digest: AuthDigest::Sha256,
        },
        ClientWrap::TlsCrypt { key: key() },
    ] {
        let mut stage = Stage::new(ClientConfig { wrap, ..router() });
        stage.log_in(false, CBC);
        stage.push(PUSH);
        assert!(stage.connected());
    }
}

#[test]
fn key_method_2_holds_what_the_profile_sends() {
    let mut stage = Stage::new(router());
    stage.sent();
    stage.message(0, Opcode::HardResetServerV2, &[0], b"");
    stage.tls(0, b"", b"", true);
    let message = stage.key_method2();
    assert_eq!(message.username.as_deref(), Some(&b"bob"[..]));
    assert_eq!(message.password.map(|p| p.expose().to_vec()), Some(b"secret".to_vec()));
    assert!(message.options.contains("cipher AES-256-CBC,auth SHA1,keysize 256"));
    assert_eq!(message.peer_info, None);
}

#[test]
fn push_requests_repeat_until_the_reply_and_then_stop() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    for _ in 0..3 {
        stage.advance(Duration::from_secs(5));
        assert_eq!(stage.take_tasks().len(), 1);
    }
    stage.push(PUSH);
    stage.advance(Duration::from_secs(5));
    assert!(stage.take_tasks().is_empty());
    assert_eq!(stage.client.stats().push_requests, 4);
    let mut silent = Stage::new(router());
    silent.log_in(false, CBC);
    silent.advance(Duration::from_secs(60));
    assert_eq!(silent.closed(), Some("no push reply came"));
}

#[test]
fn a_negotiation_that_hangs_is_given_up() {
    let mut stage = Stage::new(router());
    assert_eq!(stage.client.poll_timeout(), Some(stage.now + Duration::from_secs(60)));
    stage.advance(Duration::from_secs(60));
    assert_eq!(stage.closed(), Some("the key negotiation took too long"));
    assert_eq!(stage.client.poll_timeout(), None);
}

#[test]
fn answers_of_the_server_become_events() {
    for (message, expected) in [
        (Message::AuthFailed(Some("no".into())), "AuthFailed(Some(\"no\"))"),
        (Message::Restart(None), "Restart(None)"),
        (Message::Halt(None), "Halt(None)"),
        (Message::Exit, "Exit"),
    ] {
        let mut stage = Stage::new(router());
        stage.log_in(false, CBC);
        stage.push(&message.to_text());
        assert_eq!(format!("{:?}", stage.events[0]), expected);
        assert!(stage.closed().is_some() && stage.violations().is_empty());
    }
}

#[test]
fn pings_go_out_in_silence_and_a_silent_server_is_dead() {
    let mut stage = Stage::new(ClientConfig { pings: true, ..router() });
    stage.log_in(false, CBC);
    stage.push(PUSH);
    // The exchange was the last to be sent, one second before the push.
    stage.advance(Duration::from_secs(18));
    stage.sent();
    assert!(stage.inner.is_empty());
    stage.advance(Duration::from_secs(1));
    stage.sent();
    assert_eq!(stage.inner.len(), 1);
    let mut ping = stage.sealed(0, None, &stage.inner[0].clone());
    stage.give(&mut ping);
    assert_eq!((stage.inner.len(), stage.client.stats().pings_in), (1, 1), "swallowed");
    for _ in 0..5 {
        stage.advance(Duration::from_secs(18));
    }
    assert_eq!(stage.closed(), Some("the server is silent"));

    let mut quiet = Stage::new(router());
    quiet.log_in(false, CBC);
    quiet.push(PUSH);
    quiet.advance(Duration::from_secs(88));
    quiet.sent();
    assert!(quiet.inner.is_empty() && quiet.closed().is_none());
}

/// Brings a client to its first connection and through one renegotiation.
fn rekeyed(mut config: ClientConfig, by_server: bool) -> Stage {
    config.hand_window = Duration::from_secs(60);
    let mut stage = Stage::new(config);
    stage.log_in(false, CBC);
    stage.push(PUSH);
    stage.take_tasks();
    stage.acknowledge();
    rekey(&mut stage, 1, 1, by_server);
    stage
}

fn rekey(stage: &mut Stage, key: u8, engine: u32, by_server: bool) {
    stage.next_id[usize::from(key)] = 0;
    stage.data.retain(|(id, _)| *id != key);
    if by_server {
        stage.message(key, Opcode::SoftResetV1, &[], b"");
        let sent = stage.sent();
        assert_eq!(sent, [(key, Opcode::SoftResetV1, Some(0), vec![0], vec![])]);
        stage.say(key, Opcode::AckV1, None, &[0], b"");
    } else {
        assert!(stage.client.start_rekey(stage.now));
        assert!(!stage.client.start_rekey(stage.now), "one at a time");
        let sent = stage.sent();
        assert_eq!(sent, [(key, Opcode::SoftResetV1, Some(0), vec![], vec![])]);
        stage.message(key, Opcode::SoftResetV1, &[0], b"");
    }
    stage.exchange(key, engine, false, CBC);
}

#[test]
fn a_renegotiation_by_either_side_makes_new_keys_without_a_push() {
    for by_server in [false, true] {
        let stage = rekeyed(router(), by_server);
        let changed = |e: &ClientEvent| matches!(e, ClientEvent::KeysChanged { key_id: 1 });
        assert!(stage.events.iter().any(changed));
        assert_eq!(stage.violations(), Vec::<&str>::new());
        assert_eq!(stage.client.stats().rekeys, 1);
    }
}

#[test]
fn both_keys_receive_and_the_send_key_switches_by_policy() {
    let mut slow = rekeyed(router(), false);
    for key in [1, 0, 1, 0] {
        let mut packet = slow.sealed(key, None, b"x");
        slow.give(&mut packet);
    }
    assert_eq!((slow.inner.len(), slow.violations().len()), (4, 0));
    slow.inner.clear();
    assert_eq!(slow.send(b"y"), 0);
    slow.advance(Duration::from_secs(60));
    assert_eq!(slow.send(b"y"), 1);

    let mut quick = rekeyed(ClientConfig { switch: SwitchPolicy::Immediately, ..router() }, true);
    assert_eq!(quick.send(b"y"), 1);
}

#[test]
fn key_ids_go_round_and_the_oldest_key_is_dropped() {
    let mut stage = rekeyed(router(), false);
    for (engine, key) in (2..).zip([2_u8, 3, 4, 5, 6, 7, 1, 2]) {
        rekey(&mut stage, key, engine, engine % 2 == 0);
        stage.take_tasks();
        assert_eq!(stage.engines_closed, usize::try_from(engine).unwrap() - 1);
        let mut packet = stage.sealed(key, None, b"x");
        stage.give(&mut packet);
        stage.inner.clear();
        stage.now += Duration::from_secs(60);
        assert_eq!(stage.send(b"y"), key);
    }
    assert_eq!(stage.violations(), Vec::<&str>::new());
    stage.advance(Duration::from_secs(0));
    let mut old = stage.sealed(7, None, b"x");
    stage.give(&mut old);
    assert_eq!(stage.violations(), ["a data packet of key 7, which does not exist"]);
}

#[test]
fn an_old_key_expires() {
    let mut stage = rekeyed(router(), false);
    for _ in 0..50 {
        let mut packet = stage.sealed(1, None, b"x");
        stage.give(&mut packet);
        stage.advance(Duration::from_secs(80));
    }
    assert!(stage.take_tasks().iter().any(|task| matches!(task.op, TlsOp::Close)));
    let mut old = stage.sealed(0, None, b"x");
    stage.give(&mut old);
    assert_eq!(stage.violations(), ["a data packet of key 0, which does not exist"]);
}

#[test]
fn a_client_starts_its_own_renegotiations_on_time() {
    let rekey_after = Some(Duration::from_secs(50));
    let mut stage = Stage::new(ClientConfig { rekey_after, ..router() });
    stage.log_in(false, CBC);
    stage.push(PUSH);
    stage.acknowledge();
    stage.advance(Duration::from_secs(49));
    assert!(stage.sent().is_empty());
    stage.advance(Duration::from_secs(1));
    assert_eq!(stage.sent()[0].1, Opcode::SoftResetV1);
}

#[test]
fn both_sides_may_start_at_once() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    stage.push(PUSH);
    stage.acknowledge();
    stage.take_tasks();
    assert!(stage.client.start_rekey(stage.now));
    stage.message(1, Opcode::SoftResetV1, &[], b"");
    let sent = stage.sent();
    assert_eq!(sent, [(1, Opcode::SoftResetV1, Some(0), vec![0], vec![])]);
    stage.say(1, Opcode::AckV1, None, &[0], b"");
    stage.exchange(1, 1, false, CBC);
    assert_eq!(stage.violations(), Vec::<&str>::new());
    assert_eq!(stage.client.stats().rekeys, 1);
}

#[test]
fn a_dynamic_key_wraps_renegotiations_only() {
    let key = || StaticKey::generate(&mut FastRandom::from_seed([1; 32])).unwrap();
    for wrapped in [false, true] {
        let wrap = if wrapped { ClientWrap::TlsCrypt { key: key() } } else { ClientWrap::None };
        let mut stage = Stage::new(ClientConfig { wrap, ..ClientConfig::default() });
        stage.log_in(true, GCM);
        let flags = "cipher AES-256-GCM,protocol-flags tls-ekm dyn-tls-crypt";
        stage.push(&format!("{PUSH},{flags}"));
        stage.acknowledge();
        let exported = KeyBlock::from_bytes([0xba; 256]);
        let original = key();
        let original = wrapped.then_some(&original);
        stage.dynamic = Some(ControlWrap::dynamic_tls_crypt(&exported, original, Role::Server));
        assert!(stage.client.start_rekey(stage.now));
        assert_eq!(stage.sent()[0].1, Opcode::SoftResetV1);
        stage.message(1, Opcode::SoftResetV1, &[0], b"");
        stage.take_tasks();
        stage.exchange(1, 1, true, GCM);
        assert_eq!(stage.client.stats().rekeys, 1);
        assert_eq!(stage.violations(), Vec::<&str>::new());
    }
}

#[test]
fn each_thing_that_a_server_must_not_do_is_reported() {
    type Break = fn(&mut Stage);
    let cases: [(&str, Break); 12] = [
        ("acknowledged twice", |s| s.say(0, Opcode::AckV1, None, &[0], b"")),
        ("never sent", |s| s.say(0, Opcode::AckV1, None, &[900], b"")),
        ("acknowledgements in one packet", |s| {
            s.say(0, Opcode::AckV1, None, &[900, 901, 902, 903, 904], b"");
        }),
        ("came where", |s| s.say(0, Opcode::ControlV1, Some(900), &[], b"x")),
        ("came where", |s| s.say(0, Opcode::ControlV1, Some(1), &[], b"x")),
        ("TLS bytes in one packet", |s| s.message(0, Opcode::ControlV1, &[], &[0; 1101])),
        ("unacknowledged at once", |s| {
            for _ in 0..5 {
                s.message(0, Opcode::ControlV1, &[], b"x");
            }
        }),
        ("which does not exist", |s| s.say(5, Opcode::ControlV1, Some(0), &[], b"x")),
        ("is not in its place", |s| s.message(0, Opcode::SoftResetV1, &[], b"")),
        ("unexpected HardResetServerV2", |s| s.message(0, Opcode::HardResetServerV2, &[], b"")),
        ("a frame of length 0", |s| s.give(&mut [0, 0])),
        ("a frame of 2000 bytes", |s| {
            let mut long = vec![0; 2002];
            long[..3].copy_from_slice(&[0x07, 0xd0, 0x30]);
            s.give(&mut long);
        }),
    ];
    for (what, break_it) in cases {
        let mut stage = Stage::new(router());
        stage.log_in(false, CBC);
        stage.push(PUSH);
        stage.acknowledge();
        assert!(stage.violations().is_empty());
        break_it(&mut stage);
        let found = stage.violations();
        assert!(found.iter().any(|text| text.contains(what)), "{what}: {found:?}");
    }
}

#[test]
fn data_must_be_authentic_in_sequence_and_of_a_known_form() {
    type Break = fn(&mut Stage);
    let cases: [(&str, Break); 5] = [
        ("not authentic", |s| {
            let mut packet = s.sealed(0, None, b"x");
            *packet.last_mut().unwrap() ^= 1;
            s.give(&mut packet);
        }),
        ("replay", |s| {
            let mut packet = s.sealed(0, None, b"x");
            let mut again = packet.clone();
            s.give(&mut packet);
            s.give(&mut again);
        }),
        ("came where 1 was due", |s| {
            drop(s.sealed(0, None, b"lost"));
            let mut packet = s.sealed(0, None, b"x");
            s.give(&mut packet);
        }),
        ("peer id, which was not announced", |s| {
            let mut packet = s.sealed(0, Some(0), b"x");
            s.give(&mut packet);
        }),
        ("key 3, which does not exist", |s| {
            let mut packet = s.sealed(0, None, b"x");
            packet[2] |= 3;
            s.give(&mut packet);
        }),
    ];
    for (what, break_it) in cases {
        let mut stage = Stage::new(router());
        stage.log_in(false, CBC);
        stage.push(PUSH);
        break_it(&mut stage);
        let found = stage.violations();
        assert!(found.iter().any(|text| text.contains(what)), "{what}: {found:?}");
    }
}

#[test]
fn data_before_the_push_reply_is_a_violation() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    let mut packet = stage.sealed(0, None, b"x");
    stage.give(&mut packet);
    assert_eq!(stage.violations(), ["a data packet of key 0, which does not exist"]);
}

#[test]
fn a_push_reply_must_fit_the_client() {
    let router_with = |quirks| ClientConfig { quirks, ..router() };
    let mut unasked = Stage::new(router());
    unasked.sent();
    unasked.message(0, Opcode::HardResetServerV2, &[0], b"");
    unasked.exchange(0, 0, false, CBC);
    unasked.push(PUSH);
    assert_eq!(unasked.violations(), ["a push reply that was not asked for"]);

    let mut foreign = Stage::new(ClientConfig::default());
    foreign.log_in(false, GCM);
    foreign.push(&format!("{PUSH},cipher AES-192-CBC"));
    assert_eq!(foreign.violations(), ["the pushed cipher AES-192-CBC was not offered"]);

    let quirks = Quirks { stalls_on_routes: true, ..Quirks::default() };
    let mut stalled = Stage::new(router_with(quirks));
    stalled.log_in(false, CBC);
    stalled.push(&format!("{PUSH}{}", ",route 1.1.1.1".repeat(33)));
    assert!(!stalled.connected() && stalled.closed().is_none());
    assert_eq!(stalled.client.poll_timeout(), None);

    let quirks = Quirks { ifconfig_is_netmask: true, ..Quirks::default() };
    let mut wrong = Stage::new(router_with(quirks));
    wrong.log_in(false, CBC);
    wrong.push("PUSH_REPLY,topology net30,ifconfig 10.8.0.6 10.8.0.5");
    assert_eq!(wrong.closed(), Some("the pushed netmask is none"));
}

#[test]
fn a_client_that_repeats_acknowledgements_does_so() {
    let quirks = Quirks { repeat_acks: true, ..Quirks::default() };
    let mut stage = Stage::new(ClientConfig { quirks, ..ClientConfig::default() });
    stage.sent();
    stage.message(0, Opcode::HardResetServerV2, &[0], b"");
    assert_eq!(stage.sent()[0].3, [0]);
    stage.message(0, Opcode::ControlV1, &[], b"a");
    assert_eq!(stage.sent()[0].3, [1, 0]);
    stage.message(0, Opcode::ControlV1, &[], b"b");
    assert_eq!(stage.sent()[0].3, [2, 1, 0]);
}

#[test]
fn a_closed_client_does_nothing_more() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    stage.push("HALT");
    let events = stage.events.len();
    stage.push(PUSH);
    stage.advance(Duration::from_secs(100));
    assert_eq!(stage.events.len(), events);
    let mut out = Vec::new();
    let refused = stage.client.send_packet(stage.now, b"x", &mut stage.rng, &mut out);
    assert_eq!(refused, Err(SendRefused::NotConnected));
}
