//! The journal of given addresses: a text file beside the database, so that an address that was
//! given after the newest copy of the database is not forgotten together with the database.
//!
//! One line a lease, on disk before the lease is committed: `ADDRESS UNIX CHECK IDENTITY`, the
//! identity as a JSON string, the check over the rest of the line. The first line says from which
//! time on the file is complete; without it nobody knows what was given before. It is made anew
//! whenever the oldest copy that is kept changes, so it stays as short as a day of new leases.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open;
use crate::lease::LeaseRecord;

/// The open journal of a database.
pub(super) struct Journal {
    path: PathBuf,
    /// Opened when the first address is given.
    file: Option<File>,
}

/// One address that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) address: Ipv4Addr,
    pub(super) identity: Arc<str>,
    /// Seconds since 1970-01-01 UTC.
    pub(super) at: u64,
}

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// From when on it is complete, in seconds since 1970-01-01 UTC; `None` if that is not known
    /// or a line is damaged.
    pub(super) complete_since: Option<u64>,
    pub(super) given: Vec<Given>,
}

impl Journal {
    /// The journal of the database at `database`.
    pub(super) fn of(database: &Path) -> Self {
        Self { path: path_of(database), file: None }
    }

    /// Notes addresses; they are on disk when this returns.
    pub(super) fn note<'a>(
        &mut self,
        leases: impl Iterator<Item = &'a LeaseRecord>,
    ) -> io::Result<()> {
        let mut text = String::new();
        for lease in leases.filter(|lease| lease.released_at.is_none()) {
            text.push_str(&line(lease.address, lease.since, &lease.identity));
        }
        if text.is_empty() {
            return Ok(());
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open_to_append(&self.path)?,
        };
        let end = file.seek(SeekFrom::End(0))?;
        if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
            // Half a line would make the next one unreadable.
            let _ = file.set_len(end);
            return Err(error);
        }
        self.file = Some(file);
        Ok(())
    }

    /// Begins a new database: nothing was given before.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.rewrite(0, &[])
    }

    /// Drops what only copies older than `oldest` need. `newest` is when the newest copy was
    /// begun; a journal that was not complete is complete from then on.
    pub(super) fn keep_since(&mut self, oldest: u64, newest: u64) -> io::Result<()> {
        let contents = read(&self.path);
        let since = contents.complete_since.map_or(newest, |since| since.max(oldest));
        let kept: Vec<Given> = contents
            .given
            .into_iter()
            .filter(|given| given.at.saturating_add(SLACK) >= since)
            .collect();
        self.rewrite(since, &kept)
    }

    fn rewrite(&mut self, since: u64, given: &[Given]) -> io::Result<()> {
        let mut text = format!("{HEADER}{since}\n");
        for given in given {
            text.push_str(&line(given.address, given.at, &given.identity));
        }
        let new = open::with_suffix(&self.path, ".new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(open::OWNER_ONLY)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.file = None;
        open::sync_folder_of(&self.path)
    }
}

/// The journal beside a database.
pub(super) fn path_of(database: &Path) -> PathBuf {
    open::with_suffix(database, ".given")
}

/// Reads a journal as far as it can be read.
pub(super) fn read(path: &Path) -> Contents {
    let Ok(text) = fs::read(path) else { return Contents::default() };
    let text = String::from_utf8_lossy(&text);
    let mut contents = Contents::default();
    let mut lines = text.split_inclusive('\n').peekable();
    if let Some(since) = lines.peek().and_then(|first| first.strip_prefix(HEADER)) {
        contents.complete_since = since.strip_suffix('\n').and_then(|since| since.parse().ok());
        lines.next();
    }
    while let Some(line) = lines.next() {
        match parse(line) {
            Some(given) => contents.given.push(given),
            // A last line without its end was never acknowledged to anybody.
            None if lines.peek().is_none() && !line.ends_with('\n') => {}
            None => contents.complete_since = None,
        }
    }
    contents
}

/// Opens the journal; cuts a line off that a power cut left half written.
fn open_to_append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(open::OWNER_ONLY)
        .open(path)?;
    let text = fs::read(path)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
    if whole < text.len() {
        file.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
    }
    open::sync_folder_of(path)?;
    Ok(file)
}

fn line(address: Ipv4Addr, at: u64, identity: &str) -> String {
    let identity = serde_json::Value::from(identity).to_string();
    let check = check_of(address, at, &identity);
    format!("{address} {at} {check:08x} {identity}\n")
}

fn parse(line: &str) -> Option<Given> {
    let mut parts = line.strip_suffix('\n')?.splitn(4, ' ');
    let address: Ipv4Addr = parts.next()?.parse().ok()?;
    let at: u64 = parts.next()?.parse().ok()?;
    let check = u32::from_str_radix(parts.next()?, 16).ok()?;
    let identity = parts.next()?;
    if check != check_of(address, at, identity) {
        return None;
    }
    let identity: String = serde_json::from_str(identity).ok()?;
    Some(Given { address, identity: identity.into(), at })
}

/// FNV-1a, 32 bits: tells damage, not malice; who can write here can write the database.
fn check_of(address: Ipv4Addr, at: u64, identity: &str) -> u32 {
    format!("{address} {at} {identity}")
        .bytes()
        .fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A lease is noted a moment after its `since`: what is this much older than a copy may still not
/// be in it. Seconds.
pub(super) const SLACK: u64 = 3600;
const HEADER: &str = "addresses given since ";

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(identity: &str, host: u8, since: u64) -> LeaseRecord {
        LeaseRecord {
            address: [100, 64, 1, host].into(),
            identity: identity.into(),
            fixed: false,
            since,
            last_used: since,
            released_at: None,
        }
    }

    fn given(identity: &str, host: u8, at: u64) -> Given {
        Given { address: [100, 64, 1, host].into(), identity: identity.into(), at }
    }

    #[test]
    fn what_was_noted_is_read_back_whatever_the_name_is() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("state.db");
        let names = ["a", "two words", "new\nline", "", "ünï \"quoted\""];
        let mut journal = Journal::of(&database);
        journal.begin().unwrap();
        for (number, name) in names.iter().enumerate() {
            let host = u8::try_from(number).unwrap() + 2;
            journal.note([lease(name, host, 100)].iter()).unwrap();
        }
        let contents = read(&path_of(&database));
        assert_eq!(contents.complete_since, Some(0));
        let read_names: Vec<_> = contents.given.iter().map(|given| &*given.identity).collect();
        assert_eq!(read_names, names);
    }

    #[test]
    fn a_half_written_line_is_nothing_and_a_damaged_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("state.db");
        let mut journal = Journal::of(&database);
        journal.begin().unwrap();
        journal.note([lease("a", 2, 100), lease("b", 3, 100)].iter()).unwrap();
        let path = path_of(&database);
        let good = fs::read(&path).unwrap();
        let header = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in header..good.len() {
            fs::write(&path, &good[..cut]).unwrap();
            let whole = good[header..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(read(&path).given.len(), whole, "cut at {cut}");
            assert_eq!(read(&path).complete_since, Some(0));
            // The next line does not stick to the rest of it.
            Journal::of(&database).note([lease("c", 4, 100)].iter()).unwrap();
            assert_eq!(read(&path).given.len(), whole + 1);
            assert_eq!(read(&path).complete_since, Some(0));
        }
        for at in header..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(read(&path).complete_since, None, "byte {at}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path), Contents::default());
    }

    #[test]
    fn keeps_what_the_oldest_copy_needs() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("state.db");
        let path = path_of(&database);
        let mut journal = Journal::of(&database);
        // A database of an older version has none: nobody knows what was given before.
        journal.note([lease("a", 2, 10_000)].iter()).unwrap();
        assert_eq!(read(&path).complete_since, None);
        journal.keep_since(5_000, 20_000).unwrap();
        assert_eq!(read(&path), Contents { complete_since: Some(20_000), given: vec![] });
        for (host, at) in [(3, 20_100), (4, 40_000), (5, 60_000)] {
            journal.note([lease("b", host, at)].iter()).unwrap();
        }
        journal.keep_since(40_000 + SLACK, 60_000).unwrap();
        let expected = Contents {
            complete_since: Some(40_000 + SLACK),
            given: vec![given("b", 4, 40_000), given("b", 5, 60_000)],
        };
        assert_eq!(read(&path), expected);
        journal.keep_since(1, 60_000).unwrap();
        assert_eq!(read(&path), expected, "it never claims more than it has");
    }
}
