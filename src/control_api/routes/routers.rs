//! `/v1/routers`.

#![expect(unused_qualifications, reason = "utoipa qualifies the types of parameters")]

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{
    NamePath, NoParameters, answer, expected, json, known, nothing, query, read, read_or_default,
    timed, with_etag,
};
use crate::control_api::caller::Caller;
use crate::control_api::error::ApiError;
use crate::control_api::handle::{Answer, Expected};
use crate::control_api::types::{
    CreatedRouter, List, NewRouter, Page, RotateRouter, RouterFilter, RouterPatch, RouterView,
    Timestamp,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list_routers, add_router))
        .routes(routes!(get_router, patch_router, remove_router))
        .routes(routes!(disable_router))
        .routes(routes!(enable_router))
        .routes(routes!(readdress_router))
        .routes(routes!(rotate_router))
}

/// Which routers, and which page of them.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RoutersQuery {
    /// Entries of the page; absent: 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// Routers whose name fits; `*` stands for any characters.
    #[param(pattern = "^[a-z0-9._*-]{1,126}$")]
    name: Option<String>,
    /// Routers with this tag, or with all of these, separated by commas.
    #[param(pattern = "^[a-z0-9][a-z0-9._:=/-]{0,62}(,[a-z0-9][a-z0-9._:=/-]{0,62}){0,31}$")]
    tag: Option<String>,
    /// Routers of this tenant.
    #[param(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    tenant: Option<String>,
    /// Routers that have a tunnel now, or have none.
    connected: Option<bool>,
    /// Routers that may not log in, or may.
    disabled: Option<bool>,
    /// Routers that were seen at this moment or later.
    last_seen_after: Option<Timestamp>,
    /// Routers that were not seen at this moment or later, also those that were never seen.
    last_seen_before: Option<Timestamp>,
}

impl RoutersQuery {
    fn split(self) -> Result<(RouterFilter, Page), ApiError> {
        let tags = self.tag.map(|tags| tags.split(',').map(str::to_owned).collect());
        let filter = RouterFilter {
            name: self.name,
            tags: tags.unwrap_or_default(),
            tenant: self.tenant,
            connected: self.connected,
            disabled: self.disabled,
            last_seen_after: self.last_seen_after,
            last_seen_before: self.last_seen_before,
        };
        Ok((filter.check()?, Page::new(self.limit, self.after)?))
    }
}

/// The routers in scope that fit, sorted by name.
#[utoipa::path(
    get,
    path = "/v1/routers",
    tag = "routers",
    extensions(("x-role" = json!("read"))),
    params(RoutersQuery),
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
    match query::<RoutersQuery>(&uri).and_then(RoutersQuery::split) {
        Ok((filter, page)) => {
            answer(&shared, shared.handle.list_routers(&caller.scope, filter, page)).await
        }
        Err(error) => error.into_response(),
    }
}

/// Makes an account; the only answer that holds its password.
#[utoipa::path(
    post,
    path = "/v1/routers",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    request_body = NewRouter,
    responses(
        (status = 201, description = "The account, with its password and scripts.", body = CreatedRouter, headers(("ETag" = String, description = "The revision of the account."))),
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
            let revision = created.router.revision;
            let mut response = with_etag(json(StatusCode::CREATED, &created), revision);
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
        (status = 200, description = "The router.", body = RouterView, headers(("ETag" = String, description = "The revision of the account."))),
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
        Ok(name) => revised(&shared, shared.handle.get_router(&caller.scope, &name)).await,
        Err(error) => error.into_response(),
    }
}

/// Changes what is named, clears what is null and leaves the rest.
#[utoipa::path(
    patch,
    path = "/v1/routers/{name}",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    params(
        ("name" = String, Path, description = "NAME of the router"),
        ("If-Match" = Option<String>, Header, description = "The revision that the change is meant for, as the ETag said"),
    ),
    request_body = RouterPatch,
    responses(
        (status = 200, description = "The router as it is now.", body = RouterView, headers(("ETag" = String, description = "The revision of the account."))),
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
    let asked = async {
        let (name, expected) = aimed(&uri, name, &headers)?;
        Ok((name, expected, read::<RouterPatch>(&shared, &headers, body).await?.check()?))
    };
    match asked.await {
        Ok((name, expected, patch)) => {
            let change = shared.handle.patch_router(&caller.scope, &name, expected, patch);
            revised(&shared, change).await
        }
        Err(error) => ApiError::into_response(error),
    }
}

/// Deletes an account and cuts its tunnel.
#[utoipa::path(
    delete,
    path = "/v1/routers/{name}",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    params(
        ("name" = String, Path, description = "NAME of the router"),
        ("If-Match" = Option<String>, Header, description = "The revision that the change is meant for, as the ETag said"),
    ),
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
    headers: HeaderMap,
) -> Response {
    match aimed(&uri, name, &headers) {
        Ok((name, expected)) => {
            nothing(&shared, shared.handle.remove_router(&caller.scope, &name, expected)).await
        }
        Err(error) => error.into_response(),
    }
}

/// Cuts the tunnel of a router and refuses its logins.
#[utoipa::path(
    post,
    path = "/v1/routers/{name}/disable",
    tag = "routers",
    extensions(("x-role" = json!("operate"))),
    params(
        ("name" = String, Path, description = "NAME of the router"),
        ("If-Match" = Option<String>, Header, description = "The revision that the change is meant for, as the ETag said"),
    ),
    responses(
        (status = 200, description = "The router as it is now.", body = RouterView, headers(("ETag" = String, description = "The revision of the account."))),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn disable_router(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
    headers: HeaderMap,
) -> Response {
    set_disabled(&shared, &caller, &uri, name, &headers, true).await
}

/// Accepts the logins of a router again.
#[utoipa::path(
    post,
    path = "/v1/routers/{name}/enable",
    tag = "routers",
    extensions(("x-role" = json!("operate"))),
    params(
        ("name" = String, Path, description = "NAME of the router"),
        ("If-Match" = Option<String>, Header, description = "The revision that the change is meant for, as the ETag said"),
    ),
    responses(
        (status = 200, description = "The router as it is now.", body = RouterView, headers(("ETag" = String, description = "The revision of the account."))),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn enable_router(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
    headers: HeaderMap,
) -> Response {
    set_disabled(&shared, &caller, &uri, name, &headers, false).await
}

/// Gives a router another address of the pool and cuts its tunnel; the old address goes to
/// quarantine.
#[utoipa::path(
    post,
    path = "/v1/routers/{name}/readdress",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    params(
        ("name" = String, Path, description = "NAME of the router"),
        ("If-Match" = Option<String>, Header, description = "The revision that the change is meant for, as the ETag said"),
    ),
    responses(
        (status = 200, description = "The router with its new address.", body = RouterView, headers(("ETag" = String, description = "The revision of the account."))),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn readdress_router(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
    headers: HeaderMap,
) -> Response {
    match aimed(&uri, name, &headers) {
        Ok((name, expected)) => {
            let change = shared.handle.readdress_router(&caller.scope, &name, expected);
            revised(&shared, change).await
        }
        Err(error) => error.into_response(),
    }
}

/// Gives a router another password; for a while the old one counts too.
///
/// A rotation during that while replaces the new password if the router has not used it yet: what
/// the router knows counts on.
#[utoipa::path(
    post,
    path = "/v1/routers/{name}/rotate",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    params(
        ("name" = String, Path, description = "NAME of the router"),
        ("If-Match" = Option<String>, Header, description = "The revision that the change is meant for, as the ETag said"),
    ),
    request_body(content = Option<RotateRouter>, description = "Nothing means every default."),
    responses(
        (status = 200, description = "The account, with its new password and scripts.", body = CreatedRouter, headers(("ETag" = String, description = "The revision of the account."))),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn rotate_router(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let asked = async {
        let (name, expected) = aimed(&uri, name, &headers)?;
        let rotate: RotateRouter = read_or_default(&shared, &headers, body).await?;
        Ok((name, expected, rotate.check()?))
    };
    match asked.await {
        Ok((name, expected, rotate)) => {
            let change = shared.handle.rotate_router(&caller.scope, &name, expected, rotate);
            revised(&shared, change).await
        }
        Err(error) => ApiError::into_response(error),
    }
}

async fn set_disabled(
    shared: &Shared,
    caller: &Caller,
    uri: &Uri,
    name: NamePath,
    headers: &HeaderMap,
    disabled: bool,
) -> Response {
    match aimed(uri, name, headers) {
        Ok((name, expected)) => {
            let patch = RouterPatch::disabled(disabled);
            let change = shared.handle.patch_router(&caller.scope, &name, expected, patch);
            revised(shared, change).await
        }
        Err(error) => error.into_response(),
    }
}

/// A document with a revision.
trait Revised: Serialize {
    fn revision(&self) -> u64;
}

impl Revised for RouterView {
    fn revision(&self) -> u64 {
        self.revision
    }
}

impl Revised for CreatedRouter {
    fn revision(&self) -> u64 {
        self.router.revision
    }
}

async fn revised<T: Revised>(shared: &Shared, pending: Answer<'_, T>) -> Response {
    match timed(shared, pending).await {
        Ok(value) => with_etag(json(StatusCode::OK, &value), value.revision()),
        Err(error) => error.into_response(),
    }
}

/// The name of a change without parameters, and the revision it is meant for.
fn aimed(uri: &Uri, name: NamePath, headers: &HeaderMap) -> Result<(String, Expected), ApiError> {
    Ok((named(uri, name)?, expected(headers)?))
}

/// The name of a request without parameters.
fn named(uri: &Uri, name: NamePath) -> Result<String, ApiError> {
    query::<NoParameters>(uri)?;
    known(name, ApiError::router_not_found)
}
