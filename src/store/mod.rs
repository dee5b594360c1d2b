//! Durable state behind a trait.
//!
//! Nothing that serves a known router waits for a disk: the process reads one [`Snapshot`] when it
//! starts and hands changes to [`Store::submit`], which never blocks. What must be on disk before
//! somebody is told (a new account, a first lease) says so with a callback, which runs after the
//! commit.

mod audit;
mod history;
mod memory;
#[cfg(feature = "store-sqlite")]
pub mod sqlite;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

pub use audit::{AuditRecord, AuditSeal};
pub use history::{Holding, PROCESS_ENDED, SessionEnd, SessionQuery, SessionRecord};
pub use memory::MemoryStore;
#[cfg(feature = "store-sqlite")]
pub use sqlite::SqliteStore;

use crate::identity::Account;
use crate::lease::LeaseRecord;

/// What the start needs of what is recorded; not the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every router account, by name.
    pub accounts: Vec<Account>,
    /// Every lease, held or resting, by address.
    pub leases: Vec<LeaseRecord>,
    /// When and from where routers were last seen, by name.
    pub activity: Vec<Activity>,
    /// Numbers that outlive a process.
    pub marks: Marks,
    /// The last line of the audit trail.
    pub audit_head: Option<AuditRecord>,
    /// The newest seal of the audit trail.
    pub audit_seal: Option<AuditSeal>,
}

/// Numbers that outlive a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Event ids up to this one may have been used.
    pub events_reserved: u64,
    /// The highest number of a session that is recorded.
    pub last_session: u64,
    /// When a process was last known to run, in seconds since 1970-01-01 UTC.
    pub alive_at: u64,
    /// Set once the state came from a copy.
    pub recovery: Option<Recovery>,
}

/// That the state came from a copy of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// When it was put in place, in seconds since 1970-01-01 UTC.
    pub at: u64,
    /// When the copy was made; what changed after that is lost.
    pub copied_at: u64,
    /// True if it is known which addresses were given after that; they rest. Otherwise any address
    /// may have been.
    pub addresses_known: bool,
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
    /// Records a tunnel that came up.
    OpenSession(SessionRecord),
    /// Records how it ended; the whole record, so that it counts even if its beginning was lost.
    CloseSession(SessionRecord),
    /// Ends every session that is recorded as up, at the time of [`Marks::alive_at`]: the process
    /// that had them is gone.
    EndSessions {
        /// The stable name of the reason.
        reason: Arc<str>,
    },
    /// Notes that a process runs.
    Alive {
        /// Seconds since 1970-01-01 UTC.
        at: u64,
    },
    /// Forgets sessions and holdings of addresses that ended before, the oldest first.
    PruneSessions {
        /// Seconds since 1970-01-01 UTC.
        before: u64,
        /// At most so many of each, so that nobody waits long for the next change.
        at_most: u32,
    },
    /// Reserves event ids, before they are used.
    ReserveEvents {
        /// The last one reserved; a smaller one than before changes nothing.
        up_to: u64,
    },
    /// Adds a line to the audit trail; one with the number of another is a conflict.
    AppendAudit(AuditRecord),
    /// Adds a seal, or replaces the one of the same segment.
    SealAudit(AuditSeal),
    /// Forgets lines of the audit trail, the oldest first; never one that is not sealed.
    PruneAudit {
        /// Number of the last line to forget.
        through: u64,
        /// At most so many.
        at_most: u32,
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

    /// A page of a router's sessions. Like the other reads below it waits for the disk, but not
    /// for changes: never call it on a thread of packets or logins.
    ///
    /// # Errors
    /// The state can not be read.
    fn sessions(&self, query: &SessionQuery) -> Result<Vec<SessionRecord>, StoreError>;

    /// The session that used the address last, of those that began at `at` (seconds since
    /// 1970-01-01 UTC) or earlier.
    ///
    /// # Errors
    /// The state can not be read.
    fn session_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<SessionRecord>, StoreError>;

    /// Who was given the address last, at `at` (seconds since 1970-01-01 UTC) or earlier.
    ///
    /// # Errors
    /// The state can not be read.
    fn holder_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<Holding>, StoreError>;

    /// Lines of the audit trail with a number above `after`, in order.
    ///
    /// # Errors
    /// The state can not be read.
    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError>;

    /// Every seal of the audit trail, in order.
    ///
    /// # Errors
    /// The state can not be read.
    fn audit_seals(&self) -> Result<Vec<AuditSeal>, StoreError>;

    /// Looks for contradictions; a sentence each. Takes seconds for a large state.
    ///
    /// # Errors
    /// The state can not be read, or is kept in memory.
    fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Copies everything into a new file while changes go on, as it was at one moment, and gives
    /// the bytes of the copy. `at` is the present, in seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// The copy can not be made, or the state is kept in memory; there is no half copy.
    fn back_up(&self, to: &Path, at: u64) -> Result<u64, StoreError>;

    /// Tells that copies from `oldest` on are kept and that one was just made at `newest` (both in
    /// seconds since 1970-01-01 UTC), so that what only older ones need can be forgotten.
    fn copies_kept(&self, oldest: u64, newest: u64);

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
    /// It keeps everything in memory.
    #[error("the state is kept in memory only; there is nothing to check or to copy")]
    InMemory,
    /// There is no copy to start from.
    #[error("{path}: {reason}; restore a backup with `tunnelhead store restore`")]
    NothingToRecover {
        /// The database file.
        path: String,
        /// What is wrong with the snapshots.
        reason: String,
    },
    /// A copy can not be made.
    #[error("{path}: can not make the copy: {reason}")]
    Copy {
        /// The file of the copy.
        path: String,
        /// What the system says.
        reason: String,
    },
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
        "{path}: this file is not a tunnelhead database ({reason}); move it away or use another state_dir; if it was one, `tunnelhead serve --recover` starts from the last good snapshot"
    )]
    Foreign {
        /// The database file.
        path: String,
        /// What gave it away.
        reason: String,
    },
    /// Damaged.
    #[error(
        "{path}: the database is damaged ({reason}); `tunnelhead serve --recover` starts from the last good snapshot and keeps the damaged file, `tunnelhead store restore` takes a backup"
    )]
    Damaged {
        /// The database file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}
