//! A login as it went over the wire, without anything secret: JSON lines that tests can replay.
//!
//! ```text
//! {"capture":1,"id":7,...}                       the attempt: source, client's texts, outcome
//! {"at_ms":0,"step":"accepted"}                  one line a step
//! {"at_ms":3,"from":"client","opcode":7,...}     one line a frame: size and numbers, no payload
//! {"hello":"160301..."}                          the ClientHello, hexadecimal
//! ```
//! A ClientHello holds no secret: it crosses the network in the clear. Everything after it (keys,
//! TLS plaintext, the randoms of the key exchange, the password) is never kept in the first place.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::frames::{Direction, Frame};
use super::record::Record;

/// What crossed the wire in one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The control channel is wrapped: only the outside of packets was read.
    pub wrapped: bool,
    /// The client's session id.
    pub client_session: Option<[u8; 8]>,
    /// Ours.
    pub server_session: Option<[u8; 8]>,
    /// Frames in both directions, in order.
    pub frames: Vec<Frame>,
    /// Frames beyond the bound.
    pub frames_left_out: u32,
    /// The client's first TLS bytes, up to the end of its ClientHello.
    pub hello: Vec<u8>,
}

impl Trace {
    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.frames.capacity() * size_of::<Frame>() + self.hello.capacity()
    }
}

/// The first line of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the format: 1.
    pub capture: u32,
    /// The connection's number.
    pub id: u64,
    /// When it was accepted, milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// The router's real address.
    pub source: String,
    /// Index of the listener.
    pub listener: usize,
    /// True: only the outside of packets could be read.
    pub wrapped: bool,
    /// The client's session id, hexadecimal.
    pub client_session: Option<String>,
    /// Ours.
    pub server_session: Option<String>,
    /// User name as sent, escaped.
    pub username: Option<String>,
    /// The client's options string.
    pub options: Option<String>,
    /// The client's peer info.
    pub peer_info: Option<String>,
    /// TLS version and suite, once agreed.
    pub tls: Option<String>,
    /// How it stands: `logged_in`, `up` or `failed`.
    pub outcome: String,
    /// Stable name of the reason of a failure.
    pub reason: Option<String>,
    /// Frames beyond the bound, which are not listed.
    pub frames_left_out: u32,
}

/// Any other line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A step of the login.
    Step {
        /// Milliseconds since accept.
        at_ms: u32,
        /// Its name.
        step: String,
    },
    /// A frame.
    Frame {
        /// Milliseconds since accept.
        at_ms: u32,
        /// `client` or `server`.
        from: String,
        /// Opcode.
        opcode: u8,
        /// Key id.
        key_id: u8,
        /// Length without the length field.
        size: u16,
        /// Message id.
        message_id: Option<u32>,
        /// Number of acknowledgements.
        acks: u8,
        /// Bytes of the TLS stream.
        payload: u16,
    },
    /// The ClientHello with its record headers.
    Hello {
        /// Hexadecimal.
        hello: String,
    },
}

/// A capture that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Its first line.
    pub head: Head,
    /// The frames, in order.
    pub frames: Vec<Frame>,
    /// The ClientHello with its record headers.
    pub hello: Vec<u8>,
}

/// A text that is no capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is not a line of a capture")]
pub struct NotACapture(
    /// The line, from 1.
    pub usize,
);

/// Writes a capture.
pub fn write(record: &Record, trace: &Trace) -> String {
    let head = Head {
        capture: 1,
        id: record.id,
        started_ms: record.started_ms,
        source: record.source.to_string(),
        listener: record.listener,
        wrapped: trace.wrapped,
        client_session: trace.client_session.map(|id| hex(&id)),
        server_session: trace.server_session.map(|id| hex(&id)),
        username: record.username.as_deref().map(|name| name.escape_ascii().to_string()),
        options: record.options.as_deref().map(str::to_owned),
        peer_info: record.peer_info.as_deref().map(str::to_owned),
        tls: record.tls.as_ref().map(|(version, suite)| format!("{version} {suite}")),
        outcome: record.outcome.code().to_owned(),
        reason: record.outcome.reason().map(str::to_owned),
        frames_left_out: trace.frames_left_out,
    };
    let steps = record
        .marks
        .iter()
        .map(|mark| Line::Step { at_ms: mark.at_ms, step: mark.step.code().to_owned() });
    let frames = trace.frames.iter().map(|frame| Line::Frame {
        at_ms: frame.at_ms,
        from: match frame.from {
            Direction::Client => "client".to_owned(),
            Direction::Server => "server".to_owned(),
        },
        opcode: frame.opcode,
        key_id: frame.key_id,
        size: frame.size,
        message_id: frame.message_id,
        acks: frame.acks,
        payload: frame.payload,
    });
    let hello = (!trace.hello.is_empty()).then(|| Line::Hello { hello: hex(&trace.hello) });
    let mut text = String::new();
    // Plain data: writing it as JSON can't fail.
    let _ = writeln!(text, "{}", serde_json::to_string(&head).unwrap_or_default());
    for line in steps.chain(frames).chain(hello) {
        let _ = writeln!(text, "{}", serde_json::to_string(&line).unwrap_or_default());
    }
    text
}

/// Reads a capture.
///
/// # Errors
/// [`NotACapture`] names the first line that is none.
pub fn read(text: &str) -> Result<Capture, NotACapture> {
    let mut lines = text.lines().enumerate();
    let head: Head = lines
        .next()
        .and_then(|(_, line)| serde_json::from_str(line).ok())
        .filter(|head: &Head| head.capture == 1)
        .ok_or(NotACapture(1))?;
    let mut capture = Capture { head, frames: Vec::new(), hello: Vec::new() };
    for (index, line) in lines {
        let wrong = NotACapture(index + 1);
        match serde_json::from_str(line).map_err(|_| wrong)? {
            Line::Step { .. } => {}
            Line::Frame { at_ms, from, opcode, key_id, size, message_id, acks, payload } => {
                let from = match from.as_str() {
                    "client" => Direction::Client,
                    "server" => Direction::Server,
                    _ => return Err(wrong),
                };
                let frame = Frame { at_ms, from, opcode, key_id, size, message_id, acks, payload };
                capture.frames.push(frame);
            }
            Line::Hello { hello } => capture.hello = bytes(&hello).ok_or(wrong)?,
        }
    }
    Ok(capture)
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()
        .filter(|_| text.len().is_multiple_of(2))
}
