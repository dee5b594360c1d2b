//! `/v1/routers`.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NamePath, NoParameters, answer, json, known, nothing, query, read, timed};
use crate::control_api::caller::Caller;
use crate::control_api::error::ApiError;
use crate::control_api::types::{CreatedRouter, List, NewRouter, RouterPatch, RouterView};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list_routers, add_router)).routes(routes!(
        get_router,
        patch_router,
        remove_router
    ))
}

/// Every router in scope, sorted by name.
#[utoipa::path(
    get,
    path = "/v1/routers",
    tag = "routers",
    extensions(("x-role" = json!("read"))),
    responses(
        (status = 200, description = "The routers.", body = List<RouterView>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn list_routers(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    answer(&shared, shared.handle.list_routers(&caller.scope)).await
}

/// Makes an account; the only answer that holds its password.
#[utoipa::path(
    post,
    path = "/v1/routers",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    request_body = NewRouter,
    responses(
        (status = 201, description = "The account, with its password and scripts.", body = CreatedRouter),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn add_router(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let new = async {
        query::<NoParameters>(&uri)?;
        read::<NewRouter>(&shared, &headers, body).await?.check()
    };
    let new = match new.await {
        Ok(new) => new,
        Err(error) => return error.into_response(),
    };
    match timed(&shared, shared.handle.add_router(&caller.scope, new)).await {
        Ok(created) => {
            // A name is made of characters that need no escaping in a path.
            let path = format!("/v1/routers/{}", created.router.name);
            let mut response = json(StatusCode::CREATED, &created);
            if let Ok(value) = HeaderValue::from_str(&path) {
                response.headers_mut().insert(header::LOCATION, value);
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

/// One router.
#[utoipa::path(
    get,
    path = "/v1/routers/{name}",
    tag = "routers",
    extensions(("x-role" = json!("read"))),
    params(("name" = String, Path, description = "NAME of the router")),
    responses(
        (status = 200, description = "The router.", body = RouterView),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn get_router(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
) -> Response {
    match named(&uri, name) {
        Ok(name) => answer(&shared, shared.handle.get_router(&caller.scope, &name)).await,
        Err(error) => error.into_response(),
    }
}

/// Changes what is named and leaves the rest.
#[utoipa::path(
    patch,
    path = "/v1/routers/{name}",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    params(("name" = String, Path, description = "NAME of the router")),
    request_body = RouterPatch,
    responses(
        (status = 200, description = "The router as it is now.", body = RouterView),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn patch_router(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let name = match named(&uri, name) {
        Ok(name) => name,
        Err(error) => return error.into_response(),
    };
    match read::<RouterPatch>(&shared, &headers, body).await {
        Ok(patch) => answer(&shared, shared.handle.patch_router(&caller.scope, &name, patch)).await,
        Err(error) => error.into_response(),
    }
}

/// Deletes an account and cuts its tunnel.
#[utoipa::path(
    delete,
    path = "/v1/routers/{name}",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    params(("name" = String, Path, description = "NAME of the router")),
    responses(
        (status = 204, description = "It is gone."),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn remove_router(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
) -> Response {
    match named(&uri, name) {
        Ok(name) => nothing(&shared, shared.handle.remove_router(&caller.scope, &name)).await,
        Err(error) => error.into_response(),
    }
}

/// The name of a request without parameters.
fn named(uri: &Uri, name: NamePath) -> Result<String, ApiError> {
    query::<NoParameters>(uri)?;
    known(name, ApiError::router_not_found)
}
