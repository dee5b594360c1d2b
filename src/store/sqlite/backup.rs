//! Copies of the whole database while it is used, and the look for contradictions.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::fault::Fault;
use super::{history, open, reader, records, schema};
use crate::store::{Snapshot, StoreError};

/// Copies the database at `from` to the new file `to`, as it is at this moment, and gives the
/// bytes of the copy. Goes page by page and ends early once `stop` is set.
///
/// The copy is made under another name, checked, synced, and only then called `to`.
pub(super) fn copy(from: &Path, to: &Path, at: u64, stop: &AtomicBool) -> Result<u64, StoreError> {
    let unfinished = open::with_suffix(to, ".unfinished");
    let _ = fs::remove_file(&unfinished);
    let result = write_copy(from, &unfinished, at, stop).and_then(|()| {
        publish(&unfinished, to).map_err(|error| Fault::Unwritable(error.to_string()))
    });
    for leftover in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(open::with_suffix(&unfinished, leftover));
    }
    result.map_err(|fault| match fault {
        Fault::Unwritable(reason) | Fault::Conflict(reason) => {
            StoreError::Copy { path: to.display().to_string(), reason }
        }
        fault => fault.at(from),
    })
}

fn write_copy(from: &Path, to: &Path, at: u64, stop: &AtomicBool) -> Result<(), Fault> {
    let source = reader::connect(from)?;
    // A transaction that reads keeps this moment: changes that are committed while we copy
    // neither show up nor make us begin again.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")?;
    File::options()
        .write(true)
        .create_new(true)
        .open(to)
        .and_then(|file| file.set_permissions(Permissions::from_mode(open::OWNER_ONLY)))
        .map_err(|error| Fault::Unwritable(error.to_string()))?;
    let mut target = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    {
        let backup = Backup::new(&source, &mut target)?;
        loop {
            match backup.step(PAGES_A_STEP)? {
                StepResult::Done => break,
                StepResult::More => std::thread::yield_now(),
                _ => return Err(Fault::Unwritable("the database is busy".to_owned())),
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Fault::Unwritable("the store is closing".to_owned()));
            }
        }
    }
    drop(source);
    // One file that is complete by itself.
    let _: String = target.query_row("PRAGMA journal_mode = DELETE", (), |row| row.get(0))?;
    history::set(&target, history::COPIED_AT, at)?;
    verdict(&target)?;
    target.close().map_err(|(_, error)| Fault::from(error))
}

fn publish(unfinished: &Path, to: &Path) -> std::io::Result<u64> {
    let file = File::open(unfinished)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    fs::rename(unfinished, to)?;
    open::sync_folder_of(to)?;
    Ok(bytes)
}

/// Fails for a file that is not sound.
fn verdict(db: &Connection) -> Result<(), Fault> {
    match complaints(db, "PRAGMA integrity_check(1)")?.into_iter().next() {
        None => Ok(()),
        Some(complaint) => Err(Fault::Damaged(complaint)),
    }
}

/// A copy that was found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFacts {
    /// When it was made, in seconds since 1970-01-01 UTC; `None` for a file that is no copy.
    pub copied_at: Option<u64>,
    /// Router accounts in it.
    pub routers: u64,
    /// Its schema.
    pub schema: i64,
}

/// Reads a whole database file that no process uses and tells what is in it.
///
/// # Errors
/// It is not ours, newer than this version, damaged, or can not be read.
pub fn inspect(path: &Path) -> Result<CopyFacts, StoreError> {
    let look = || {
        let db = open::connect_read_only(path)?;
        let schema::Contents::Ours(version) = schema::identify(&db)? else {
            return Err(Fault::Foreign("it is empty".to_owned()));
        };
        verdict(&db)?;
        let snapshot = records::load(&db, version)?;
        let copied_at = if version >= 3 { history::mark(&db, history::COPIED_AT)? } else { None };
        Ok(CopyFacts { copied_at, routers: snapshot.accounts.len() as u64, schema: version })
    };
    look().map_err(|fault| fault.at(path))
}

/// Looks for contradictions, in sentences.
pub(super) fn check(path: &Path) -> Result<Vec<String>, StoreError> {
    let look = || {
        let db = reader::connect(path)?;
        db.execute_batch("BEGIN")?;
        let mut found = complaints(&db, "PRAGMA integrity_check(100)")?;
        let orphans = records::collect(&db, "PRAGMA foreign_key_check", |row| {
            Ok(format!("a row of {} belongs to nothing", row.get::<_, String>(0)?))
        })?;
        found.extend(orphans);
        match records::load(&db, schema::CURRENT) {
            Ok(snapshot) => found.extend(contradictions(&snapshot)),
            Err(Fault::Damaged(reason)) => {
                found.push(format!("a record can not be read: {reason}"))
            }
            Err(fault) => return Err(fault),
        }
        found.extend(records::collect(&db, UNLIKE_HISTORY, |row| {
            let address: String = row.get(0)?;
            Ok(format!("the history of {address} does not say who holds it"))
        })?);
        Ok(found)
    };
    look().map_err(|fault| fault.at(path))
}

fn complaints(db: &Connection, pragma: &str) -> Result<Vec<String>, Fault> {
    match records::collect(db, pragma, |row| row.get::<_, String>(0)) {
        Ok(lines) => Ok(lines.into_iter().filter(|line| line != "ok").collect()),
        Err(Fault::Damaged(reason)) => Ok(vec![reason]),
        Err(fault) => Err(fault),
    }
}

/// What accounts and leases say of each other.
fn contradictions(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for account in &snapshot.accounts {
        if let Err(error) = account.check() {
            found.push(format!("the account {} can not be used: {error}", account.name));
        }
        let held = snapshot
            .leases
            .iter()
            .find(|lease| lease.released_at.is_none() && lease.identity == account.name);
        match (account.address, held) {
            (Some(wanted), Some(lease)) if lease.address != wanted => found.push(format!(
                "{} has the static address {wanted} but holds {}",
                account.name, lease.address
            )),
            (Some(wanted), None) => found.push(format!(
                "{} has the static address {wanted} but no lease of it",
                account.name
            )),
            _ => {}
        }
    }
    found
}

/// Pages between two looks at `stop`: 1 MiB.
const PAGES_A_STEP: i32 = 256;

/// Addresses whose lease and history differ.
const UNLIKE_HISTORY: &str = "
SELECT address FROM (
    SELECT address, identity FROM leases WHERE released_at IS NULL
    EXCEPT SELECT address, identity FROM address_history WHERE until IS NULL)
UNION SELECT address FROM (
    SELECT address, identity FROM address_history WHERE until IS NULL
    EXCEPT SELECT address, identity FROM leases WHERE released_at IS NULL)";
