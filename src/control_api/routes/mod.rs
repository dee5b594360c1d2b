//! The paths under `/v1/` and what stands before all of them.
//!
//! Every handler carries its own piece of the OpenAPI document, and registers path, method and
//! handler in one place, so that nothing undocumented can be reached. The extension `x-role` of an
//! operation is the one source of who may use it.

mod audit;
mod bans;
mod body;
mod dial;
mod events;
mod history;
mod logins;
mod observation;
mod operations;
mod record;
mod rights;
mod routers;
mod store;
mod transfer;
mod tunnels;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tokio::sync::watch;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::caller::{Caller, Scope};
use super::error::{ApiError, ErrorCode};
use super::handle::Handle;
use super::permission::{self, Rules};
use super::seats::Class;
use super::server::{Connection, ServerLimits};
use crate::telemetry::clock;
use record::Pending;
use rights::Rights;

/// What every request may use.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) handle: Arc<dyn Handle>,
    pub(super) rules: Arc<Rules>,
    pub(super) limits: ServerLimits,
    /// True once the server stops: answers without an end end then.
    pub(super) stopped: watch::Receiver<bool>,
}

/// Every path with its handlers and its part of the document.
fn documented() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(audit::routes())
        .merge(operations::routes())
        .merge(observation::routes())
        .merge(routers::routes())
        .merge(history::routes())
        .merge(store::routes())
        .merge(transfer::routes())
        .merge(tunnels::routes())
        .merge(dial::routes())
        .merge(bans::routes())
        .merge(events::routes())
        .merge(logins::routes())
}

/// The OpenAPI document of this version.
pub fn openapi() -> OpenApi {
    let mut document = documented().into_openapi();
    document.info.title = "tunnelhead control socket".to_owned();
    document.info.description = Some(
        "HTTP/1.1 + JSON on a local unix socket: reach, see and steer every router.".to_owned(),
    );
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    // The contact that is put in by itself is that of the library.
    document.info.contact = None;
    document
}

/// What the permission check goes by.
#[derive(Clone)]
struct Gate {
    rights: Arc<Rights>,
    rules: Arc<Rules>,
    handle: Arc<dyn Handle>,
}

/// Everything under one permission check, and every change in the audit trail.
pub(super) fn router(shared: Shared) -> Router {
    let (router, document) = documented().split_for_parts();
    let gate = Gate {
        rights: Arc::new(Rights::of(&document)),
        rules: Arc::clone(&shared.rules),
        handle: Arc::clone(&shared.handle),
    };
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(gate, guard))
        .with_state(shared)
}

/// Asks for permission before anything of the request is looked at, and remembers who did what.
async fn guard(
    State(gate): State<Gate>,
    Extension(connection): Extension<Connection>,
    mut request: Request,
    next: Next,
) -> Response {
    let Connection { peer, door, seat } = connection;
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    let method = request.method();
    let needs = gate.rights.needed(method, path);
    let class = needs.map_or(Class::Request, |needs| needs.class);
    let change = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let who = record::who(&peer, &door, request.headers());
    let actor = who.actor.clone();
    let always = change || class == Class::Dial;
    let handle = Arc::clone(&gate.handle);
    let mut pending = Pending::new(handle, who, method, path, request.uri(), always);
    let caller = permission::caller(&peer, &door, &gate.rules)
        .and_then(|caller| needs.map_or(Ok(()), |needs| needs.check(&caller)).map(|()| caller));
    let response = match caller {
        Ok(caller) => match seat.serve(class, clock::now()) {
            Some(_serving) => {
                if caller.scope != Scope::All {
                    pending.bind();
                }
                request.extensions_mut().insert(Caller { actor, ..caller });
                record::with_body(next.run(request)).await
            }
            None => {
                let message = "too many connections of this kind are open; close some";
                ApiError::new(ErrorCode::Busy, message).into_response()
            }
        },
        Err(error) => {
            tracing::warn!(uid = peer.uid, path, "refused a request on the control socket");
            error.into_response()
        }
    };
    pending.answered(&response);
    response
}

async fn unknown_path() -> Response {
    ApiError::new(ErrorCode::NotFound, "there is no such path; the paths begin with /v1/")
        .into_response()
}

async fn unknown_method() -> Response {
    ApiError::new(ErrorCode::MethodNotAllowed, "this path does not know the method").into_response()
}
