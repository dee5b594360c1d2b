//! `/v1/tunnels/{name}/dial`: the HTTP connection becomes a TCP connection to a router.

use std::collections::BTreeMap;
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
use super::record::{self, AuditDetail};
use crate::audit::{Action, Who};
use crate::control_api::caller::Caller;
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::handle::Dialled;
use crate::control_api::relay::{End, relay};
use crate::control_api::server::Connection;
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
    let who = request
        .extensions()
        .get::<Connection>()
        .map(|connection| record::who(&connection.peer, &connection.door, request.headers()));
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
            let detail = AuditDetail(BTreeMap::from([(
                "generation".to_owned(),
                dialled.generation.to_string(),
            )]));
            let ending = Ending { who: who.unwrap_or_default(), name, to };
            tokio::spawn(carry(shared, ending, dialled, upgrade));
            let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
            let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
            response.extensions_mut().insert(detail);
            response
        }
        Err(error) => error.into_response(),
    }
}

/// What is known of a dial when it ends.
struct Ending {
    who: Who,
    name: String,
    to: DialTo,
}

/// Carries the bytes, and says how it went.
async fn carry(shared: Shared, ending: Ending, dialled: Dialled, upgrade: OnUpgrade) {
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
    let Ending { who, name, to } = ending;
    let (rx_bytes, tx_bytes) = (traffic.from_router(), traffic.to_router());
    let end = end.code();
    tracing::info!(
        router = name,
        port = to.port,
        uid = who.uid,
        generation,
        seconds,
        rx_bytes,
        tx_bytes,
        end,
        "dial ended"
    );
    let detail = [
        ("port", to.port.to_string()),
        ("generation", generation.to_string()),
        ("seconds", seconds.to_string()),
        ("rx_bytes", rx_bytes.to_string()),
        ("tx_bytes", tx_bytes.to_string()),
        ("end", end.to_owned()),
    ];
    let action = Action {
        what: "dial.ended".to_owned(),
        router: Some(name),
        detail: detail.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Action::default()
    };
    shared.handle.note_audit(who, action);
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
