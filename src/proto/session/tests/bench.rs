//! A session, its driver and its peer.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataCipher, DataHeader, DataKeys, FastRandom, KeyBlock, KeySource,
    Role, Secret, SecretBytes, SecureRandom, StaticKey, derive_key_block,
};

use crate::proto::control::{KeyMethod2, Message, MessageReader};
use crate::proto::session::*;
use crate::proto::wire::{
    AckList, ControlPacket, FirstByte, FrameDecoder, KeyId, Opcode, SessionId, push_frame,
};

/// Some moment; tests only add to it.
#[expect(clippy::disallowed_methods, reason = "a moment to count from, not a clock")]
pub(in crate::proto::session) fn epoch() -> Instant {
    Instant::now()
}

/// Another one for each test, so that no two tests seal under one key.
static SEED: AtomicU64 = AtomicU64::new(1);

pub(super) fn fresh_random() -> FastRandom {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&SEED.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    FastRandom::from_seed(seed)
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn config() -> SessionConfig {
    SessionConfig {
        wrap: WrapConfig::None,
        ciphers: vec![DataCipher::Aes256Gcm, DataCipher::Aes256Cbc],
        ping: seconds(20),
        restart: seconds(90),
        management: Ipv4Addr::new(100, 127, 255, 254),
        tun_mtu: 1500,
        hand_window: seconds(60),
        transition_window: seconds(3600),
        linger: seconds(2),
        linger_max: seconds(30),
        auth_failed_linger: seconds(5),
        rekey_after: None,
        credential_key: Secret::new([9; 32]),
        judge_rekeys: true,
        preauth_bytes: 64 * 1024,
        frame_bytes: 2048,
    }
}

pub(super) const ROUTER: &str = "V4,dev-type tun,link-mtu 1559,tun-mtu 1500,proto TCPv4_CLIENT,cipher AES-256-CBC,auth SHA1,\
     keysize 256,key-method 2,tls-client";
pub(super) const STOCK: &str = "V4,dev-type tun,link-mtu 1551,tun-mtu 1500,proto TCPv4_CLIENT,auth [null-digest],keysize 256,\
     key-method 2,tls-client";
pub(super) const STOCK_INFO: &str = "IV_VER=2.6.14\nIV_PLAT=linux\nIV_MTU=1600\nIV_NCP=2\n\
     IV_CIPHERS=AES-256-GCM:AES-128-GCM\nIV_PROTO=990\n";

/// One key of the peer.
pub(super) struct PeerKey {
    pub(super) next_id: u32,
    pub(super) expected: u32,
    /// Ids received and not acknowledged.
    pub(super) unacked: Vec<u32>,
    /// TLS bytes received after the handshake greeting.
    pub(super) plain: Vec<u8>,
    greeted: bool,
    /// Acknowledgements of our messages, as they came.
    pub(super) acked: Vec<u32>,
    source: Option<KeySource>,
    pub(super) data: Option<DataKeys>,
}

/// A control packet that the client received.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) opcode: Opcode,
    pub(super) acks: Vec<u32>,
}

/// The client.
pub(super) struct Peer {
    pub(super) sid: SessionId,
    pub(super) server: Option<SessionId>,
    pub(super) wrap: ControlWrap,
    pub(super) dynamic: Option<ControlWrap>,
    pub(super) keys: BTreeMap<u8, PeerKey>,
    pub(super) frames: FrameDecoder,
    pub(super) peer_id: Option<u32>,
    /// Acknowledges by itself what it receives.
    pub(super) auto_ack: bool,
    pub(super) cipher: DataCipher,
    pub(super) digest: AuthDigest,
    pub(super) exporter: bool,
    pub(super) messages: Vec<Message>,
    /// Inner packets received, with the key id.
    pub(super) inner: Vec<(u8, Vec<u8>)>,
    /// Every control packet received.
    pub(super) control: Vec<Heard>,
    /// Bytes appended to the reset: a wrapped tls-crypt-v2 key.
    pub(super) wkc: Vec<u8>,
    pub(super) reset: Opcode,
}

#[derive(Default)]
struct NullEngine {
    inputs: usize,
}

/// All of it.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) config: Arc<SessionConfig>,
    pub(super) peer: Peer,
    pub(super) now: Instant,
    pub(super) rng: FastRandom,
    engines: BTreeMap<EngineId, NullEngine>,
    /// Engines opened so far.
    pub(super) opened: usize,
    pub(super) facts: BTreeMap<EngineId, (KeyBlock, KeyBlock)>,
    pub(super) inner: Vec<Vec<u8>>,
    /// Bytes of the session that the peer has not read.
    pub(super) wire: Vec<u8>,
    pub(super) events: Vec<String>,
    /// Credentials that rekeys have presented.
    pub(super) presented: Vec<AuthRequest>,
    pub(super) closed: Option<CloseReason>,
    pub(super) error: Option<SessionError>,
    pub(super) verdict: Option<Verdict>,
    pub(super) assignment: Option<Result<Assignment, AssignmentRefused>>,
    pub(super) asked: Option<(Ticket, Box<AuthRequest>)>,
    pub(super) needs_address: Option<Ticket>,
    /// TLS answers wait for `release`.
    pub(super) hold_tls: bool,
    pub(super) held: VecDeque<TlsAnswer>,
    pub(super) certificate: Option<ClientCertificate>,
}

pub(super) fn allow() -> Verdict {
    Verdict::Allow(Allowed { identity: Identity("branch-42".into()), cipher: None, auth: None })
}

pub(super) fn address() -> Assignment {
    Assignment {
        address: Ipv4Addr::new(100, 70, 1, 9),
        prefix_len: 24,
        gateway: Ipv4Addr::new(100, 70, 1, 1),
    }
}

/// An IPv4-looking packet that holds a number.
pub(super) fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![0x45; 28];
    packet[20..24].copy_from_slice(&number.to_be_bytes());
    packet
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(config(), |_| {})
    }

    pub(super) fn with(config: SessionConfig, tune: impl FnOnce(&mut Peer)) -> Self {
        let config = Arc::new(config);
        let now = epoch();
        let mut rng = fresh_random();
        let session = Session::new(Arc::clone(&config), now, 1_700_000_000, &mut rng).unwrap();
        let mut sid = [0; 8];
        rng.fill(&mut sid).unwrap();
        let mut peer = Peer {
            sid: SessionId::new(sid).unwrap(),
            server: None,
            wrap: ControlWrap::none(),
            dynamic: None,
            keys: BTreeMap::new(),
            frames: FrameDecoder::new(),
            peer_id: None,
            auto_ack: true,
            cipher: DataCipher::Aes256Cbc,
            digest: AuthDigest::Sha1,
            exporter: false,
            messages: Vec::new(),
            inner: Vec::new(),
            control: Vec::new(),
            wkc: Vec::new(),
            reset: Opcode::HardResetClientV2,
        };
        tune(&mut peer);
        Self {
            session,
            config,
            peer,
            now,
            rng,
            engines: BTreeMap::new(),
            opened: 0,
            facts: BTreeMap::new(),
            inner: Vec::new(),
            wire: Vec::new(),
            events: Vec::new(),
            presented: Vec::new(),
            closed: None,
            error: None,
            verdict: Some(allow()),
            assignment: Some(Ok(address())),
            asked: None,
            needs_address: None,
            hold_tls: false,
            held: VecDeque::new(),
            certificate: None,
        }
    }

    /// A RouterOS-like session that is up.
    pub(super) fn up() -> Self {
        let mut bench = Self::new();
        bench.login();
        bench
    }

    /// A session with a stock 2.6 client that is up: pushed cipher, exporter, dynamic wrapping.
    pub(super) fn stock_up() -> Self {
        let mut bench = Self::new();
        bench.stock_login();
        bench
    }

    pub(super) fn login(&mut self) {
        self.hello();
        self.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
        self.say(0, "PUSH_REQUEST");
        assert!(self.is_up(), "{:?} {:?}", self.closed, self.events);
    }

    pub(super) fn stock_login(&mut self) {
        self.peer.cipher = DataCipher::Aes256Gcm;
        self.peer.exporter = true;
        self.hello();
        self.key_exchange(0, STOCK, Some("router"), Some("secret"), Some(STOCK_INFO));
        assert!(self.is_up(), "{:?} {:?}", self.closed, self.events);
    }

    pub(super) fn is_up(&self) -> bool {
        self.session.info().phase == Phase::Up
    }

    /// Reset and greeting of key 0.
    pub(super) fn hello(&mut self) {
        let opcode = self.peer.reset;
        self.send(opcode, 0, &[]);
        self.send(Opcode::ControlV1, 0, b"hello");
    }

    /// The peer's key method 2 on a key whose handshake is done.
    pub(super) fn key_exchange(
        &mut self,
        key: u8,
        options: &str,
        username: Option<&str>,
        password: Option<&str>,
        peer_info: Option<&str>,
    ) {
        let bytes = self.key_exchange_bytes(key, options, username, password, peer_info);
        self.send_tls(key, &bytes);
    }

    pub(super) fn key_exchange_bytes(
        &mut self,
        key: u8,
        options: &str,
        username: Option<&str>,
        password: Option<&str>,
        peer_info: Option<&str>,
    ) -> Vec<u8> {
        let source = KeySource::generate(&mut self.rng).unwrap();
        let message = KeyMethod2 {
            source: source.duplicate(),
            options: options.to_owned(),
            username: username.map(|name| name.as_bytes().to_vec()),
            password: password.map(|word| SecretBytes::from(word.as_bytes().to_vec())),
            too_long: false,
            peer_info: peer_info.map(str::to_owned),
        };
        self.peer.key(key).source = Some(source);
        message.encode_client().unwrap().expose().to_vec()
    }

    pub(super) fn send_tls(&mut self, key: u8, bytes: &[u8]) {
        for chunk in bytes.chunks(1000) {
            self.send(Opcode::ControlV1, key, chunk);
        }
    }

    /// A command inside TLS.
    pub(super) fn say(&mut self, key: u8, command: &str) {
        let mut bytes = command.as_bytes().to_vec();
        bytes.push(0);
        self.send_tls(key, &bytes);
    }

    /// The next message of a key, with all acknowledgements that are due.
    pub(super) fn send(&mut self, opcode: Opcode, key: u8, payload: &[u8]) {
        let frame = self.peer.message(opcode, key, payload);
        self.feed(frame);
    }

    /// Bytes to the session, then everything that follows.
    pub(super) fn feed(&mut self, mut bytes: Vec<u8>) {
        let Self { session, inner, now, .. } = self;
        let result =
            session.handle_link(*now, &mut bytes, &mut |packet| inner.push(packet.to_vec()));
        self.note(result);
        self.pump();
    }

    /// An inner packet from the peer, sealed with this key.
    pub(super) fn feed_packet(&mut self, key: u8, payload: &[u8]) {
        let frame = self.peer.data(key, payload);
        self.feed(frame);
    }

    /// An inner packet to the peer.
    pub(super) fn seal(&mut self, payload: &[u8]) -> Result<(), SealRefused> {
        let mut out = Vec::new();
        self.session.seal(self.now, payload, &mut self.rng, &mut out)?;
        assert!(out.len() >= self.session.sealed_len(payload.len()));
        self.wire.extend(out);
        self.pump();
        Ok(())
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        let result = self.session.handle_timeout(self.now, &mut self.rng);
        self.note(result);
        self.pump();
    }

    /// Runs timers as they come due until `by` has passed.
    pub(super) fn run(&mut self, by: Duration) {
        let end = self.now + by;
        for _ in 0..100_000 {
            match self.session.poll_timeout() {
                Some(due) if due <= end => {
                    self.now = self.now.max(due);
                    self.advance(Duration::ZERO);
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("timers do not come to rest");
    }

    pub(super) fn note(&mut self, result: Result<(), SessionError>) {
        if let Err(error) = result {
            self.error = Some(error);
        }
    }

    /// Driver, engine, authenticator and peer, until nothing happens any more.
    pub(super) fn pump(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            let mut out = Vec::new();
            busy |= self.session.poll_transmit(self.now, &mut out);
            self.wire.append(&mut out);
            while let Some(event) = self.session.poll_event() {
                busy = true;
                self.event(event);
            }
            if !self.hold_tls
                && let Some(answer) = self.held.pop_front()
            {
                busy = true;
                let result = self.session.handle_tls_answer(self.now, answer, &mut self.rng);
                self.note(result);
            }
            if !self.wire.is_empty() {
                busy = true;
                let mut wire = std::mem::take(&mut self.wire);
                let mut frames = std::mem::take(&mut self.peer.frames);
                frames
                    .feed(&mut wire, &mut |frame| {
                        self.peer.receive(frame);
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                self.peer.frames = frames;
                self.complete_keys();
                if self.peer.auto_ack && self.closed.is_none() {
                    for key in self.peer.keys.keys().copied().collect::<Vec<_>>() {
                        while let Some(frame) = self.peer.ack(key) {
                            self.feed(frame);
                        }
                    }
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the session does not come to rest");
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Tls(task) => self.tls(task),
            Event::AuthNeeded { ticket, request } => {
                self.events.push("auth".into());
                self.asked = Some((ticket, request));
                if let Some(verdict) = self.verdict.clone() {
                    self.session.handle_verdict(self.now, ticket, verdict);
                }
            }
            Event::AssignmentNeeded { ticket, identity } => {
                self.events.push(format!("address {}", identity.0));
                self.needs_address = Some(ticket);
                if let Some(assignment) = self.assignment {
                    self.session.handle_assignment(self.now, ticket, assignment);
                }
            }
            Event::Established => self.events.push("established".into()),
            Event::Up => self.events.push("up".into()),
            Event::RekeyPresented { request } => self.presented.push(*request),
            Event::KeysChanged { key_id } => self.events.push(format!("key {key_id}")),
            Event::Close(reason) => {
                assert!(self.closed.is_none(), "closed twice");
                self.events.push(format!("close {}", reason.code()));
                self.closed = Some(reason);
            }
        }
    }

    fn tls(&mut self, task: TlsTask) {
        let TlsTask { engine, op } = task;
        let mut answer = TlsAnswer {
            engine,
            ciphertext: Vec::new(),
            plaintext: SecretBytes::from(Vec::new()),
            established: None,
            error: None,
        };
        match op {
            TlsOp::Open => {
                self.opened += 1;
                assert!(self.engines.insert(engine, NullEngine::default()).is_none());
                return;
            }
            TlsOp::Close => {
                assert!(self.engines.remove(&engine).is_some(), "closed an unknown engine");
                self.events.push(format!("engine {} closed", engine.0));
                return;
            }
            TlsOp::Input(bytes) => {
                assert!(!bytes.is_empty());
                let state = self.engines.get_mut(&engine).expect("input for an open engine");
                state.inputs += 1;
                if state.inputs == 1 {
                    answer.ciphertext = b"greeting".to_vec();
                    answer.established = Some(Box::new(self.handshake(engine)));
                    // The client's last flight may carry its first message.
                    let rest = bytes.strip_prefix(b"hello").unwrap_or_default();
                    answer.plaintext = SecretBytes::from(rest.to_vec());
                } else if bytes == b"alert" {
                    self.engines.remove(&engine);
                    answer.ciphertext = b"last words".to_vec();
                    answer.error = Some("alert received".into());
                } else {
                    answer.plaintext = SecretBytes::from(bytes);
                }
            }
            TlsOp::Write(message) => {
                assert!(self.engines.contains_key(&engine), "write to an open engine");
                answer.ciphertext = message.expose().to_vec();
            }
        }
        self.held.push_back(answer);
    }

    fn handshake(&mut self, engine: EngineId) -> TlsFacts {
        let mut block = || {
            let mut bytes = [0; 256];
            self.rng.fill(&mut bytes).unwrap();
            KeyBlock::from_bytes(bytes)
        };
        let (data_keys, dynamic_wrap) = (block(), block());
        self.facts.insert(engine, (data_keys.duplicate(), dynamic_wrap.duplicate()));
        TlsFacts {
            version: "TLSv1.2".into(),
            suite: "NULL".into(),
            client_certificate: self.certificate.clone(),
            data_keys,
            dynamic_wrap,
        }
    }

    pub(super) fn forget_engines(&mut self) {
        self.engines.clear();
        self.held.clear();
    }

    pub(super) fn live_engines(&self) -> usize {
        self.engines.len()
    }

    /// Derives the peer's data keys once the server's message is there, and reads what follows it.
    fn complete_keys(&mut self) {
        let exported: Vec<KeyBlock> =
            self.facts.values().map(|(data, _)| data.duplicate()).collect();
        let dynamic = self.facts.values().next().map(|(_, dynamic)| dynamic.duplicate());
        let Peer { keys, cipher, digest, exporter, sid, server, messages, peer_id, .. } =
            &mut self.peer;
        let mut negotiated = false;
        for key in keys.values_mut() {
            if key.data.is_none()
                && let Some(source) = &key.source
                && let Ok(Some((message, used))) = KeyMethod2::decode_server(&key.plain, true)
            {
                key.plain.drain(..used);
                let block = if *exporter {
                    exported.last().unwrap().duplicate()
                } else {
                    derive_key_block(source, &message.source, sid.bytes(), server.unwrap().bytes())
                };
                key.data = Some(DataKeys::new(*cipher, *digest, &block, Role::Client).unwrap());
            }
            if key.data.is_some() && !key.plain.is_empty() {
                let mut reader = MessageReader::new();
                let plain = std::mem::take(&mut key.plain);
                reader.push(&plain, &mut |message| {
                    if let Message::PushReply(text) = &message {
                        *peer_id = text.split(',').find_map(|option| {
                            option.strip_prefix("peer-id ").and_then(|id| id.parse().ok())
                        });
                        negotiated = text.contains("dyn-tls-crypt");
                    }
                    messages.push(message);
                });
            }
        }
        if negotiated && self.peer.dynamic.is_none() {
            let base = self.base_key();
            let wrap =
                ControlWrap::dynamic_tls_crypt(&dynamic.unwrap(), base.as_ref(), Role::Client);
            self.peer.dynamic = Some(wrap);
        }
    }

    fn base_key(&self) -> Option<StaticKey> {
        match &self.config.wrap {
            WrapConfig::TlsAuth { key, .. } | WrapConfig::TlsCrypt { key } => Some(key.duplicate()),
            _ => None,
        }
    }
}

impl Peer {
    pub(super) fn key(&mut self, key: u8) -> &mut PeerKey {
        self.keys.entry(key).or_insert_with(|| PeerKey {
            next_id: 0,
            expected: 0,
            unacked: Vec::new(),
            plain: Vec::new(),
            greeted: false,
            acked: Vec::new(),
            source: None,
            data: None,
        })
    }

    /// The next message of a key as a frame.
    pub(super) fn message(&mut self, opcode: Opcode, key: u8, payload: &[u8]) -> Vec<u8> {
        let state = self.key(key);
        let id = state.next_id;
        state.next_id += 1;
        let acks: Vec<u32> = state.unacked.drain(..state.unacked.len().min(4)).collect();
        self.frame(opcode, key, &acks, Some(id), payload)
    }

    /// Acknowledges up to 8 ids.
    pub(super) fn ack(&mut self, key: u8) -> Option<Vec<u8>> {
        let state = self.key(key);
        if state.unacked.is_empty() {
            return None;
        }
        let acks: Vec<u32> = state.unacked.drain(..state.unacked.len().min(8)).collect();
        Some(self.frame(Opcode::AckV1, key, &acks, None, &[]))
    }

    pub(super) fn frame(
        &mut self,
        opcode: Opcode,
        key: u8,
        acks: &[u32],
        id: Option<u32>,
        payload: &[u8],
    ) -> Vec<u8> {
        let acks = match self.server {
            Some(server) => AckList::new(acks, server),
            None => AckList::none(),
        };
        let packet = ControlPacket {
            opcode,
            key_id: KeyId::new(key).unwrap(),
            session_id: self.sid,
            acks,
            message_id: id,
            payload,
        };
        self.raw_frame(&packet)
    }

    pub(super) fn raw_frame(&mut self, packet: &ControlPacket<'_>) -> Vec<u8> {
        let mut plain = Vec::new();
        packet.encode(&mut plain);
        let mut out = Vec::new();
        let wrap = match &mut self.dynamic {
            Some(dynamic) if packet.key_id != KeyId::FIRST => dynamic,
            _ => &mut self.wrap,
        };
        let wkc = match packet.opcode {
            Opcode::HardResetClientV3 | Opcode::ControlWkcV1 => &self.wkc[..],
            _ => &[],
        };
        push_frame(&mut out, |out| {
            wrap.wrap(&plain, 1_700_000_000, out)?;
            out.extend_from_slice(wkc);
            Ok::<(), tunnelhead_crypto::WrapError>(())
        })
        .unwrap();
        out
    }

    /// An inner packet as a frame.
    pub(super) fn data(&mut self, key: u8, payload: &[u8]) -> Vec<u8> {
        let header = DataHeader { key_id: key, peer_id: self.peer_id };
        let keys = self.keys.get_mut(&key).unwrap().data.as_mut().unwrap();
        let mut out = Vec::new();
        let mut rng = fresh_random();
        push_frame(&mut out, |out| keys.sealer.seal(header, payload, &mut rng, out)).unwrap();
        out
    }

    fn receive(&mut self, frame: &mut [u8]) {
        let first = FirstByte::decode(frame[0]).unwrap();
        let key_id = first.key_id.get();
        if first.opcode.is_data() {
            let keys = self.keys.get_mut(&key_id).and_then(|key| key.data.as_mut());
            let keys = keys.expect("data for a key that the peer has");
            let payload = keys.opener.open(frame).expect("authentic data, ids in order");
            self.inner.push((key_id, payload.to_vec()));
            return;
        }
        let mut plain = Vec::new();
        let wrap = match &mut self.dynamic {
            Some(dynamic) if key_id != 0 => dynamic,
            _ => &mut self.wrap,
        };
        wrap.unwrap(frame, &mut plain).expect("a valid wrapping");
        let packet = ControlPacket::decode(&plain).expect("a valid control packet");
        let (opcode, id) = (packet.opcode, packet.message_id);
        assert!(packet.acks.ids().len() <= 4);
        assert!(packet.payload.len() <= 1100);
        let server = *self.server.get_or_insert(packet.session_id);
        assert_eq!(packet.session_id, server);
        self.control.push(Heard { opcode, acks: packet.acks.ids().to_vec() });
        let payload = packet.payload.to_vec();
        let acked = packet.acks.ids().to_vec();
        let key = self.key(key_id);
        for id in acked {
            assert!(!key.acked.contains(&id) || key.next_id > 0, "each id once");
            key.acked.push(id);
        }
        let Some(id) = id else { return };
        assert_eq!(id, key.expected, "messages in order, without gaps or repetition");
        key.expected += 1;
        key.unacked.push(id);
        let text = if key.greeted {
            &payload[..]
        } else if let Some(rest) = payload.strip_prefix(b"greeting") {
            key.greeted = true;
            rest
        } else {
            &[]
        };
        key.plain.extend_from_slice(text);
    }
}
