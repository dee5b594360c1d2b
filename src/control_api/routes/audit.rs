//! `/v1/audit`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NoParameters, answer, json, query, timed};
use crate::audit::Head;
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::types::{
    AuditCheck, AuditEntry, AuditQuery, AuditSegment, List, check_name,
};

/// Most records of one page.
const MAX_PAGE: usize = 1000;
/// Most heads of one check.
const MAX_HEADS: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list_audit))
        .routes(routes!(check_audit))
        .routes(routes!(list_segments, seal))
        .routes(routes!(export, prune))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Records with a higher number than this; what `next` of the page before says.
    #[serde(default)]
    after: u64,
    /// At most so many records.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only records that name this router.
    router: Option<String>,
    /// Only records of this user id.
    #[param(value_type = Option<u64>, maximum = 4_294_967_295_u64)]
    uid: Option<u32>,
}

/// Who did what, and what came of it; the oldest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    params(Page),
    responses(
        (status = 200, description = "A page of the trail.", body = List<AuditEntry>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn list_audit(State(shared): State<Shared>, uri: Uri) -> Response {
    let asked = query::<Page>(&uri).and_then(|page| {
        let limit = page.limit.unwrap_or(100);
        if !(1..=MAX_PAGE).contains(&limit) {
            let message = format!("must be from 1 to {MAX_PAGE}");
            return Err(ApiError::field(ErrorCode::BadRequest, "limit", message));
        }
        if i64::try_from(page.after).is_err() {
            let message = "no record has so high a number";
            return Err(ApiError::field(ErrorCode::BadRequest, "after", message));
        }
        if page.router.as_deref().is_some_and(|name| check_name(name).is_err()) {
            let message = "no router can have this name";
            return Err(ApiError::field(ErrorCode::BadRequest, "router", message));
        }
        Ok(AuditQuery { after: page.after, limit, router: page.router, uid: page.uid })
    });
    match asked {
        Ok(asked) => answer(&shared, shared.handle.list_audit(asked)).await,
        Err(error) => error.into_response(),
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Known {
    /// Heads from the log, SEQ:MAC, with commas between them.
    head: Option<String>,
}

/// Whether the trail is as it was written.
#[utoipa::path(
    get,
    path = "/v1/audit/check",
    tag = "audit",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    params(Known),
    responses(
        (status = 200, description = "What was found.", body = AuditCheck),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn check_audit(State(shared): State<Shared>, uri: Uri) -> Response {
    let heads = query::<Known>(&uri).and_then(|known| {
        let texts = known.head.as_deref().unwrap_or("").split(',').filter(|text| !text.is_empty());
        let wrong = |message| ApiError::field(ErrorCode::BadRequest, "head", message);
        let heads: Vec<Head> = texts
            .take(MAX_HEADS + 1)
            .map(str::parse)
            .collect::<Result<_, String>>()
            .map_err(wrong)?;
        if heads.len() > MAX_HEADS {
            return Err(wrong(format!("at most {MAX_HEADS} heads at once")));
        }
        Ok(heads)
    });
    match heads {
        Ok(heads) => answer(&shared, shared.handle.check_audit(heads)).await,
        Err(error) => error.into_response(),
    }
}

/// The sealed segments of the trail.
#[utoipa::path(
    get,
    path = "/v1/audit/segments",
    tag = "audit",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    responses(
        (status = 200, description = "The segments.", body = List<AuditSegment>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn list_segments(State(shared): State<Shared>, uri: Uri) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    answer(&shared, shared.handle.audit_segments()).await
}

/// Seals what there is, so that it can be exported now.
#[utoipa::path(
    post,
    path = "/v1/audit/segments",
    tag = "audit",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    responses(
        (status = 201, description = "The new segment.", body = AuditSegment),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn seal(State(shared): State<Shared>, uri: Uri) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    match timed(&shared, shared.handle.seal_audit()).await {
        Ok(segment) => json(StatusCode::CREATED, &segment),
        Err(error) => error.into_response(),
    }
}

type Number = Result<Path<u64>, PathRejection>;

/// The records of a segment as JSON lines, its seal first.
///
/// Each line is `{"mac": ..., "record": ...}`; the mac covers the bytes of `record` as they stand.
/// From then on the segment may be pruned.
#[utoipa::path(
    get,
    path = "/v1/audit/segments/{segment}",
    tag = "audit",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    params(("segment" = u64, Path, description = "Number of the segment")),
    responses(
        (status = 200, description = "The records.", body = String, content_type = "application/jsonl"),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn export(State(shared): State<Shared>, uri: Uri, number: Number) -> Response {
    let number = match segment(&uri, number) {
        Ok(number) => number,
        Err(error) => return error.into_response(),
    };
    match timed(&shared, shared.handle.export_segment(number)).await {
        Ok(lines) => {
            let kind = HeaderValue::from_static("application/jsonl");
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], lines).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Deletes the records of an exported segment; its seal stays.
#[utoipa::path(
    delete,
    path = "/v1/audit/segments/{segment}",
    tag = "audit",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    params(("segment" = u64, Path, description = "Number of the segment")),
    responses(
        (status = 200, description = "The segment without its records.", body = AuditSegment),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn prune(State(shared): State<Shared>, uri: Uri, number: Number) -> Response {
    match segment(&uri, number) {
        Ok(number) => answer(&shared, shared.handle.prune_segment(number)).await,
        Err(error) => error.into_response(),
    }
}

fn segment(uri: &Uri, number: Number) -> Result<u64, ApiError> {
    query::<NoParameters>(uri)?;
    number.map(|Path(number)| number).map_err(|_| {
        ApiError::new(ErrorCode::SegmentNotFound, "segments have numbers; see /v1/audit/segments")
    })
}
