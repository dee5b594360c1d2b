//! Keeping the store: checks and copies.

use super::Answer;
use crate::control_api::ApiError;
use crate::control_api::types::{BackupView, NewBackup, StoreCheck};

/// Keeping the store: checks and copies.
pub trait StoreKeeping: Send + Sync + 'static {
    /// Looks for damage and contradictions, while everything goes on.
    ///
    /// # Errors
    /// `not_offered` if the state is kept in memory; `store_degraded`.
    fn check_store(&self) -> Answer<'_, StoreCheck> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Copies the store while changes go on; a copy of the same name is replaced.
    ///
    /// # Errors
    /// `invalid` for the name, `not_offered` if the state is kept in memory, `store_degraded`.
    fn back_up_store(&self, _new: NewBackup) -> Answer<'_, BackupView> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Every copy, newest first.
    ///
    /// # Errors
    /// The folder can't be read.
    fn list_backups(&self) -> Answer<'_, Vec<BackupView>> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }
}
