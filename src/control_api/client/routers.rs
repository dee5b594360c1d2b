//! Router accounts.

use hyper::Method;

use super::{Client, ClientError, path};
use crate::control_api::types::{CreatedRouter, List, NewRouter, RouterPatch, RouterView};

impl Client {
    /// `POST /v1/routers`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_router(&self, new: &NewRouter) -> Result<CreatedRouter, ClientError> {
        self.ask(Method::POST, "/v1/routers", Some(new)).await
    }

    /// `GET /v1/routers`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn routers(&self) -> Result<Vec<RouterView>, ClientError> {
        let list: List<RouterView> = self.ask(Method::GET, "/v1/routers", None::<&()>).await?;
        Ok(list.items)
    }

    /// `GET /v1/routers/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn router(&self, name: &str) -> Result<RouterView, ClientError> {
        self.ask(Method::GET, &path("routers", name)?, None::<&()>).await
    }

    /// `PATCH /v1/routers/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch_router(
        &self,
        name: &str,
        patch: &RouterPatch,
    ) -> Result<RouterView, ClientError> {
        self.ask(Method::PATCH, &path("routers", name)?, Some(patch)).await
    }

    /// `DELETE /v1/routers/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_router(&self, name: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &path("routers", name)?, None::<&()>).await.map(drop)
    }
}
