//! `/v1/bans`: routers that are kept out for a while.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NamePath, NoParameters, answer, known, nothing, query, read};
use crate::control_api::caller::Caller;
use crate::control_api::error::ApiError;
use crate::control_api::types::{BanView, List, NewBan, Page, PageQuery, check_ban};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list_bans)).routes(routes!(put_ban, lift_ban))
}

/// Every ban in scope, sorted by router name.
#[utoipa::path(
    get,
    path = "/v1/bans",
    tag = "tunnels",
    extensions(("x-role" = json!("read"))),
    params(PageQuery),
    responses(
        (status = 200, description = "The bans.", body = List<BanView>),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn list_bans(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    let page = query::<PageQuery>(&uri).and_then(|query| Page::new(query.limit, query.after));
    match page {
        Ok(page) => answer(&shared, shared.handle.list_bans(&caller.scope, page)).await,
        Err(error) => error.into_response(),
    }
}

/// Keeps a router out for so many seconds from now, and cuts its tunnel if it has one.
///
/// A ban lives in memory: it ends with its time or with the concentrator. What shall last is
/// `disabled`.
#[utoipa::path(
    put,
    path = "/v1/bans/{name}",
    tag = "tunnels",
    extensions(("x-role" = json!("operate"))),
    params(("name" = String, Path, description = "NAME of the router")),
    request_body = NewBan,
    responses(
        (status = 200, description = "The ban.", body = BanView),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn put_ban(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let asked = async {
        query::<NoParameters>(&uri)?;
        let name = known(name, ApiError::router_not_found)?;
        let seconds = read::<NewBan>(&shared, &headers, body).await?.seconds;
        Ok((name, check_ban("seconds", seconds)?))
    };
    match asked.await {
        Ok((name, seconds)) => {
            answer(&shared, shared.handle.ban(&caller.scope, &name, seconds)).await
        }
        Err(error) => ApiError::into_response(error),
    }
}

/// Lets a router in again.
#[utoipa::path(
    delete,
    path = "/v1/bans/{name}",
    tag = "tunnels",
    extensions(("x-role" = json!("operate"))),
    params(("name" = String, Path, description = "NAME of the router")),
    responses(
        (status = 204, description = "It may log in."),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn lift_ban(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    name: NamePath,
) -> Response {
    let name = query::<NoParameters>(&uri).and_then(|_| known(name, ApiError::ban_not_found));
    match name {
        Ok(name) => nothing(&shared, shared.handle.lift_ban(&caller.scope, &name)).await,
        Err(error) => error.into_response(),
    }
}
