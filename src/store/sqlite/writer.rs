//! The one thread that writes.
//!
//! It takes everything that waits and commits it as one transaction; if that fails, each submit
//! on its own, so that nobody fails for a neighbour. While nothing can be written it tries again
//! every [`Tuning::probe_every`], and with every submit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::TransactionBehavior;

use super::fault::Fault;
use super::journal::Journal;
use super::open::{self, Database, ProcessLock};
use super::{records, schema};
use crate::store::{Change, Done, Snapshot, StoreError, StoreHealth};

/// What the thread is asked to do.
pub(super) enum Job {
    Write(Submit),
    Load(SyncSender<Result<Snapshot, StoreError>>),
    Flush(SyncSender<()>),
    /// Copies from the first time on are kept, the newest of the second time.
    CopiesKept(u64, u64),
    Close,
    /// Runs a statement of a test.
    #[cfg(test)]
    Execute(String, SyncSender<rusqlite::Result<()>>),
}

/// Changes to commit together. However it ends, its callback is told, once.
pub(super) struct Submit {
    changes: Vec<Change>,
    done: Option<Done>,
}

impl Submit {
    pub(super) fn new(changes: Vec<Change>, done: Option<Done>) -> Self {
        Self { changes, done }
    }

    pub(super) fn conclude(mut self, result: Result<(), StoreError>) {
        self.tell(result);
    }

    fn tell(&mut self, result: Result<(), StoreError>) {
        if let Some(done) = self.done.take() {
            // A callback that panics is its owner's mistake and must not end the store.
            let _ = catch_unwind(AssertUnwindSafe(|| done(result)));
        }
    }
}

impl Drop for Submit {
    fn drop(&mut self) {
        self.tell(Err(StoreError::Closed));
    }
}

/// Bounds and periods.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// Submits that may wait.
    pub(super) queue: usize,
    /// Pause between attempts to write while nothing can be written.
    pub(super) probe_every: Duration,
}

/// What the thread and the store share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) queued: AtomicUsize,
    health: Mutex<StoreHealth>,
}

impl Shared {
    pub(super) fn health(&self) -> MutexGuard<'_, StoreHealth> {
        // Plain values, each valid by itself.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) database: Database,
    pub(super) journal: Journal,
    pub(super) shared: Arc<Shared>,
    pub(super) tuning: Tuning,
    /// Let go of when the thread ends.
    pub(super) lock: ProcessLock,
}

impl Writer {
    /// Serves until it is told to close or nobody can ask any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut batch = Vec::new();
        loop {
            let job = match jobs.recv_timeout(self.patience()) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.probe();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut next = Some(job);
            while let Some(Job::Write(submit)) = next {
                self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                batch.push(submit);
                next = (batch.len() < MAX_BATCH).then(|| jobs.try_recv().ok()).flatten();
            }
            self.write(std::mem::take(&mut batch));
            match next {
                None | Some(Job::Write(_)) => {}
                Some(Job::Load(answer)) => {
                    let _ = answer.send(self.load());
                }
                Some(Job::Flush(answer)) => {
                    if self.is_degraded() {
                        self.probe();
                    }
                    let _ = answer.send(());
                }
                Some(Job::CopiesKept(oldest, newest)) => {
                    if let Err(error) = self.journal.keep_since(oldest, newest) {
                        // It stays longer than it need be; the next copy tries again.
                        self.note_failure(&Err(cannot_note(&error)));
                    }
                }
                Some(Job::Close) => break,
                #[cfg(test)]
                Some(Job::Execute(sql, answer)) => {
                    let Database::Writable(db) = &self.database else { continue };
                    let _ = answer.send(db.execute_batch(&sql));
                }
            }
        }
        if let Database::Writable(db) = self.database {
            // Closing moves the log into the file; if that fails the log stays, which is as good.
            let _ = db.close();
        }
        drop(self.lock);
    }

    fn patience(&self) -> Duration {
        if self.is_degraded() { self.tuning.probe_every } else { IDLE }
    }

    fn is_degraded(&self) -> bool {
        self.shared.health().degraded.is_some()
    }

    fn write(&mut self, batch: Vec<Submit>) {
        if batch.is_empty() {
            return;
        }
        if matches!(self.database, Database::ReadOnly(_)) {
            self.probe();
        }
        let together = self.commit(batch.iter().map(|submit| &submit.changes));
        let alone = batch.len() == 1;
        let mut worked = false;
        for submit in batch {
            let result = match &together {
                Err(_) if !alone => self.commit(std::iter::once(&submit.changes)),
                result => result.clone(),
            };
            self.note_failure(&result);
            worked |= result.is_ok();
            submit.conclude(result.map_err(|fault| match fault {
                Fault::Conflict(what) => StoreError::Conflict(what),
                fault => StoreError::Degraded(reason(&fault)),
            }));
        }
        // That one change fitted, or found nothing to do, does not mean that there is room again.
        if worked && self.is_degraded() {
            self.probe();
        }
    }

    /// Commits all changes or none.
    fn commit<'a>(
        &mut self,
        submits: impl Iterator<Item = &'a Vec<Change>> + Clone,
    ) -> Result<(), Fault> {
        let Database::Writable(db) = &mut self.database else {
            return Err(Fault::Unwritable("the database file is read-only".to_owned()));
        };
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Dropped without a commit, it rolls back.
        for change in submits.clone().flatten() {
            records::apply(&transaction, change)?;
        }
        let given = submits.flatten().filter_map(|change| match change {
            Change::PutLease(lease) => Some(lease),
            _ => None,
        });
        self.journal.note(given).map_err(|error| cannot_note(&error))?;
        transaction.commit()?;
        Ok(())
    }

    /// Finds out whether writing works again.
    fn probe(&mut self) {
        let result = match &self.database {
            Database::Writable(db) => records::probe(db),
            Database::ReadOnly(_) => open::open_writable(&self.path)
                .map(|(db, _)| self.database = Database::Writable(db)),
        };
        if self.is_degraded() {
            let mut health = self.shared.health();
            health.degraded = result.err().map(|fault| reason(&fault));
        }
    }

    fn note_failure(&self, result: &Result<(), Fault>) {
        if let Err(fault) = result
            && !matches!(fault, Fault::Conflict(_))
        {
            let mut health = self.shared.health();
            health.failed = health.failed.saturating_add(1);
            health.degraded = Some(reason(fault));
        }
    }

    fn load(&self) -> Result<Snapshot, StoreError> {
        match &self.database {
            Database::Writable(db) => {
                records::load(db, schema::CURRENT).map_err(|fault| fault.at(&self.path))
            }
            Database::ReadOnly(snapshot) => Ok(snapshot.clone()),
        }
    }
}

fn cannot_note(error: &std::io::Error) -> Fault {
    let reason = match error.kind() {
        std::io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => format!("given addresses can not be noted: {error}"),
    };
    Fault::Unwritable(reason)
}

fn reason(fault: &Fault) -> String {
    match fault {
        Fault::Conflict(reason)
        | Fault::Unwritable(reason)
        | Fault::Foreign(reason)
        | Fault::Damaged(reason) => reason.clone(),
        Fault::Newer(found) => format!("the database was replaced by one with schema {found}"),
    }
}

/// Submits in one transaction at most: bounds how long one waits for its neighbours.
const MAX_BATCH: usize = 256;
/// Nothing has to be done while all is well and nobody asks.
const IDLE: Duration = Duration::from_secs(3600);
