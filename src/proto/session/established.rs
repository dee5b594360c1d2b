//! An established session: packets flow, keys are renewed, silence is noticed.

use std::time::{Duration, Instant};

use tunnelhead_crypto::{DataHeader, SealError, SecretBytes, SecureRandom};

use super::data_channel::{self, FRAME_PREFIX, PING, Payload};
use super::error::{CloseReason, SealRefused, SessionError};
use super::event::{Event, TlsAnswer};
use super::key_slots::{Key, KeySlots};
use super::key_state::{Channel, Op};
use super::link::Link;
use super::login::Ready;
use super::rekey::jittered;
use super::shared::Shared;
use super::timers::{Linger, Liveness, RekeyFlood};
use super::tunnel::Tunnel;
use crate::proto::control::Message;
use crate::proto::wire::{ControlPacket, KeyId, Opcode, PushFrameError, push_frame};

/// Push replies for one login, and their least distance.
const MAX_PUSH_REPLIES: u8 = 30;
const PUSH_REPLY_DISTANCE: Duration = Duration::from_secs(1);

/// A session with a pushed address and data keys.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) link: Link,
    pub(super) tunnel: Tunnel,
    pub(super) keys: KeySlots,
    pub(super) live: Liveness,
    /// When the push reply was sent.
    pub(super) since: Instant,
    /// Packets flow both ways.
    pub(super) up: bool,
    /// The session must be up by then.
    pub(super) up_by: Instant,
    /// The push reply, as long as it may be asked for again.
    pub(super) push: Option<Push>,
    /// The TLS engine of the current key.
    pub(super) linger: Linger,
    /// When the current key is old enough for a rekey from our side.
    pub(super) rekey_at: Option<Instant>,
    /// No rekey from our side before then: the last one failed.
    pub(super) rekey_hold: Option<Instant>,
    /// The last rekey failed before the peer could use its key; its id may be tried again.
    pub(super) failed_key: Option<KeyId>,
    pub(super) flood: RekeyFlood,
    /// Sealed frames that wait for `poll_transmit` or for the next packet.
    pub(super) sealed: Vec<u8>,
    /// The current key can seal no more.
    pub(super) exhausted: bool,
}

/// The push reply and how often it was sent.
#[derive(Debug)]
pub(super) struct Push {
    text: String,
    last: Instant,
    count: u8,
}

impl Established {
    /// Begins with a login that has everything; the push reply goes out.
    ///
    /// # Errors
    /// Too many TLS operations are under way.
    pub(super) fn begin(
        now: Instant,
        link: Link,
        mut channel: Channel,
        ready: Ready,
        up_by: Instant,
        shared: &mut Shared,
    ) -> Result<Self, SessionError> {
        channel.write(Op::Message, command(&ready.push), shared)?;
        shared.stats.push_replies += 1;
        shared.event(Event::Established);
        let rekey_at = jittered(now, shared.config.rekey_after, ready.jitter);
        Ok(Self {
            link,
            tunnel: ready.tunnel,
            keys: KeySlots {
                current: Key { channel, data: ready.keys },
                previous: None,
                rekey: None,
            },
            live: Liveness::new(now),
            since: now,
            up: false,
            up_by,
            push: Some(Push { text: ready.push, last: now, count: 1 }),
            linger: Linger::Unacked { give_up: now + shared.config.linger_max },
            rekey_at,
            rekey_hold: None,
            failed_key: None,
            flood: RekeyFlood::default(),
            sealed: Vec::new(),
            exhausted: false,
        })
    }

    /// A data packet, opened in place.
    pub(super) fn data(
        &mut self,
        now: Instant,
        key_id: u8,
        packet: &mut [u8],
        shared: &mut Shared,
        sink: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), SessionError> {
        let Some(opener) = self.keys.opener(key_id, now) else {
            shared.stats.drop_no_key += 1;
            return Ok(());
        };
        let payload = opener.open(packet).map_err(SessionError::Data)?;
        if opener.needs_rekey() {
            self.want_rekey(now, shared);
        }
        self.live.last_heard = now;
        match data_channel::classify(payload) {
            Payload::Packet => {
                shared.stats.rx_packets += 1;
                shared.stats.rx_bytes += payload.len() as u64;
                sink(payload);
            }
            Payload::Ping => {
                shared.stats.pings_rx += 1;
                self.live.pinged = true;
            }
            Payload::Exit => return Err(SessionError::Closed(CloseReason::PeerExit)),
            Payload::Occ => shared.stats.drop_occ += 1,
            Payload::Compressed => shared.stats.drop_compressed += 1,
            Payload::Empty => shared.stats.drop_empty += 1,
        }
        self.is_up(shared);
        // A packet under the new key proves that the peer has it.
        if self.keys.awaits_proof(key_id) {
            self.promote(now, shared);
        }
        Ok(())
    }

    /// A control packet of this session, opened and checked.
    pub(super) fn control(
        &mut self,
        now: Instant,
        packet: &ControlPacket<'_>,
        shared: &mut Shared,
    ) -> Result<(), SessionError> {
        let expected = match packet.opcode {
            Opcode::ControlV1 | Opcode::ControlWkcV1 | Opcode::AckV1 => true,
            // A repetition of the login's resets: acknowledged, and nothing else.
            Opcode::HardResetClientV2 | Opcode::HardResetClientV3 => packet.key_id == KeyId::FIRST,
            Opcode::SoftResetV1 => packet.message_id == Some(0),
            Opcode::HardResetServerV2
            | Opcode::HardResetServerV1
            | Opcode::HardResetClientV1
            | Opcode::DataV1
            | Opcode::DataV2 => false,
        };
        if !expected {
            shared.stats.drop_unexpected += 1;
            return Ok(());
        }
        if packet.opcode == Opcode::SoftResetV1 {
            self.soft_reset(now, packet, shared)?;
        }
        let Some(channel) = self.keys.channel(packet.key_id) else {
            shared.stats.drop_unknown_key += 1;
            return Ok(());
        };
        channel.accept(packet, shared)?;
        self.live.last_heard = now;
        self.settle(now, shared);
        Ok(())
    }

    /// An answer of one of this session's TLS engines.
    pub(super) fn tls(
        &mut self,
        now: Instant,
        answer: TlsAnswer,
        shared: &mut Shared,
        rng: &mut dyn SecureRandom,
    ) -> Result<(), SessionError> {
        if self.keys.current.channel.owns(answer.engine) {
            return self.tls_of_current(now, answer, shared);
        }
        if self.keys.rekey.as_ref().is_some_and(|rekey| rekey.channel.owns(answer.engine)) {
            self.tls_of_rekey(now, answer, shared, rng)?;
            self.settle(now, shared);
            return Ok(());
        }
        shared.stats.stale_answers += 1;
        Ok(())
    }

    /// What is due by now.
    pub(super) fn timeout(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        rng: &mut dyn SecureRandom,
    ) -> Result<(), SessionError> {
        if self.exhausted {
            return Err(SessionError::Closed(CloseReason::KeyExhausted));
        }
        if !self.up && now >= self.up_by {
            return Err(SessionError::Closed(CloseReason::LoginTimeout));
        }
        let restart = shared.config.restart;
        // The ping is the timer that is always due before long: how late it comes tells of a stall.
        if self.up {
            self.live.forgive(self.live.ping_at(shared.config.ping), now, restart);
        }
        if self.live.dead_at(restart).is_some_and(|due| now >= due) {
            return Err(SessionError::Closed(CloseReason::PeerDead));
        }
        if self.linger.deadline().is_some_and(|due| now >= due) {
            self.linger = Linger::Over;
            self.push = None;
            self.keys.current.channel.close_engine(shared);
        }
        if self.keys.previous.as_ref().is_some_and(|previous| now >= previous.expires) {
            self.keys.previous = None;
        }
        self.rekey_timeout(now, shared)?;
        if self.up && now >= self.live.ping_at(shared.config.ping) {
            self.ping(now, shared, rng)?;
        }
        Ok(())
    }

    /// When [`Self::timeout`] has something to do.
    pub(super) fn deadline(&self, shared: &Shared) -> Option<Instant> {
        let config = &shared.config;
        let rekeying = self.keys.rekey.as_ref().map(|rekey| rekey.deadline);
        [
            if self.up { Some(self.live.ping_at(config.ping)) } else { Some(self.up_by) },
            self.live.dead_at(config.restart),
            self.linger.deadline(),
            self.keys.previous.as_ref().map(|previous| previous.expires),
            rekeying.or_else(|| self.rekey_due()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Seals one inner packet into `out`.
    pub(super) fn seal(
        &mut self,
        now: Instant,
        packet: &[u8],
        shared: &mut Shared,
        rng: &mut dyn SecureRandom,
        out: &mut Vec<u8>,
    ) -> Result<(), SealRefused> {
        if !self.up {
            return Err(SealRefused::NotUp);
        }
        if !data_channel::fits(self.sealed_len(packet.len()) - FRAME_PREFIX) {
            return Err(SealRefused::TooLong(packet.len()));
        }
        let start = out.len();
        // A ping that waits was numbered before this packet; the numbers must stay in order.
        out.extend_from_slice(&self.sealed);
        if let Err(refused) = self.seal_frame(now, packet, shared, rng, out) {
            out.truncate(start);
            return Err(refused);
        }
        self.sealed = Vec::new();
        shared.stats.tx_packets += 1;
        shared.stats.tx_bytes += packet.len() as u64;
        self.live.sent(now, shared.config.ping, shared.config.restart);
        Ok(())
    }

    /// Bytes that [`Self::seal`] appends for a packet of this length.
    pub(super) fn sealed_len(&self, packet_len: usize) -> usize {
        let sealer = &self.keys.current.data.sealer;
        FRAME_PREFIX + sealer.sealed_len(self.header(), packet_len)
    }

    /// Appends what there is to send besides inner packets.
    pub(super) fn transmit(
        &mut self,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        out.append(&mut self.sealed);
        self.sealed = Vec::new();
        for channel in self.keys.channels() {
            self.link.transmit(channel, &mut shared.stats, out)?;
        }
        Ok(())
    }

    fn header(&self) -> DataHeader {
        DataHeader {
            key_id: self.keys.current.channel.key_id.get(),
            peer_id: self.tunnel.params.peer_id,
        }
    }

    fn seal_frame(
        &mut self,
        now: Instant,
        payload: &[u8],
        shared: &mut Shared,
        rng: &mut dyn SecureRandom,
        out: &mut Vec<u8>,
    ) -> Result<(), SealRefused> {
        let header = self.header();
        let sealer = &mut self.keys.current.data.sealer;
        let sealed = push_frame(out, |out| sealer.seal(header, payload, rng, out));
        if sealer.needs_rekey() {
            self.want_rekey(now, shared);
        }
        sealed.map_err(|error| match error {
            PushFrameError::Body(SealError::Exhausted) => {
                self.exhausted = true;
                shared.urgent = Some(now);
                SealRefused::Exhausted
            }
            PushFrameError::Body(_) => SealRefused::Random,
            PushFrameError::Size(len) => SealRefused::TooLong(len),
        })
    }

    fn ping(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        rng: &mut dyn SecureRandom,
    ) -> Result<(), SessionError> {
        let mut sealed = std::mem::take(&mut self.sealed);
        let result = self.seal_frame(now, &PING, shared, rng, &mut sealed);
        self.sealed = sealed;
        // A late ping was forgiven by whoever called this.
        self.live.last_sent = now;
        match result {
            Ok(()) => {
                shared.stats.pings_tx += 1;
                Ok(())
            }
            Err(SealRefused::Exhausted) => Err(SessionError::Closed(CloseReason::KeyExhausted)),
            Err(_) => Err(SessionError::Closed(CloseReason::Internal)),
        }
    }

    pub(super) fn is_up(&mut self, shared: &mut Shared) {
        if !self.up {
            self.up = true;
            shared.event(Event::Up);
        }
    }

    /// Looks at what the latest acknowledgements have settled.
    fn settle(&mut self, now: Instant, shared: &mut Shared) {
        if matches!(self.linger, Linger::Unacked { .. }) && self.keys.current.channel.is_settled() {
            self.linger.acked(now, shared.config.linger);
            self.is_up(shared);
        }
        if self.keys.is_proved() {
            self.promote(now, shared);
        }
    }

    fn tls_of_current(
        &mut self,
        now: Instant,
        answer: TlsAnswer,
        shared: &mut Shared,
    ) -> Result<(), SessionError> {
        let channel = &mut self.keys.current.channel;
        channel.take_answer(&answer, shared)?;
        if let Some(detail) = answer.error {
            channel.engine_is_gone();
            if !self.up {
                return Err(SessionError::Closed(CloseReason::Tls { detail }));
            }
            // A close_notify of the peer, or a broken record: the tunnel does not need this engine.
            self.push = None;
            self.linger = Linger::Over;
            return Ok(());
        }
        let mut requested = false;
        let mut leaves = false;
        channel.commands(answer.plaintext.expose(), shared, &mut |message, shared| match message {
            Message::PushRequest => requested = true,
            Message::Exit => leaves = true,
            _ => shared.stats.unknown_commands += 1,
        });
        if leaves {
            return Err(SessionError::Closed(CloseReason::PeerExit));
        }
        if requested {
            self.push_again(now, shared)?;
        }
        self.settle(now, shared);
        Ok(())
    }

    /// Answers a repeated push request, within bounds.
    fn push_again(&mut self, now: Instant, shared: &mut Shared) -> Result<(), SessionError> {
        match &mut self.push {
            Some(push)
                if push.count < MAX_PUSH_REPLIES
                    && now.saturating_duration_since(push.last) >= PUSH_REPLY_DISTANCE =>
            {
                push.count += 1;
                push.last = now;
                shared.stats.push_replies += 1;
                let message = command(&push.text);
                self.keys.current.channel.write(Op::Message, message, shared)?;
            }
            _ => shared.stats.drop_push_request += 1,
        }
        Ok(())
    }
}

/// A command as it is written into TLS, NUL included.
pub(super) fn command(text: &str) -> SecretBytes {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    SecretBytes::from(bytes)
}
