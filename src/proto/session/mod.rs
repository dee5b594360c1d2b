//! The server role of one TCP connection, from its first byte to its end.
//!
//! A session is a value: bytes, answers and time go in with `handle_*`, results come out with
//! `poll_*`. It owns no socket, clock, thread or TLS library. After any `handle_*` call (also one
//! that failed) the driver drains [`Session::poll_transmit`], then [`Session::poll_event`], then
//! asks [`Session::poll_timeout`].
//!
//! Slow work leaves as an [`Event`] with a ticket or an engine id; its answer may come at any time
//! later, and is ignored and counted if the question is no longer open.
//!
//! Rules that hold everywhere:
//! - nothing is sent before a valid first packet;
//! - push reply, address and data keys exist only as values made by a completed authentication;
//! - a broken packet of an authenticated stream ends the session: TCP has no innocent corruption;
//! - everything that a peer can make a session hold is bounded ([`SessionConfig::preauth_bytes`]);
//! - a session ends exactly once, with [`Event::Close`], and nothing of the peer postpones it.
//!
//! Source: `docs/PROTOCOL.md`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tunnelhead_crypto::{RandomError, SecureRandom};

mod closing;
mod config;
mod data_channel;
mod error;
mod established;
mod event;
mod exchange;
mod export;
mod key_slots;
mod key_state;
mod link;
mod login;
mod rekey;
mod shared;
mod state;
mod stats;
mod timers;
mod tunnel;

#[cfg(test)]
mod tests;

pub use config::{SessionConfig, WrapConfig};
pub use error::{
    CloseReason, Disposition, ExportRefused, ImportError, RekeyRefused, SealRefused, SessionError,
};
pub use event::{
    AccountAuth, Allowed, Assignment, AssignmentRefused, AuthRequest, CertificateId,
    ClientCertificate, DenyReason, EngineId, Event, Identity, Shut, Ticket, TlsAnswer, TlsFacts,
    TlsOp, TlsTask, Verdict,
};
pub use stats::{Phase, SessionInfo, SessionStats};

use self::closing::Closing;
use self::established::Established;
use self::key_state::Channel;
use self::link::Link;
use self::login::{Login, Outcome};
use self::shared::Shared;
use self::state::State;
use crate::proto::wire::{
    ControlPacket, FirstByte, FrameDecoder, FrameError, KeyId, Opcode, SessionId,
};

/// A session that was told to shut ends at latest this much later.
const SHUT_GRACE: Duration = Duration::from_secs(1);

/// The server role, one for each TCP connection.
#[derive(Debug)]
pub struct Session {
    frames: FrameDecoder,
    core: Core,
}

/// All but the framing, so that frames can be handled where they lie.
#[derive(Debug)]
struct Core {
    state: State,
    shared: Shared,
    own: SessionId,
    unix_time: u32,
    since: Instant,
    generation: u64,
    /// The push reply was asked for.
    push_requested: bool,
}

impl Session {
    /// A session that waits for its first packet. `unix_time` is in seconds.
    ///
    /// # Errors
    /// [`RandomError`]: no session id could be drawn; refuse the connection.
    pub fn new(
        config: Arc<SessionConfig>,
        now: Instant,
        unix_time: u32,
        rng: &mut dyn SecureRandom,
    ) -> Result<Self, RandomError> {
        let mut generation = [0; 8];
        rng.fill(&mut generation)?;
        let frames = FrameDecoder::new().limited(config.frame_bytes);
        let core = Core {
            state: State::AwaitReset,
            shared: Shared::new(config, SessionStats::default(), 0),
            own: draw_session_id(rng)?,
            unix_time,
            since: now,
            generation: u64::from_be_bytes(generation),
            push_requested: false,
        };
        Ok(Self { frames, core })
    }

    /// Takes bytes of the TCP stream as they come, in any chunking; they are decrypted in place.
    /// Inner packets go to `sink`; pings and the like are swallowed.
    ///
    /// # Errors
    /// The session is over: stop reading, drain the polls, close the connection as the error's
    /// [`Disposition`] says.
    pub fn handle_link(
        &mut self,
        now: Instant,
        bytes: &mut [u8],
        sink: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), SessionError> {
        let Self { frames, core } = self;
        if let State::Closed { reason, .. } = &core.state {
            return Err(SessionError::Closed(reason.clone()));
        }
        core.shared.stats.link_rx_bytes += bytes.len() as u64;
        let mut result = Ok(());
        let fed = frames.feed(bytes, &mut |frame| {
            result = core.frame(now, frame, sink);
            match (&result, &core.state) {
                (Err(_), _) | (_, State::Closed { .. }) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        let result = match (result, fed) {
            (Ok(()), Err(error)) => Err(core.frame_error(error)),
            (result, _) => result,
        };
        self.finish(result)
    }

    /// Takes the answer of a TLS engine.
    ///
    /// # Errors
    /// The session is over, as with [`Self::handle_link`].
    pub fn handle_tls_answer(
        &mut self,
        now: Instant,
        answer: TlsAnswer,
        rng: &mut dyn SecureRandom,
    ) -> Result<(), SessionError> {
        let result = self.core.tls(now, answer, rng);
        self.finish(result)
    }

    /// Takes the authenticator's answer.
    pub fn handle_verdict(&mut self, now: Instant, ticket: Ticket, verdict: Verdict) {
        let Core { state: State::Login(login), shared, .. } = &mut self.core else {
            self.core.shared.stats.stale_answers += 1;
            return;
        };
        let outcome = login.verdict(ticket, verdict, shared);
        let result = self.core.login_outcome(now, outcome);
        let _ = self.finish(result);
    }

    /// Takes the address pool's answer.
    pub fn handle_assignment(
        &mut self,
        now: Instant,
        ticket: Ticket,
        assignment: Result<Assignment, AssignmentRefused>,
    ) {
        let Core { state: State::Login(login), shared, .. } = &mut self.core else {
            self.core.shared.stats.stale_answers += 1;
            return;
        };
        let outcome = login.assignment(ticket, assignment, shared);
        let result = self.core.login_outcome(now, outcome);
        let _ = self.finish(result);
    }

    /// Does what is due by now; call it when [`Self::poll_timeout`] says so, or more often.
    ///
    /// # Errors
    /// The session is over, as with [`Self::handle_link`].
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        rng: &mut dyn SecureRandom,
    ) -> Result<(), SessionError> {
        let result = self.core.timeout(now, rng);
        self.finish(result)
    }

    /// Appends frames to send besides inner packets; true if there were any.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if let Err(error) = self.core.transmit(now, out) {
            let _ = self.finish(Err(error));
        }
        out.len() > start
    }

    /// The next thing that the session wants from its driver.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.core.shared.events.pop_front();
        if self.core.shared.events.is_empty() {
            self.core.shared.events = std::collections::VecDeque::new();
        }
        event
    }

    /// When to call [`Self::handle_timeout`] next; `None` once the session is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Core { state, shared, since, .. } = &self.core;
        let deadline = match state {
            State::AwaitReset => Some(*since + shared.config.hand_window),
            State::Login(login) => Some(login.deadline),
            State::Established(session) => session.deadline(shared),
            State::Closing(closing) => Some(closing.until),
            State::Closed { .. } => return None,
        };
        shared.urgent.into_iter().chain(deadline).min()
    }

    /// Appends one inner packet as a sealed frame. The session numbers packets in the order of these
    /// calls; write them in that order, and drop packets only before this call.
    ///
    /// # Errors
    /// Nothing was appended; the packet is lost, the session goes on.
    pub fn seal(
        &mut self,
        now: Instant,
        packet: &[u8],
        rng: &mut dyn SecureRandom,
        out: &mut Vec<u8>,
    ) -> Result<(), SealRefused> {
        let Core { state: State::Established(session), shared, .. } = &mut self.core else {
            return Err(SealRefused::NotUp);
        };
        let start = out.len();
        session.seal(now, packet, shared, rng, out)?;
        shared.stats.link_tx_bytes += out.len().saturating_sub(start) as u64;
        Ok(())
    }

    /// Bytes that [`Self::seal`] appends for a packet of `packet_len` bytes; 0 before the data keys
    /// exist.
    #[must_use]
    pub fn sealed_len(&self, packet_len: usize) -> usize {
        match &self.core.state {
            State::Established(session) => session.sealed_len(packet_len),
            _ => 0,
        }
    }

    /// Ends the session from our side. Inner packets stop at once, in both directions;
    /// [`Event::Close`] comes at latest a second later. A second call changes nothing.
    pub fn shut(&mut self, now: Instant, how: Shut) {
        let core = &mut self.core;
        match std::mem::replace(&mut core.state, State::AwaitReset) {
            State::Established(session)
                if how == Shut::Restart && session.keys.current.channel.is_live() =>
            {
                let mut session = *session;
                if let Some(rekey) = session.keys.rekey.as_deref_mut() {
                    rekey.channel.close_engine(&mut core.shared);
                }
                let mut closing = Closing {
                    link: session.link,
                    channel: session.keys.current.channel,
                    farewell: Some(established::command("RESTART")),
                    until: now + SHUT_GRACE,
                    reason: CloseReason::ShutDown,
                    hurry: true,
                };
                let result = closing.advance(&mut core.shared).map(drop);
                core.state = State::Closing(Box::new(closing));
                let _ = self.finish(result);
            }
            state @ (State::Closed { .. } | State::Closing(_)) => core.state = state,
            state => {
                core.state = state;
                self.core.close(CloseReason::ShutDown);
            }
        }
    }

    /// Begins a rekey from our side.
    ///
    /// # Errors
    /// [`RekeyRefused`]: not up, or one is going on.
    pub fn start_rekey(&mut self, now: Instant) -> Result<(), RekeyRefused> {
        match &mut self.core {
            Core { state: State::Established(session), shared, .. } => {
                session.start_rekey(now, shared)
            }
            _ => Err(RekeyRefused::NotUp),
        }
    }

    /// Why the session is ending or has ended. A peer that was told so usually hangs up before
    /// [`Event::Close`]; this, and not that it hung up, is then the reason.
    #[must_use]
    pub fn close_reason(&self) -> Option<&CloseReason> {
        match &self.core.state {
            State::Closing(closing) => Some(&closing.reason),
            State::Closed { reason, .. } => Some(reason),
            State::AwaitReset | State::Login(_) | State::Established(_) => None,
        }
    }

    /// True once the client has asked for its configuration in its login.
    #[must_use]
    pub fn push_requested(&self) -> bool {
        match &self.core.state {
            State::Login(login) => login.push_requested(),
            _ => self.core.push_requested,
        }
    }

    /// What there is to know about the session.
    #[must_use]
    pub fn info(&self) -> SessionInfo {
        let core = &self.core;
        let session = match &core.state {
            State::Established(session) => Some(&**session),
            _ => None,
        };
        let tunnel = match &core.state {
            State::Established(session) => Some(&session.tunnel),
            State::Login(login) => login.tunnel(),
            _ => None,
        };
        let text = |text: &str| text.to_owned();
        SessionInfo {
            generation: core.generation,
            phase: core.state.phase(),
            identity: tunnel.map(|tunnel| tunnel.identity.clone()),
            address: tunnel.map(|tunnel| tunnel.assignment.address),
            cipher: tunnel.map(|tunnel| tunnel.params.cipher),
            digest: tunnel.map(|tunnel| tunnel.params.digest),
            tls_version: tunnel.map(|tunnel| text(&tunnel.tls_version)),
            tls_suite: tunnel.map(|tunnel| text(&tunnel.tls_suite)),
            certificate: tunnel.and_then(|tunnel| tunnel.certificate.clone()),
            options: tunnel.map(|tunnel| text(&tunnel.options)),
            peer_info: tunnel.map(|tunnel| text(&tunnel.peer_info)),
            data_v2: tunnel.is_some_and(|tunnel| tunnel.params.peer_id.is_some()),
            key_export: tunnel.is_some_and(|tunnel| tunnel.params.key_export),
            dynamic_wrap: session.is_some_and(|session| session.link.dynamic.is_some()),
            key_id: session.map(|session| session.keys.current.channel.key_id.get()),
            rekeying: session.is_some_and(|session| session.keys.rekey.is_some()),
            client_pings: session.is_some_and(|session| session.live.pinged),
            since: core.since,
            established_at: session.map(|session| session.since),
            last_heard: session.map(|session| session.live.last_heard),
            stats: core.shared.stats,
        }
    }

    /// Bytes that the peer makes this session hold, for the budget of all sessions that have not
    /// logged in.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        let held = match &self.core.state {
            State::Login(login) => login.channel.held_bytes(),
            State::Closing(closing) => closing.channel.held_bytes(),
            State::Closed { tail, .. } => tail.len(),
            State::AwaitReset | State::Established(_) => 0,
        };
        held.saturating_add(self.frames.buffered())
    }

    /// The counters, without a copy of the rest.
    #[must_use]
    pub fn stats(&self) -> &SessionStats {
        &self.core.shared.stats
    }

    /// Turns an error into the end of the session.
    fn finish(&mut self, result: Result<(), SessionError>) -> Result<(), SessionError> {
        if let Err(error) = &result {
            self.core.close(error.reason());
        }
        result
    }
}

impl Core {
    /// One frame of the stream; never empty.
    fn frame(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        sink: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), SessionError> {
        if matches!(self.state, State::AwaitReset) {
            return self.first(now, frame);
        }
        let first = FirstByte::decode(*frame.first().unwrap_or(&0))?;
        if !first.opcode.is_data() {
            return self.control(now, first, frame);
        }
        match &mut self.state {
            State::Established(session) => {
                session.data(now, first.key_id.get(), frame, &mut self.shared, sink)
            }
            State::Closing(_) => {
                self.shared.stats.drop_closing += 1;
                Ok(())
            }
            _ => {
                // Stock clients may send data before they have read our side of the key exchange.
                self.shared.stats.drop_no_key += 1;
                Ok(())
            }
        }
    }

    /// The first packet. Until it has proved valid nothing exists and nothing is sent.
    fn first(&mut self, now: Instant, frame: &[u8]) -> Result<(), SessionError> {
        let config = Arc::clone(&self.shared.config);
        let (link, id) = Link::open_first(&config, self.own, self.unix_time, frame)?;
        let mut channel = Channel::new(KeyId::FIRST, Opcode::HardResetServerV2, &mut self.shared);
        if id == 1 {
            // RouterOS: the reset with id 0 went to an earlier connection; the next message is 2.
            let _ = channel.recv.accept(0, &[]);
        }
        self.shared.stats.control_rx += 1;
        channel.accept_message(id, &[], &mut self.shared)?;
        let deadline = self.since.max(now) + config.hand_window;
        self.state = State::Login(Box::new(Login::new(link, channel, deadline)));
        Ok(())
    }

    fn control(
        &mut self,
        now: Instant,
        first: FirstByte,
        frame: &[u8],
    ) -> Result<(), SessionError> {
        let shared = &mut self.shared;
        shared.stats.control_rx += 1;
        if matches!(first.opcode, Opcode::HardResetClientV1 | Opcode::HardResetServerV1) {
            return Err(SessionError::Closed(CloseReason::KeyMethod1));
        }
        let link = match &mut self.state {
            State::Login(login) => &mut login.link,
            State::Established(session) => &mut session.link,
            State::Closing(closing) => &mut closing.link,
            State::AwaitReset | State::Closed { .. } => return Ok(()),
        };
        let mut plain = Vec::new();
        link.open(&shared.config, first, frame, &mut plain)?;
        let packet = ControlPacket::decode(&plain)?;
        link.check(&packet)?;
        match &mut self.state {
            State::Login(login) => {
                let outcome = login.control(&packet, shared)?;
                self.login_outcome(now, outcome)
            }
            State::Established(session) => session.control(now, &packet, shared),
            State::Closing(closing) => {
                let over = closing.control(&packet, shared)?;
                self.end_if(over);
                Ok(())
            }
            State::AwaitReset | State::Closed { .. } => Ok(()),
        }
    }

    fn tls(
        &mut self,
        now: Instant,
        answer: TlsAnswer,
        rng: &mut dyn SecureRandom,
    ) -> Result<(), SessionError> {
        let shared = &mut self.shared;
        match &mut self.state {
            State::Login(login) if login.channel.owns(answer.engine) => {
                let outcome = login.tls(answer, shared, rng)?;
                self.login_outcome(now, outcome)
            }
            State::Established(session) => session.tls(now, answer, shared, rng),
            State::Closing(closing) => {
                let over = closing.tls(answer, shared)?;
                self.end_if(over);
                Ok(())
            }
            State::Login(_) | State::AwaitReset | State::Closed { .. } => {
                shared.stats.stale_answers += 1;
                Ok(())
            }
        }
    }

    fn timeout(&mut self, now: Instant, rng: &mut dyn SecureRandom) -> Result<(), SessionError> {
        self.shared.urgent = None;
        let over = match &mut self.state {
            State::AwaitReset if now >= self.since + self.shared.config.hand_window => {
                return Err(SessionError::Closed(CloseReason::LoginTimeout));
            }
            State::Login(login) if now >= login.deadline => {
                return Err(SessionError::Closed(CloseReason::LoginTimeout));
            }
            State::Established(session) => {
                return session.timeout(now, &mut self.shared, rng);
            }
            State::Closing(closing) => now >= closing.until,
            State::AwaitReset | State::Login(_) | State::Closed { .. } => false,
        };
        self.end_if(over);
        Ok(())
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let start = out.len();
        let shared = &mut self.shared;
        match &mut self.state {
            State::AwaitReset => {}
            State::Closed { tail, .. } => out.append(tail),
            State::Login(login) => {
                login.link.transmit(&mut login.channel, &mut shared.stats, out)?;
            }
            State::Established(session) => {
                session.transmit(shared, out)?;
                if out.len() > start {
                    session.live.sent(now, shared.config.ping, shared.config.restart);
                }
            }
            State::Closing(closing) => {
                closing.link.transmit(&mut closing.channel, &mut shared.stats, out)?;
            }
        }
        shared.stats.link_tx_bytes += out.len().saturating_sub(start) as u64;
        Ok(())
    }

    /// Takes a login apart if it has come to its end, good or bad.
    fn login_outcome(&mut self, now: Instant, outcome: Outcome) -> Result<(), SessionError> {
        let (reason, text) = match outcome {
            Outcome::Stay => return Ok(()),
            Outcome::Close(reason) => return Err(SessionError::Closed(reason)),
            Outcome::Establish(ready) => {
                let State::Login(login) = std::mem::replace(&mut self.state, State::AwaitReset)
                else {
                    return Err(SessionError::Closed(CloseReason::Internal));
                };
                self.push_requested = login.push_requested();
                let Login { link, channel, deadline, .. } = *login;
                let session =
                    Established::begin(now, link, channel, *ready, deadline, &mut self.shared)?;
                self.state = State::Established(Box::new(session));
                return Ok(());
            }
            Outcome::Refuse { reason, text } => (reason, text),
        };
        let State::Login(login) = std::mem::replace(&mut self.state, State::AwaitReset) else {
            return Err(SessionError::Closed(CloseReason::Internal));
        };
        let Login { link, channel, .. } = *login;
        let mut closing = Closing {
            link,
            channel,
            farewell: Some(login::auth_failed(text.as_deref())),
            until: now + self.shared.config.auth_failed_linger,
            reason,
            hurry: false,
        };
        closing.advance(&mut self.shared)?;
        self.state = State::Closing(Box::new(closing));
        Ok(())
    }

    fn frame_error(&self, error: FrameError) -> SessionError {
        match (&self.state, error) {
            (State::AwaitReset, FrameError::TooLong { looks_like, .. }) => {
                SessionError::Closed(CloseReason::NotOpenVpn { looks_like })
            }
            (State::AwaitReset, _) => {
                SessionError::Closed(CloseReason::NotOpenVpn { looks_like: None })
            }
            (_, error) => SessionError::Frame(error),
        }
    }

    fn end_if(&mut self, over: bool) {
        if over && let State::Closing(closing) = &self.state {
            let reason = closing.reason.clone();
            self.close(reason);
        }
    }

    /// The end: engines are dropped, questions are withdrawn, one `Close` is left to fetch. What is
    /// still to be sent, if anything may be, waits for `poll_transmit`.
    fn close(&mut self, reason: CloseReason) {
        if matches!(self.state, State::Closed { .. }) {
            return;
        }
        let mut tail = Vec::new();
        if reason.disposition() == Disposition::Drain {
            let now = self.since;
            // A failure here only means that there is nothing to drain.
            if self.transmit(now, &mut tail).is_err() {
                tail.clear();
            }
            // Counted again when it leaves.
            let sent = &mut self.shared.stats.link_tx_bytes;
            *sent = sent.saturating_sub(tail.len() as u64);
        }
        self.shared.urgent = None;
        self.shared.events.clear();
        self.state.close_engines(&mut self.shared);
        self.state = State::Closed { reason: reason.clone(), tail };
        self.shared.event(Event::Close(reason));
    }
}

fn draw_session_id(rng: &mut dyn SecureRandom) -> Result<SessionId, RandomError> {
    loop {
        let mut bytes = [0; 8];
        rng.fill(&mut bytes)?;
        // Zero means "undefined" on the wire; one draw in 2^64.
        if let Some(id) = SessionId::new(bytes) {
            return Ok(id);
        }
    }
}
