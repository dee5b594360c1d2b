//! Putting a copy in place of the database.
//!
//! The rule: the state is then that of the copy, and no address that was given after the copy
//! goes to another router before the quarantine is over. The journal of given addresses says
//! which they are; they rest, and their routers get them back when they ask by the same name. If
//! the journal does not reach back to the copy or is damaged, any address may have been given:
//! [`crate::store::Recovery::addresses_known`] is false, and the pool must give none to a router
//! that has none until the quarantine is over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::backup::inspect;
use super::fault::Fault;
use super::journal::{self, Given};
use super::open::{self, ProcessLock};
use super::records;
use super::{history, schema};
use crate::lease::LeaseRecord;
use crate::store::{Change, StoreError};

/// What was put in place of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The copy.
    pub from: PathBuf,
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub copied_at: u64,
    /// Where the database that was there is now.
    pub set_aside: Option<PathBuf>,
    /// False if addresses were given after the copy and nobody knows which.
    pub addresses_known: bool,
    /// Addresses that rest because they were given after the copy.
    pub resting: usize,
}

/// Puts the newest good one of `copies` in place of the damaged database at `path`, which is kept
/// beside it under another name. `now` in seconds since 1970-01-01 UTC.
///
/// # Errors
/// A process uses the database, no copy is good, or the disk fails; the database is as it was.
pub fn recover(path: &Path, copies: &[PathBuf], now: u64) -> Result<Recovered, StoreError> {
    let mut good: Vec<(u64, &PathBuf)> = Vec::new();
    let mut complaints = Vec::new();
    for copy in copies {
        match inspect(copy) {
            Ok(facts) => good.push((facts.copied_at.unwrap_or(0), copy)),
            Err(error) => complaints.push(error.to_string()),
        }
    }
    let newest = good.into_iter().max();
    let Some((_, copy)) = newest else {
        let reason = match complaints.first() {
            Some(first) => format!("no snapshot can be used: {first}"),
            None => "there is no snapshot".to_owned(),
        };
        return Err(StoreError::NothingToRecover { path: path.display().to_string(), reason });
    };
    put_in_place(copy, path, "damaged", now)
}

/// Puts the copy at `from` in place of the database at `path`; one that is there is kept beside it
/// under another name. `now` in seconds since 1970-01-01 UTC.
///
/// # Errors
/// The copy is not good, a process uses the database, or the disk fails; the database is as it
/// was.
pub fn restore(from: &Path, path: &Path, now: u64) -> Result<Recovered, StoreError> {
    inspect(from)?;
    put_in_place(from, path, "replaced", now)
}

fn put_in_place(from: &Path, path: &Path, why: &str, now: u64) -> Result<Recovered, StoreError> {
    let path = open::resolve(path)?;
    let _lock = ProcessLock::take(&path)?;
    let new = open::with_suffix(&path, ".new");
    let failed = |error: io::Error| StoreError::Copy {
        path: new.display().to_string(),
        reason: error.to_string(),
    };
    remove_database(&new);
    let prepared = copy_file(from, &new)
        .map_err(failed)
        .and_then(|()| prepare(&new, &path, now).map_err(|fault| fault.at(from)));
    let result = prepared.and_then(|prepared| {
        let aside = open::with_suffix(&path, &format!(".{why}-{now}"));
        let set_aside = exchange(&new, &path, &aside).map_err(failed)?;
        Ok(Recovered {
            from: from.to_owned(),
            copied_at: prepared.copied_at,
            set_aside: set_aside.then_some(aside),
            addresses_known: prepared.addresses_known,
            resting: prepared.resting,
        })
    });
    remove_database(&new);
    result
}

struct Prepared {
    copied_at: u64,
    addresses_known: bool,
    resting: usize,
}

/// Makes the database at `new` say that it is a copy of the past, and lets what was given since
/// then rest.
fn prepare(new: &Path, path: &Path, now: u64) -> Result<Prepared, Fault> {
    let mut db = Connection::open_with_flags(new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let _: String = db.query_row("PRAGMA journal_mode = DELETE", (), |row| row.get(0))?;
    let contents = schema::identify(&db)?;
    schema::migrate(&mut db, contents)?;
    // A file that is no copy of ours knows what happened as long as its process ran.
    let copied_at = match history::mark(&db, history::COPIED_AT)? {
        Some(at) => at,
        None => history::mark(&db, history::ALIVE_AT)?.unwrap_or(0),
    };
    let journal = journal::read(&journal::path_of(path));
    let addresses_known = journal.complete_since.is_some_and(|since| since <= copied_at);
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    history::set(&transaction, history::COPIED_AT, copied_at)?;
    history::set(&transaction, history::RECOVERED_AT, now)?;
    history::set(&transaction, history::ADDRESSES_KNOWN, u64::from(addresses_known))?;
    let mut last: BTreeMap<Ipv4Addr, Given> = BTreeMap::new();
    for given in journal.given {
        if given.at.saturating_add(journal::SLACK) >= copied_at {
            last.insert(given.address, given);
        }
    }
    let mut resting = 0_usize;
    for given in last.values() {
        resting = resting.saturating_add(usize::from(let_rest(&transaction, given, now)?));
    }
    transaction.commit()?;
    db.close().map_err(|(_, error)| Fault::from(error))?;
    let sync = || File::open(new)?.sync_all();
    sync().map_err(|error| Fault::Unwritable(error.to_string()))?;
    Ok(Prepared { copied_at, addresses_known, resting })
}

/// Lets an address rest for the router that had it last; false if that router still holds it.
fn let_rest(db: &Connection, given: &Given, now: u64) -> Result<bool, Fault> {
    let address = given.address.to_string();
    let holder: Option<String> = db
        .query_row(
            "SELECT identity FROM leases WHERE address = ?1 AND released_at IS NULL",
            [&address],
            |row| row.get(0),
        )
        .optional()?;
    match holder {
        Some(holder) if *holder == *given.identity => return Ok(false),
        Some(holder) => {
            // It gave the address up after the copy and must not come back to it now.
            records::apply(
                db,
                &Change::ReleaseLease { identity: holder.as_str().into(), at: now },
            )?;
            db.execute(
                "UPDATE routers SET address = NULL WHERE address = ?1 AND name = ?2",
                params![address, holder],
            )?;
        }
        None => {}
    }
    let record = LeaseRecord {
        address: given.address,
        identity: given.identity.clone(),
        fixed: false,
        since: given.at,
        // In use as far as anybody knows: an address that was never used would not rest.
        last_used: now.max(1),
        released_at: Some(now),
    };
    records::apply(db, &Change::PutLease(record))?;
    Ok(true)
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    // A file that was taken from a running process by hand: its log belongs to it.
    let log = open::with_suffix(from, "-wal");
    if log.exists() {
        fs::copy(log, open::with_suffix(to, "-wal"))?;
    }
    for suffix in ["", "-wal"] {
        match fs::set_permissions(open::with_suffix(to, suffix), open::owner_only()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Calls `new` by the name `path`; what was there gets the name `aside`. Whenever this ends early,
/// there is a database at `path`, and never a log beside it that belongs to another one.
fn exchange(new: &Path, path: &Path, aside: &Path) -> io::Result<bool> {
    let log = open::with_suffix(path, "-wal");
    let there = path.exists();
    if there {
        fs::hard_link(path, aside)?;
    }
    if log.exists() {
        fs::rename(&log, open::with_suffix(aside, "-wal"))?;
    }
    match fs::remove_file(open::with_suffix(path, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    open::sync_folder_of(path)?;
    fs::rename(new, path)?;
    open::sync_folder_of(path)?;
    Ok(there)
}

fn remove_database(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(open::with_suffix(path, suffix));
    }
}
