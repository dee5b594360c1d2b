//! The paths under `/v1/` and what stands before all of them.
//!
//! Every handler carries its own piece of the OpenAPI document, and registers path, method and
//! handler in one place, so that nothing undocumented can be reached. The extension `x-role` of an
//! operation is the one source of who may use it.

mod bans;
mod body;
mod dial;
mod operations;
mod rights;
mod routers;
mod tunnels;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tokio::sync::watch;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::error::{ApiError, ErrorCode};
use super::handle::Handle;
use super::permission::{self, Owner, Peer};
use super::server::ServerLimits;
use super::socket::ControlSocket;
use rights::Rights;

/// What every request may use.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) handle: Arc<dyn Handle>,
    pub(super) socket: Arc<ControlSocket>,
    pub(super) limits: ServerLimits,
    /// True once the server stops.
    pub(super) stopped: watch::Receiver<bool>,
}

/// Every path with its handlers and its part of the document.
fn documented() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(operations::routes())
        .merge(routers::routes())
        .merge(tunnels::routes())
        .merge(dial::routes())
        .merge(bans::routes())
}

/// The OpenAPI document of this version.
pub fn openapi() -> OpenApi {
    let mut document = documented().into_openapi();
    document.info.title = "tunnelhead control socket".to_owned();
    document.info.description = Some(
        "HTTP/1.1 + JSON on a local unix socket: reach, see and steer every router.".to_owned(),
    );
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document
}

/// What the permission check goes by.
#[derive(Clone)]
struct Gate {
    rights: Arc<Rights>,
    socket: Arc<ControlSocket>,
    path: Arc<str>,
}

/// Everything under one permission check.
pub(super) fn router(shared: Shared) -> Router {
    let (router, document) = documented().split_for_parts();
    let gate = Gate {
        rights: Arc::new(Rights::of(&document)),
        path: shared.socket.path().to_string_lossy().into(),
        socket: Arc::clone(&shared.socket),
    };
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(gate, guard))
        .with_state(shared)
}

/// Asks for permission before anything of the request is looked at.
async fn guard(
    State(gate): State<Gate>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let owner = Owner { uid: gate.socket.uid(), gid: gate.socket.gid() };
    let caller = permission::caller(&peer, owner, &gate.path).and_then(|caller| {
        gate.rights.check(&caller, request.method(), path)?;
        Ok(caller)
    });
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            tracing::warn!(uid = peer.uid, path, "refused a request on the control socket");
            error.into_response()
        }
    }
}

async fn unknown_path() -> Response {
    ApiError::new(ErrorCode::NotFound, "there is no such path; the paths begin with /v1/")
        .into_response()
}

async fn unknown_method() -> Response {
    ApiError::new(ErrorCode::MethodNotAllowed, "this path does not know the method").into_response()
}
