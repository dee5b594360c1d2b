//! Durable state behind a trait.
//!
//! Nothing that serves a known router waits for a disk: the process reads one [`Snapshot`] when it
//! starts and hands changes to [`Store::submit`], which never blocks. What must be on disk before
//! somebody is told (a new account, a first lease) says so with a callback, which runs after the
//! commit.

mod memory;
#[cfg(feature = "store-sqlite")]
pub mod sqlite;

use std::net::IpAddr;
use std::sync::Arc;

pub use memory::MemoryStore;
#[cfg(feature = "store-sqlite")]
pub use sqlite::SqliteStore;

use crate::identity::Account;
use crate::lease::LeaseRecord;

/// Everything that is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every router account, by name.
    pub accounts: Vec<Account>,
    /// Every lease, held or resting, by address.
    pub leases: Vec<LeaseRecord>,
    /// When and from where routers were last seen, by name.
    pub activity: Vec<Activity>,
}

/// When and from where a router was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// NAME of the router.
    pub router: Arc<str>,
    /// Seconds since 1970-01-01 UTC.
    pub last_seen: u64,
    /// Its real address then.
    pub real_address: Option<IpAddr>,
}

/// One change of what is recorded.
#[expect(clippy::large_enum_variant, reason = "changes are few and live in short vectors")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds the account, or replaces the one of the same name.
    PutRouter(Account),
    /// Removes the account and what is known of its activity; nothing if there is none. Its lease
    /// stays: release that too.
    DeleteRouter {
        /// NAME of the router.
        name: Arc<str>,
    },
    /// Records the lease. Another address that the same identity holds is released with it; an
    /// address that another identity holds is a conflict.
    PutLease(LeaseRecord),
    /// Notes that the identity gave its address up; nothing if it does not hold it.
    ReleaseLease {
        /// Who held it.
        identity: Arc<str>,
        /// Seconds since 1970-01-01 UTC.
        at: u64,
    },
    /// Drops every lease that was released before; what rests longer than the quarantine needs no
    /// record.
    ForgetLeases {
        /// Seconds since 1970-01-01 UTC.
        released_before: u64,
    },
    /// Notes that the router is in use; nothing if there is no such router or lease.
    Touch {
        /// NAME of the router.
        identity: Arc<str>,
        /// Seconds since 1970-01-01 UTC.
        at: u64,
        /// Its real address; `None` leaves what is known.
        real_address: Option<IpAddr>,
    },
}

/// Told once what became of a [`Store::submit`]. Runs on the thread of the store: it must be short
/// and must not call back into the store.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// How well the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Why nothing can be written at present, in one sentence; `None` if all is well.
    pub degraded: Option<String>,
    /// Submits that wait.
    pub queued: usize,
    /// Submits refused because the queue was full.
    pub refused: u64,
    /// Submits that failed for another reason than a conflict.
    pub failed: u64,
}

/// Durable state.
pub trait Store: Send + Sync {
    /// Reads everything, including what was submitted before. Blocks; for the start.
    ///
    /// # Errors
    /// The state can not be read.
    fn load(&self) -> Result<Snapshot, StoreError>;

    /// Records all changes in one transaction, later and in the order of submits, and tells `done`
    /// after the commit. Never blocks: if the queue is full, `done` is told so at once. What was
    /// told `Ok` survives a power cut.
    fn submit(&self, changes: Vec<Change>, done: Option<Done>);

    /// How well the store is.
    fn health(&self) -> StoreHealth;

    /// Waits until everything that was submitted before is done, well or badly.
    fn flush(&self);

    /// Flushes and lets go of the state; later calls fail with [`StoreError::Closed`].
    fn close(&self);
}

/// Why something can not be recorded or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing can be written at present: disk full, read-only, failing. Reading works, and
    /// writing is tried again.
    #[error("the state can not be written at present: {0}")]
    Degraded(String),
    /// More waits to be written than the queue takes.
    #[error("too many changes wait to be written")]
    QueueFull,
    /// The change contradicts what is recorded.
    #[error("the change contradicts what is recorded: {0}")]
    Conflict(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The file can not be opened at all.
    #[error("{path}: can not open the database: {reason}")]
    Open {
        /// The database file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// Another process has it open.
    #[error(
        "{path}: another tunnelhead process uses this database; stop it first or use another state_dir"
    )]
    InUse {
        /// The database file.
        path: String,
    },
    /// Written by a newer version.
    #[error(
        "{path}: the database has schema {found} and this version of tunnelhead knows up to {known}; run the newer version, or restore a backup made before the upgrade"
    )]
    Newer {
        /// The database file.
        path: String,
        /// The schema version of the file.
        found: i64,
        /// The newest schema version that we know.
        known: i64,
    },
    /// Not ours.
    #[error(
        "{path}: this file is not a tunnelhead database ({reason}); move it away or use another state_dir"
    )]
    Foreign {
        /// The database file.
        path: String,
        /// What gave it away.
        reason: String,
    },
    /// Damaged.
    #[error(
        "{path}: the database is damaged ({reason}); restore a backup, or move the file and its -wal away to start without accounts"
    )]
    Damaged {
        /// The database file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}
