//! Routers and tunnels as an embedder holds them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::api::ApiHandle;
use super::dial::{DialError, DialStream, Session};
use crate::control_api::types::{
    CreatedRouter, DialTo, List, NewRouter, Page, RotateRouter, RouterFilter, RouterPatch,
    RouterView, TunnelFilter, TunnelView,
};
use crate::control_api::{self, ApiError, Expected, Scope};
use crate::shard::Cut;

/// The router accounts of a concentrator. Cheap to clone.
#[derive(Clone)]
pub struct Routers {
    api: Arc<ApiHandle>,
}

/// The tunnels of a concentrator. Cheap to clone.
#[derive(Clone)]
pub struct Tunnels {
    api: Arc<ApiHandle>,
}

/// One session of one router. It stays a handle of that session: once the router has logged in
/// again, this one only says that it has ended.
#[derive(Clone)]
pub struct Tunnel {
    api: Arc<ApiHandle>,
    router: Arc<str>,
    session: Arc<Session>,
}

impl Routers {
    pub(super) fn new(api: Arc<ApiHandle>) -> Self {
        Self { api }
    }

    /// Makes an account. The answer is the only one that holds its password.
    ///
    /// # Errors
    /// As [`control_api::Routers::add_router`].
    pub async fn add(&self, new: NewRouter) -> Result<CreatedRouter, ApiError> {
        control_api::Routers::add_router(&self.api, &Scope::All, new).await
    }

    /// One account.
    ///
    /// # Errors
    /// `router_not_found`.
    pub async fn get(&self, name: &str) -> Result<RouterView, ApiError> {
        control_api::Routers::get_router(&self.api, &Scope::All, name).await
    }

    /// The accounts that fit, sorted by name.
    ///
    /// # Errors
    /// None at present.
    pub async fn list(&self, filter: RouterFilter) -> Result<List<RouterView>, ApiError> {
        control_api::Routers::list_routers(&self.api, &Scope::All, filter, Page::ALL).await
    }

    /// Changes an account; who is disabled loses its tunnel before this answers.
    ///
    /// # Errors
    /// As [`control_api::Routers::patch_router`].
    pub async fn change(&self, name: &str, patch: RouterPatch) -> Result<RouterView, ApiError> {
        let any = Expected::Any;
        control_api::Routers::patch_router(&self.api, &Scope::All, name, any, patch).await
    }

    /// Gives a router another password; the old one counts too until the grace period ends.
    ///
    /// # Errors
    /// As [`control_api::Routers::rotate_router`].
    pub async fn rotate(
        &self,
        name: &str,
        rotate: RotateRouter,
    ) -> Result<CreatedRouter, ApiError> {
        let any = Expected::Any;
        control_api::Routers::rotate_router(&self.api, &Scope::All, name, any, rotate).await
    }

    /// Deletes an account and cuts its tunnel.
    ///
    /// # Errors
    /// As [`control_api::Routers::remove_router`].
    pub async fn remove(&self, name: &str) -> Result<(), ApiError> {
        control_api::Routers::remove_router(&self.api, &Scope::All, name, Expected::Any).await
    }
}

impl Tunnels {
    pub(super) fn new(api: Arc<ApiHandle>) -> Self {
        Self { api }
    }

    /// The tunnels that fit, sorted by router name.
    ///
    /// # Errors
    /// None at present.
    pub async fn list(&self, filter: TunnelFilter) -> Result<List<TunnelView>, ApiError> {
        control_api::Tunnels::list_tunnels(&self.api, &Scope::All, filter).await
    }

    /// The tunnel that a router has now.
    ///
    /// # Errors
    /// `tunnel_not_found`.
    pub fn get(&self, router: &str) -> Result<Tunnel, ApiError> {
        let found = self.api.session(&Scope::All, router);
        let session = found.ok_or_else(|| ApiError::tunnel_not_found(router))?;
        Ok(Tunnel { api: Arc::clone(&self.api), router: router.into(), session })
    }
}

impl Tunnel {
    /// NAME of the router.
    pub fn router(&self) -> &str {
        &self.router
    }

    /// Number of the session; a later login has a higher one.
    pub fn generation(&self) -> u64 {
        self.session.generation()
    }

    /// The router's tunnel address.
    pub fn address(&self) -> Ipv4Addr {
        self.session.address()
    }

    /// Why the session has ended (a stable name), if it has.
    pub fn ended_by(&self) -> Option<&'static str> {
        self.session.ended_by()
    }

    /// Waits for the end of the session; gives the stable name of the reason.
    pub async fn ended(&self) -> &'static str {
        self.session.ended().await
    }

    /// How it is now.
    ///
    /// # Errors
    /// `tunnel_not_found`: this session has ended.
    pub async fn view(&self) -> Result<TunnelView, ApiError> {
        let view = control_api::Tunnels::get_tunnel(&self.api, &Scope::All, &self.router).await?;
        if view.generation == self.generation() {
            return Ok(view);
        }
        Err(ApiError::tunnel_not_found(&self.router))
    }

    /// Connects to a port of the router, from the management address through this session. The
    /// stream ends when the session does; never does a byte of it reach another router. Needs a
    /// tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`DialError`]; [`DialError::NeedsKernelDevice`] with queues that were handed in.
    pub async fn dial(&self, port: u16) -> Result<DialStream, DialError> {
        let to = DialTo { port, generation: Some(self.generation()) };
        self.api.dial(&Scope::All, &self.router, to).await
    }

    /// Cuts the session; the router may come back at once. Once this answers no packet passes any
    /// more.
    ///
    /// # Errors
    /// `tunnel_not_found`: it has ended already.
    pub async fn disconnect(&self) -> Result<(), ApiError> {
        let own = self.generation();
        let alive = |session: &Session| session.generation() == own && session.ended_by().is_none();
        if self.api.cut(&self.router, Cut::Disconnected, alive).await {
            return Ok(());
        }
        Err(ApiError::tunnel_not_found(&self.router))
    }
}
