//! Opening the file: who may, what it is, and what still works when the disk does not.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::fault::Fault;
use super::{records, schema};
use crate::store::{Snapshot, StoreError};

/// An open database.
pub(super) enum Database {
    /// Reading and writing works, or did when it was opened.
    Writable(Connection),
    /// The disk lets us only read: this is what it held. Nobody else writes to it.
    ReadOnly(Snapshot),
}

/// What opening gave.
pub(super) struct Opened {
    pub(super) database: Database,
    /// Why it can only be read.
    pub(super) degraded: Option<String>,
    /// The file was empty.
    pub(super) new: bool,
}

/// Keeps other processes of ours away from the file.
pub(super) struct ProcessLock {
    _file: Option<File>,
}

impl ProcessLock {
    /// Takes the lock beside the database file. On a disk that can only be read, an existing lock
    /// file is used, and if there is none, none is needed: nobody can write.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let beside = with_suffix(path, ".lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(OWNER_ONLY)
            .open(&beside)
            .or_else(|error| File::open(&beside).map_err(|_| error));
        let file = match file {
            Ok(file) => file,
            Err(_) if path.exists() => return Ok(Self { _file: None }),
            Err(error) => return Err(cannot_open(path, &error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::InUse { path: path.display().to_string() })
            }
            Err(TryLockError::Error(error)) => Err(cannot_open(&beside, &error)),
        }
    }
}

/// The file by its one true name, so that two names of it do not make two locks.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "it has no file name");
    let name = path.file_name().ok_or_else(|| cannot_open(path, &missing()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let folder = folder.canonicalize().map_err(|error| cannot_open(path, &error))?;
    Ok(folder.join(name))
}

/// Makes the file if there is none, visible to its owner only.
pub(super) fn prepare_file(path: &Path) -> Result<(), StoreError> {
    let new =
        OpenOptions::new().read(true).write(true).create_new(true).mode(OWNER_ONLY).open(path);
    match new {
        Ok(_) => return Ok(()),
        Err(error) if !path.exists() => return Err(cannot_open(path, &error)),
        Err(_) => {}
    }
    let metadata = path.metadata().map_err(|error| cannot_open(path, &error))?;
    if !metadata.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(cannot_open(path, &error));
    }
    if (1..SMALLEST_DATABASE).contains(&metadata.len()) {
        // SQLite would take it for an empty database and write over it.
        let reason = format!("it has {} bytes", metadata.len());
        return Err(Fault::Foreign(reason).at(path));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        // On a read-only disk there is nothing to be done about it.
        let _ = std::fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY));
    }
    Ok(())
}

/// Opens the database for writing, or reads it if it can only be read.
///
/// # Errors
/// It is not ours, newer, damaged, or can not even be read.
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    match open_writable(path) {
        Ok((db, new)) => Ok(Opened { database: Database::Writable(db), degraded: None, new }),
        Err(Fault::Unwritable(reason)) => match read_only(path) {
            Ok(snapshot) => Ok(Opened {
                database: Database::ReadOnly(snapshot),
                degraded: Some(reason),
                new: false,
            }),
            Err(Fault::Unwritable(_)) => {
                Err(StoreError::Open { path: path.display().to_string(), reason })
            }
            Err(fault) => Err(fault.at(path)),
        },
        Err(fault) => Err(fault.at(path)),
    }
}

/// Opens the database for writing, checks it, and brings its schema up to date; true if it was
/// empty.
pub(super) fn open_writable(path: &Path) -> Result<(Connection, bool), Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    if db.is_readonly("main")? {
        return Err(Fault::Unwritable("the database file is read-only".to_owned()));
    }
    // A file that we refuse stays as it is, its log included.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let contents = schema::identify(&db)?;
    check(&db)?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Unwritable(format!("the file system allows no WAL (got {mode})")));
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    schema::migrate(&mut db, contents)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok((db, contents == schema::Contents::Nothing))
}

/// Reads the database without writing a byte anywhere. A write-ahead log that was left behind is
/// read too: with locks of no effect and the index of the log in memory. The caller holds the
/// process lock, or nobody can write.
pub(super) fn read_only(path: &Path) -> Result<Snapshot, Fault> {
    let db = connect_read_only(path)?;
    match schema::identify(&db)? {
        schema::Contents::Nothing => Ok(Snapshot::default()),
        schema::Contents::Ours(version) => {
            check(&db)?;
            records::load(&db, version)
        }
    }
}

/// A connection that writes nothing anywhere; nobody else writes to the file either.
pub(super) fn connect_read_only(path: &Path) -> Result<Connection, Fault> {
    let log = with_suffix(path, "-wal").metadata().is_ok_and(|log| log.len() > 0);
    let how = if log { "mode=ro&vfs=unix-none" } else { "immutable=1" };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(uri(path, how), flags)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    Ok(db)
}

fn check(db: &Connection) -> Result<(), Fault> {
    let verdict: String = db.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Fault::Damaged(verdict)) }
}

fn uri(path: &Path, query: &str) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push('?');
    uri.push_str(query);
    uri
}

/// Makes a new name in the folder of `path` survive a power cut.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

pub(super) fn owner_only() -> Permissions {
    Permissions::from_mode(OWNER_ONLY)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn cannot_open(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Open { path: path.display().to_string(), reason: error.to_string() }
}

/// One page of the smallest size. Source: SQLite file format, section 1.3.
const SMALLEST_DATABASE: u64 = 512;
pub(super) const OWNER_ONLY: u32 = 0o600;
/// How long a write waits for somebody who has the file open with another program.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
