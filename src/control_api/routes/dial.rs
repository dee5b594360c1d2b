//! `/v1/tunnels/{name}/dial`: the HTTP connection becomes a TCP connection to a router.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{NamePath, known, query, timed};
use crate::control_api::caller::Caller;
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::handle::{Dialled, Traffic};
use crate::control_api::relay::{End, relay};
use crate::control_api::stall::Stall;
use crate::control_api::types::{DialQuery, DialTo};
use crate::telemetry::clock;

/// What the connection is upgraded to.
const PROTOCOL: &str = "tcp";
/// For the client to take the 101.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(dial, dial_by_post))
}

/// Connects to a port of a router.
///
/// Send `Connection: Upgrade` and `Upgrade: tcp`. After the 101 both directions are the bytes of a
/// TCP connection from the management address to the router, each half closing on its own. It is
/// bound to the session that the router has now, and is cut with it.
#[utoipa::path(
    get,
    path = "/v1/tunnels/{name}/dial",
    tag = "tunnels",
    extensions(("x-role" = json!("operate")), ("x-class" = json!("dial"))),
    params(("name" = String, Path, description = "NAME of the router"), DialQuery),
    responses(
        (status = 101, description = "Connected; raw bytes follow."),
        (status = "default", description = "A refusal; there is no connection.", body = ApiError),
    ),
)]
async fn dial(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    name: NamePath,
    request: Request,
) -> Response {
    open(shared, caller, name, request).await
}

/// The same, for clients that upgrade only with POST.
#[utoipa::path(
    post,
    path = "/v1/tunnels/{name}/dial",
    tag = "tunnels",
    extensions(("x-role" = json!("operate")), ("x-class" = json!("dial"))),
    params(("name" = String, Path, description = "NAME of the router"), DialQuery),
    responses(
        (status = 101, description = "Connected; raw bytes follow."),
        (status = "default", description = "A refusal; there is no connection.", body = ApiError),
    ),
)]
async fn dial_by_post(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    name: NamePath,
    request: Request,
) -> Response {
    open(shared, caller, name, request).await
}

async fn open(shared: Shared, caller: Caller, name: NamePath, mut request: Request) -> Response {
    let asked = || {
        let name = known(name, ApiError::tunnel_not_found)?;
        let to = query::<DialQuery>(request.uri())?.check()?;
        wants_upgrade(request.method(), request.headers())?;
        Ok((name, to))
    };
    let (name, to) = match asked() {
        Ok(asked) => asked,
        Err(error) => return ApiError::into_response(error),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    match timed(&shared, shared.handle.dial(&caller.scope, &name, to)).await {
        Ok(dialled) => {
            tracing::info!(
                router = name,
                port = to.port,
                uid = caller.uid,
                generation = dialled.generation,
                "dial opened"
            );
            tokio::spawn(carry(shared, caller, name, to, dialled, upgrade));
            let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
            (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Carries the bytes, and says how it went.
async fn carry(
    shared: Shared,
    caller: Caller,
    name: String,
    to: DialTo,
    dialled: Dialled,
    upgrade: OnUpgrade,
) {
    let begin = clock::now();
    let Dialled { connection, generation, session_end, traffic } = dialled;
    let mut stopped = shared.stopped;
    let cut = async move {
        tokio::select! {
            reason = session_end => reason,
            // An error means that the server is gone, which is a stop too.
            _ = stopped.wait_for(|stop| *stop) => "stopping",
        }
    };
    let end = match upgraded(upgrade).await {
        Some((client, early)) => relay(client, &early, connection, cut).await,
        None => End::ClientGone,
    };
    let seconds = clock::now().saturating_duration_since(begin).as_secs();
    let Traffic { .. } = *traffic;
    tracing::info!(
        router = name,
        port = to.port,
        uid = caller.uid,
        generation,
        seconds,
        from_router = traffic.from_router(),
        to_router = traffic.to_router(),
        end = end.code(),
        "dial ended"
    );
}

/// The raw connection, with what the client has sent behind its request.
async fn upgraded(upgrade: OnUpgrade) -> Option<(UnixStream, Vec<u8>)> {
    let upgraded: Upgraded = tokio::time::timeout(UPGRADE_PATIENCE, upgrade).await.ok()?.ok()?;
    // Below is the very stream that was accepted: a slow reader must not be cut for being slow.
    let parts = upgraded.downcast::<TokioIo<Stall<UnixStream>>>().ok()?;
    Some((parts.io.into_inner().into_inner(), parts.read_buf.to_vec()))
}

/// Nobody gets raw bytes who has not asked for them.
fn wants_upgrade(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let names = |header, wanted: &str| {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
    };
    let upgrades = names(header::CONNECTION, "upgrade") && names(header::UPGRADE, PROTOCOL);
    if !upgrades || !matches!(*method, Method::GET | Method::POST) {
        return Err(ApiError::new(
            ErrorCode::UpgradeRequired,
            "send \"Connection: Upgrade\" and \"Upgrade: tcp\"; the answer is a raw connection",
        ));
    }
    let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if length || headers.contains_key(header::TRANSFER_ENCODING) {
        let what = "a request for an upgrade has no body; send the bytes after the 101";
        return Err(ApiError::new(ErrorCode::BadRequest, what));
    }
    Ok(())
}
