//! `/v1/logins` and `/v1/incidents`.

#![expect(unused_qualifications, reason = "utoipa qualifies the types of parameters")]

use std::net::IpAddr;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NamePath, NoParameters, answer, query, timed};
use crate::control_api::caller::Caller;
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::types::{
    IncidentView, List, LoginAttempt, LoginFilter, LoginReport, MAX_USERNAME_BYTES,
};

/// Attempts on one page, unless the request says otherwise.
const PAGE: usize = 100;
/// Most attempts on one page.
const MAX_PAGE: usize = 1000;
/// The window of incidents, unless the request says otherwise.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// The longest window: what is kept reaches back no further with certainty.
const MAX_WINDOW: u64 = 7 * 86_400;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list_logins))
        .routes(routes!(why))
        .routes(routes!(capture))
        .routes(routes!(incidents))
}

/// Which attempts.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    /// Of the router with this NAME.
    router: Option<String>,
    /// With this user name, as the attempts show it.
    username: Option<String>,
    /// With this outcome, reason or cause.
    outcome: Option<String>,
    /// From this address.
    #[param(value_type = Option<String>)]
    source: Option<IpAddr>,
    /// True: only those of nobody that is known.
    unknown: Option<bool>,
    /// Most attempts to answer with; 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// The window.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WindowParameters {
    /// How far to look back, seconds; 900 unless given.
    #[param(minimum = 1, maximum = 604_800)]
    since: Option<u64>,
}

/// The last login attempts in scope, the newest first.
#[utoipa::path(
    get,
    path = "/v1/logins",
    tag = "logins",
    extensions(("x-role" = json!("read"))),
    params(ListParameters),
    responses(
        (status = 200, description = "The attempts.", body = List<LoginAttempt>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn list_logins(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    let asked = match query::<ListParameters>(&uri) {
        Ok(asked) => asked,
        Err(error) => return error.into_response(),
    };
    let limit = asked.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return out_of_range("limit", "1 to 1000").into_response();
    }
    let filter = LoginFilter {
        router: asked.router,
        username: asked.username,
        outcome: asked.outcome,
        source: asked.source,
        unknown: asked.unknown.unwrap_or(false),
    };
    let pending = shared.handle.list_logins(&caller.scope, filter, limit, asked.after);
    answer(&shared, pending).await
}

/// Why a router can, or can't, log in; or what was tried with a user name that is none's.
#[utoipa::path(
    get,
    path = "/v1/logins/{name}",
    tag = "logins",
    extensions(("x-role" = json!("read"))),
    params(("name" = String, Path, description = "NAME of the router, or a user name as tried")),
    responses(
        (status = 200, description = "The answer.", body = LoginReport),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn why(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
) -> Response {
    match tried(&uri, name) {
        Ok(name) => answer(&shared, shared.handle.why(&caller.scope, &name)).await,
        Err(error) => error.into_response(),
    }
}

/// What crossed the wire in the last attempt, as JSON lines without secrets.
#[utoipa::path(
    get,
    path = "/v1/logins/{name}/capture",
    tag = "logins",
    extensions(("x-role" = json!("operate"))),
    params(("name" = String, Path, description = "NAME of the router, or a user name as tried")),
    responses(
        (
            status = 200,
            description = "The capture, one JSON document a line.",
            body = String,
            content_type = "application/x-ndjson"
        ),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn capture(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
) -> Response {
    let name = match tried(&uri, name) {
        Ok(name) => name,
        Err(error) => return error.into_response(),
    };
    match timed(&shared, shared.handle.capture(&caller.scope, &name)).await {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/x-ndjson");
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// What routers that are in trouble at once have in common; what explains most comes first.
#[utoipa::path(
    get,
    path = "/v1/incidents",
    tag = "logins",
    extensions(("x-role" = json!("read"))),
    params(WindowParameters),
    responses(
        (status = 200, description = "The incidents.", body = List<IncidentView>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn incidents(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    let since = match query::<WindowParameters>(&uri) {
        Ok(WindowParameters { since: None }) => WINDOW,
        Ok(WindowParameters { since: Some(seconds) }) if (1..=MAX_WINDOW).contains(&seconds) => {
            Duration::from_secs(seconds)
        }
        Ok(_) => return out_of_range("since", "1 to 604800 seconds").into_response(),
        Err(error) => return error.into_response(),
    };
    answer(&shared, shared.handle.incidents(&caller.scope, since)).await
}

fn out_of_range(field: &str, range: &str) -> ApiError {
    ApiError::field(ErrorCode::BadRequest, field, format!("must be {range}"))
}

/// A name of a request without parameters; strangers may have tried any text.
fn tried(uri: &Uri, name: NamePath) -> Result<String, ApiError> {
    query::<NoParameters>(uri)?;
    match name {
        // Four characters for each byte that is escaped.
        Ok(Path(name)) if (1..=MAX_USERNAME_BYTES * 4).contains(&name.len()) => Ok(name),
        Ok(Path(name)) => {
            let shown: String = name.chars().take(80).collect();
            Err(ApiError::router_not_found(&shown))
        }
        Err(_) => Err(ApiError::new(ErrorCode::BadRequest, "the path is not UTF-8")),
    }
}
