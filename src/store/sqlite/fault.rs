//! What SQLite says, sorted by what it means for us.

use std::path::Path;

use rusqlite::ErrorCode;

use super::schema::CURRENT;
use crate::store::StoreError;
use crate::store::memory::AUDIT_TAKEN;

/// What went wrong, without the path of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The change contradicts what is recorded.
    Conflict(String),
    /// It can not be written at present.
    Unwritable(String),
    /// The file is no database, or somebody else's.
    Foreign(String),
    /// The file is damaged.
    Damaged(String),
    /// The schema is newer than what we know.
    Newer(i64),
}

impl Fault {
    /// The error of opening or reading the file at `path`.
    pub(super) fn at(self, path: &Path) -> StoreError {
        let path = path.display().to_string();
        match self {
            Self::Conflict(what) => StoreError::Conflict(what),
            Self::Unwritable(reason) => StoreError::Degraded(reason),
            Self::Foreign(reason) => StoreError::Foreign { path, reason },
            Self::Damaged(reason) => StoreError::Damaged { path, reason },
            Self::Newer(found) => StoreError::Newer { path, found, known: CURRENT },
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match &error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::ConstraintViolation => Self::Conflict(explain(&text)),
                ErrorCode::DatabaseCorrupt => Self::Damaged(text),
                ErrorCode::NotADatabase => {
                    Self::Foreign("it is no SQLite file, or its first bytes are damaged".to_owned())
                }
                ErrorCode::DiskFull => Self::Unwritable("the disk is full".to_owned()),
                ErrorCode::ReadOnly => {
                    Self::Unwritable("the database file is read-only".to_owned())
                }
                _ => Self::Unwritable(text),
            },
            // A column does not hold what the schema says.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => Self::Damaged(text),
            _ => Self::Unwritable(text),
        }
    }
}

/// A sentence for a constraint that a caller can run into.
fn explain(text: &str) -> String {
    let known = [
        ("routers.username", "the user name belongs to another router"),
        ("routers.certificate_cn", "the common name belongs to another router"),
        ("routers.address", "the address belongs to another router"),
        ("audit.seq", AUDIT_TAKEN),
    ];
    let sentence = known.iter().find(|(column, _)| text.ends_with(column));
    sentence.map_or(text, |(_, sentence)| sentence).to_owned()
}
