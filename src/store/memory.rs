//! The store of tests and of embedders that keep nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Activity, Change, Done, Snapshot, Store, StoreError, StoreHealth};
use crate::identity::Account;
use crate::lease::LeaseRecord;

/// Keeps everything in memory, by the same rules as the durable store; nothing survives it.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    degraded: Option<String>,
    failed: u64,
    closed: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every submit fail for this reason until it is called with `None`. For tests.
    pub fn set_degraded(&self, reason: Option<String>) {
        self.lock().degraded = reason;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is made on a copy, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Snapshot, StoreError> {
        let inner = self.lock();
        if inner.closed { Err(StoreError::Closed) } else { Ok(inner.state.snapshot()) }
    }

    fn submit(&self, changes: Vec<Change>, done: Option<Done>) {
        let result = self.lock().apply(changes);
        if let Some(done) = done {
            done(result);
        }
    }

    fn health(&self) -> StoreHealth {
        let inner = self.lock();
        StoreHealth {
            degraded: inner.degraded.clone(),
            failed: inner.failed,
            ..StoreHealth::default()
        }
    }

    fn flush(&self) {}

    fn close(&self) {
        self.lock().closed = true;
    }
}

impl Inner {
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        if let Some(reason) = &self.degraded {
            self.failed = self.failed.saturating_add(1);
            return Err(StoreError::Degraded(reason.clone()));
        }
        let mut state = self.state.clone();
        for change in changes {
            state.apply(change)?;
        }
        self.state = state;
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    accounts: BTreeMap<Arc<str>, Account>,
    leases: BTreeMap<Ipv4Addr, LeaseRecord>,
    activity: BTreeMap<Arc<str>, Activity>,
}

impl State {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            accounts: self.accounts.values().cloned().collect(),
            leases: self.leases.values().cloned().collect(),
            activity: self.activity.values().cloned().collect(),
        }
    }

    fn apply(&mut self, change: Change) -> Result<(), StoreError> {
        match change {
            Change::PutRouter(account) => return self.put_router(account),
            Change::DeleteRouter { name } => {
                self.accounts.remove(&name);
                self.activity.remove(&name);
            }
            Change::PutLease(record) => return self.put_lease(record),
            Change::ReleaseLease { identity, at } => {
                if let Some(lease) = self.held_by(&identity) {
                    lease.released_at = Some(at);
                    lease.fixed = false;
                }
            }
            Change::ForgetLeases { released_before } => {
                self.leases
                    .retain(|_, lease| lease.released_at.is_none_or(|at| at >= released_before));
            }
            Change::Touch { identity, at, real_address } => {
                if let Some(lease) = self.held_by(&identity) {
                    lease.last_used = lease.last_used.max(at);
                }
                if self.accounts.contains_key(&identity) {
                    let activity =
                        self.activity.entry(Arc::clone(&identity)).or_insert_with(|| Activity {
                            router: identity,
                            last_seen: 0,
                            real_address: None,
                        });
                    activity.last_seen = activity.last_seen.max(at);
                    activity.real_address = real_address.or(activity.real_address);
                }
            }
        }
        Ok(())
    }

    fn put_router(&mut self, account: Account) -> Result<(), StoreError> {
        let conflict = |what: &str| Err(StoreError::Conflict(what.to_owned()));
        if let Err(error) = account.check() {
            return conflict(&error.to_string());
        }
        for other in self.accounts.values().filter(|other| other.name != account.name) {
            if other.username == account.username {
                return conflict("the user name belongs to another router");
            }
            if other.certificate_cn.is_some() && other.certificate_cn == account.certificate_cn {
                return conflict("the common name belongs to another router");
            }
            if other.address.is_some() && other.address == account.address {
                return conflict("the address belongs to another router");
            }
        }
        self.accounts.insert(Arc::clone(&account.name), account);
        Ok(())
    }

    fn put_lease(&mut self, record: LeaseRecord) -> Result<(), StoreError> {
        if let Some(other) = self.leases.get(&record.address)
            && other.released_at.is_none()
            && other.identity != record.identity
        {
            return Err(StoreError::Conflict("another identity holds the address".to_owned()));
        }
        if record.released_at.is_none()
            && let Some(old) = self.held_by(&record.identity)
            && old.address != record.address
        {
            old.released_at = Some(record.since);
            old.fixed = false;
        }
        self.leases.insert(record.address, record);
        Ok(())
    }

    fn held_by(&mut self, identity: &str) -> Option<&mut LeaseRecord> {
        self.leases
            .values_mut()
            .find(|lease| lease.released_at.is_none() && *lease.identity == *identity)
    }
}
