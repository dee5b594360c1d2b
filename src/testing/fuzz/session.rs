//! A whole session against the reference client, steered by the input: how the stream is cut,
//! what is damaged or made up, when time passes, who rekeys, what the slow services answer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tunnelhead_crypto::{
    AuthDigest, DataCipher, FastRandom, KeyBlock, KeyDirection, Metadata, NonceAuditor, Secret,
    SecretBytes, StaticKey, TlsCryptV2ClientKey, TlsCryptV2ServerKey,
};

use super::{Input, some_time};
use crate::proto::client::{Client, ClientConfig, ClientEvent, ClientWrap, SwitchPolicy};
use crate::proto::session::{
    Allowed, Assignment, AssignmentRefused, DenyReason, EngineId, Event, Identity, Session,
    SessionConfig, Shut, TlsAnswer, TlsOp, TlsTask, Verdict, WrapConfig,
};
use crate::tls::TlsEngine;
use crate::tls::null::{NullConfig, NullEngine, NullRole};

/// Bytes that steer a session. Nobody may be confused by a stream that nobody has touched.
pub fn session_stream(data: &[u8]) {
    let _apart = NonceAuditor::isolate();
    let mut input = Input(data);
    let mut pair = Pair::new(input.u8(), input.u8());
    for _ in 0..MAX_STEPS {
        if input.0.is_empty() {
            break;
        }
        pair.step(&mut input);
        pair.settle();
    }
}

/// Bytes that claim to be an exported session: made up, and an authentic export with some bytes
/// changed.
pub fn session_import(data: &[u8]) {
    let _apart = NonceAuditor::isolate();
    import(data);
    let mut bytes = exported().to_vec();
    let mut input = Input(data);
    let changes = usize::from(input.u8() % 8);
    for _ in 0..changes {
        let at = usize::from(input.u16()) % bytes.len();
        let change = input.u8();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change;
        }
    }
    if input.u8() % 4 == 0 {
        bytes.truncate(usize::from(input.u16()) % (bytes.len() + 1));
    }
    let untouched = bytes == exported();
    assert!(import(&bytes) || !untouched, "an export cannot be read back");
}

/// Whether the bytes are a session; one that is must bear being used.
fn import(bytes: &[u8]) -> bool {
    let now = some_time();
    let Ok(mut session) = Session::import(Arc::new(server_config(0)), now, bytes) else {
        return false;
    };
    let mut random = FastRandom::from_seed([3; 32]);
    let mut out = Vec::new();
    let mut again = Vec::new();
    if session.export(now, &mut again).is_ok() {
        let second = Session::import(Arc::new(server_config(0)), now, &again);
        assert!(second.is_ok(), "what was read cannot be written and read again");
    }
    let _ = session.seal(now, &inner_packet(1), &mut random, &mut out);
    session.poll_transmit(now, &mut out);
    let _ = session.handle_link(now, &mut [0, 1, 0x30], &mut |_| ());
    if let Some(due) = session.poll_timeout() {
        let _ = session.handle_timeout(due, &mut random);
    }
    while session.poll_event().is_some() {}
    let _ = session.info();
    true
}

/// An established session as bytes.
fn exported() -> &'static [u8] {
    static EXPORTED: OnceLock<Vec<u8>> = OnceLock::new();
    EXPORTED.get_or_init(|| {
        let mut pair = Pair::new(0, 0);
        for _ in 0..40 {
            pair.feed_server(usize::MAX);
            pair.settle();
            pair.feed_client(usize::MAX);
            pair.settle();
            pair.pass(Duration::from_secs(1));
            pair.settle();
        }
        let mut bytes = Vec::new();
        if let Err(refused) = pair.session.export(pair.now, &mut bytes) {
            panic!("a session that is up cannot be exported: {refused}");
        }
        bytes
    })
}

/// A session, a client, and everything between and around them.
struct Pair {
    now: Instant,
    random: FastRandom,
    config: Arc<SessionConfig>,
    session: Session,
    client: Client,
    server_engines: BTreeMap<EngineId, NullEngine>,
    client_engines: BTreeMap<EngineId, NullEngine>,
    /// Written by one side and not yet read by the other.
    server_in: Vec<u8>,
    client_in: Vec<u8>,
    /// The stream to the server, and to the client, is as it was written.
    untouched: bool,
    deny: bool,
    full: bool,
    /// Nobody has given a reason to end the session.
    peaceful: bool,
    /// Numbers of the inner packets: sent, and received last.
    client_sent: u32,
    server_sent: u32,
    server_got: u32,
    client_got: u32,
}

impl Pair {
    fn new(wrap: u8, flags: u8) -> Self {
        let now = some_time();
        let mut random = FastRandom::from_seed([wrap; 32]);
        let config = Arc::new(server_config(wrap));
        let session = match Session::new(Arc::clone(&config), now, UNIX_TIME, &mut random) {
            Ok(session) => session,
            Err(error) => panic!("a session: {error}"),
        };
        let client = match Client::new(client_config(wrap, flags), now, UNIX_TIME, &mut random) {
            Ok(client) => client,
            Err(error) => panic!("a client: {error}"),
        };
        let mut pair = Self {
            now,
            random,
            config,
            session,
            client,
            server_engines: BTreeMap::new(),
            client_engines: BTreeMap::new(),
            server_in: Vec::new(),
            client_in: Vec::new(),
            untouched: true,
            deny: false,
            full: false,
            peaceful: true,
            client_sent: 0,
            server_sent: 0,
            server_got: 0,
            client_got: 0,
        };
        pair.settle();
        pair
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0 => self.feed_server(usize::MAX),
            1 => self.feed_server(usize::from(input.u8()) + 1),
            2 => self.feed_server(1),
            3 => self.feed_client(usize::MAX),
            4 => self.feed_client(usize::from(input.u8()) + 1),
            5 => {
                for _ in 0..4 {
                    self.feed_server(usize::MAX);
                    self.settle();
                    self.feed_client(usize::MAX);
                    self.settle();
                }
            }
            6 => {
                let at = usize::from(input.u16());
                let bit = input.u8() % 8;
                let length = self.server_in.len().max(1);
                if let Some(byte) = self.server_in.get_mut(at % length) {
                    *byte ^= 1 << bit;
                    self.untouched = false;
                }
            }
            7 => {
                let length = usize::from(input.u8());
                let bytes = input.bytes(length);
                self.untouched &= bytes.is_empty();
                self.server_in.extend_from_slice(bytes);
            }
            8 => {
                // A frame of a stranger between two chunks; the framing stays right.
                let length = usize::from(input.u8());
                let bytes = input.bytes(length);
                if let Ok(length) = u16::try_from(bytes.len()) {
                    self.untouched = false;
                    self.server_in.extend_from_slice(&length.to_be_bytes());
                    self.server_in.extend_from_slice(bytes);
                }
            }
            9 => self.pass(Duration::from_millis(u64::from(input.u8()) * 20)),
            10 => {
                let seconds = u64::from(input.u8());
                // Long silence may end the session by rule.
                self.peaceful &= seconds < 5;
                self.pass(Duration::from_secs(seconds));
            }
            11 => {
                self.client.start_rekey(self.now);
            }
            12 => {
                let _ = self.session.start_rekey(self.now);
            }
            13 => {
                self.client_sent += 1;
                let packet = inner_packet(self.client_sent);
                let (random, out) = (&mut self.random, &mut self.server_in);
                let _ = self.client.send_packet(self.now, &packet, random, out);
            }
            14 => {
                self.server_sent += 1;
                let packet = inner_packet(self.server_sent);
                let before = self.client_in.len();
                let expected = self.session.sealed_len(packet.len());
                let (random, out) = (&mut self.random, &mut self.client_in);
                match self.session.seal(self.now, &packet, random, out) {
                    Ok(()) => assert_eq!(self.client_in.len() - before, expected),
                    Err(_) => assert_eq!(self.client_in.len(), before, "half a packet was sealed"),
                }
            }
            _ => self.unusual(input.u8()),
        }
    }

    fn unusual(&mut self, what: u8) {
        match what % 6 {
            0 => self.deny = true,
            1 => self.full = true,
            2 => {
                self.peaceful = false;
                self.session.shut(self.now, Shut::Restart);
            }
            3 => {
                self.peaceful = false;
                self.session.shut(self.now, Shut::Quiet);
            }
            4 => {
                self.peaceful = false;
                self.client.set_credentials(b"other".to_vec(), SecretBytes::from(vec![b'x']));
            }
            _ => self.hand_over(),
        }
    }

    /// The session goes on in another process.
    fn hand_over(&mut self) {
        let mut bytes = Vec::new();
        if self.session.export(self.now, &mut bytes).is_err() {
            assert!(bytes.is_empty(), "half an export");
            return;
        }
        match Session::import(Arc::clone(&self.config), self.now, &bytes) {
            Ok(session) => self.session = session,
            Err(error) => panic!("an export cannot be read back: {error}"),
        }
        self.server_engines.clear();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let result = self.session.handle_timeout(self.now, &mut self.random);
        assert!(result.is_ok() || !self.untouched || !self.peaceful, "{result:?}");
        self.client.handle_timeout(self.now, &mut self.random);
    }

    fn feed_server(&mut self, count: usize) {
        let mut bytes: Vec<u8> = self.server_in.drain(..count.min(self.server_in.len())).collect();
        let mut last = self.server_got;
        let result = self.session.handle_link(self.now, &mut bytes, &mut |packet| {
            last = next_number(packet, last, "the server");
        });
        self.server_got = last;
        assert!(last <= self.client_sent, "a packet that nobody sent");
        if let Err(error) = result
            && self.untouched
            && self.peaceful
        {
            panic!("the server ends an untouched session: {error:?}");
        }
    }

    fn feed_client(&mut self, count: usize) {
        let mut bytes: Vec<u8> = self.client_in.drain(..count.min(self.client_in.len())).collect();
        let mut last = self.client_got;
        self.client.handle_link(self.now, &mut bytes, &mut |packet| {
            last = next_number(packet, last, "the client");
        });
        self.client_got = last;
        assert!(last <= self.server_sent, "a packet that nobody sent");
    }

    /// Lets both sides do what they can without each other.
    fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut idle = !self.session.poll_transmit(self.now, &mut self.client_in);
            idle &= !self.client.poll_transmit(self.now, &mut self.server_in);
            while let Some(event) = self.session.poll_event() {
                idle = false;
                self.server_event(event);
            }
            while let Some(event) = self.client.poll_event() {
                idle = false;
                self.client_event(event);
            }
            if idle {
                return;
            }
        }
        panic!("the two never come to rest");
    }

    fn server_event(&mut self, event: Event) {
        match event {
            Event::Tls(task) => {
                let answer = execute(&mut self.server_engines, task, NullRole::Server);
                if let Some(answer) = answer {
                    let result = self.session.handle_tls_answer(self.now, answer, &mut self.random);
                    assert!(result.is_ok() || !self.untouched || !self.peaceful, "{result:?}");
                }
            }
            Event::AuthNeeded { ticket, request } => {
                self.peaceful &= !self.deny;
                let verdict = if self.deny || request.too_long {
                    Verdict::Deny(DenyReason::WrongPassword)
                } else {
                    Verdict::Allow(Allowed {
                        identity: Identity("branch-42".into()),
                        cipher: None,
                        auth: None,
                    })
                };
                self.session.handle_verdict(self.now, ticket, verdict);
            }
            Event::AssignmentNeeded { ticket, .. } => {
                self.peaceful &= !self.full;
                let assignment = if self.full {
                    Err(AssignmentRefused::PoolFull)
                } else {
                    Ok(Assignment {
                        address: Ipv4Addr::new(100, 64, 9, 7),
                        prefix_len: 24,
                        gateway: Ipv4Addr::new(100, 64, 9, 1),
                    })
                };
                self.session.handle_assignment(self.now, ticket, assignment);
            }
            Event::Established
            | Event::Up
            | Event::KeysChanged { .. }
            | Event::RekeyPresented { .. } => {}
            Event::Close(reason) => {
                assert!(
                    !self.untouched || !self.peaceful,
                    "the server ends an untouched session: {reason:?}"
                );
                self.peaceful = false;
            }
        }
    }

    fn client_event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Tls(task) => {
                let answer = execute(&mut self.client_engines, task, NullRole::Client);
                if let Some(answer) = answer {
                    self.client.handle_tls_answer(self.now, answer, &mut self.random);
                }
            }
            ClientEvent::ProtocolViolation(what) => {
                assert!(!self.untouched, "the server confused its client: {what}");
            }
            ClientEvent::Close(why) => {
                assert!(!self.untouched || !self.peaceful, "the client gave up: {why}");
                self.peaceful = false;
            }
            _ => {}
        }
    }
}

/// Carries one operation to its engine. `Open` and `Close` have no answer.
fn execute(
    engines: &mut BTreeMap<EngineId, NullEngine>,
    task: TlsTask,
    role: NullRole,
) -> Option<TlsAnswer> {
    match task.op {
        TlsOp::Open => {
            let config = NullConfig::new(role, u64::from(task.engine.0));
            engines.insert(task.engine, NullEngine::new(config));
            None
        }
        TlsOp::Close => {
            engines.remove(&task.engine);
            None
        }
        op => Some(engines.get_mut(&task.engine)?.handle(op).for_engine(task.engine)),
    }
}

fn server_config(wrap: u8) -> SessionConfig {
    SessionConfig {
        wrap: match wrap % 4 {
            0 => WrapConfig::None,
            1 => WrapConfig::TlsAuth {
                key: shared_key(),
                direction: KeyDirection::Normal,
                digest: AuthDigest::Sha1,
            },
            2 => WrapConfig::TlsCrypt { key: shared_key() },
            _ => WrapConfig::TlsCryptV2 { server_key: v2_server_key() },
        },
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
        credential_key: Secret::new([9; 32]),
        judge_rekeys: false,
        preauth_bytes: 64 * 1024,
        frame_bytes: 2048,
    }
}

fn client_config(wrap: u8, flags: u8) -> ClientConfig {
    let mut config = ClientConfig {
        username: Some(b"branch-42".to_vec()),
        password: Some(SecretBytes::from(b"secret".to_vec())),
        switch: SwitchPolicy::Immediately,
        wrap: match wrap % 4 {
            0 => ClientWrap::None,
            1 => ClientWrap::TlsAuth {
                key: shared_key(),
                direction: KeyDirection::Inverse,
                digest: AuthDigest::Sha1,
            },
            2 => ClientWrap::TlsCrypt { key: shared_key() },
            _ => ClientWrap::TlsCryptV2 { key: v2_client_key() },
        },
        ..ClientConfig::default()
    };
    if flags & 1 != 0 {
        config.cipher = DataCipher::Aes256Cbc;
        config.peer_info = (flags & 2 == 0).then(|| "IV_PROTO=2\n".to_owned());
    }
    config.quirks.second_reset = flags & 4 != 0 && wrap.is_multiple_of(4);
    config.quirks.early_hello = flags & 8 != 0 && wrap.is_multiple_of(4);
    config.quirks.repeat_acks = flags & 16 != 0;
    if flags & 32 != 0 {
        config.max_control_payload = 100;
    }
    config
}

fn shared_key() -> StaticKey {
    let mut bytes = [0; 256];
    for (number, byte) in (0_u8..=255).zip(bytes.iter_mut()) {
        *byte = number.wrapping_mul(91).wrapping_add(5);
    }
    StaticKey::from(KeyBlock::from_bytes(bytes))
}

fn v2_server_key() -> TlsCryptV2ServerKey {
    match TlsCryptV2ServerKey::generate(&mut FastRandom::from_seed([21; 32])) {
        Ok(key) => key,
        Err(error) => panic!("a server key: {error}"),
    }
}

fn v2_client_key() -> TlsCryptV2ClientKey {
    let mut random = FastRandom::from_seed([22; 32]);
    let metadata = Metadata::Timestamp(u64::from(UNIX_TIME));
    match TlsCryptV2ClientKey::generate(&v2_server_key(), &metadata, &mut random) {
        Ok(key) => key,
        Err(error) => panic!("a client key: {error}"),
    }
}

fn inner_packet(number: u32) -> Vec<u8> {
    let mut packet = vec![0x45; 40];
    packet.extend_from_slice(&number.to_be_bytes());
    packet
}

/// Inner packets arrive in the order of sending and never twice.
fn next_number(packet: &[u8], last: u32, who: &str) -> u32 {
    let number = packet.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    assert!(packet.starts_with(&[0x45; 40]) && packet.len() == 44, "{who} got a changed packet");
    assert!(number > last, "{who} got packet {number} after {last}");
    number
}

const UNIX_TIME: u32 = 1_700_000_000;
const MAX_STEPS: usize = 200;
const MAX_ROUNDS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Without this, the body could be content with sessions that never come up.
    #[test]
    fn the_steps_of_the_corpus_bring_every_kind_of_session_up() {
        for wrap in 0..4 {
            for flags in [0, 1, 3, 4, 8, 16, 32] {
                // The stand-in engines of every pair export the same keys.
                let _apart = NonceAuditor::isolate();
                let mut pair = Pair::new(wrap, flags);
                let steps = [5, 10, 2, 5, 10, 2, 5, 13, 14, 5, 11, 5, 13, 14, 5];
                let mut input = Input(&steps);
                while !input.0.is_empty() {
                    pair.step(&mut input);
                    pair.settle();
                }
                assert!(pair.client.is_connected(), "wrap {wrap}, flags {flags}");
                assert_eq!(
                    (pair.server_got, pair.client_got),
                    (2, 2),
                    "wrap {wrap}, flags {flags}"
                );
                assert_eq!(pair.session.stats().rekeys, 1, "wrap {wrap}, flags {flags}");
                assert!(pair.untouched && pair.peaceful);
            }
        }
    }
}
