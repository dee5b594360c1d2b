//! `/v1/routers/{name}/sessions` and `/v1/directory`.

use std::net::Ipv4Addr;

use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NamePath, answer, known, query};
use crate::control_api::caller::Caller;
use crate::control_api::error::ApiError;
use crate::control_api::types::{
    DirectoryEntry, List, Page, SessionFilter, SessionView, Timestamp,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list_sessions)).routes(routes!(look_up_address))
}

/// Which sessions, and which page of them.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct SessionsQuery {
    /// Only those that were up at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Only those that began at this time or earlier.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Entries of a page at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

impl SessionsQuery {
    fn filter(self) -> Result<SessionFilter, ApiError> {
        let page = Page::new(self.limit, self.after)?;
        let before = page.after.map(|after| after.parse::<u64>()).transpose();
        let before = before
            .map_err(|_| ApiError::invalid("after", "is not what \"next\" of a page said"))?;
        Ok(SessionFilter { from: self.from, to: self.to, before, limit: page.limit })
    }
}

/// The tunnels that a router had and has, newest first.
#[utoipa::path(
    get,
    path = "/v1/routers/{name}/sessions",
    tag = "routers",
    extensions(("x-role" = json!("read"))),
    params(("name" = String, Path, description = "NAME of the router"), SessionsQuery),
    responses(
        (status = 200, description = "A page of its sessions.", body = List<SessionView>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn list_sessions(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
) -> Response {
    let asked = || {
        let filter = query::<SessionsQuery>(&uri)?.filter()?;
        Ok((known(name, ApiError::router_not_found)?, filter))
    };
    match asked() {
        Ok((name, filter)) => {
            answer(&shared, shared.handle.sessions(&caller.scope, &name, filter)).await
        }
        Err::<_, ApiError>(error) => error.into_response(),
    }
}

/// Which address, and when.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DirectoryQuery {
    /// A tunnel address.
    #[param(value_type = String, format = Ipv4)]
    address: Ipv4Addr,
    /// When; without it, now, or else whoever had it last.
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
}

/// The router that has or had an address.
#[utoipa::path(
    get,
    path = "/v1/directory",
    tag = "routers",
    extensions(("x-role" = json!("read"))),
    params(DirectoryQuery),
    responses(
        (status = 200, description = "Who, since when, until when.", body = DirectoryEntry),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn look_up_address(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    match query::<DirectoryQuery>(&uri) {
        Ok(DirectoryQuery { address, at }) => {
            answer(&shared, shared.handle.directory(&caller.scope, address, at)).await
        }
        Err(error) => error.into_response(),
    }
}
