//! What an acceptance from outside brings with it: an address, tags, a tenant.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::identity::{Account, StoredSecret};
use crate::lease::LeaseError;
use crate::proto::session::{DenyReason, Verdict};
use crate::shard::{Cut, ShardMessage};
use crate::store::Change;
use crate::telemetry::clock;

use super::super::core::Core;
use super::Claims;

/// Routers whose tags and tenant are kept; as many as fit the largest pool in practice.
const MAX_GUESTS: usize = 1 << 18;

/// Routers that an authenticator let in with a tenant or tags, by name. Each looks like an account
/// that nobody can log in with; for the time of this process only.
pub(in crate::concentrator) type Guests = HashMap<Arc<str>, Arc<Account>>;

impl Core {
    /// Applies what goes with an acceptance, then hands on the verdict, which may become a refusal.
    /// With a new address it waits for the disk.
    pub(in crate::concentrator) fn admit(
        &self,
        verdict: Verdict,
        claims: Claims,
        then: impl FnOnce(Verdict) + Send + 'static,
    ) {
        let Verdict::Allow(allowed) = &verdict else { return then(verdict) };
        let router = Arc::clone(&allowed.identity.0);
        let Claims { address, tags, tenant } = claims;
        let changes = match address.map(|address| self.bind_address(&router, address)) {
            None => Vec::new(),
            Some(Ok(changes)) => changes,
            Some(Err(error)) => {
                tracing::warn!(%router, %error, "the authenticator named an address that can't be");
                let (reason, text) = (DenyReason::AddressConflict, error.to_string().into());
                return then(Verdict::Refuse { reason, text });
            }
        };
        self.note_guest(&router, tags, tenant);
        if changes.is_empty() {
            return then(verdict);
        }
        let done = move |result: Result<(), _>| match result {
            Ok(()) => then(verdict),
            Err(error) => {
                tracing::error!(%router, %error, "the address of a router could not be recorded");
                then(Verdict::Deny(DenyReason::Unavailable));
            }
        };
        self.store.submit(changes, Some(Box::new(done)));
    }

    /// Binds the address to the router; what has to be recorded.
    fn bind_address(
        &self,
        router: &Arc<str>,
        address: Ipv4Addr,
    ) -> Result<Vec<Change>, LeaseError> {
        let unix = clock::unix_seconds();
        let mut leases = self.leases();
        let before = leases.record_of(router).cloned();
        if !leases.reserve_static(router, address, unix)?.fresh {
            return Ok(Vec::new());
        }
        let mut changes = Vec::new();
        if let Some(mut before) = before.filter(|before| before.address != address) {
            // The tunnel at the old address must not outlive the router's right to it.
            self.tell_shard(before.address, ShardMessage::Cut(before.address, Cut::Moved, None));
            before.released_at = Some(unix);
            changes.push(Change::PutLease(before));
        }
        changes.extend(leases.record_of(router).cloned().map(Change::PutLease));
        Ok(changes)
    }

    pub(in crate::concentrator) fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_guest(&self, router: &Arc<str>, tags: Vec<String>, tenant: Option<Arc<str>>) {
        let mut guests = self.guests();
        if tags.is_empty() && tenant.is_none() {
            guests.remove(router);
        } else if guests.len() < MAX_GUESTS || guests.contains_key(router) {
            let nobody = Account::named(router, "", StoredSecret::Machine { tag: [0; 32] });
            let guest = Account { tags, tenant, disabled: true, ..nobody };
            guests.insert(Arc::clone(router), Arc::new(guest));
        }
    }

    /// Whose a router is: what its account says, else what the authenticator said.
    pub(in crate::concentrator) fn tenant_of(&self, router: &str) -> Option<Arc<str>> {
        self.account_or_guest(router)?.tenant.clone()
    }

    /// The account of a router, else what stands for one. Takes the locks of both.
    pub(in crate::concentrator) fn account_or_guest(&self, router: &str) -> Option<Arc<Account>> {
        let directory = self.accounts.read();
        directory.get(router).cloned().or_else(|| self.guests().get(router).cloned())
    }
}
