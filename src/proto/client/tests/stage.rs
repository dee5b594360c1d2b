//! A client, the clock, and a peer that does nothing by itself.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataCipher, DataHeader, DataKeys, FastRandom, KeyBlock, KeySource,
    Role, Secret, SecretBytes, derive_key_block,
};

use super::super::{Client, ClientConfig, ClientEvent, ClientWrap};
use crate::proto::control::KeyMethod2;
use crate::proto::session::{EngineId, TlsAnswer, TlsFacts, TlsOp, TlsTask};
use crate::proto::wire::{
    AckList, ControlPacket, FirstByte, FrameDecoder, KeyId, Opcode, SessionId, push_frame,
};

pub(super) const PUSH: &str = "PUSH_REPLY,route-gateway 100.64.7.1,topology subnet,ping 20,\
    ping-restart 90,ifconfig 100.64.7.9 255.255.255.0";
pub(super) const PEER_ID: [u8; 8] = [7; 8];

/// What the peer has seen: key, opcode, message id, acknowledged ids, payload.
pub(super) type Seen = (u8, Opcode, Option<u32>, Vec<u32>, Vec<u8>);

/// A client, the clock, and a peer that does nothing by itself.
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) rng: FastRandom,
    /// Different in every stage of the process: no two may make the same data keys.
    pub(super) seed: u32,
    pub(super) now: Instant,
    pub(super) wrap: ControlWrap,
    pub(super) dynamic: Option<ControlWrap>,
    pub(super) frames: FrameDecoder,
    pub(super) remote: Option<SessionId>,
    pub(super) next_id: [u32; 8],
    pub(super) data: Vec<(u8, DataKeys)>,
    pub(super) inner: Vec<Vec<u8>>,
    pub(super) events: Vec<ClientEvent>,
    pub(super) engines_closed: usize,
}

impl Stage {
    pub(super) fn new(config: ClientConfig) -> Self {
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
    pub(super) fn sent(&mut self) -> Vec<Seen> {
        let mut out = Vec::new();
        self.client.poll_transmit(self.now, &mut out);
        self.read(&mut out)
    }

    pub(super) fn read(&mut self, bytes: &mut [u8]) -> Vec<Seen> {
        let mut frames = Vec::new();
        self.frames
            .feed(bytes, &mut |frame| {
                frames.push(frame.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        frames.into_iter().filter_map(|frame| self.read_frame(frame)).collect()
    }

    pub(super) fn read_frame(&mut self, mut frame: Vec<u8>) -> Option<Seen> {
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
    pub(super) fn say(
        &mut self,
        key: u8,
        opcode: Opcode,
        id: Option<u32>,
        acks: &[u32],
        payload: &[u8],
    ) {
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

    pub(super) fn give(&mut self, bytes: &mut [u8]) {
        let inner = &mut self.inner;
        self.client.handle_link(self.now, bytes, &mut |packet| inner.push(packet.to_vec()));
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    /// The peer's next message of a key, which acknowledges `acks`.
    pub(super) fn message(&mut self, key: u8, opcode: Opcode, acks: &[u32], payload: &[u8]) {
        let id = self.next_id[usize::from(key)];
        self.next_id[usize::from(key)] += 1;
        self.say(key, opcode, Some(id), acks, payload);
    }

    /// Acknowledges everything that the client sends until it is silent.
    pub(super) fn acknowledge(&mut self) -> Vec<Seen> {
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

    pub(super) fn tls(&mut self, engine: u32, plaintext: &[u8], ciphertext: &[u8], facts: bool) {
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
    pub(super) fn key_method2(&mut self) -> KeyMethod2 {
        let write = self.take_tasks().into_iter().find_map(|task| match task.op {
            TlsOp::Write(bytes) => Some(bytes),
            _ => None,
        });
        KeyMethod2::decode_client(write.unwrap().expose(), true).unwrap().unwrap().0
    }

    pub(super) fn take_tasks(&mut self) -> Vec<TlsTask> {
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

    pub(super) fn violations(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                ClientEvent::ProtocolViolation(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn closed(&self) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            ClientEvent::Close(reason) => Some(reason.as_str()),
            _ => None,
        })
    }

    pub(super) fn connected(&self) -> bool {
        self.events.iter().any(|event| matches!(event, ClientEvent::Connected { .. }))
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now, &mut self.rng);
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    /// Runs one key from the peer's reset to its key method 2; makes the peer's data keys.
    pub(super) fn exchange(
        &mut self,
        key: u8,
        engine: u32,
        export: bool,
        setup: (DataCipher, AuthDigest),
    ) {
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
    pub(super) fn log_in(&mut self, export: bool, setup: (DataCipher, AuthDigest)) {
        self.sent();
        self.message(0, Opcode::HardResetServerV2, &[0], b"");
        self.exchange(0, 0, export, setup);
        self.take_tasks();
        self.advance(Duration::from_secs(1));
        let request = self.take_tasks();
        assert!(matches!(&request[..], [TlsTask { op: TlsOp::Write(bytes), .. }]
            if bytes.expose() == b"PUSH_REQUEST\0"));
    }

    pub(super) fn push(&mut self, reply: &str) {
        let mut bytes = reply.as_bytes().to_vec();
        bytes.push(0);
        self.tls(0, &bytes, b"", false);
    }

    /// The peer seals one packet; the header as given.
    pub(super) fn sealed(&mut self, key: u8, peer_id: Option<u32>, payload: &[u8]) -> Vec<u8> {
        let keys = self.data.iter_mut().find(|(id, _)| *id == key).map(|(_, keys)| keys).unwrap();
        let header = DataHeader { key_id: key, peer_id };
        let mut out = Vec::new();
        let rng = &mut self.rng;
        push_frame(&mut out, |out| keys.sealer.seal(header, payload, rng, out)).unwrap();
        out
    }

    pub(super) fn send(&mut self, payload: &[u8]) -> u8 {
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
pub(super) fn start() -> Instant {
    Instant::now()
}

pub(super) fn source(byte: u8) -> KeySource {
    KeySource {
        pre_master: Secret::new([0; 48]),
        random1: Secret::new([byte; 32]),
        random2: Secret::new([byte + 1; 32]),
    }
}

pub(super) fn exported(seed: u32, engine: u32) -> KeyBlock {
    let mut bytes = [0x40; 256];
    for half in bytes.chunks_exact_mut(128) {
        half[..4].copy_from_slice(&seed.to_be_bytes());
        half[4..8].copy_from_slice(&engine.to_be_bytes());
        half[64..68].copy_from_slice(&seed.to_be_bytes());
    }
    bytes[255] = 1;
    KeyBlock::from_bytes(bytes)
}

pub(super) fn router() -> ClientConfig {
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

pub(super) const CBC: (DataCipher, AuthDigest) = (DataCipher::Aes256Cbc, AuthDigest::Sha1);
pub(super) const GCM: (DataCipher, AuthDigest) = (DataCipher::Aes256Gcm, AuthDigest::Sha1);
