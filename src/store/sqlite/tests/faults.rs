//! Disks that are full or can only be read.

use std::fs;
use std::process::Command;

use super::*;
use crate::store::sqlite::open::with_suffix;

/// A small file system of its own; `None`, loudly, where we may not mount.
pub(super) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(super) fn mount(test: &str, size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tunnelhead-test"])
            .arg(folder.path())
            .output();
        if status.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        println!("SKIPPED {test}: needs the right to mount a tmpfs ({status:?})");
        None
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("state.db")
    }

    fn remount(&self, mode: &str) {
        let options = format!("remount,{mode}");
        let output =
            Command::new("mount").args(["-o", &options]).arg(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Takes every free byte.
    pub(super) fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.0.path().join("ballast")).unwrap();
        let mut block = 4096;
        while block > 0 {
            if file.write_all(&vec![0; block]).is_err() {
                block /= 2;
            }
        }
    }

    pub(super) fn free(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// A database as a killed process leaves it: one router in the file, one in the log.
fn killed(path: &Path) {
    let (_folder, other) = folder();
    let store = open(&other);
    put(&store, "a").unwrap();
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    put(&store, "b").unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(with_suffix(&other, suffix), with_suffix(path, suffix)).unwrap();
    }
}

fn fill_until_full(store: &SqliteStore) -> u32 {
    for number in 0..100_000 {
        match put(store, &format!("r{number}")) {
            Ok(()) => {}
            Err(StoreError::Degraded(reason)) => {
                assert_eq!(reason, "the disk is full");
                return number;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("the disk never got full");
}

#[test]
fn a_full_disk_degrades_the_store_and_it_recovers_by_itself() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.execute("PRAGMA max_page_count = 40").unwrap();
    let fitted = fill_until_full(&store);
    assert!(fitted > 10);
    let health = store.health();
    assert_eq!(health.degraded.as_deref(), Some("the disk is full"));
    assert!(health.failed >= 1);
    assert_eq!(names(&store).len(), usize::try_from(fitted).unwrap(), "reading works");
    store.execute("PRAGMA max_page_count = 100000").unwrap();
    put(&store, "after").unwrap();
    assert_eq!(store.health().degraded, None);
    drop(store);
    assert_eq!(names(&open(&path)).len(), usize::try_from(fitted).unwrap() + 1);
}

#[test]
fn it_recovers_without_being_asked() {
    let (_folder, path) = folder();
    let tuning = Tuning { probe_every: Duration::from_millis(1), ..Tuning::default() };
    let store = SqliteStore::open_with(&path, tuning).unwrap();
    store.execute("PRAGMA max_page_count = 40").unwrap();
    fill_until_full(&store);
    store.execute("PRAGMA max_page_count = 100000").unwrap();
    let deadline = crate::telemetry::clock::now() + Duration::from_secs(10);
    while store.health().degraded.is_some() {
        assert!(crate::telemetry::clock::now() < deadline, "still {:?}", store.health());
        std::thread::yield_now();
    }
}

#[test]
fn a_change_that_finds_nothing_to_do_does_not_hide_a_full_disk() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.execute("PRAGMA max_page_count = 40").unwrap();
    fill_until_full(&store);
    let nothing = Change::Touch { identity: "nobody".into(), at: 1, real_address: None };
    submit(&store, vec![nothing]).unwrap();
    assert!(store.health().degraded.is_some());
}

#[test]
fn a_real_full_disk_keeps_what_was_acknowledged() {
    let Some(disk) = SmallDisk::mount("a_real_full_disk", "2m") else { return };
    let store = open(&disk.path());
    put(&store, "first").unwrap();
    disk.fill();
    let fitted = fill_until_full(&store);
    assert!(store.health().degraded.is_some());
    drop(store);
    disk.fill();
    let store = open(&disk.path());
    assert_eq!(names(&store).len(), usize::try_from(fitted).unwrap() + 1);
    disk.free();
    put(&store, "after").unwrap();
    assert_eq!(store.health().degraded, None);
    assert_eq!(names(&store).len(), usize::try_from(fitted).unwrap() + 2);
}

#[test]
fn a_log_left_on_a_full_disk_is_read_and_mended_later() {
    let Some(disk) = SmallDisk::mount("a_log_left_on_a_full_disk", "2m") else { return };
    killed(&disk.path());
    disk.fill();
    let store = open(&disk.path());
    assert_eq!(names(&store), ["a", "b"]);
    println!("on a full disk: {:?}", store.health().degraded);
    disk.free();
    put(&store, "c").unwrap();
    assert_eq!(store.health().degraded, None);
    assert_eq!(names(&store), ["a", "b", "c"]);
}

#[test]
fn a_read_only_disk_is_read_with_its_log_and_recovers() {
    let Some(disk) = SmallDisk::mount("a_read_only_disk", "2m") else { return };
    killed(&disk.path());
    disk.remount("ro");
    let store = open(&disk.path());
    assert_eq!(names(&store), ["a", "b"]);
    assert!(store.health().degraded.is_some());
    let refused = put(&store, "c");
    assert!(matches!(refused, Err(StoreError::Degraded(_))), "{refused:?}");
    assert_eq!(store.health().failed, 1);
    disk.remount("rw");
    store.flush();
    assert_eq!(store.health().degraded, None, "tried again");
    put(&store, "c").unwrap();
    assert_eq!(names(&store), ["a", "b", "c"]);
}

#[test]
fn a_read_only_disk_without_a_log_or_with_an_old_schema_is_read() {
    let Some(disk) = SmallDisk::mount("a_read_only_disk_without_a_log", "2m") else { return };
    put(&open(&disk.path()), "a").unwrap();
    disk.remount("ro");
    let store = open(&disk.path());
    assert_eq!(names(&store), ["a"]);
    drop(store);
    disk.remount("rw");
    fs::remove_file(disk.path()).unwrap();
    files::make_version_1(&disk.path());
    disk.remount("ro");
    let store = open(&disk.path());
    assert_eq!(store.load().unwrap(), files::version_1_snapshot());
    disk.remount("rw");
    put(&store, "new").unwrap();
    assert_eq!(names(&store), ["new", "old"]);
}

#[test]
fn a_read_only_disk_still_keeps_a_second_process_away_and_refuses_damage() {
    let Some(disk) = SmallDisk::mount("a_read_only_disk_still_keeps", "2m") else { return };
    put(&open(&disk.path()), "a").unwrap();
    disk.remount("ro");
    let store = open(&disk.path());
    assert!(matches!(refusal(&disk.path()), StoreError::InUse { .. }));
    drop(store);
    disk.remount("rw");
    fs::write(disk.path(), b"nonsense").unwrap();
    disk.remount("ro");
    assert!(matches!(refusal(&disk.path()), StoreError::Foreign { .. }));
    disk.remount("rw");
    fs::remove_file(disk.path()).unwrap();
    disk.remount("ro");
    assert!(matches!(refusal(&disk.path()), StoreError::Open { .. }));
}

#[test]
fn another_program_that_holds_the_file_degrades_the_store_for_that_time() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.execute("PRAGMA busy_timeout = 0").unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(put(&store, "a"), Err(StoreError::Degraded(_))));
    other.execute_batch("ROLLBACK").unwrap();
    put(&store, "a").unwrap();
    assert_eq!(store.health().degraded, None);
}
