//! Renewing the keys of an established session: started by either side, one at a time.

use std::time::{Duration, Instant};

use tunnelhead_crypto::SecureRandom;

use super::error::{CloseReason, RekeyRefused, SessionError};
use super::established::Established;
use super::event::{Event, TlsAnswer};
use super::exchange::Inbox;
use super::key_slots::{KeyFacts, Rekey, RekeyStage};
use super::key_state::{Channel, Op};
use super::shared::Shared;
use super::timers::Linger;
use crate::proto::control::Message;
use crate::proto::wire::{ControlPacket, KeyId, Opcode};

impl Established {
    /// Begins a rekey from our side.
    pub(super) fn start_rekey(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), RekeyRefused> {
        if !self.up {
            return Err(RekeyRefused::NotUp);
        }
        if self.keys.rekey.is_some() {
            return Err(RekeyRefused::InFlight);
        }
        self.begin_rekey(now, self.keys.current.channel.key_id.next(), shared);
        Ok(())
    }

    /// The first packet of a rekey that the peer begins; anything else passes by.
    pub(super) fn soft_reset(
        &mut self,
        now: Instant,
        packet: &ControlPacket<'_>,
        shared: &mut Shared,
    ) -> Result<(), SessionError> {
        let next = self.keys.current.channel.key_id.next();
        let expected = packet.key_id == next
            || self.failed_key.is_some_and(|failed| packet.key_id == failed.next());
        if self.keys.rekey.is_some() || !expected {
            return Ok(());
        }
        // Only a client that has read its push reply renews a key. Its acknowledgement may still be
        // under way, and a reset that is dropped is never sent again.
        self.is_up(shared);
        if !self.flood.note(now) {
            return Err(SessionError::Closed(CloseReason::RekeyFlood));
        }
        self.begin_rekey(now, packet.key_id, shared);
        Ok(())
    }

    fn begin_rekey(&mut self, now: Instant, key_id: KeyId, shared: &mut Shared) {
        // Should the previous key have this id, its time is over.
        if self.keys.previous.as_ref().is_some_and(|old| old.key.channel.key_id == key_id) {
            self.keys.previous = None;
        }
        let channel = Channel::new(key_id, Opcode::SoftResetV1, shared);
        let deadline = now + shared.config.hand_window;
        self.keys.rekey = Some(Box::new(Rekey { channel, stage: RekeyStage::Handshake, deadline }));
    }

    /// An answer of the TLS engine of the key being made.
    pub(super) fn tls_of_rekey(
        &mut self,
        now: Instant,
        answer: TlsAnswer,
        shared: &mut Shared,
        rng: &mut dyn SecureRandom,
    ) -> Result<(), SessionError> {
        let Some(rekey) = self.keys.rekey.as_deref_mut() else { return Ok(()) };
        rekey.channel.take_answer(&answer, shared)?;
        if answer.error.is_some() {
            rekey.channel.engine_is_gone();
            return self.give_up_rekey(now, shared);
        }
        if let (Some(facts), RekeyStage::Handshake) = (answer.established, &rekey.stage) {
            rekey.stage = RekeyStage::KeyExchange { facts, inbox: Inbox::default() };
        }
        let plain = answer.plaintext.expose();
        if plain.is_empty() {
            return Ok(());
        }
        let mut rest = plain.to_vec();
        if let RekeyStage::KeyExchange { facts, inbox } = &mut rekey.stage {
            let certificate = facts.client_certificate.as_ref();
            let Some((mut exchange, after)) = inbox.take(plain, certificate, shared, rng)? else {
                return Ok(());
            };
            rest = after;
            // The credential was judged at the login; the same one asks nobody again.
            if !tunnelhead_crypto::ct_eq(&exchange.credential_tag, &self.tunnel.credential_tag) {
                return Err(SessionError::Closed(CloseReason::CredentialChanged));
            }
            if shared.config.judge_rekeys {
                let request = exchange.request(facts.client_certificate.clone());
                shared.event(Event::RekeyPresented { request });
            }
            let data = self.tunnel.params.derive(facts, &exchange, &self.link)?;
            let kept = KeyFacts {
                tls_version: facts.version.as_str().into(),
                tls_suite: facts.suite.as_str().into(),
                jitter: exchange.jitter,
            };
            rekey.channel.write(Op::KeyExchange, exchange.reply()?, shared)?;
            rekey.stage = RekeyStage::Confirm { data: Box::new(data), facts: kept };
            // At most two keys open packets.
            self.keys.previous = None;
        }
        let mut leaves = false;
        if let Some(rekey) = self.keys.rekey.as_deref_mut() {
            rekey.channel.commands(&rest, shared, &mut |message, shared| match message {
                Message::Exit => leaves = true,
                _ => shared.stats.unknown_commands += 1,
            });
        }
        if leaves {
            return Err(SessionError::Closed(CloseReason::PeerExit));
        }
        Ok(())
    }

    /// Gives a rekey up, or begins one, if it is time.
    pub(super) fn rekey_timeout(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), SessionError> {
        if self.keys.rekey.as_ref().is_some_and(|rekey| now >= rekey.deadline) {
            return self.give_up_rekey(now, shared);
        }
        if self.rekey_due().is_some_and(|due| now >= due) {
            self.begin_rekey(now, self.keys.current.channel.key_id.next(), shared);
        }
        Ok(())
    }

    /// When to begin a rekey from our side: at once near a limit of the key, otherwise by its age.
    pub(super) fn rekey_due(&self) -> Option<Instant> {
        if !self.up || self.keys.rekey.is_some() {
            return None;
        }
        let due = if self.keys.near_limit() { Some(self.since) } else { self.rekey_at };
        due.map(|due| self.rekey_hold.map_or(due, |hold| due.max(hold)))
    }

    /// The key nears its limits: let the next timeout see to it, unless a rekey is on its way.
    pub(super) fn want_rekey(&self, now: Instant, shared: &mut Shared) {
        if self.rekey_due().is_some_and(|due| now >= due) {
            shared.urgent = Some(now);
        }
    }

    /// A rekey failed. Before its keys existed the session goes on with the key it has; afterwards
    /// the peer may seal with a key that we would have to forget, and only a new login is clean.
    fn give_up_rekey(&mut self, now: Instant, shared: &mut Shared) -> Result<(), SessionError> {
        let Some(mut rekey) = self.keys.rekey.take() else { return Ok(()) };
        rekey.channel.close_engine(shared);
        if matches!(rekey.stage, RekeyStage::Confirm { .. }) {
            return Err(SessionError::Closed(CloseReason::RekeyUnfinished));
        }
        shared.stats.rekeys_failed += 1;
        self.failed_key = Some(rekey.channel.key_id);
        self.rekey_hold = Some(now + shared.config.hand_window);
        Ok(())
    }

    /// The peer has proved the new key: from now on it seals.
    pub(super) fn promote(&mut self, now: Instant, shared: &mut Shared) {
        let expires = now + shared.config.transition_window;
        let Some(facts) = self.keys.promote(expires, shared) else { return };
        self.tunnel.tls_version = facts.tls_version;
        self.tunnel.tls_suite = facts.tls_suite;
        self.push = None;
        self.failed_key = None;
        self.rekey_hold = None;
        self.linger = Linger::Until(now + shared.config.linger);
        self.rekey_at = jittered(now, shared.config.rekey_after, facts.jitter);
        shared.stats.rekeys += 1;
        shared.event(Event::KeysChanged { key_id: self.keys.current.channel.key_id.get() });
    }
}

/// `after` from now, less up to 10 %, so that a fleet that logged in at once spreads its rekeys.
/// Source: OpenVPN ssl.c, `reneg-sec` of a server.
pub(super) fn jittered(now: Instant, after: Option<Duration>, jitter: u16) -> Option<Instant> {
    let after = after?;
    let less = after / 10 * u32::from(jitter) / u32::from(u16::MAX);
    now.checked_add(after.saturating_sub(less))
}
