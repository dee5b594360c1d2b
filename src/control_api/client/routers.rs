//! Router accounts.

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, ClientError, encoded, path};
use crate::control_api::types::{
    CreatedRouter, List, NewRouter, RotateRouter, RouterFilter, RouterPatch, RouterView,
};

impl Client {
    /// `POST /v1/routers`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_router(&self, new: &NewRouter) -> Result<CreatedRouter, ClientError> {
        self.ask(Method::POST, "/v1/routers", Some(new)).await
    }

    /// `GET /v1/routers`, all pages of it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn routers(&self, filter: &RouterFilter) -> Result<Vec<RouterView>, ClientError> {
        let base = format!("/v1/routers?{}", parameters(filter));
        let mut path = base.clone();
        let mut all = Vec::new();
        loop {
            let page: List<RouterView> = self.ask(Method::GET, &path, None::<&()>).await?;
            all.extend(page.items);
            let Some(next) = page.next else { return Ok(all) };
            path = format!("{base}after={}", encoded(&next));
        }
    }

    /// `GET /v1/routers/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn router(&self, name: &str) -> Result<RouterView, ClientError> {
        self.ask(Method::GET, &path("routers", name)?, None::<&()>).await
    }

    /// `PATCH /v1/routers/{name}`; with a revision only if the account has that.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch_router(
        &self,
        name: &str,
        revision: Option<u64>,
        patch: &RouterPatch,
    ) -> Result<RouterView, ClientError> {
        self.change(Method::PATCH, name, "", revision, Some(patch)).await
    }

    /// `POST /v1/routers/{name}/disable` or `/enable`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_disabled(
        &self,
        name: &str,
        revision: Option<u64>,
        disabled: bool,
    ) -> Result<RouterView, ClientError> {
        let action = if disabled { "/disable" } else { "/enable" };
        self.change(Method::POST, name, action, revision, None::<&()>).await
    }

    /// `POST /v1/routers/{name}/readdress`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn readdress_router(
        &self,
        name: &str,
        revision: Option<u64>,
    ) -> Result<RouterView, ClientError> {
        self.change(Method::POST, name, "/readdress", revision, None::<&()>).await
    }

    /// `POST /v1/routers/{name}/rotate`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rotate_router(
        &self,
        name: &str,
        revision: Option<u64>,
        rotate: &RotateRouter,
    ) -> Result<CreatedRouter, ClientError> {
        self.change(Method::POST, name, "/rotate", revision, Some(rotate)).await
    }

    /// `DELETE /v1/routers/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_router(
        &self,
        name: &str,
        revision: Option<u64>,
    ) -> Result<(), ClientError> {
        let path = path("routers", name)?;
        self.send_if(Method::DELETE, &path, revision, None::<&()>).await.map(drop)
    }

    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        name: &str,
        action: &str,
        revision: Option<u64>,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let path = format!("{}{action}", path("routers", name)?);
        let bytes = self.send_if(method, &path, revision, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }
}

/// What a filter is after "?"; empty or with "&" at its end.
fn parameters(filter: &RouterFilter) -> String {
    let tags = (!filter.tags.is_empty()).then(|| filter.tags.join(","));
    let all = [
        ("name", filter.name.clone()),
        ("tag", tags),
        ("tenant", filter.tenant.clone()),
        ("connected", filter.connected.map(|wanted| wanted.to_string())),
        ("disabled", filter.disabled.map(|wanted| wanted.to_string())),
        ("last_seen_after", filter.last_seen_after.map(|at| at.to_string())),
        ("last_seen_before", filter.last_seen_before.map(|at| at.to_string())),
    ];
    let given = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given.map(|(name, value)| format!("{name}={}&", encoded(&value))).collect()
}
