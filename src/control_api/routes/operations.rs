//! `/v1/status`.

use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NoParameters, answer, query};
use crate::control_api::caller::Caller;
use crate::control_api::error::ApiError;
use crate::control_api::types::Status;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(status))
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
