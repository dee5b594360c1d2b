//! Keeping the store.

use hyper::Method;

use super::{Client, ClientError};
use crate::control_api::types::{BackupView, List, NewBackup, StoreCheck};

impl Client {
    /// `POST /v1/store/check`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn check_store(&self) -> Result<StoreCheck, ClientError> {
        self.ask(Method::POST, "/v1/store/check", None::<&()>).await
    }

    /// `POST /v1/store/backup`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn back_up_store(&self, new: &NewBackup) -> Result<BackupView, ClientError> {
        self.ask(Method::POST, "/v1/store/backup", Some(new)).await
    }

    /// `GET /v1/store/backups`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn backups(&self) -> Result<Vec<BackupView>, ClientError> {
        let list: List<BackupView> =
            self.ask(Method::GET, "/v1/store/backups", None::<&()>).await?;
        Ok(list.items)
    }
}
