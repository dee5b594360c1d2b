//! What is asked for, and what goes over the wire.

use std::collections::VecDeque;

use axum::http::HeaderValue;

use super::*;
use crate::control_api::handle::NextEvent;
use crate::control_api::types::{Moment, TunnelEvent};
use crate::telemetry::clock;

/// The heartbeat of these tests.
const BEAT: Duration = Duration::from_millis(20);

/// Gives what it has been given, then nothing for ever.
struct Script {
    items: VecDeque<Result<Arc<Event>, EventGap>>,
    position: u64,
    ends: bool,
}

impl EventSource for Script {
    fn next(&mut self) -> NextEvent<'_> {
        Box::pin(async {
            match self.items.pop_front() {
                None if self.ends => None,
                None => std::future::pending().await,
                Some(item) => {
                    self.position = match &item {
                        Ok(event) => event.id,
                        Err(gap) => gap.to,
                    };
                    Some(item)
                }
            }
        })
    }

    fn position(&self) -> u64 {
        self.position
    }
}

fn event(id: u64) -> Result<Arc<Event>, EventGap> {
    let what = TunnelEvent::RouterAdded { router: "a".into() };
    Ok(Arc::new(Event { id, at: Moment(0), tenant: None, what }))
}

fn writer(items: Vec<Result<Arc<Event>, EventGap>>, ends: bool) -> (Writer, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let source = Box::new(Script { items: items.into(), position: 5, ends });
    (Writer { source, stopped, heartbeat: BEAT, begun: false }, stop)
}

#[tokio::test]
async fn events_and_gaps_are_written_as_server_sent_events() {
    let gap = EventGap { from: 8, to: 20, lost: Some(13) };
    let (mut writer, _stop) = writer(vec![event(6), event(7), Err(gap), event(21)], true);
    assert_eq!(writer.chunk().await.unwrap(), ": following\nid: 5\n\n");
    let document = |id: u64| {
        format!(
            "id: {id}\nevent: router.added\ndata: {{\"id\":{id},\"at\":\"1970-01-01T00:00:00.000Z\",\
             \"router\":\"a\",\"kind\":\"router.added\"}}\n\n"
        )
    };
    let gap = "id: 20\nevent: gap\ndata: {\"from\":8,\"to\":20,\"lost\":13}\n\n";
    assert_eq!(
        writer.chunk().await.unwrap(),
        [document(6), document(7), gap.to_owned(), document(21)].concat()
    );
    assert_eq!(writer.chunk().await, None);
}

#[tokio::test]
async fn a_storm_is_written_in_bounded_pieces() {
    let (mut writer, _stop) = writer((6..1006).map(event).collect(), true);
    let mut chunks = Vec::new();
    while let Some(chunk) = writer.chunk().await {
        assert!(chunk.len() < CHUNK_BYTES + 1024);
        chunks.push(chunk);
    }
    assert!(chunks.len() > 5);
    assert_eq!(chunks.concat().matches("event: router.added\n").count(), 1000);
}

#[tokio::test]
async fn silence_is_broken_by_a_heartbeat_that_moves_the_position() {
    assert_eq!(HEARTBEAT, Duration::from_secs(15));
    let (mut writer, stop) = writer(vec![event(6)], false);
    writer.chunk().await.unwrap();
    assert!(writer.chunk().await.unwrap().starts_with("id: 6\n"));
    let start = clock::now();
    for beat in 1..=5 {
        assert_eq!(writer.chunk().await.unwrap(), ": heartbeat\nid: 6\n\n");
        assert!(start.elapsed() >= BEAT * beat);
    }
    stop.send(true).unwrap();
    assert_eq!(writer.chunk().await, None, "the server stops");
}

#[test]
fn parameters_say_what_is_wanted() {
    let ask = |query: &str, header: Option<&str>| {
        let uri = format!("/v1/events{query}").parse().unwrap();
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(LAST_EVENT_ID, HeaderValue::from_str(value).unwrap());
        }
        wanted(&uri, &headers)
    };
    assert_eq!(ask("", None), Ok((EventFilter::default(), None)));
    assert_eq!(ask("?", Some("7")).unwrap().1, Some(7));
    assert_eq!(ask("?after=5", None).unwrap().1, Some(5));
    assert_eq!(ask("?after=5", Some("7")).unwrap().1, Some(7), "a browser that goes on");
    let (filter, _) =
        ask("?kind=tunnel.&router=a&kind=ban.set%2Creloaded&tag=site%3Da&tenant=t", None).unwrap();
    assert_eq!(filter.kinds, ["tunnel.", "ban.set", "reloaded"]);
    assert_eq!(filter.router.as_deref(), Some("a"));
    assert_eq!((filter.tag.as_deref(), filter.tenant.as_deref()), (Some("site=a"), Some("t")));
    for (query, header, field) in [
        ("?after=", None, Some("after")),
        ("?after=-1", None, Some("after")),
        ("?after=x", None, Some("after")),
        ("?after=1.5", None, Some("after")),
        ("?after=18446744073709551616", None, Some("after")),
        ("?after=1&after=2", None, Some("after")),
        ("?since=1", None, Some("since")),
        ("?kind=", None, Some("kind")),
        ("?kind=tunnel", None, Some("kind")),
        ("?kind=tunnel.up&kind=nonsense", None, Some("kind")),
        ("?router=", None, Some("router")),
        ("?router=../a", None, Some("router")),
        ("?router=A", None, Some("router")),
        ("", Some(""), Some("Last-Event-ID")),
        ("", Some("abc"), Some("Last-Event-ID")),
    ] {
        let error = ask(query, header).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest, "{query} {header:?}");
        assert_eq!(error.field.as_deref(), field, "{query} {header:?}");
    }
}
