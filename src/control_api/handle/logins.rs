//! Login attempts and what they say about the fleet.

use std::time::Duration;

use super::Answer;
use crate::control_api::Scope;
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::types::{IncidentView, List, LoginAttempt, LoginFilter, LoginReport};

/// Login attempts and what they say about the fleet.
///
/// Attempts of nobody that is known are shown to callers that may see the whole fleet, and to
/// nobody else. A concentrator without a flight recorder offers nothing of this.
pub trait Logins: Send + Sync + 'static {
    /// The last attempts, the newest first: at most `limit` that pass `filter`, from before the
    /// cursor `after`.
    ///
    /// # Errors
    /// `invalid`: the cursor is none.
    fn list_logins(
        &self,
        scope: &Scope,
        filter: LoginFilter,
        limit: usize,
        after: Option<String>,
    ) -> Answer<'_, List<LoginAttempt>> {
        let _ = (scope, filter, limit, after);
        not_offered()
    }

    /// Why a router can, or can't, log in; or what was tried with a user name that is none's.
    ///
    /// # Errors
    /// `router_not_found`: no such router, and nobody tried the name.
    fn why(&self, scope: &Scope, name: &str) -> Answer<'_, LoginReport> {
        let _ = (scope, name);
        not_offered()
    }

    /// What crossed the wire in the last attempt of a router, or of that user name, as JSON lines
    /// without secrets.
    ///
    /// # Errors
    /// `router_not_found`; `not_found`: nothing is kept.
    fn capture(&self, scope: &Scope, name: &str) -> Answer<'_, String> {
        let _ = (scope, name);
        not_offered()
    }

    /// What many routers that were in trouble within the last `since` have in common; what
    /// explains most comes first.
    fn incidents(&self, scope: &Scope, since: Duration) -> Answer<'_, List<IncidentView>> {
        let _ = (scope, since);
        not_offered()
    }
}

fn not_offered<'a, T: Send + 'a>() -> Answer<'a, T> {
    let error = ApiError::new(ErrorCode::Unavailable, "this concentrator keeps no login attempts");
    Box::pin(std::future::ready(Err(error)))
}
