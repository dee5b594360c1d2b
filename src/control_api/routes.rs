//! The paths under `/v1/` and what stands before all of them.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{ApiError, ErrorCode};
use super::handle::{Answer, Handle};
use super::permission::{self, Owner, Peer};
use super::server::ServerLimits;
use super::socket::ControlSocket;
use super::types::{List, NewRouter, RouterPatch, check_name};

/// What every request may use.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) handle: Arc<dyn Handle>,
    pub(super) socket: Arc<ControlSocket>,
    pub(super) limits: ServerLimits,
}

/// Everything under one permission check.
pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/routers", get(list_routers).post(add_router))
        .route("/v1/routers/{name}", get(get_router).patch(patch_router).delete(remove_router))
        .route("/v1/tunnels", get(list_tunnels))
        .route("/v1/tunnels/{name}", get(get_tunnel).delete(disconnect))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Asks for permission before anything of the request is looked at.
async fn guard(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let owner = Owner { uid: shared.socket.uid(), gid: shared.socket.gid() };
    if let Err(error) = permission::check(&peer, owner) {
        tracing::warn!(uid = peer.uid, "refused a user of the control socket");
        return error.into_response();
    }
    // No path takes parameters yet; one that is ignored today could not get a meaning tomorrow.
    if request.uri().query().is_some_and(|query| !query.is_empty()) {
        return ApiError::new(ErrorCode::BadRequest, "this path takes no parameters")
            .into_response();
    }
    next.run(request).await
}

async fn status(State(shared): State<Shared>) -> Response {
    answer(&shared, shared.handle.status()).await
}

async fn list_routers(State(shared): State<Shared>) -> Response {
    list(&shared, shared.handle.list_routers()).await
}

async fn add_router(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Response {
    let new = async { read::<NewRouter>(&shared, &headers, body).await?.check() };
    let new = match new.await {
        Ok(new) => new,
        Err(error) => return error.into_response(),
    };
    match timed(&shared, shared.handle.add_router(new)).await {
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

type NamePath = Result<Path<String>, PathRejection>;

async fn get_router(State(shared): State<Shared>, name: NamePath) -> Response {
    match known(name, ApiError::router_not_found) {
        Ok(name) => answer(&shared, shared.handle.get_router(&name)).await,
        Err(error) => error.into_response(),
    }
}

async fn patch_router(
    State(shared): State<Shared>,
    name: NamePath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let name = match known(name, ApiError::router_not_found) {
        Ok(name) => name,
        Err(error) => return error.into_response(),
    };
    match read::<RouterPatch>(&shared, &headers, body).await {
        Ok(patch) => answer(&shared, shared.handle.patch_router(&name, patch)).await,
        Err(error) => error.into_response(),
    }
}

async fn remove_router(State(shared): State<Shared>, name: NamePath) -> Response {
    match known(name, ApiError::router_not_found) {
        Ok(name) => nothing(&shared, shared.handle.remove_router(&name)).await,
        Err(error) => error.into_response(),
    }
}

async fn list_tunnels(State(shared): State<Shared>) -> Response {
    list(&shared, shared.handle.list_tunnels()).await
}

async fn get_tunnel(State(shared): State<Shared>, name: NamePath) -> Response {
    match known(name, ApiError::tunnel_not_found) {
        Ok(name) => answer(&shared, shared.handle.get_tunnel(&name)).await,
        Err(error) => error.into_response(),
    }
}

async fn disconnect(State(shared): State<Shared>, name: NamePath) -> Response {
    match known(name, ApiError::tunnel_not_found) {
        Ok(name) => nothing(&shared, shared.handle.disconnect(&name)).await,
        Err(error) => error.into_response(),
    }
}

async fn unknown_path() -> Response {
    ApiError::new(ErrorCode::NotFound, "there is no such path; the paths begin with /v1/")
        .into_response()
}

async fn unknown_method() -> Response {
    ApiError::new(ErrorCode::MethodNotAllowed, "this path does not know the method").into_response()
}

/// A name that no router can have is one that no router has.
fn known(name: NamePath, unknown: fn(&str) -> ApiError) -> Result<String, ApiError> {
    match name {
        Ok(Path(name)) if check_name(&name).is_ok() => Ok(name),
        Ok(Path(name)) => {
            let shown: String = name.chars().take(80).collect();
            Err(unknown(&shown))
        }
        Err(_) => Err(ApiError::new(ErrorCode::BadRequest, "the path is not UTF-8")),
    }
}

/// Reads a JSON body within the limits.
async fn read<T: DeserializeOwned>(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = declared.and_then(|value| value.split(';').next()).unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            "send JSON with the header \"Content-Type: application/json\"",
        ));
    }
    let too_large = || {
        let most = shared.limits.body_bytes;
        ApiError::new(ErrorCode::TooLarge, format!("the body is longer than {most} bytes"))
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|value| value.parse::<u64>().ok()).is_some_and(|length| {
        usize::try_from(length).is_ok_and(|length| length > shared.limits.body_bytes)
    }) {
        return Err(too_large());
    }
    let reading = to_bytes(body, shared.limits.body_bytes);
    let bytes = match tokio::time::timeout(shared.limits.body, reading).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            return Err(ApiError::new(
                ErrorCode::RequestTimeout,
                "the body did not arrive in time",
            ));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        // The parser quotes what it read: a stranger's text, or a password.
        let place = format!("line {}, column {}", error.line(), error.column());
        let text = error.to_string();
        let field = ["unknown field `", "missing field `", "duplicate field `"]
            .iter()
            .find_map(|start| text.strip_prefix(start)?.split('`').next())
            .map(|name| name.chars().take(64).flat_map(char::escape_default).collect::<String>());
        let message = match (error.classify(), &field) {
            (serde_json::error::Category::Data, Some(_)) => {
                let what = text.split(' ').next().unwrap_or("wrong");
                format!("the field is {what} at {place}")
            }
            (serde_json::error::Category::Data, None) => {
                format!("a value has the wrong type or form at {place}")
            }
            _ => format!("the body is not JSON: it breaks at {place}"),
        };
        ApiError { code: ErrorCode::BadRequest, message, field }
    })
}

async fn timed<T>(shared: &Shared, answer: Answer<'_, T>) -> Result<T, ApiError> {
    tokio::time::timeout(shared.limits.answer, answer).await.unwrap_or_else(|_| {
        Err(ApiError::new(ErrorCode::Timeout, "the concentrator gave no answer in time"))
    })
}

async fn answer<T: Serialize>(shared: &Shared, pending: Answer<'_, T>) -> Response {
    match timed(shared, pending).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => error.into_response(),
    }
}

async fn list<T: Serialize>(shared: &Shared, pending: Answer<'_, Vec<T>>) -> Response {
    match timed(shared, pending).await {
        Ok(items) => json(StatusCode::OK, &List::complete(items)),
        Err(error) => error.into_response(),
    }
}

async fn nothing(shared: &Shared, pending: Answer<'_, ()>) -> Response {
    match timed(shared, pending).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let kind = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, kind)], bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, &self)
    }
}
