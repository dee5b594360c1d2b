//! A login: from the first reset to the push reply.
//!
//! ```text
//! Handshake ──TLS done──> KeyExchange ──client's message read, ours written──> Verdict
//!   ──allowed, cipher agreed──> Address ──assigned, keys made──> Ready ──asked, or active──> push
//! ```
//! Each stage owns what was learned before it, so push reply, address and data keys exist only
//! after the one before them said yes. A refusal leaves through [`Outcome::Refuse`].

use std::time::Instant;

use tunnelhead_crypto::{DataKeys, SecretBytes, SecureRandom};

use super::error::{CloseReason, SessionError, assignment_text};
use super::event::{
    Allowed, Assignment, AssignmentRefused, Event, Identity, Ticket, TlsAnswer, TlsFacts, Verdict,
};
use super::exchange::{Exchange, Inbox};
use super::key_state::{Channel, Op};
use super::link::Link;
use super::shared::Shared;
use super::stats::Phase;
use super::tunnel::{DataParams, Tunnel};
use crate::proto::control::{Message, iv_proto};
use crate::proto::negotiate::{self, Chosen, CipherInput, PushInput};
use crate::proto::wire::{ControlPacket, KeyId, Opcode};

/// The peer id that is pushed. Over TCP it routes nothing; 1 is what RouterOS is known to take.
const PEER_ID: u32 = 1;

/// A login that is going on.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) link: Link,
    pub(super) channel: Channel,
    /// The login is over by then, one way or the other.
    pub(super) deadline: Instant,
    stage: Stage,
    /// The client has asked for its push reply.
    push_requested: bool,
}

#[derive(Debug)]
enum Stage {
    Handshake,
    KeyExchange {
        facts: Box<TlsFacts>,
        inbox: Inbox,
    },
    Verdict {
        ticket: Ticket,
        offer: Box<Offer>,
    },
    Address {
        ticket: Ticket,
        offer: Box<Offer>,
        identity: Identity,
        chosen: Chosen,
    },
    Ready(Box<Ready>),
    /// Left; the login is being taken apart.
    Done,
}

/// What the key exchange gave.
#[derive(Debug)]
struct Offer {
    facts: Box<TlsFacts>,
    exchange: Exchange,
}

/// A login that has everything; it waits for the moment of the push reply.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) tunnel: Tunnel,
    pub(super) keys: DataKeys,
    /// The push reply.
    pub(super) push: String,
    /// May be pushed unasked, once the key is active.
    unasked: bool,
    /// When the server should start a rekey.
    pub(super) jitter: u16,
}

/// What became of a login after something happened to it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It goes on.
    Stay,
    /// Push now; the login becomes an established session.
    Establish(Box<Ready>),
    /// Tell the client why not, then close.
    Refuse {
        reason: CloseReason,
        /// What the client sees after `AUTH_FAILED`; `None` for the bare word.
        text: Option<String>,
    },
    /// Close.
    Close(CloseReason),
}

impl Login {
    pub(super) fn new(link: Link, channel: Channel, deadline: Instant) -> Self {
        Self { link, channel, deadline, stage: Stage::Handshake, push_requested: false }
    }

    /// A control packet of this session, opened and checked.
    pub(super) fn control(
        &mut self,
        packet: &ControlPacket<'_>,
        shared: &mut Shared,
    ) -> Result<Outcome, SessionError> {
        let expected = matches!(
            packet.opcode,
            Opcode::HardResetClientV2
                | Opcode::HardResetClientV3
                | Opcode::ControlV1
                | Opcode::ControlWkcV1
                | Opcode::AckV1
        );
        // Resets in a row are ordinary messages: RouterOS numbers the second one 1, a repetition
        // keeps its number.
        if !expected || packet.key_id != KeyId::FIRST {
            return Err(SessionError::Closed(CloseReason::UnexpectedPacket));
        }
        self.channel.accept(packet, shared)?;
        Ok(self.advance())
    }

    /// An answer of this login's TLS engine.
    pub(super) fn tls(
        &mut self,
        answer: TlsAnswer,
        shared: &mut Shared,
        rng: &mut dyn SecureRandom,
    ) -> Result<Outcome, SessionError> {
        self.channel.take_answer(&answer, shared)?;
        if let Some(detail) = answer.error {
            self.channel.engine_is_gone();
            return Ok(Outcome::Close(CloseReason::Tls { detail }));
        }
        if let (Some(facts), Stage::Handshake) = (answer.established, &self.stage) {
            self.stage = Stage::KeyExchange { facts, inbox: Inbox::default() };
        }
        if let Some(outcome) = self.plaintext(answer.plaintext.expose(), shared, rng)? {
            return Ok(outcome);
        }
        Ok(self.advance())
    }

    /// The authenticator's answer.
    pub(super) fn verdict(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        shared: &mut Shared,
    ) -> Outcome {
        let offer = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Verdict { ticket: asked, offer } if asked == ticket => offer,
            other => {
                self.stage = other;
                shared.stats.stale_answers += 1;
                return Outcome::Stay;
            }
        };
        let Allowed { identity, cipher, auth } = match verdict {
            Verdict::Allow(allowed) => allowed,
            Verdict::Deny(reason) => {
                return Outcome::Refuse { reason: CloseReason::Denied(reason), text: None };
            }
            Verdict::Refuse { reason, text: sentence } => {
                let reason = CloseReason::Refused { reason, text: sentence };
                return Outcome::Refuse { reason, text: None };
            }
        };
        let chosen = negotiate::choose_cipher(CipherInput {
            server: &shared.config.ciphers,
            peer_info: &offer.exchange.peer_info,
            options: &offer.exchange.options,
            account_cipher: cipher,
            account_auth: auth,
        });
        match chosen {
            Ok(chosen) => {
                let ticket = shared.new_ticket();
                shared.event(Event::AssignmentNeeded { ticket, identity: identity.clone() });
                self.stage = Stage::Address { ticket, offer, identity, chosen };
                Outcome::Stay
            }
            Err(refusal) => {
                let text = Some(refusal.to_string());
                Outcome::Refuse { reason: CloseReason::Cipher(refusal), text }
            }
        }
    }

    /// The address pool's answer.
    pub(super) fn assignment(
        &mut self,
        ticket: Ticket,
        assignment: Result<Assignment, AssignmentRefused>,
        shared: &mut Shared,
    ) -> Outcome {
        let (offer, identity, chosen) = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Address { ticket: asked, offer, identity, chosen } if asked == ticket => {
                (offer, identity, chosen)
            }
            other => {
                self.stage = other;
                shared.stats.stale_answers += 1;
                return Outcome::Stay;
            }
        };
        let assignment = match assignment {
            Ok(assignment) => assignment,
            Err(refused) => {
                let text = Some(assignment_text(refused).to_owned());
                return Outcome::Refuse { reason: CloseReason::Assignment(refused), text };
            }
        };
        match self.make_ready(*offer, identity, &chosen, assignment, shared) {
            Ok(ready) => {
                self.stage = Stage::Ready(Box::new(ready));
                self.advance()
            }
            Err(error) => Outcome::Close(error.reason()),
        }
    }

    /// The client has asked for its push reply.
    pub(super) fn push_requested(&self) -> bool {
        self.push_requested
    }

    /// How far it got.
    pub(super) fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Handshake | Stage::KeyExchange { .. } | Stage::Done => Phase::Handshake,
            Stage::Verdict { .. } | Stage::Address { .. } => Phase::Authentication,
            Stage::Ready(_) => Phase::Push,
        }
    }

    /// The facts of a login that is allowed.
    pub(super) fn tunnel(&self) -> Option<&Tunnel> {
        match &self.stage {
            Stage::Ready(ready) => Some(&ready.tunnel),
            _ => None,
        }
    }

    fn plaintext(
        &mut self,
        plain: &[u8],
        shared: &mut Shared,
        rng: &mut dyn SecureRandom,
    ) -> Result<Option<Outcome>, SessionError> {
        if plain.is_empty() {
            return Ok(None);
        }
        let Stage::KeyExchange { facts, inbox } = &mut self.stage else {
            return Ok(self.commands(plain, shared));
        };
        let certificate = facts.client_certificate.as_ref();
        let Some((exchange, rest)) = inbox.take(plain, certificate, shared, rng)? else {
            return Ok(None);
        };
        if let Stage::KeyExchange { facts, .. } = std::mem::replace(&mut self.stage, Stage::Done) {
            self.exchanged(facts, exchange, shared)?;
        }
        Ok(self.commands(&rest, shared))
    }

    /// Answers the client's key exchange and asks the authenticator. Ours goes first in any case:
    /// `AUTH_FAILED` needs it. Source: OpenVPN ssl.c `key_method_2_write` after a failed login.
    fn exchanged(
        &mut self,
        facts: Box<TlsFacts>,
        mut exchange: Exchange,
        shared: &mut Shared,
    ) -> Result<(), SessionError> {
        self.channel.write(Op::KeyExchange, exchange.reply()?, shared)?;
        let ticket = shared.new_ticket();
        let request = exchange.request(facts.client_certificate.clone());
        shared.event(Event::AuthNeeded { ticket, request });
        self.stage = Stage::Verdict { ticket, offer: Box::new(Offer { facts, exchange }) };
        Ok(())
    }

    fn commands(&mut self, plain: &[u8], shared: &mut Shared) -> Option<Outcome> {
        let mut leaves = false;
        let requested = &mut self.push_requested;
        self.channel.commands(plain, shared, &mut |message, shared| match message {
            Message::PushRequest => *requested = true,
            Message::Exit => leaves = true,
            _ => shared.stats.unknown_commands += 1,
        });
        leaves.then_some(Outcome::Close(CloseReason::PeerExit))
    }

    /// Pushes if the moment has come: on the client's request, or unasked once the key is active.
    fn advance(&mut self) -> Outcome {
        let due = match &self.stage {
            Stage::Ready(ready) => {
                self.push_requested || (ready.unasked && self.channel.is_active())
            }
            _ => false,
        };
        if due && let Stage::Ready(ready) = std::mem::replace(&mut self.stage, Stage::Done) {
            return Outcome::Establish(ready);
        }
        Outcome::Stay
    }

    fn make_ready(
        &mut self,
        offer: Offer,
        identity: Identity,
        chosen: &Chosen,
        assignment: Assignment,
        shared: &Shared,
    ) -> Result<Ready, SessionError> {
        let Offer { facts, exchange } = offer;
        let config = &shared.config;
        let input = PushInput {
            address: assignment.address,
            prefix_len: assignment.prefix_len,
            gateway: assignment.gateway,
            ping: seconds(config.ping),
            ping_restart: seconds(config.restart),
            management: config.management,
            peer_id: Some(PEER_ID),
            cipher: chosen.pushed.then_some(chosen.cipher),
            key_export: true,
            dyn_tls_crypt: true,
            tun_mtu: exchange
                .peer_info
                .iv_mtu()
                .is_some_and(|max| max >= u32::from(config.tun_mtu))
                .then_some(config.tun_mtu),
            iv_proto: exchange.peer_info.iv_proto(),
        };
        let params = DataParams {
            cipher: chosen.cipher,
            digest: chosen.digest,
            peer_id: input.pushed_peer_id(),
            key_export: input.pushes_key_export(),
        };
        let push = negotiate::push_reply(&input);
        let keys = params.derive(&facts, &exchange, &self.link)?;
        if input.pushes_dyn_tls_crypt() {
            self.link.enable_dynamic(&facts.dynamic_wrap);
        }
        let unasked = exchange.peer_info.supports(iv_proto::REQUEST_PUSH);
        let jitter = exchange.jitter;
        let tunnel = Tunnel::new(identity, assignment, params, *facts, &exchange);
        Ok(Ready { tunnel, keys, push, unasked, jitter })
    }
}

/// Whole seconds for a push, rounded up; a shorter one would make the peer stricter than we are.
fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// `AUTH_FAILED` with or without a reason.
pub(super) fn auth_failed(text: Option<&str>) -> SecretBytes {
    let mut message = b"AUTH_FAILED".to_vec();
    if let Some(text) = text {
        message.push(b',');
        message.extend(text.bytes().filter(|byte| (b' '..=b'~').contains(byte)).take(256));
    }
    message.push(0);
    SecretBytes::from(message)
}
