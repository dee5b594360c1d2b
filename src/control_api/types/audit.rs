//! The documents of the audit trail.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What somebody did, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Its number; rises by one.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// User id of whoever opened the connection; null: the concentrator itself.
    pub uid: Option<u32>,
    /// Group id likewise.
    pub gid: Option<u32>,
    /// Process id likewise; it may belong to somebody else by now.
    pub pid: Option<i32>,
    /// The socket it came through.
    pub socket: Option<String>,
    /// What the `X-Actor` header claimed; nobody has checked it.
    pub actor: Option<String>,
    /// Method and path template, or a word such as "audit.lost".
    pub action: String,
    /// The router that was named.
    pub router: Option<String>,
    /// Names of the fields that were sent.
    pub fields: Vec<String>,
    /// More, never a secret.
    pub detail: BTreeMap<String, String>,
    /// HTTP status of the answer; null: its client had left, or there was none.
    pub status: Option<u16>,
    /// Code of the refusal.
    pub code: Option<String>,
    /// What ties it to its predecessor, 64 hexadecimal digits.
    pub mac: String,
}

/// A sealed part of the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct AuditSegment {
    /// Its number, from 1.
    pub segment: u64,
    /// Number of its first record.
    pub first: u64,
    /// Number of its last record.
    pub last: u64,
    /// How many records it has.
    pub records: u64,
    /// When the first one was made.
    pub from: Timestamp,
    /// When the last one was made.
    pub to: Timestamp,
    /// When it was sealed.
    pub sealed: Timestamp,
    /// When it was exported last.
    pub exported: Option<Timestamp>,
    /// When its records were deleted.
    pub pruned: Option<Timestamp>,
    /// Its last record as SEQ:MAC.
    pub head: String,
}

/// Whether the trail is as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct AuditCheck {
    /// True: nothing was found.
    pub good: bool,
    /// Records that were looked at.
    pub records: u64,
    /// Number of the first one; 0: there is none.
    pub first: u64,
    /// The last record as SEQ:MAC.
    pub head: String,
    /// Sealed segments.
    pub segments: u64,
    /// Those among them whose records were deleted.
    pub pruned: u64,
    /// What is not as it was written, a sentence each.
    pub findings: Vec<String>,
    /// Findings beyond those.
    pub more: u64,
    /// Heads that were asked about and lie in a segment that was pruned: nothing can be said of
    /// them.
    pub unknown: Vec<String>,
}

/// What part of the trail is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Records with a higher number.
    pub after: u64,
    /// At most so many, 1 to 1,000.
    pub limit: usize,
    /// Only those that name this router.
    pub router: Option<String>,
    /// Only those of this user.
    pub uid: Option<u32>,
}
