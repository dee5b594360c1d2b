//! Keeping the store.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::control_api::ApiError;

/// What a look for contradictions found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct StoreCheck {
    /// True if nothing was found.
    pub ok: bool,
    /// What was found, a sentence each; at most 200.
    pub problems: Vec<String>,
    /// When it was done.
    pub checked: Timestamp,
}

/// A copy to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewBackup {
    /// Its name, not a path: 1 to 63 characters of a-z, 0-9, ".", "_" and "-", first a letter or a
    /// digit. It becomes the file `backups/NAME.db` in the state folder.
    pub name: String,
}

impl NewBackup {
    /// Checks the name.
    ///
    /// # Errors
    /// `invalid` for the field `name`.
    pub fn check(self) -> Result<Self, ApiError> {
        if super::check_name(&self.name).is_err() {
            return Err(ApiError::invalid(
                "name",
                "a backup name has 1 to 63 characters of a-z, 0-9, \".\", \"_\" and \"-\" and \
                 starts with a letter or a digit",
            ));
        }
        if self.name.starts_with(SNAPSHOT_PREFIX) {
            return Err(ApiError::invalid(
                "name",
                "names that begin with \"snapshot-\" are kept for the snapshots that are made by \
                 themselves and deleted after a while",
            ));
        }
        Ok(self)
    }
}

/// A copy of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct BackupView {
    /// Its name.
    pub name: String,
    /// `snapshot` if it was made by itself and will be deleted by itself, else `backup`.
    pub kind: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its size.
    pub bytes: u64,
    /// The file.
    pub path: String,
}

/// How names of snapshots begin.
pub const SNAPSHOT_PREFIX: &str = "snapshot-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_has_a_name_and_never_a_path() {
        let check = |name: &str| NewBackup { name: name.to_owned() }.check();
        for good in ["before-upgrade", "2026-11-22", "a.b_c"] {
            check(good).unwrap();
        }
        for bad in ["", "../x", "a/b", "/etc/x", ".", "-a", "a\n", "A", "snapshot-1"] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("name"), "{bad:?}");
        }
    }
}
