//! What was: sessions of a router, and who had which address.

use std::net::Ipv4Addr;

use super::Answer;
use crate::control_api::types::{DirectoryEntry, List, SessionFilter, SessionView, Timestamp};
use crate::control_api::{ApiError, Scope};

/// What was: sessions of a router, and who had which address.
pub trait History: Send + Sync + 'static {
    /// A page of the router's sessions, newest first; the cursor is the number of the last one.
    /// Those of a router that was deleted are shown to callers that may see every router.
    ///
    /// # Errors
    /// `router_not_found`.
    fn sessions(
        &self,
        _scope: &Scope,
        _name: &str,
        _filter: SessionFilter,
    ) -> Answer<'_, List<SessionView>> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// The router that has the address, or had it last; with `at`, the one that had it then.
    ///
    /// # Errors
    /// `router_not_found`.
    fn directory(
        &self,
        _scope: &Scope,
        _address: Ipv4Addr,
        _at: Option<Timestamp>,
    ) -> Answer<'_, DirectoryEntry> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }
}
