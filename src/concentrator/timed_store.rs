//! A store whose answers are timed.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use crate::store::{
    AuditRecord, AuditSeal, Change, Done, Holding, SessionQuery, SessionRecord, Snapshot, Store,
    StoreError, StoreHealth,
};
use crate::telemetry::clock;
use crate::telemetry::histogram::{DISK_SECONDS, Histogram};

/// Times each change from the moment it is handed in until it is on disk; everything else passes
/// through.
pub(super) struct TimedStore {
    inner: Arc<dyn Store>,
    times: Arc<Histogram>,
}

impl TimedStore {
    /// The store, and where its times are counted.
    pub(super) fn around(inner: Arc<dyn Store>) -> (Arc<dyn Store>, Arc<Histogram>) {
        let times = Arc::new(Histogram::new(DISK_SECONDS));
        (Arc::new(Self { inner, times: Arc::clone(&times) }), times)
    }
}

impl Store for TimedStore {
    fn submit(&self, changes: Vec<Change>, done: Option<Done>) {
        let (begin, times) = (clock::now(), Arc::clone(&self.times));
        let timed = move |result: Result<(), StoreError>| {
            if result.is_ok() {
                times.observe(clock::now().saturating_duration_since(begin));
            }
            if let Some(done) = done {
                done(result);
            }
        };
        self.inner.submit(changes, Some(Box::new(timed)));
    }

    fn load(&self) -> Result<Snapshot, StoreError> {
        self.inner.load()
    }

    fn health(&self) -> StoreHealth {
        self.inner.health()
    }

    fn sessions(&self, query: &SessionQuery) -> Result<Vec<SessionRecord>, StoreError> {
        self.inner.sessions(query)
    }

    fn session_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<SessionRecord>, StoreError> {
        self.inner.session_at(address, at)
    }

    fn holder_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<Holding>, StoreError> {
        self.inner.holder_at(address, at)
    }

    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.inner.audit(after, limit)
    }

    fn audit_seals(&self) -> Result<Vec<AuditSeal>, StoreError> {
        self.inner.audit_seals()
    }

    fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check()
    }

    fn back_up(&self, to: &Path, at: u64) -> Result<u64, StoreError> {
        self.inner.back_up(to, at)
    }

    fn copies_kept(&self, oldest: u64, newest: u64) {
        self.inner.copies_kept(oldest, newest);
    }

    fn flush(&self) {
        self.inner.flush();
    }

    fn close(&self) {
        self.inner.close();
    }
}
