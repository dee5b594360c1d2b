//! `/v1/metrics`, `/v1/healthz`, `/v1/readyz`, `/v1/log-level`.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NoParameters, answer, json, query, read, timed};
use crate::control_api::caller::Caller;
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::types::{Degraded, Health, LogLevel, Status};
use crate::telemetry::exposition;

/// Longest accepted filter.
const MAX_FILTER_BYTES: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(metrics))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(log_level, set_log_level))
}

/// Everything that is counted, in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/v1/metrics",
    tag = "operations",
    extensions(("x-role" = json!("read"))),
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "text/plain"),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn metrics(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    match timed(&shared, shared.handle.metrics(&caller.scope)).await {
        Ok(text) => ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Whether the process works at all; if not, only a new one helps.
#[utoipa::path(
    get,
    path = "/v1/healthz",
    tag = "operations",
    extensions(("x-role" = json!("read"))),
    responses(
        (status = 200, description = "Every packet and login thread turns.", body = Health),
        (status = 503, description = "One has ended or hangs.", body = Health),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn healthz(State(shared): State<Shared>, uri: Uri) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    told(timed(&shared, shared.handle.health()).await)
}

/// Whether routers can log in and their packets reach the host.
#[utoipa::path(
    get,
    path = "/v1/readyz",
    tag = "operations",
    extensions(("x-role" = json!("read"))),
    responses(
        (status = 200, description = "The TUN device and every listener are up.", body = Health),
        (status = 503, description = "Something is missing.", body = Health),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn readyz(State(shared): State<Shared>, uri: Uri) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    told(timed(&shared, shared.handle.status()).await.map(|status| readiness(&status)))
}

fn told(health: Result<Health, ApiError>) -> Response {
    match health {
        Ok(health) if health.ok => json(StatusCode::OK, &health),
        Ok(health) => json(StatusCode::SERVICE_UNAVAILABLE, &health),
        Err(error) => error.into_response(),
    }
}

/// What keeps it from being ready. A part that is degraded and not needed for that is no reason.
fn readiness(status: &Status) -> Health {
    let mut reasons = Vec::new();
    let mut missing = |part: &str, reason: String| {
        reasons.push(Degraded { part: part.to_owned(), reason });
    };
    if !status.tun.up {
        missing("tun", format!("the device {} is down", status.tun.name));
    }
    if status.listeners.is_empty() {
        missing("listener", "there is none".to_owned());
    }
    for listener in status.listeners.iter().filter(|listener| !listener.up) {
        missing("listener", format!("{} is down", listener.address));
    }
    if !status.ready && reasons.is_empty() {
        reasons.extend(status.degraded.iter().filter(|one| one.part == "threads").cloned());
        if reasons.is_empty() {
            reasons.push(Degraded { part: "threads".to_owned(), reason: "not ready".to_owned() });
        }
    }
    Health::of(reasons)
}

/// What is logged.
#[utoipa::path(
    get,
    path = "/v1/log-level",
    tag = "operations",
    extensions(("x-role" = json!("read"))),
    responses(
        (status = 200, description = "The filter.", body = LogLevel),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn log_level(State(shared): State<Shared>, uri: Uri) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    answer(&shared, shared.handle.log_level()).await
}

/// Changes what is logged, until the process ends.
#[utoipa::path(
    put,
    path = "/v1/log-level",
    tag = "operations",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    request_body = LogLevel,
    responses(
        (status = 200, description = "The filter that holds now.", body = LogLevel),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn set_log_level(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    let level: LogLevel = match read(&shared, &headers, body).await {
        Ok(level) => level,
        Err(error) => return error.into_response(),
    };
    if level.filter.len() > MAX_FILTER_BYTES {
        return ApiError {
            code: ErrorCode::BadRequest,
            message: format!("the filter is longer than {MAX_FILTER_BYTES} bytes"),
            field: Some("filter".to_owned()),
        }
        .into_response();
    }
    answer(&shared, shared.handle.set_log_level(level)).await
}
