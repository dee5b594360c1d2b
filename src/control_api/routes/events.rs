//! `/v1/events`: server-sent events. Source of the format: WHATWG HTML, "Server-sent events".

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{json, query};
use crate::control_api::caller::Caller;
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::handle::EventSource;
use crate::control_api::types::{Event, EventDocument, EventFilter, EventGap, check_name};

/// Time without an event after which a comment shows that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Bytes of events that are put together before they are written.
const CHUNK_BYTES: usize = 16 * 1024;
/// The header with which browsers go on after a break.
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Which events are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// Only events after the one of this id: the `event_id` of a list, or the last id that was
    /// received. The header `Last-Event-ID` comes before it. Without either: from now on.
    after: Option<u64>,
    /// Only these kinds, comma-separated; `tunnel.` means every kind that begins so. May be given
    /// several times.
    kind: Option<String>,
    /// Only of the router of this NAME.
    router: Option<String>,
    /// Only of routers that have this tag now.
    tag: Option<String>,
    /// Only of routers of this tenant.
    tenant: Option<String>,
}

/// Events that are asked for are no longer held: read the lists again and go on from their
/// `event_id`, or go on after the end of the gap.
#[derive(Serialize, utoipa::ToSchema)]
struct EventsGone {
    #[serde(flatten)]
    error: ApiError,
    /// What is missing.
    gap: EventGap,
}

/// What happens, as server-sent events: `id`, `event` (the kind) and `data`, one JSON document.
///
/// An event of the kind `gap` with `{from, to, lost}` says that the reader was too slow and has
/// lost events: what follows is complete again, the lists have to be read anew. Every 15 seconds
/// without an event a comment is sent, with the id from which a later request would go on.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    extensions(("x-role" = json!("read")), ("x-class" = json!("stream"))),
    params(
        Parameters,
        ("Last-Event-ID" = Option<u64>, Header, description = "The last id that was received"),
    ),
    responses(
        (
            status = 200,
            description = "Events without an end.",
            content_type = "text/event-stream",
            body = EventDocument<'static>,
        ),
        (status = 410, description = "Not all events after that id are held.", body = EventsGone),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn events(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let (filter, after) = match wanted(&uri, &headers) {
        Ok(wanted) => wanted,
        Err(error) => return error.into_response(),
    };
    match shared.handle.follow(&caller.scope, filter, after) {
        Ok(source) => stream(source, shared.stopped.clone()),
        Err(gap) => {
            let message = format!(
                "{gap}; read the lists again and go on after their event_id, or after {}",
                gap.to
            );
            let error = ApiError::field(ErrorCode::EventsGone, "after", message);
            json(StatusCode::GONE, &EventsGone { error, gap })
        }
    }
}

/// What the request asks for.
fn wanted(uri: &Uri, headers: &HeaderMap) -> Result<(EventFilter, Option<u64>), ApiError> {
    let malformed =
        |field: &str, message: &str| Err(ApiError::field(ErrorCode::BadRequest, field, message));
    // A repeated parameter is an error for every other one.
    let all = uri.query().unwrap_or("").split('&');
    let (kinds, others): (Vec<&str>, Vec<&str>) = all.partition(|pair| pair.starts_with("kind="));
    let parameters = parse(&others.join("&"))?;
    let mut filter = EventFilter {
        kinds: Vec::new(),
        router: parameters.router,
        tag: parameters.tag,
        tenant: parameters.tenant,
    };
    for pair in kinds {
        let list = parse(pair)?.kind.unwrap_or_default();
        if filter.add_kinds(&list).is_err() {
            return malformed(
                "kind",
                "no event has this kind; kinds are such as \"tunnel.up\", or \"tunnel.\" for all \
                 that begin so",
            );
        }
    }
    if filter.router.as_deref().is_some_and(|name| check_name(name).is_err()) {
        return malformed("router", "this can not be the name of a router");
    }
    let after = match headers.get(LAST_EVENT_ID) {
        None => parameters.after,
        Some(value) => match value.to_str().ok().and_then(|text| text.parse().ok()) {
            Some(id) => Some(id),
            None => return malformed("Last-Event-ID", "an event id is a number"),
        },
    };
    Ok((filter, after))
}

fn parse(pairs: &str) -> Result<Parameters, ApiError> {
    let uri = format!("/?{pairs}").parse();
    let uri = uri.map_err(|_| {
        ApiError::new(ErrorCode::BadRequest, "the parameters after \"?\" are malformed")
    })?;
    query(&uri)
}

/// The answer without an end.
fn stream(source: Box<dyn EventSource>, stopped: watch::Receiver<bool>) -> Response {
    let writer = Writer { source, stopped, heartbeat: HEARTBEAT, begun: false };
    let chunks = futures_util::stream::unfold(writer, |mut writer| async {
        let chunk = writer.chunk().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), writer))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

/// Writes events; asked for the next piece only when the last one was taken.
struct Writer {
    source: Box<dyn EventSource>,
    stopped: watch::Receiver<bool>,
    heartbeat: Duration,
    begun: bool,
}

impl Writer {
    async fn chunk(&mut self) -> Option<String> {
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            // The client knows where it stands before anything has happened.
            write_comment(&mut text, "following", self.source.position());
            return Some(text);
        }
        let next = tokio::select! {
            biased;
            // An error means that the server is gone, which is a stop too.
            _ = self.stopped.wait_for(|stopped| *stopped) => return None,
            next = tokio::time::timeout(self.heartbeat, self.source.next()) => next,
        };
        match next {
            Ok(item) => write_item(&mut text, item?),
            Err(_) => write_comment(&mut text, "heartbeat", self.source.position()),
        }
        while text.len() < CHUNK_BYTES
            && let Some(Some(item)) = self.source.next().now_or_never()
        {
            write_item(&mut text, item);
        }
        Some(text)
    }
}

fn write_item(text: &mut String, item: Result<Arc<Event>, EventGap>) {
    match item {
        Ok(event) => write_event(text, event.id, event.what.kind(), &*event),
        Err(gap) => write_event(text, gap.to, "gap", &gap),
    }
}

fn write_event(text: &mut String, id: u64, kind: &str, data: &impl Serialize) {
    // JSON has no line breaks outside of strings, and inside they are escaped.
    match serde_json::to_string(data) {
        Ok(data) => {
            // Writing to a String can't fail.
            let _ = write!(text, "id: {id}\nevent: {kind}\ndata: {data}\n\n");
        }
        Err(error) => tracing::error!(%error, "an event cannot be written as JSON"),
    }
}

/// Moves the client's last id on without an event.
fn write_comment(text: &mut String, what: &str, position: u64) {
    // Writing to a String can't fail.
    let _ = write!(text, ": {what}\nid: {position}\n\n");
}

#[cfg(test)]
mod tests;
