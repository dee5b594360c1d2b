//! Tunnels that are up.

use super::Answer;
use crate::control_api::Scope;
use crate::control_api::types::{List, TunnelView};

/// Tunnels that are up.
pub trait Tunnels: Send + Sync + 'static {
    /// The tunnels in scope, sorted by router name.
    fn list_tunnels(&self, scope: &Scope) -> Answer<'_, List<TunnelView>>;

    /// The tunnel of one router.
    ///
    /// # Errors
    /// `tunnel_not_found`.
    fn get_tunnel(&self, scope: &Scope, name: &str) -> Answer<'_, TunnelView>;

    /// Cuts the tunnel of one router; it may come back at once.
    ///
    /// # Errors
    /// `tunnel_not_found`.
    fn disconnect(&self, scope: &Scope, name: &str) -> Answer<'_, ()>;
}
