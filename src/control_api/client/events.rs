//! `/v1/events`.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::{Client, ClientError, MAX_ANSWER_BYTES, PATIENCE};
use crate::control_api::types::{EventFilter, EventGap, EventRecord};

/// Without a heartbeat for so long the concentrator is taken for dead; it sends one every 15 s.
const SILENCE: Duration = Duration::from_secs(50);
/// Longest event that is read.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

impl Client {
    /// `GET /v1/events`
    ///
    /// # Errors
    /// [`ClientError::EventsGone`] if not all events after that id are held; see [`ClientError`].
    pub async fn follow(
        &self,
        filter: &EventFilter,
        after: Option<u64>,
    ) -> Result<Following, ClientError> {
        let opening = self.open_events(filter, after);
        match tokio::time::timeout(PATIENCE, opening).await {
            Ok(result) => result,
            Err(_) => Err(self.broken(&"it took too long")),
        }
    }

    async fn open_events(
        &self,
        filter: &EventFilter,
        after: Option<u64>,
    ) -> Result<Following, ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|e| self.not_connected(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        let driver = Driver(tokio::spawn(async {
            // What breaks here breaks the body, and is told there.
            let _ = connection.await;
        }));
        let request = Request::get(path(filter, after))
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, "text/event-stream")
            .body(Empty::<Bytes>::new())
            .map_err(|e| self.broken(&e))?;
        let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
        let status = response.status();
        if !status.is_success() {
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let bytes = body.map_err(|e| self.broken(&e))?.to_bytes();
            return match serde_json::from_slice::<Gone>(&bytes) {
                Ok(Gone { gap }) => Err(ClientError::EventsGone(gap)),
                Err(_) => Err(self.refused(status, &bytes)),
            };
        }
        Ok(Following {
            client: self.clone(),
            body: response.into_body(),
            parser: Parser::default(),
            _driver: driver,
        })
    }
}

/// What a refusal with a gap holds beside the refusal.
#[derive(Deserialize)]
struct Gone {
    gap: EventGap,
}

/// The path with its parameters; whatever could have a meaning of its own is escaped.
fn path(filter: &EventFilter, after: Option<u64>) -> String {
    let mut pairs = Vec::new();
    if let Some(after) = after {
        pairs.push(format!("after={after}"));
    }
    for (key, value) in [
        ("kind", Some(filter.kinds.join(","))),
        ("router", filter.router.clone()),
        ("tag", filter.tag.clone()),
        ("tenant", filter.tenant.clone()),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            pairs.push(format!("{key}={}", escaped(&value)));
        }
    }
    let query = pairs.join("&");
    if query.is_empty() { "/v1/events".to_owned() } else { format!("/v1/events?{query}") }
}

fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~,".contains(byte);
    let mut out = String::new();
    for byte in text.bytes() {
        if plain(&byte) {
            out.push(char::from(byte))
        } else {
            out.push_str(&format!("%{byte:02X}"))
        }
    }
    out
}

/// Ends the connection when dropped.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a stream of events tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Something happened.
    Event(EventRecord),
    /// We were too slow; what follows is complete again.
    Gap(EventGap),
}

/// Events as they happen.
pub struct Following {
    client: Client,
    body: Incoming,
    parser: Parser,
    _driver: Driver,
}

impl Following {
    /// Waits for the next event; `None`: the concentrator has ended the stream.
    ///
    /// # Errors
    /// The connection broke, or what comes is not what we understand; follow anew after
    /// [`Self::position`].
    pub async fn next(&mut self) -> Result<Option<Told>, ClientError> {
        loop {
            while let Some(block) = self.parser.block() {
                let told = told(&block).map_err(|e| self.client.broken(&e))?;
                if told.is_some() {
                    return Ok(told);
                }
            }
            match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Err(_) => return Err(self.client.broken(&"it has gone silent")),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(self.client.broken(&error)),
                Ok(Some(Ok(frame))) => {
                    if let Some(bytes) = frame.data_ref()
                        && self.parser.feed(bytes).is_err()
                    {
                        return Err(self.client.broken(&"an event is too long"));
                    }
                }
            }
        }
    }

    /// Where a later stream goes on; `None`: nothing was heard yet.
    pub fn position(&self) -> Option<u64> {
        self.parser.last_id
    }
}

fn told(block: &Block) -> Result<Option<Told>, serde_json::Error> {
    if block.data.is_empty() {
        return Ok(None);
    }
    if block.event == "gap" {
        return serde_json::from_str(&block.data).map(Told::Gap).map(Some);
    }
    serde_json::from_str(&block.data).map(Told::Event).map(Some)
}

/// The format of server-sent events, as far as we send it: lines end in "\n".
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
    /// What was taken from the front of `buffer`.
    taken: usize,
    last_id: Option<u64>,
}

/// What stood between two empty lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    event: String,
    data: String,
}

/// Nobody ends this event.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > MAX_EVENT_BYTES { Err(TooLong) } else { Ok(()) }
    }

    /// The next whole block.
    fn block(&mut self) -> Option<Block> {
        let rest = self.buffer.get(self.taken..)?;
        let length = rest.windows(2).position(|pair| pair == b"\n\n")?;
        let text = String::from_utf8_lossy(rest.get(..length)?).into_owned();
        self.taken += length + 2;
        let mut block = Block::default();
        for line in text.lines() {
            // A line that starts with a colon is a comment.
            let Some((field, value)) = line.split_once(':').filter(|(field, _)| !field.is_empty())
            else {
                continue;
            };
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.last_id = value.parse().ok().or(self.last_id),
                "event" => value.clone_into(&mut block.event),
                "data" => {
                    if !block.data.is_empty() {
                        block.data.push('\n');
                    }
                    block.data.push_str(value);
                }
                _ => {}
            }
        }
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = ": following\nid: 5\n\nid: 6\nevent: tunnel.up\ndata: {\"id\":6}\n\n\
        : heartbeat\nid: 9\n\nevent: gap\nid: 12\ndata: {\ndata: }\n\n";

    fn blocks(parser: &mut Parser) -> Vec<Block> {
        std::iter::from_fn(|| parser.block()).collect()
    }

    #[test]
    fn comments_move_the_id_and_data_may_have_lines() {
        let mut parser = Parser::default();
        parser.feed(TEXT.as_bytes()).unwrap();
        let blocks = blocks(&mut parser);
        assert_eq!(parser.last_id, Some(12));
        assert_eq!(blocks.len(), 4);
        assert_eq!(
            (blocks[1].event.as_str(), blocks[1].data.as_str()),
            ("tunnel.up", "{\"id\":6}")
        );
        assert_eq!((blocks[3].event.as_str(), blocks[3].data.as_str()), ("gap", "{\n}"));
        assert!(told(&blocks[0]).unwrap().is_none());
        assert!(told(&blocks[1]).is_err(), "not an event");
    }

    #[test]
    fn what_never_ends_is_refused() {
        let mut parser = Parser::default();
        parser.feed(&vec![b'x'; MAX_EVENT_BYTES]).unwrap();
        assert_eq!(parser.block(), None);
        assert_eq!(parser.feed(b"x"), Err(TooLong));
    }

    #[test]
    fn paths_escape_what_has_a_meaning() {
        let mut filter = EventFilter::default();
        assert_eq!(path(&filter, None), "/v1/events");
        filter.add_kinds("tunnel.,login.failed").unwrap();
        filter.tag = Some("site=a&b %\n".to_owned());
        assert_eq!(
            path(&filter, Some(7)),
            "/v1/events?after=7&kind=tunnel.,login.failed&tag=site%3Da%26b%20%25%0A"
        );
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(cuts in prop::collection::vec(1usize..20, 0..60)) {
            let mut whole = Parser::default();
            whole.feed(TEXT.as_bytes()).unwrap();
            let expected = blocks(&mut whole);
            let mut parser = Parser::default();
            let (mut got, mut rest) = (Vec::new(), TEXT.as_bytes());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                parser.feed(now).unwrap();
                got.extend(blocks(&mut parser));
                rest = later;
            }
            parser.feed(rest).unwrap();
            got.extend(blocks(&mut parser));
            prop_assert_eq!(got, expected);
            prop_assert_eq!(parser.last_id, whole.last_id);
        }
    }
}
