//! Copies of the store: snapshots that come and go by themselves, and backups with a name.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::control_api::types::{BackupView, Degraded, SNAPSHOT_PREFIX, Timestamp};
use crate::store::{Recovery, Store, StoreError};

/// Copies of the store in one folder.
pub(super) struct Keeping {
    store: Arc<dyn Store>,
    folder: PathBuf,
    /// Snapshots that are kept.
    snapshots: usize,
    every: Duration,
    /// One copy at a time.
    copying: Mutex<()>,
    state: Mutex<State>,
    recovery: Option<Recovery>,
    quarantine: Duration,
}

#[derive(Default)]
struct State {
    /// When a snapshot failed last, and why.
    failed: Option<(u64, String)>,
    working: bool,
}

impl Keeping {
    pub(super) fn new(
        store: Arc<dyn Store>,
        state_dir: &Path,
        config: &crate::config::StoreKeeping,
        recovery: Option<Recovery>,
        quarantine: Duration,
    ) -> Self {
        Self {
            store,
            folder: folder_of(state_dir),
            snapshots: config.snapshots,
            every: config.snapshot_every,
            copying: Mutex::default(),
            state: Mutex::default(),
            recovery,
            quarantine,
        }
    }

    /// How often to call [`Self::snapshot_if_due`].
    pub(super) fn look_every(&self) -> Duration {
        self.every.min(Duration::from_secs(60))
    }

    /// Makes a snapshot on a thread of its own if the newest one is old enough, so that a process
    /// that restarts often makes them as well.
    pub(super) fn snapshot_if_due(self: &Arc<Self>, now: u64) {
        if self.snapshots == 0 {
            return;
        }
        let newest = snapshots(&self.folder).last().map(|(at, _)| *at);
        let every = self.every.as_secs();
        // A clock that was set back must not end the snapshots.
        let due = newest.is_none_or(|at| at > now || now - at >= every);
        {
            let mut state = self.state();
            let failed_lately = state
                .failed
                .as_ref()
                .is_some_and(|(at, _)| now.saturating_sub(*at) < every.min(PAUSE_AFTER_FAILURE));
            if !due || failed_lately || std::mem::replace(&mut state.working, true) {
                return;
            }
        }
        let keeping = Arc::clone(self);
        let thread = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let result = keeping.snapshot(now);
            let mut state = keeping.state();
            state.working = false;
            state.failed = match result {
                // A store in memory has nothing to copy.
                Ok(_) | Err(StoreError::InMemory | StoreError::Closed) => None,
                Err(error) => {
                    tracing::error!(%error, "no snapshot of the store could be made");
                    Some((now, error.to_string()))
                }
            };
        });
        if thread.is_err() {
            self.state().working = false;
        }
    }

    /// Makes a snapshot and deletes those that are too many.
    pub(super) fn snapshot(&self, now: u64) -> Result<PathBuf, StoreError> {
        let path = self.folder.join(format!("{SNAPSHOT_PREFIX}{}.db", compact(now)));
        self.copy(&path, now)?;
        let all = snapshots(&self.folder);
        let too_many = all.len().saturating_sub(self.snapshots.max(1));
        for (_, old) in all.iter().take(too_many) {
            if let Err(error) = fs::remove_file(old) {
                tracing::warn!(file = %old.display(), %error, "an old snapshot can't be deleted");
            }
        }
        let oldest = all.get(too_many).map_or(now, |(at, _)| *at);
        self.store.copies_kept(oldest.min(now), now);
        Ok(path)
    }

    /// Makes a backup of this name.
    pub(super) fn back_up(&self, name: &str, now: u64) -> Result<BackupView, StoreError> {
        let path = self.folder.join(format!("{name}.db"));
        let bytes = self.copy(&path, now)?;
        Ok(view(name, now, bytes, &path))
    }

    fn copy(&self, path: &Path, now: u64) -> Result<u64, StoreError> {
        let _one = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(|error| {
            StoreError::Copy { path: path.display().to_string(), reason: error.to_string() }
        })?;
        self.store.back_up(path, now)
    }

    /// Every copy, newest first.
    pub(super) fn list(&self) -> io::Result<Vec<BackupView>> {
        let mut all: Vec<BackupView> = copies(&self.folder)?
            .into_iter()
            .filter_map(|path| {
                let metadata = path.metadata().ok()?;
                let name = path.file_stem()?.to_str()?.to_owned();
                let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
                let at = snapshot_time(&path).unwrap_or(modified);
                Some(view(&name, at, metadata.len(), &path))
            })
            .collect();
        all.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
        Ok(all)
    }

    /// What is not as it should be, at this time.
    pub(super) fn degraded(&self, now: u64) -> Vec<Degraded> {
        let mut all = Vec::new();
        let failed = self.state().failed.clone();
        if let Some((_, reason)) = failed {
            all.push(Degraded { part: "snapshots".to_owned(), reason });
        }
        if let Some(recovery) = &self.recovery
            && let until = quarantine_end(recovery, self.quarantine)
            && now < until
        {
            let (copied, until) = (Timestamp(recovery.copied_at), Timestamp(until));
            let addresses = if recovery.addresses_known {
                format!("addresses given after that rest until {until}")
            } else {
                format!(
                    "it is not known which addresses were given after that, so until {until} new \
                     routers get one only with --address"
                )
            };
            all.push(Degraded {
                part: "recovery".to_owned(),
                reason: format!(
                    "the state is that of {copied}: routers added, deleted, disabled or changed \
                     later are as they were then; {addresses}"
                ),
            });
        }
        all
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When addresses that were given after the copy may be given to others.
pub(super) fn quarantine_end(recovery: &Recovery, quarantine: Duration) -> u64 {
    recovery.at.saturating_add(quarantine.as_secs())
}

/// Where copies are.
pub(super) fn folder_of(state_dir: &Path) -> PathBuf {
    state_dir.join("backups")
}

/// Puts the copy at `file` in place of the database in the state folder; one that is there is kept
/// beside it. What was changed after the copy is lost; addresses that were given after it rest for
/// `limits.lease_quarantine`, or, if nobody knows which they are, none is given to a new router for
/// that long.
///
/// # Errors
/// The file is no good copy, a concentrator uses the database, or the disk fails; nothing has
/// changed then.
#[cfg(feature = "store-sqlite")]
pub fn restore_store(
    file: &Path,
    state_dir: &Path,
) -> Result<crate::store::sqlite::Recovered, StoreError> {
    let now = crate::telemetry::clock::unix_seconds();
    crate::store::sqlite::restore(file, &state_dir.join(super::DATABASE), now)
}

/// Every file that could be a copy, in no particular order.
pub(super) fn copies(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "db") && path.is_file() {
            all.push(path);
        }
    }
    Ok(all)
}

/// Snapshots with their times, the oldest first.
fn snapshots(folder: &Path) -> Vec<(u64, PathBuf)> {
    let mut all: Vec<(u64, PathBuf)> = copies(folder)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|path| Some((snapshot_time(&path)?, path)))
        .collect();
    all.sort();
    all
}

fn view(name: &str, at: u64, bytes: u64, path: &Path) -> BackupView {
    let kind = if name.starts_with(SNAPSHOT_PREFIX) { "snapshot" } else { "backup" };
    BackupView {
        name: name.to_owned(),
        kind: kind.to_owned(),
        created: Timestamp(at),
        bytes,
        path: path.display().to_string(),
    }
}

/// "20261122T061958Z"
fn compact(at: u64) -> String {
    Timestamp(at).to_string().replace(['-', ':'], "")
}

/// The time in the name of a snapshot.
fn snapshot_time(path: &Path) -> Option<u64> {
    let text = path.file_stem()?.to_str()?.strip_prefix(SNAPSHOT_PREFIX)?;
    let part = |from: usize, to: usize| text.get(from..to);
    let full = format!(
        "{}-{}-{}T{}:{}:{}",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(9, 11)?,
        part(11, 13)?,
        text.get(13..)?
    );
    let moment = OffsetDateTime::parse(&full, &Rfc3339).ok()?;
    u64::try_from(moment.unix_timestamp()).ok()
}

/// Pause after a snapshot that failed, in seconds, unless snapshots are more frequent.
const PAUSE_AFTER_FAILURE: u64 = 600;

#[cfg(all(test, feature = "store-sqlite"))]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, SqliteStore};

    const HOUR: u64 = 3600;
    const NOW: u64 = 1_795_305_600;

    fn keeping(store: Arc<dyn Store>, dir: &Path, recovery: Option<Recovery>) -> Arc<Keeping> {
        let config =
            crate::config::StoreKeeping { snapshots: 3, snapshot_every: Duration::from_secs(HOUR) };
        Arc::new(Keeping::new(store, dir, &config, recovery, Duration::from_secs(7 * 86_400)))
    }

    fn times(keeping: &Keeping) -> Vec<u64> {
        snapshots(&keeping.folder).into_iter().map(|(at, _)| at).collect()
    }

    /// Looks until the thread of the snapshot has ended.
    fn look(keeping: &Arc<Keeping>, now: u64) {
        keeping.snapshot_if_due(now);
        while keeping.state().working {
            std::thread::yield_now();
        }
    }

    #[test]
    fn snapshots_are_made_when_due_and_only_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path().join("tunnelhead.db")).unwrap());
        let keeping = keeping(store, dir.path(), None);
        assert_eq!(keeping.list().unwrap(), []);
        look(&keeping, NOW);
        look(&keeping, NOW + HOUR - 1);
        assert_eq!(times(&keeping), [NOW]);
        let backup = keeping.back_up("before-upgrade", NOW + 5).unwrap();
        assert_eq!((backup.kind.as_str(), backup.created), ("backup", Timestamp(NOW + 5)));
        for hour in 1..=5 {
            look(&keeping, NOW + hour * HOUR);
        }
        assert_eq!(times(&keeping), [NOW + 3 * HOUR, NOW + 4 * HOUR, NOW + 5 * HOUR]);
        let list = keeping.list().unwrap();
        assert_eq!(list.len(), 4, "a backup is never deleted");
        let named = list.iter().find(|copy| copy.name == "before-upgrade").unwrap();
        assert_eq!(named.bytes, backup.bytes);
        assert!(list.iter().any(|copy| copy.name == "snapshot-20261122T050000Z"), "{list:?}");
        // A clock that was set back.
        look(&keeping, NOW - HOUR);
        assert!(times(&keeping).contains(&(NOW - HOUR)) || times(&keeping).len() == 3);
        assert_eq!(keeping.degraded(NOW), []);
    }

    #[test]
    fn a_snapshot_that_fails_is_told_and_tried_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path().join("tunnelhead.db")).unwrap());
        let keeping = keeping(store, dir.path(), None);
        fs::write(&keeping.folder, b"in the way").unwrap();
        look(&keeping, NOW);
        let degraded = keeping.degraded(NOW);
        assert_eq!(degraded[0].part, "snapshots");
        fs::remove_file(&keeping.folder).unwrap();
        look(&keeping, NOW + 10);
        assert_eq!(times(&keeping), Vec::<u64>::new(), "not at once");
        look(&keeping, NOW + PAUSE_AFTER_FAILURE);
        assert_eq!(times(&keeping), [NOW + PAUSE_AFTER_FAILURE]);
        assert_eq!(keeping.degraded(NOW), []);
    }

    #[test]
    fn a_store_in_memory_has_no_snapshots_and_that_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let keeping = keeping(Arc::new(MemoryStore::new()), dir.path(), None);
        look(&keeping, NOW);
        assert_eq!((keeping.degraded(NOW), times(&keeping)), (vec![], vec![]));
        assert_eq!(keeping.back_up("a", NOW), Err(StoreError::InMemory));
    }

    #[test]
    fn a_recovery_is_told_until_its_quarantine_is_over() {
        let dir = tempfile::tempdir().unwrap();
        for (addresses_known, words) in [(true, "rest until"), (false, "only with --address")] {
            let recovery = Recovery { at: NOW, copied_at: NOW - HOUR, addresses_known };
            let keeping = keeping(Arc::new(MemoryStore::new()), dir.path(), Some(recovery));
            let degraded = keeping.degraded(NOW + 7 * 86_400 - 1);
            assert_eq!(degraded[0].part, "recovery");
            assert!(degraded[0].reason.contains(words), "{degraded:?}");
            assert!(degraded[0].reason.contains("2026-11-29T00:00:00Z"), "{degraded:?}");
            assert_eq!(keeping.degraded(NOW + 7 * 86_400), []);
        }
    }
}
