//! Router accounts.

use super::Answer;
use crate::control_api::Scope;
use crate::control_api::types::{CreatedRouter, List, NewRouter, RouterPatch, RouterView};

/// Router accounts.
pub trait Routers: Send + Sync + 'static {
    /// Makes a router account. `new` was checked with [`NewRouter::check`]; embedders that call
    /// this themselves get the same check.
    ///
    /// # Errors
    /// `router_exists`, `username_taken`, `certificate_taken`, `address_taken`, `invalid`,
    /// `store_degraded`.
    fn add_router(&self, scope: &Scope, new: NewRouter) -> Answer<'_, CreatedRouter>;

    /// The routers in scope, sorted by name.
    fn list_routers(&self, scope: &Scope) -> Answer<'_, List<RouterView>>;

    /// One router.
    ///
    /// # Errors
    /// `router_not_found`.
    fn get_router(&self, scope: &Scope, name: &str) -> Answer<'_, RouterView>;

    /// Changes a router; a disabled router loses its tunnel before this answers.
    ///
    /// # Errors
    /// `router_not_found`, `store_degraded`.
    fn patch_router(&self, scope: &Scope, name: &str, patch: RouterPatch)
    -> Answer<'_, RouterView>;

    /// Deletes a router; its tunnel is cut before this answers, its address goes to quarantine.
    ///
    /// # Errors
    /// `router_not_found`, `store_degraded`.
    fn remove_router(&self, scope: &Scope, name: &str) -> Answer<'_, ()>;
}
