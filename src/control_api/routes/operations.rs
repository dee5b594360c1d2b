//! `/v1/status`, `/v1/openapi`, `/v1/reload`, `/v1/doctor`.

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NoParameters, answer, json, query};
use crate::control_api::caller::Caller;
use crate::control_api::error::ApiError;
use crate::control_api::types::{Finding, List, ReloadReport, Status};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(openapi))
        .routes(routes!(reload))
        .routes(routes!(doctor))
}

/// How things are.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "operations",
    extensions(("x-role" = json!("read"))),
    responses(
        (status = 200, description = "How things are.", body = Status),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn status(
    State(shared): State<Shared>,
    Extension(_): Extension<Caller>,
    uri: Uri,
) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    answer(&shared, shared.handle.status()).await
}

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi",
    tag = "operations",
    extensions(("x-role" = json!("read"))),
    responses(
        (status = 200, description = "The OpenAPI document of the running version."),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn openapi(uri: Uri) -> Response {
    match query::<NoParameters>(&uri) {
        Ok(_) => json(StatusCode::OK, &super::openapi()),
        Err(error) => error.into_response(),
    }
}

/// Read configuration, certificates and revocation lists again. What is bad changes nothing.
#[utoipa::path(
    post,
    path = "/v1/reload",
    tag = "operations",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    responses(
        (status = 200, description = "What has changed.", body = ReloadReport),
        (
            status = 422,
            description = "`reload_refused`: what was read can't be used; nothing has changed.",
            body = ApiError,
        ),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn reload(
    State(shared): State<Shared>,
    Extension(_): Extension<Caller>,
    uri: Uri,
) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    answer(&shared, shared.handle.reload()).await
}

/// What could keep the concentrator from working, and what to do about it; includes a login through
/// each listener. Takes seconds.
#[utoipa::path(
    get,
    path = "/v1/doctor",
    tag = "operations",
    extensions(("x-role" = json!("operate")), ("x-scope" = json!("all"))),
    responses(
        (status = 200, description = "Everything that was looked at.", body = List<Finding>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn doctor(
    State(shared): State<Shared>,
    Extension(_): Extension<Caller>,
    uri: Uri,
) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    let event_id = shared.handle.event_id();
    let findings = shared.handle.doctor();
    answer(&shared, Box::pin(async move { Ok(List::complete(event_id, findings.await?)) })).await
}
