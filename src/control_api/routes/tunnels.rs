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
use crate::control_api::types::{List, TunnelView};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list_tunnels)).routes(routes!(get_tunnel, disconnect))
}

/// Every tunnel in scope, sorted by router name.
#[utoipa::path(
    get,
    path = "/v1/tunnels",
    tag = "tunnels",
    extensions(("x-role" = json!("read"))),
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
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    answer(&shared, shared.handle.list_tunnels(&caller.scope)).await
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

/// Cuts the tunnel of one router; it may come back at once.
#[utoipa::path(
    delete,
    path = "/v1/tunnels/{name}",
    tag = "tunnels",
    extensions(("x-role" = json!("operate"))),
    params(("name" = String, Path, description = "NAME of the router")),
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
    match named(&uri, name) {
        Ok(name) => nothing(&shared, shared.handle.disconnect(&caller.scope, &name)).await,
        Err(error) => error.into_response(),
    }
}

/// The name of a request without parameters.
fn named(uri: &Uri, name: NamePath) -> Result<String, ApiError> {
    query::<NoParameters>(uri)?;
    known(name, ApiError::tunnel_not_found)
}
