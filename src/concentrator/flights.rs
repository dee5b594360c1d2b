//! Feeds the flight recorder and answers from it.

use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::identity::Account;
use crate::telemetry::clock;
use crate::telemetry::flight::capture::Trace;
use crate::telemetry::flight::{Outcome, Record, Recorder};

use super::core::Core;

impl Core {
    /// The recorder. Nothing else is locked while this lock is held.
    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A login leaves for its shard.
    pub(super) fn note_logged_in(&self, record: Record, trace: Trace) {
        self.recorder().logged_in(record, trace);
    }

    /// A login failed.
    pub(super) fn note_failed(&self, record: Record, trace: Trace) {
        let router = record.username.as_deref().and_then(|username| {
            let directory = self.accounts.read();
            directory.by_username(username).map(|account| Arc::clone(&account.name))
        });
        self.recorder().failed(router, record, trace);
    }

    /// A login was let in, and the account changed before it had left for its shard.
    pub(super) fn note_revoked(&self, mut record: Record, trace: Trace) {
        let detail = "The account was disabled or deleted while the router logged in.".into();
        record.outcome = Outcome::Failed { reason: "revoked_meanwhile", detail };
        self.recorder().failed(None, record, trace);
    }

    /// A tunnel carries packets.
    pub(super) fn note_up(&self, router: &str, client: u64) {
        self.recorder().up(router, client, clock::unix_millis());
    }

    /// A tunnel has ended.
    pub(super) fn note_down(&self, router: &str, client: u64, reason: &'static str) {
        self.recorder().down(router, client, clock::unix_millis(), reason);
    }

    /// The account whose user name begins with `sent`, if that is as long as RouterOS cuts it and
    /// `may_see` agrees.
    pub(super) fn cut_username(
        &self,
        sent: &[u8],
        may_see: impl Fn(&Account) -> bool,
    ) -> Option<Arc<Account>> {
        if sent.len() != ROUTEROS_USERNAME {
            return None;
        }
        let directory = self.accounts.read();
        let longer = |account: &&Arc<Account>| {
            let username = account.username.as_bytes();
            username.len() > sent.len() && username.starts_with(sent) && may_see(account)
        };
        directory.iter().find(longer).cloned()
    }

    /// The address that a router was last seen at.
    pub(super) fn home_of(&self, router: &str) -> Option<IpAddr> {
        self.recorder().fleet.home(router)
    }
}

/// Longest user name that RouterOS sends. Source: RouterOS manual, OpenVPN.
pub(super) const ROUTEROS_USERNAME: usize = 27;
