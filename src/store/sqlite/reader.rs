//! Reads while the writer works: a second connection that can not write.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};

use super::fault::Fault;
use super::open;
use crate::store::StoreError;

/// One connection for reading, opened when it is first needed. Pages of a write-ahead log are
/// read as of one moment, and nobody waits for anybody.
#[derive(Default)]
pub(super) struct Reader(Mutex<Option<Connection>>);

impl Reader {
    /// Runs a query; waits for other queries only.
    pub(super) fn ask<T>(
        &self,
        path: &Path,
        query: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let db = match connection.take() {
                Some(db) => db,
                None => connect(path)?,
            };
            // A connection that failed is not used again: the disk may have come back.
            let result = query(&db);
            if result.is_ok() {
                *connection = Some(db);
            }
            result
        };
        run().map_err(|fault| fault.at(path))
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A connection that reads what the writer has committed.
///
/// # Errors
/// The file can not be read.
pub(super) fn connect(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(open::BUSY_TIMEOUT)?;
    if db.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(())).is_ok() {
        return Ok(db);
    }
    // A disk that can not be written, without the index of the log.
    open::connect_read_only(path)
}
