//! What may lie in place of the database.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;

use super::*;
use crate::store::sqlite::open::{self as file, with_suffix};

/// Schema 1 as it was when it was current. Never edited.
const VERSION_1: &str = "
CREATE TABLE routers (
    name TEXT NOT NULL PRIMARY KEY
        CHECK (length(name) <= 63 AND name GLOB '[a-z0-9]*' AND name NOT GLOB '*[^a-z0-9._-]*'),
    username TEXT NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 128),
    secret TEXT NOT NULL CHECK (secret GLOB '?*:?*'),
    login TEXT NOT NULL CHECK (login IN ('password', 'certificate', 'both')),
    certificate_cn TEXT UNIQUE CHECK (length(certificate_cn) BETWEEN 1 AND 64),
    cipher TEXT,
    auth TEXT,
    disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    address TEXT UNIQUE CHECK (address GLOB '?*.?*.?*.?*'),
    created_at INTEGER NOT NULL,
    CHECK (login = 'password' OR certificate_cn IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
    address TEXT NOT NULL PRIMARY KEY CHECK (address GLOB '?*.?*.?*.?*'),
    identity TEXT NOT NULL,
    fixed INTEGER NOT NULL CHECK (fixed IN (0, 1)),
    since INTEGER NOT NULL CHECK (since >= 0),
    released_at INTEGER CHECK (released_at >= 0)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX lease_of_identity ON leases (identity) WHERE released_at IS NULL;
INSERT INTO routers VALUES ('old', 'old-user',
    'machine-v1:0707070707070707070707070707070707070707070707070707070707070707',
    'password', NULL, NULL, NULL, 0, NULL, 1600000000);
INSERT INTO leases VALUES ('100.64.1.2', 'old', 0, 1000, NULL),
                          ('100.64.1.3', 'older', 0, 900, 950);
PRAGMA application_id = 0x7475_6E68;
PRAGMA user_version = 1;
";

pub(super) fn make(path: &Path, sql: &str) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&sql.replace("0x7475_6E68", "0x74756E68")).unwrap();
}

pub(super) fn make_version_1(path: &Path) {
    make(path, VERSION_1);
}

pub(super) fn version_1_snapshot() -> Snapshot {
    let mut old = account("old");
    old.login = LoginMode::Password;
    (old.certificate_cn, old.cipher, old.auth) = (None, None, None);
    old.created_at = 1_600_000_000;
    (old.tenant, old.tags, old.previous) = (None, vec![], None);
    (old.note, old.revision) = (String::new(), 0);
    let lease = LeaseRecord { last_used: 1000, ..lease("old", [100, 64, 1, 2]) };
    let rests = LeaseRecord {
        address: [100, 64, 1, 3].into(),
        identity: "older".into(),
        since: 900,
        last_used: 900,
        released_at: Some(950),
        fixed: false,
    };
    Snapshot { accounts: vec![old], leases: vec![lease, rests], ..Snapshot::default() }
}

fn user_version(path: &Path) -> i64 {
    let db = Connection::open(path).unwrap();
    db.query_row("PRAGMA user_version", (), |row| row.get(0)).unwrap()
}

/// The schema as SQLite keeps it, without blanks.
fn schema_of(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut statement =
        db.prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name").unwrap();
    let rows = statement.query_map((), |row| row.get::<_, String>(0)).unwrap();
    rows.map(|sql| sql.unwrap().split_whitespace().collect()).collect()
}

#[test]
fn an_older_database_is_migrated_and_keeps_everything() {
    let (_folder, path) = folder();
    make_version_1(&path);
    let store = open(&path);
    assert_eq!(store.load().unwrap(), version_1_snapshot());
    let from = "198.51.100.7".parse().unwrap();
    let touch = Change::Touch { identity: "old".into(), at: 7777, real_address: Some(from) };
    submit(&store, vec![touch]).unwrap();
    drop(store);
    assert_eq!(user_version(&path), 3);
    let snapshot = open(&path).load().unwrap();
    assert_eq!(snapshot.leases[0].last_used, 7777);
    assert_eq!(
        snapshot.activity,
        [Activity { router: "old".into(), last_seen: 7777, real_address: Some(from) }]
    );
    let (_other, new) = folder_with_new_database();
    assert_eq!(schema_of(&path), schema_of(&new), "migrated and new are the same");
}

fn folder_with_new_database() -> (TempDir, PathBuf) {
    let (folder, path) = folder();
    drop(open(&path));
    (folder, path)
}

/// What version 2 added to [`VERSION_1`], with contents. Never edited.
const VERSION_2: &str = "
ALTER TABLE leases ADD COLUMN last_used_at INTEGER NOT NULL DEFAULT 0 CHECK (last_used_at >= 0);
UPDATE leases SET last_used_at = since;
CREATE TABLE router_activity (
    router TEXT NOT NULL PRIMARY KEY REFERENCES routers (name) ON DELETE CASCADE,
    last_seen_at INTEGER NOT NULL CHECK (last_seen_at >= 0),
    real_address TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE write_probe (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL,
    padding BLOB
) STRICT;
INSERT INTO router_activity VALUES ('old', 1234, '198.51.100.7');
PRAGMA user_version = 2;
";

#[test]
fn a_database_of_version_2_is_migrated_and_knows_who_has_which_address() {
    let (_folder, path) = folder();
    make_version_1(&path);
    make(&path, VERSION_2);
    let store = open(&path);
    let activity = Activity {
        router: "old".into(),
        last_seen: 1234,
        real_address: Some("198.51.100.7".parse().unwrap()),
    };
    assert_eq!(
        store.load().unwrap(),
        Snapshot { activity: vec![activity], ..version_1_snapshot() }
    );
    let holder = |address: [u8; 4]| store.holder_at(address.into(), 2000).unwrap().unwrap();
    assert_eq!((&*holder([100, 64, 1, 2]).identity, holder([100, 64, 1, 2]).until), ("old", None));
    let before = holder([100, 64, 1, 3]);
    assert_eq!((&*before.identity, before.since, before.until), ("older", 900, Some(950)));
    assert_eq!(store.sessions(&all_of("old")).unwrap(), []);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    // Its accounts take what version 3 added.
    put(&store, "old").unwrap();
    assert_eq!(store.load().unwrap().accounts, [account("old")]);
    drop(store);
    assert_eq!(user_version(&path), 3);
    let (_other, new) = folder_with_new_database();
    assert_eq!(schema_of(&path), schema_of(&new), "migrated and new are the same");
}

#[test]
fn a_migration_that_fails_leaves_the_old_database() {
    let (_folder, path) = folder();
    make_version_1(&path);
    // The second step makes this table, too.
    make(&path, "CREATE TABLE write_probe (x)");
    let store = open(&path);
    assert!(store.health().degraded.is_some());
    assert_eq!(store.load().unwrap(), version_1_snapshot());
    drop(store);
    assert_eq!(user_version(&path), 1);
    assert!(!schema_of(&path).iter().any(|sql| sql.contains("last_used_at")));
    make(&path, "DROP TABLE write_probe");
    assert_eq!(open(&path).load().unwrap(), version_1_snapshot());
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let (_folder, path) = folder_with_new_database();
    make(&path, "PRAGMA user_version = 4");
    let before = fs::read(&path).unwrap();
    let error = refusal(&path);
    assert!(matches!(error, StoreError::Newer { found: 4, known: 3, .. }), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("state.db") && sentence.contains("newer version"), "{sentence}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (_folder, path) = folder();
    for contents in [&b"[pool]\nnetwork = \"100.64.0.0/10\"\n"[..], &[0xA5; 8192], b"x"] {
        fs::write(&path, contents).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), contents);
    }
}

#[test]
fn a_database_of_somebody_else_is_refused_and_left_alone() {
    for sql in [
        "CREATE TABLE notes (x)",
        "PRAGMA user_version = 1",
        "PRAGMA application_id = 5",
        "PRAGMA journal_mode = WAL; CREATE TABLE routers (name)",
    ] {
        let (_folder, path) = folder();
        make(&path, sql);
        let before = fs::read(&path).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, StoreError::Foreign { .. }), "{sql}: {error:?}");
        assert_eq!(fs::read(&path).unwrap(), before, "{sql}");
    }
}

#[test]
fn an_empty_file_is_a_new_database() {
    let (_folder, path) = folder();
    fs::write(&path, b"").unwrap();
    put(&open(&path), "a").unwrap();
    assert_eq!(names(&open(&path)), ["a"]);
}

#[test]
fn a_damaged_database_is_refused_and_left_alone() {
    let (_folder, path) = folder();
    let store = open(&path);
    for number in 0..500 {
        store.submit(vec![Change::PutRouter(account(&format!("r{number}")))], None);
    }
    drop(store);
    let good = fs::read(&path).unwrap();
    let page = 4096;
    assert!(good.len() > 20 * page, "{}", good.len());
    let mut found = 0;
    for (what, range) in [
        ("magic", 0..16),
        ("page size", 16..18),
        ("schema", 100..110),
        ("second page", page..page + 16),
        ("middle", good.len() / 2 / page * page..good.len() / 2 / page * page + 64),
        ("last page", good.len() - page..good.len() - page + 64),
        ("secret", secret_of(&good)),
    ] {
        let mut bad = good.clone();
        bad[range].iter_mut().for_each(|byte| *byte ^= 0xFF);
        fs::write(&path, &bad).unwrap();
        let error = match SqliteStore::open(&path) {
            Err(error) => error,
            Ok(store) => store.load().expect_err(what),
        };
        match &error {
            StoreError::Damaged { .. } => found += 1,
            StoreError::Foreign { .. } if what == "magic" || what == "page size" => found += 1,
            other => panic!("{what}: {other:?}"),
        }
        assert!(error.to_string().contains("state.db"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bad, "{what}: the file was changed");
    }
    assert_eq!(found, 7);
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(matches!(refusal(&path), StoreError::Damaged { .. }), "{:?}", refusal(&path));
    fs::write(&path, &good).unwrap();
    assert_eq!(names(&open(&path)).len(), 500);
}

/// Where the version word of some secret is.
fn secret_of(file: &[u8]) -> std::ops::Range<usize> {
    let word = b"machine-v1:";
    let at = file.windows(word.len()).rposition(|window| window == word).unwrap();
    at..at + 4
}

#[test]
fn the_files_are_for_their_owner_only() {
    let (_folder, path) = folder();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let store = open(&path);
    put(&store, "a").unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&with_suffix(&path, suffix)), 0o600, "{suffix}");
    }
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&path));
    assert_eq!(mode(&path), 0o600, "a file that was open to others is closed to them");
}

#[test]
fn a_second_process_is_refused_under_every_name_of_the_file() {
    let (folder, path) = folder();
    let store = open(&path);
    let other_name = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &other_name).unwrap();
    for name in [&path, &other_name, &folder.path().join("./state.db")] {
        let error = refusal(name);
        assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
        assert!(error.to_string().contains("another tunnelhead process"), "{error}");
    }
    put(&store, "a").unwrap();
    drop(store);
    assert_eq!(names(&open(&other_name)), ["a"]);
}

#[test]
fn what_can_not_be_a_file_is_refused_with_the_path() {
    let (folder, path) = folder();
    for bad in [folder.path().to_path_buf(), folder.path().join("none/state.db")] {
        let error = refusal(&bad);
        assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
        assert!(error.to_string().contains(&*bad.to_string_lossy()), "{error}");
    }
    fs::write(&path, b"").unwrap();
    let error = refusal(&path.join("state.db"));
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
}

#[test]
fn file_names_with_signs_work() {
    let (folder, _) = folder();
    let path = folder.path().join("a?b=c#%41 ö&mode=ro.db");
    put(&open(&path), "a").unwrap();
    assert_eq!(names(&open(&path)), ["a"]);
    assert_eq!(file::read_only(&path).unwrap().accounts.len(), 1);
}
