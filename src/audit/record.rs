//! One thing that somebody did, and its canonical line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Longest claimed actor, in bytes.
pub const MAX_ACTOR_BYTES: usize = 128;
/// Most details of a record.
pub const MAX_DETAILS: usize = 32;
/// Longest text in a record: a detail, a name that was asked for.
pub const MAX_DETAIL_BYTES: usize = 256;

/// Who did it, as the kernel knows it; nothing of it for what the concentrator did by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// User id of the peer when it connected.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
    /// Process id; it may belong to somebody else by now.
    pub pid: Option<i32>,
    /// Path of the socket it came through.
    pub socket: Option<String>,
    /// What it claims to be (`X-Actor`); nobody has checked that.
    pub actor: Option<String>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Method and path template, as in "PATCH /v1/routers/{name}", or a word of ours such as
    /// "audit.lost".
    pub what: String,
    /// The router that is named in it.
    pub router: Option<String>,
    /// Names of the fields that were sent.
    pub fields: Vec<String>,
    /// More, never a secret.
    pub detail: BTreeMap<String, String>,
    /// HTTP status of the answer; None: nobody waited for it.
    pub status: Option<u16>,
    /// Code of the refusal.
    pub code: Option<String>,
}

/// One record of the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number; rises by one.
    pub seq: u64,
    /// Seconds since 1970-01-01 UTC.
    pub at: u64,
    /// Who.
    pub who: Who,
    /// What, with its result.
    pub action: Action,
}

impl Record {
    /// The action of a record that says, at a start, that the trail is not as it was left.
    pub const GAP: &str = "audit.gap";
    /// The action of a record that says how many could not be kept.
    pub const LOST: &str = "audit.lost";

    /// The line that is tied into the chain: JSON in printable ASCII, its keys in this order, and
    /// every text bounded.
    pub fn line(&self) -> String {
        let (who, action) = (&self.who, &self.action);
        let text =
            |text: &Option<String>| text.as_deref().map(|text| bounded(text, MAX_DETAIL_BYTES));
        let line = Line {
            seq: self.seq,
            at: self.at,
            uid: who.uid,
            gid: who.gid,
            pid: who.pid,
            socket: text(&who.socket),
            actor: who.actor.as_deref().map(|actor| bounded(actor, MAX_ACTOR_BYTES)),
            action: bounded(&action.what, MAX_DETAIL_BYTES),
            router: text(&action.router),
            fields: action.fields.iter().take(MAX_DETAILS).map(|name| bounded(name, 64)).collect(),
            detail: action
                .detail
                .iter()
                .take(MAX_DETAILS)
                .map(|(key, value)| (bounded(key, 64), bounded(value, MAX_DETAIL_BYTES)))
                .collect(),
            status: action.status,
            code: text(&action.code),
        };
        // Texts and numbers: nothing in it can fail to be written.
        ascii(&serde_json::to_string(&line).unwrap_or_default())
    }
}

/// Reads a line back; None: it is not one of ours.
pub fn read_line(line: &str) -> Option<Record> {
    let line: Line = serde_json::from_str(line).ok()?;
    Some(Record {
        seq: line.seq,
        at: line.at,
        who: Who {
            uid: line.uid,
            gid: line.gid,
            pid: line.pid,
            socket: line.socket,
            actor: line.actor,
        },
        action: Action {
            what: line.action,
            router: line.router,
            fields: line.fields,
            detail: line.detail,
            status: line.status,
            code: line.code,
        },
    })
}

/// The beginning of a text, at most `most` bytes, cut between characters.
pub fn bounded(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// JSON text with every character that is not printable ASCII as `\uXXXX`: one line in every
/// viewer, and the same bytes whatever handles it.
pub(super) fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if c == ' ' || c.is_ascii_graphic() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// The order of the keys is part of the format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    at: u64,
    uid: Option<u32>,
    gid: Option<u32>,
    pid: Option<i32>,
    socket: Option<String>,
    actor: Option<String>,
    action: String,
    router: Option<String>,
    fields: Vec<String>,
    detail: BTreeMap<String, String>,
    status: Option<u16>,
    code: Option<String>,
}
