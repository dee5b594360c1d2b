//! The durable store: one SQLite file that operators can read with any SQLite tool.
//!
//! Write-ahead log, `synchronous = FULL`: what was acknowledged survives a power cut. One thread
//! writes; one process has the file open (a lock file beside it says so). When the disk is full or
//! read-only, what is recorded can still be read and the store says that it is degraded; it
//! recovers by itself. Files: `NAME`, `NAME-wal`, `NAME-shm`, `NAME.lock`, `NAME.given` (the
//! journal of given addresses), for their owner only.

mod audit;
mod backup;
mod fault;
mod history;
mod journal;
mod open;
mod reader;
mod records;
mod recover;
mod schema;
mod writer;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use journal::Journal;
use open::{Opened, ProcessLock};
use reader::Reader;
use writer::{Job, Shared, Submit, Tuning, Writer};

pub use backup::{CopyFacts, inspect};
pub use recover::{Recovered, recover, restore};

use super::history::{Holding, SessionQuery, SessionRecord};
use super::{AuditRecord, AuditSeal, Change, Done, Snapshot, Store, StoreError, StoreHealth};

/// The durable store.
pub struct SqliteStore {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
    reader: Reader,
    closing: AtomicBool,
}

impl SqliteStore {
    /// Opens the database file, or makes it; its folder must exist. An older schema is brought up
    /// to date. If the disk lets us only read, the store is open and degraded.
    ///
    /// # Errors
    /// The file is used by another process, is not ours, is newer than this version, damaged, or
    /// can not be read. It is left as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path.as_ref(), Tuning::default())
    }

    fn open_with(path: &Path, tuning: Tuning) -> Result<Self, StoreError> {
        let path = open::resolve(path)?;
        let lock = ProcessLock::take(&path)?;
        open::prepare_file(&path)?;
        let Opened { database, degraded, new } = open::open(&path)?;
        let mut journal = Journal::of(&path);
        if new && let Err(error) = journal.begin() {
            return Err(StoreError::Open {
                path: journal::path_of(&path).display().to_string(),
                reason: error.to_string(),
            });
        }
        let shared = Arc::new(Shared::default());
        shared.health().degraded = degraded;
        let (jobs, work) = sync_channel(tuning.queue);
        let writer = Writer {
            path: path.clone(),
            database,
            journal,
            shared: Arc::clone(&shared),
            tuning,
            lock,
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&work))
            .map_err(|error| StoreError::Open {
                path: path.display().to_string(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            jobs,
            shared,
            thread: Mutex::new(Some(thread)),
            path,
            reader: Reader::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// Runs a query on the connection that only reads.
    fn read<T>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> Result<T, fault::Fault>,
    ) -> Result<T, StoreError> {
        if self.closing.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        self.reader.ask(&self.path, query)
    }

    /// Asks the thread and waits for the answer.
    fn ask<T>(&self, job: impl FnOnce(SyncSender<T>) -> Job) -> Result<T, StoreError> {
        let (answer, result) = sync_channel(1);
        self.jobs.send(job(answer)).map_err(|_| StoreError::Closed)?;
        result.recv().map_err(|_| StoreError::Closed)
    }
}

impl Store for SqliteStore {
    fn load(&self) -> Result<Snapshot, StoreError> {
        self.ask(Job::Load)?
    }

    fn submit(&self, changes: Vec<Change>, done: Option<Done>) {
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        let (job, error) = match self.jobs.try_send(Job::Write(Submit::new(changes, done))) {
            Ok(()) => return,
            Err(TrySendError::Full(job)) => {
                let mut health = self.shared.health();
                health.refused = health.refused.saturating_add(1);
                (job, StoreError::QueueFull)
            }
            Err(TrySendError::Disconnected(job)) => (job, StoreError::Closed),
        };
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        if let Job::Write(submit) = job {
            submit.conclude(Err(error));
        }
    }

    fn health(&self) -> StoreHealth {
        let mut health = self.shared.health().clone();
        health.queued = self.shared.queued.load(Ordering::Relaxed);
        health
    }

    fn sessions(&self, query: &SessionQuery) -> Result<Vec<SessionRecord>, StoreError> {
        self.read(|db| history::sessions(db, query))
    }

    fn session_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<SessionRecord>, StoreError> {
        self.read(|db| history::session_at(db, address, at))
    }

    fn holder_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<Holding>, StoreError> {
        self.read(|db| history::holder_at(db, address, at))
    }

    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.read(|db| audit::lines(db, after, limit))
    }

    fn audit_seals(&self) -> Result<Vec<AuditSeal>, StoreError> {
        self.read(audit::seals)
    }

    fn check(&self) -> Result<Vec<String>, StoreError> {
        // On a connection of its own: it takes long.
        backup::check(&self.path)
    }

    fn back_up(&self, to: &Path, at: u64) -> Result<u64, StoreError> {
        if self.closing.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        backup::copy(&self.path, to, at, &self.closing)
    }

    fn copies_kept(&self, oldest: u64, newest: u64) {
        // Full or closed: the next copy tells it again.
        let _ = self.jobs.try_send(Job::CopiesKept(oldest, newest));
    }

    fn flush(&self) {
        // Closed means that everything is done.
        let _ = self.ask(Job::Flush);
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        // First, so that the writer is the last to close and moves the log into the file.
        self.reader.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = self.jobs.send(Job::Close);
            let _ = thread.join();
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self { queue: 4096, probe_every: Duration::from_secs(5) }
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
