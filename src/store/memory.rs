//! The store of tests and of embedders that keep nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::history::{Holding, SessionEnd, SessionQuery, SessionRecord};
use super::{
    Activity, AuditRecord, AuditSeal, Change, Done, Marks, Snapshot, Store, StoreError, StoreHealth,
};
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

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        let inner = self.lock();
        if inner.closed { Err(StoreError::Closed) } else { Ok(look(&inner.state)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A change is made as a whole or not at all, so a panic elsewhere leaves nothing half done.
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

    fn sessions(&self, query: &SessionQuery) -> Result<Vec<SessionRecord>, StoreError> {
        self.read(|state| {
            let wanted = state.sessions.values().rev().filter(|session| query.wants(session));
            wanted.take(query.limit).cloned().collect()
        })
    }

    fn session_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<SessionRecord>, StoreError> {
        self.read(|state| {
            let began =
                |session: &&SessionRecord| session.address == address && session.since <= at;
            state.sessions.values().filter(began).max_by_key(|s| (s.since, s.id)).cloned()
        })
    }

    fn holder_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<Holding>, StoreError> {
        self.read(|state| {
            let given = |held: &&Holding| held.address == address && held.since <= at;
            let latest = |held: &&Holding| (held.since, Arc::clone(&held.identity));
            state.holdings.iter().filter(given).max_by_key(latest).cloned()
        })
    }

    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.read(|state| {
            let lines = state.audit.range(after.saturating_add(1)..);
            lines.take(limit).map(|(_, record)| record.clone()).collect()
        })
    }

    fn audit_seals(&self) -> Result<Vec<AuditSeal>, StoreError> {
        self.read(|state| state.seals.values().cloned().collect())
    }

    fn check(&self) -> Result<Vec<String>, StoreError> {
        Err(StoreError::InMemory)
    }

    fn back_up(&self, _: &Path, _: u64) -> Result<u64, StoreError> {
        Err(StoreError::InMemory)
    }

    fn copies_kept(&self, _: u64, _: u64) {}

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
        if changes.len() <= 1 {
            // A change that fails has changed nothing.
            return changes.into_iter().try_for_each(|change| self.state.apply(change));
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
    sessions: BTreeMap<u64, SessionRecord>,
    holdings: Vec<Holding>,
    audit: BTreeMap<u64, AuditRecord>,
    seals: BTreeMap<u64, AuditSeal>,
    marks: Marks,
}

impl State {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            accounts: self.accounts.values().cloned().collect(),
            leases: self.leases.values().cloned().collect(),
            activity: self.activity.values().cloned().collect(),
            marks: Marks {
                last_session: self.sessions.keys().next_back().copied().unwrap_or(0),
                ..self.marks
            },
            audit_head: self.audit.values().next_back().cloned(),
            audit_seal: self.seals.values().next_back().cloned(),
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
                self.end_holdings(at, |held| held.identity == identity);
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
            Change::OpenSession(session) | Change::CloseSession(session) => {
                self.put_session(session);
            }
            Change::EndSessions { reason } => self.end_sessions(&reason),
            Change::Alive { at } => self.alive(at),
            Change::PruneSessions { before, at_most } => self.prune_sessions(before, at_most),
            Change::ReserveEvents { up_to } => {
                self.marks.events_reserved = self.marks.events_reserved.max(up_to);
            }
            Change::AppendAudit(record) => {
                if self.audit.contains_key(&record.seq) {
                    return Err(StoreError::Conflict(AUDIT_TAKEN.to_owned()));
                }
                self.audit.insert(record.seq, record);
            }
            Change::SealAudit(seal) => {
                self.seals.insert(seal.segment, seal);
            }
            Change::PruneAudit { through, at_most } => {
                let sealed = self.seals.values().map(|seal| seal.last).max().unwrap_or(0);
                let last = through.min(sealed);
                let gone: Vec<u64> =
                    self.audit.range(..=last).map(|(seq, _)| *seq).take(count(at_most)).collect();
                self.audit.retain(|seq, _| gone.binary_search(seq).is_err());
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
        self.hold(&record);
        self.leases.insert(record.address, record);
        Ok(())
    }

    fn held_by(&mut self, identity: &str) -> Option<&mut LeaseRecord> {
        self.leases
            .values_mut()
            .find(|lease| lease.released_at.is_none() && *lease.identity == *identity)
    }

    /// Keeps the history of an address in step with its lease.
    fn hold(&mut self, record: &LeaseRecord) {
        let LeaseRecord { address, identity, since, .. } = record;
        let same = |held: &Holding| held.address == *address && held.identity == *identity;
        if record.released_at.is_none() {
            self.end_holdings(*since, |held| {
                held.identity == *identity && held.address != *address
            });
        }
        let open = self.holdings.iter().any(|held| same(held) && held.until.is_none());
        match record.released_at {
            None if open => {}
            Some(at) if open => self.end_holdings(at, same),
            released_at => {
                let until = released_at.map(|at| at.max(*since));
                let known =
                    self.holdings.iter_mut().find(|held| same(held) && held.since == *since);
                match known {
                    Some(held) if until.is_none() => held.until = None,
                    Some(_) => {}
                    None => self.holdings.push(Holding {
                        address: *address,
                        identity: Arc::clone(identity),
                        since: *since,
                        until,
                    }),
                }
            }
        }
    }

    fn end_holdings(&mut self, at: u64, which: impl Fn(&Holding) -> bool) {
        for held in self.holdings.iter_mut().filter(|held| held.until.is_none() && which(held)) {
            held.until = Some(at.max(held.since));
        }
    }

    fn put_session(&mut self, session: SessionRecord) {
        self.alive(session.ended.as_ref().map_or(session.since, |end| end.at));
        self.sessions.insert(session.id, session);
    }

    fn end_sessions(&mut self, reason: &Arc<str>) {
        let alive_at = self.marks.alive_at;
        for session in self.sessions.values_mut().filter(|session| session.ended.is_none()) {
            let at = session.since.max(alive_at);
            session.ended = Some(SessionEnd { at, reason: Arc::clone(reason) });
        }
    }

    fn alive(&mut self, at: u64) {
        self.marks.alive_at = self.marks.alive_at.max(at);
    }

    fn prune_sessions(&mut self, before: u64, at_most: u32) {
        let mut old: Vec<(u64, u64)> = self
            .sessions
            .values()
            .filter_map(|session| Some((session.ended.as_ref()?.at, session.id)))
            .filter(|(at, _)| *at < before)
            .collect();
        old.sort_unstable();
        for (_, id) in old.into_iter().take(count(at_most)) {
            self.sessions.remove(&id);
        }
        self.holdings.sort_unstable_by(|a, b| {
            let key =
                |held: &Holding| (held.until, held.since, Arc::clone(&held.identity), held.address);
            key(a).cmp(&key(b))
        });
        let mut left = at_most;
        self.holdings.retain(|held| {
            let goes = left > 0 && held.until.is_some_and(|until| until < before);
            left = left.saturating_sub(u32::from(goes));
            !goes
        });
    }
}

fn count(at_most: u32) -> usize {
    usize::try_from(at_most).unwrap_or(usize::MAX)
}

pub(super) const AUDIT_TAKEN: &str = "the audit trail has a line with this number";
