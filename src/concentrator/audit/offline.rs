//! The check of a trail whose concentrator does not run.

use std::path::{Path, PathBuf};

use crate::audit::{AuditKey, Head};
use crate::concentrator::secrets::{Secrets, SecretsError};
use crate::control_api::types::AuditCheck;
use crate::store::{SqliteStore, StoreError};

use super::head_file::HeadKeeper;
use super::ledger::Ledger;
use super::{KEY_PURPOSE, check_view, verify};

/// Why a trail can't be looked at, in one sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There is none.
    #[error("there is no database {}; name the state_dir of the configuration", .0.display())]
    NoDatabase(PathBuf),
    /// The key.
    #[error("{0}")]
    Secret(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SecretsError> for AuditError {
    fn from(error: SecretsError) -> Self {
        Self::Secret(error.to_string())
    }
}

/// Looks whether the audit trail in a state folder is as it was written, and has these heads. The
/// concentrator must not run; ask it instead.
///
/// # Errors
/// See [`AuditError`].
pub fn verify_audit(state_dir: &Path, heads: &[Head]) -> Result<AuditCheck, AuditError> {
    let path = state_dir.join("tunnelhead.db");
    if !path.exists() {
        return Err(AuditError::NoDatabase(path));
    }
    let secrets = Secrets::load(state_dir, true, &mut tunnelhead_crypto::SystemRandom)?;
    let key = AuditKey::new(secrets.key(KEY_PURPOSE));
    let store = std::sync::Arc::new(SqliteStore::open(path)?);
    let keeper = HeadKeeper::new(Some(state_dir));
    let report = verify(&Ledger::new(store), &keeper, &key, heads)?;
    Ok(check_view(&report))
}
