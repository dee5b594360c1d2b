//! The keys of an established session: the current one, the one before it and the one being made.
//!
//! ```text
//! rekey (Handshake ─> KeyExchange ─> Confirm) ──acked, or its first authentic packet──> current
//! current ──────────────────────────────────────────────────────────────────────────> previous
//! previous ──transition over, or a newer key can open packets──> gone
//! ```
//! So at most two keys open packets, and exactly one seals: never one that the peer has not proved.

use std::time::Instant;

use tunnelhead_crypto::{DataKeys, DataOpener};

use super::event::TlsFacts;
use super::exchange::Inbox;
use super::key_state::Channel;
use super::shared::Shared;
use crate::proto::wire::KeyId;

/// A key in use.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) channel: Channel,
    pub(super) data: DataKeys,
}

/// The key before the current one.
#[derive(Debug)]
pub(super) struct Previous {
    pub(super) key: Key,
    /// From then on it opens nothing.
    pub(super) expires: Instant,
}

/// A key that is being made.
#[derive(Debug)]
pub(super) struct Rekey {
    pub(super) channel: Channel,
    pub(super) stage: RekeyStage,
    /// Given up by then.
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) enum RekeyStage {
    Handshake,
    KeyExchange {
        facts: Box<TlsFacts>,
        inbox: Inbox,
    },
    /// The keys exist; the peer must prove that it has them too.
    Confirm {
        data: Box<DataKeys>,
        facts: KeyFacts,
    },
}

/// What stays of the handshake of a new key.
#[derive(Debug)]
pub(super) struct KeyFacts {
    pub(super) tls_version: Box<str>,
    pub(super) tls_suite: Box<str>,
    /// Spreads our next rekey.
    pub(super) jitter: u16,
}

/// All keys of an established session.
#[derive(Debug)]
pub(super) struct KeySlots {
    pub(super) current: Key,
    pub(super) previous: Option<Box<Previous>>,
    pub(super) rekey: Option<Box<Rekey>>,
}

impl KeySlots {
    /// The key that opens packets with this key id, if there is one at this time.
    pub(super) fn opener(&mut self, key_id: u8, now: Instant) -> Option<&mut DataOpener> {
        if self.current.channel.key_id.get() == key_id {
            return Some(&mut self.current.data.opener);
        }
        if let Some(Rekey { channel, stage: RekeyStage::Confirm { data, .. }, .. }) =
            self.rekey.as_deref_mut()
            && channel.key_id.get() == key_id
        {
            return Some(&mut data.opener);
        }
        match self.previous.as_deref_mut() {
            Some(previous)
                if previous.key.channel.key_id.get() == key_id && now < previous.expires =>
            {
                Some(&mut previous.key.data.opener)
            }
            _ => None,
        }
    }

    /// The control channel of this key id.
    pub(super) fn channel(&mut self, key_id: KeyId) -> Option<&mut Channel> {
        if self.current.channel.key_id == key_id {
            return Some(&mut self.current.channel);
        }
        match (self.rekey.as_deref_mut(), self.previous.as_deref_mut()) {
            (Some(rekey), _) if rekey.channel.key_id == key_id => Some(&mut rekey.channel),
            (_, Some(previous)) if previous.key.channel.key_id == key_id => {
                Some(&mut previous.key.channel)
            }
            _ => None,
        }
    }

    /// True if the current key nears a limit and should be replaced.
    pub(super) fn near_limit(&self) -> bool {
        self.current.data.needs_rekey()
    }

    /// True if the key being made has this key id and only waits for the peer's proof.
    pub(super) fn awaits_proof(&self, key_id: u8) -> bool {
        self.rekey.as_deref().is_some_and(|rekey| {
            matches!(rekey.stage, RekeyStage::Confirm { .. })
                && rekey.channel.key_id.get() == key_id
        })
    }

    /// True if the peer has acknowledged our key exchange on the key being made.
    pub(super) fn is_proved(&self) -> bool {
        self.rekey.as_deref().is_some_and(|rekey| {
            matches!(rekey.stage, RekeyStage::Confirm { .. }) && rekey.channel.is_active()
        })
    }

    /// Makes the new key the current one; gives what is to be known about it.
    pub(super) fn promote(&mut self, expires: Instant, shared: &mut Shared) -> Option<KeyFacts> {
        let rekey = self.rekey.take()?;
        let Rekey { channel, stage, deadline } = *rekey;
        let RekeyStage::Confirm { data, facts } = stage else {
            self.rekey = Some(Box::new(Rekey { channel, stage, deadline }));
            return None;
        };
        let mut old = std::mem::replace(&mut self.current, Key { channel, data: *data });
        old.channel.close_engine(shared);
        self.previous = Some(Box::new(Previous { key: old, expires }));
        Some(facts)
    }

    /// All channels, the most urgent to send first.
    pub(super) fn channels(&mut self) -> impl Iterator<Item = &mut Channel> {
        std::iter::once(&mut self.current.channel)
            .chain(self.rekey.as_deref_mut().map(|rekey| &mut rekey.channel))
            .chain(self.previous.as_deref_mut().map(|previous| &mut previous.key.channel))
    }
}
