//! The client's state, its timers, and its border to the outside.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataCipher, RandomError, Role, SecretBytes, SecureRandom,
};

use super::config::{ClientConfig, ClientWrap};
use super::event::{ClientEvent, ClientStats};
use super::key::Key;
use crate::proto::control::{Message, PeerInfo};
use crate::proto::negotiate::ParsedPush;
use crate::proto::session::{EngineId, TlsOp, TlsTask};
use crate::proto::wire::{FrameDecoder, KeyId, Opcode, SessionId};

/// A client on one TCP connection.
#[derive(Debug)]
pub struct Client {
    pub(super) config: ClientConfig,
    /// What the client says of itself, parsed: what a server may do follows from it.
    pub(super) announced: PeerInfo,
    pub(super) own: SessionId,
    pub(super) remote: Option<SessionId>,
    pub(super) unix_time: u32,
    pub(super) wrap: ControlWrap,
    /// Wraps the control packets of every key but the first, once agreed.
    pub(super) dynamic: Option<ControlWrap>,
    pub(super) frames: FrameDecoder,
    /// Oldest first, never empty.
    pub(super) keys: Vec<Key>,
    pub(super) next_engine: u32,
    pub(super) push: Push,
    pub(super) agreed: Option<Agreed>,
    pub(super) events: VecDeque<ClientEvent>,
    /// Framed packets that wait for [`Client::poll_transmit`].
    pub(super) out: Vec<u8>,
    pub(super) last_sent: Instant,
    pub(super) last_received: Instant,
    pub(super) closed: bool,
    pub(super) stats: ClientStats,
}

/// Where the client stands with its configuration.
#[derive(Debug)]
pub(super) enum Push {
    /// The key exchange is not done.
    NotYet,
    /// The next request goes out at `next`; the client gives up at `give_up`.
    Asking { next: Instant, give_up: Instant },
    /// Connected, or giving up silently (a stall).
    Done,
}

/// What the first push reply settled for the life of the session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub(super) cipher: DataCipher,
    pub(super) digest: AuthDigest,
    pub(super) key_export: bool,
    pub(super) peer_id: Option<u32>,
    pub(super) ping: Option<Duration>,
    pub(super) ping_restart: Option<Duration>,
}

impl Client {
    /// A client whose first packets wait in [`Self::poll_transmit`]. `unix_time` in seconds marks
    /// its wrapped control packets.
    ///
    /// # Errors
    /// [`RandomError`] if no session id can be made.
    pub fn new(
        config: ClientConfig,
        now: Instant,
        unix_time: u32,
        rng: &mut dyn SecureRandom,
    ) -> Result<Self, RandomError> {
        let wrap = match &config.wrap {
            ClientWrap::None => ControlWrap::none(),
            ClientWrap::TlsAuth { key, direction, digest } => {
                ControlWrap::tls_auth(key, *direction, *digest)
            }
            ClientWrap::TlsCrypt { key } => ControlWrap::tls_crypt(key, Role::Client),
            ClientWrap::TlsCryptV2 { key } => ControlWrap::tls_crypt(&key.key, Role::Client),
        };
        let reset = match &config.wrap {
            ClientWrap::TlsCryptV2 { .. } => Opcode::HardResetClientV3,
            _ => Opcode::HardResetClientV2,
        };
        let mut first = Key::new(KeyId::FIRST, EngineId(0), reset, now);
        if config.quirks.second_reset {
            first.channel.push(Opcode::HardResetClientV2, Vec::new());
        }
        let announced = PeerInfo::parse(config.peer_info.as_deref().unwrap_or_default());
        let early = config.quirks.early_hello;
        let mut client = Self {
            config,
            announced,
            own: SessionId::generate(rng)?,
            remote: None,
            unix_time,
            wrap,
            dynamic: None,
            frames: FrameDecoder::new(),
            keys: vec![first],
            next_engine: 1,
            push: Push::NotYet,
            agreed: None,
            events: VecDeque::new(),
            out: Vec::new(),
            last_sent: now,
            last_received: now,
            closed: false,
            stats: ClientStats::default(),
        };
        if early {
            client.open_tls(0);
        }
        Ok(client)
    }

    /// Lets time pass: push requests, pings, renegotiation, and giving up.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn SecureRandom) {
        if self.closed {
            return;
        }
        if self.negotiating_until().is_some_and(|deadline| now >= deadline) {
            return self.close("the key negotiation took too long");
        }
        if let Push::Asking { next, give_up } = self.push {
            if now >= give_up {
                return self.close("no push reply came");
            }
            if now >= next {
                self.push = Push::Asking { next: now + self.config.push_interval, give_up };
                self.stats.push_requests += 1;
                self.send_message(&Message::PushRequest);
            }
        }
        if self.dead_at().is_some_and(|deadline| now >= deadline) {
            return self.close("the server is silent");
        }
        if self.ping_at().is_some_and(|due| now >= due) {
            self.send_ping(now, rng);
        }
        self.drop_expired(now);
        if self.rekey_at().is_some_and(|due| now >= due) {
            self.start_rekey(now);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let push = match self.push {
            Push::Asking { next, give_up } => Some(next.min(give_up)),
            _ => None,
        };
        let times = [
            self.negotiating_until(),
            push,
            self.dead_at(),
            self.ping_at(),
            self.rekey_at(),
            self.oldest_expires(),
        ];
        times.into_iter().flatten().min()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Starts a renegotiation; false if the client is not connected or one is already under way.
    pub fn start_rekey(&mut self, now: Instant) -> bool {
        let Some(newest) = self.keys.last().filter(|key| key.data.is_some()) else { return false };
        if self.closed || self.agreed.is_none() {
            return false;
        }
        let id = newest.id.next();
        self.add_key(id, now);
        true
    }

    /// Sends a control message on the newest key whose exchange is done; false if there is none.
    pub fn send_message(&mut self, message: &Message) -> bool {
        let Some(key) = self.keys.iter().rev().find(|key| key.server.is_some()) else {
            return false;
        };
        let engine = key.engine;
        self.task(engine, TlsOp::Write(SecretBytes::from(message.to_bytes())));
        true
    }

    /// Uses other credentials from the next renegotiation on.
    pub fn set_credentials(&mut self, username: Vec<u8>, password: SecretBytes) {
        self.config.username = Some(username);
        self.config.password = Some(password);
    }

    /// True between `Connected` and `Close`.
    pub fn is_connected(&self) -> bool {
        self.agreed.is_some() && !self.closed
    }

    /// The key that data packets are sent with.
    pub fn sending_key(&self, now: Instant) -> Option<u8> {
        self.sending_index(now).and_then(|index| self.keys.get(index)).map(|key| key.id.get())
    }

    /// Counters.
    pub fn stats(&self) -> ClientStats {
        self.stats
    }

    /// Makes the state of a new key; its reset waits to be sent.
    pub(super) fn add_key(&mut self, id: KeyId, now: Instant) {
        let engine = EngineId(self.next_engine);
        self.next_engine = self.next_engine.wrapping_add(1);
        self.keys.push(Key::new(id, engine, Opcode::SoftResetV1, now));
    }

    /// Drops the oldest key and its engine.
    pub(super) fn drop_oldest(&mut self) {
        if self.keys.len() > 1 {
            let key = self.keys.remove(0);
            self.task(key.engine, TlsOp::Close);
        }
    }

    pub(super) fn open_tls(&mut self, index: usize) {
        if let Some(key) = self.keys.get_mut(index)
            && !key.tls_open
        {
            key.tls_open = true;
            let engine = key.engine;
            self.task(engine, TlsOp::Open);
            self.task(engine, TlsOp::Input(Vec::new()));
        }
    }

    pub(super) fn task(&mut self, engine: EngineId, op: TlsOp) {
        self.events.push_back(ClientEvent::Tls(TlsTask { engine, op }));
    }

    /// The server did what it must not do; the client goes on.
    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.stats.violations += 1;
        self.events.push_back(ClientEvent::ProtocolViolation(what.into()));
    }

    /// The server did what no client survives.
    pub(super) fn fatal(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.violation(what.clone());
        self.close(what);
    }

    pub(super) fn close(&mut self, reason: impl Into<String>) {
        if !self.closed {
            self.closed = true;
            self.events.push_back(ClientEvent::Close(reason.into()));
        }
    }

    /// Settles the configuration and reports it.
    pub(super) fn connected(&mut self, agreed: Agreed, push: ParsedPush) {
        self.agreed = Some(agreed);
        self.push = Push::Done;
        self.events
            .push_back(ClientEvent::Connected { push: Box::new(push), cipher: agreed.cipher });
    }

    fn negotiating_until(&self) -> Option<Instant> {
        let newest = self.keys.last()?;
        (!newest.active).then(|| newest.created + self.config.hand_window)
    }

    fn dead_at(&self) -> Option<Instant> {
        Some(self.last_received + self.agreed?.ping_restart?)
    }

    fn ping_at(&self) -> Option<Instant> {
        Some(self.last_sent + self.agreed?.ping.filter(|_| self.config.pings)?)
    }

    fn rekey_at(&self) -> Option<Instant> {
        self.keys.last()?.data.as_ref()?.rekey_at
    }

    fn oldest_expires(&self) -> Option<Instant> {
        let successor = self.keys.get(1).filter(|key| key.data.is_some())?;
        Some(successor.created + self.config.transition_window)
    }

    fn drop_expired(&mut self, now: Instant) {
        if self.oldest_expires().is_some_and(|expires| now >= expires) {
            self.drop_oldest();
        }
    }
}
