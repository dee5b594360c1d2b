//! `/v1/tunnels`.

use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NamePath, NoParameters, answer, known, nothing, query};
use crate::control_api::caller::Caller;
use crate::control_api::error::ApiError;
use crate::control_api::types::{DisconnectQuery, List, TunnelQuery, TunnelView, check_ban};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list_tunnels)).routes(routes!(get_tunnel, disconnect))
}

/// The tunnels in scope that fit, sorted by router name.
#[utoipa::path(
    get,
    path = "/v1/tunnels",
    tag = "tunnels",
    extensions(("x-role" = json!("read"))),
    params(TunnelQuery),
    responses(
        (status = 200, description = "The tunnels.", body = List<TunnelView>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn list_tunnels(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    match query::<TunnelQuery>(&uri).and_then(TunnelQuery::check) {
        Ok(filter) => answer(&shared, shared.handle.list_tunnels(&caller.scope, filter)).await,
        Err(error) => error.into_response(),
    }
}

/// The tunnel of one router.
#[utoipa::path(
    get,
    path = "/v1/tunnels/{name}",
    tag = "tunnels",
    extensions(("x-role" = json!("read"))),
    params(("name" = String, Path, description = "NAME of the router")),
    responses(
        (status = 200, description = "The tunnel.", body = TunnelView),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn get_tunnel(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
) -> Response {
    match named(&uri, name) {
        Ok(name) => answer(&shared, shared.handle.get_tunnel(&caller.scope, &name)).await,
        Err(error) => error.into_response(),
    }
}

/// Cuts the tunnel of one router, and keeps the router out for a while if `ban` says so.
///
/// Once this answers no packet passes any more. Without `ban` the router may come back at once; with
/// it a router that has no tunnel at the moment is kept out, too.
#[utoipa::path(
    delete,
    path = "/v1/tunnels/{name}",
    tag = "tunnels",
    extensions(("x-role" = json!("operate"))),
    params(("name" = String, Path, description = "NAME of the router"), DisconnectQuery),
    responses(
        (status = 204, description = "It is cut."),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn disconnect(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
) -> Response {
    let asked = || {
        let ban = query::<DisconnectQuery>(&uri)?.ban;
        let ban = ban.map(|seconds| check_ban("ban", seconds)).transpose()?;
        Ok((known(name, ApiError::tunnel_not_found)?, ban))
    };
    match asked() {
        Ok((name, ban)) => {
            nothing(&shared, shared.handle.disconnect(&caller.scope, &name, ban)).await
        }
        Err(error) => ApiError::into_response(error),
    }
}

/// The name of a request without parameters.
fn named(uri: &Uri, name: NamePath) -> Result<String, ApiError> {
    query::<NoParameters>(uri)?;
    known(name, ApiError::tunnel_not_found)
}
