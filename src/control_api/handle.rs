//! What a concentrator offers to whoever steers it.

use std::future::Future;
use std::pin::Pin;

use super::error::ApiError;
use super::types::{CreatedRouter, NewRouter, RouterPatch, RouterView, Status, TunnelView};

/// A boxed answer, so that the trait can be used as `dyn Handle`.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// The running concentrator as the control socket sees it.
///
/// Implementations never block the calling thread; every answer comes within seconds or the server
/// answers `timeout` for them (the operation itself is then not undone). Names that do not have the
/// form of a router name never reach an implementation through the socket.
pub trait Handle: Send + Sync + 'static {
    /// How things are.
    fn status(&self) -> Answer<'_, Status>;

    /// Makes a router account. `new` was checked with [`NewRouter::check`]; embedders that call
    /// this themselves get the same check.
    ///
    /// # Errors
    /// `router_exists`, `username_taken`, `certificate_taken`, `address_taken`, `invalid`,
    /// `store_degraded`.
    fn add_router(&self, new: NewRouter) -> Answer<'_, CreatedRouter>;

    /// Every router, sorted by name.
    fn list_routers(&self) -> Answer<'_, Vec<RouterView>>;

    /// One router.
    ///
    /// # Errors
    /// `router_not_found`.
    fn get_router(&self, name: &str) -> Answer<'_, RouterView>;

    /// Changes a router; a disabled router loses its tunnel before this answers.
    ///
    /// # Errors
    /// `router_not_found`, `store_degraded`.
    fn patch_router(&self, name: &str, patch: RouterPatch) -> Answer<'_, RouterView>;

    /// Deletes a router; its tunnel is cut before this answers, its address goes to quarantine.
    ///
    /// # Errors
    /// `router_not_found`, `store_degraded`.
    fn remove_router(&self, name: &str) -> Answer<'_, ()>;

    /// Every tunnel that is up, sorted by router name.
    fn list_tunnels(&self) -> Answer<'_, Vec<TunnelView>>;

    /// The tunnel of one router.
    ///
    /// # Errors
    /// `tunnel_not_found`.
    fn get_tunnel(&self, name: &str) -> Answer<'_, TunnelView>;

    /// Cuts the tunnel of one router; it may come back at once.
    ///
    /// # Errors
    /// `tunnel_not_found`.
    fn disconnect(&self, name: &str) -> Answer<'_, ()>;
}
