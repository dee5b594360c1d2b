//! `/v1/store`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NoParameters, answer, json, query, read, timed};
use crate::control_api::error::ApiError;
use crate::control_api::types::{BackupView, List, NewBackup, StoreCheck};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(check_store))
        .routes(routes!(back_up_store))
        .routes(routes!(list_backups))
}

/// Looks for damage and contradictions while everything goes on.
#[utoipa::path(
    post,
    path = "/v1/store/check",
    tag = "store",
    extensions(("x-role" = json!("operate")), ("x-scope" = json!("all"))),
    responses(
        (status = 200, description = "What was found.", body = StoreCheck),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn check_store(State(shared): State<Shared>, uri: Uri) -> Response {
    match query::<NoParameters>(&uri) {
        Ok(_) => answer(&shared, shared.handle.check_store()).await,
        Err(error) => error.into_response(),
    }
}

/// Copies the store into the folder of backups.
#[utoipa::path(
    post,
    path = "/v1/store/backup",
    tag = "store",
    extensions(("x-role" = json!("admin")), ("x-scope" = json!("all"))),
    request_body = NewBackup,
    responses(
        (status = 201, description = "The copy.", body = BackupView),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn back_up_store(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let new = async {
        query::<NoParameters>(&uri)?;
        read::<NewBackup>(&shared, &headers, body).await?.check()
    };
    let new = match new.await {
        Ok(new) => new,
        Err(error) => return error.into_response(),
    };
    match timed(&shared, shared.handle.back_up_store(new)).await {
        Ok(made) => json(StatusCode::CREATED, &made),
        Err(error) => error.into_response(),
    }
}

/// Every copy of the store, newest first.
#[utoipa::path(
    get,
    path = "/v1/store/backups",
    tag = "store",
    extensions(("x-role" = json!("read")), ("x-scope" = json!("all"))),
    responses(
        (status = 200, description = "The copies.", body = List<BackupView>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn list_backups(State(shared): State<Shared>, uri: Uri) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    let list = async { Ok(List::complete(0, shared.handle.list_backups().await?)) };
    answer(&shared, Box::pin(list)).await
}
