//! What stays of a segment: where it began, where it ended, and what became of its records.

use serde::{Deserialize, Serialize};

use super::chain::{AuditKey, Head, Mac};
use super::record::ascii;

/// A sealed segment. With its records gone, `anchor` and `head` still tie its neighbours together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Number of the segment, from 1.
    pub segment: u64,
    /// Number of its first record.
    pub first: u64,
    /// The mac before its first record.
    pub anchor: Mac,
    /// Its last record.
    pub head: Head,
    /// How many records it has.
    pub records: u64,
    /// Seconds since 1970-01-01 UTC of its first record.
    pub from: u64,
    /// The same of its last one.
    pub to: u64,
    /// When it was sealed.
    pub sealed: u64,
    /// When it was exported last.
    pub exported: Option<u64>,
    /// When its records were pruned.
    pub pruned: Option<u64>,
}

/// A seal as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRow {
    /// Number of the segment, as the line says too.
    pub segment: u64,
    /// The canonical line.
    pub line: String,
    /// Its mac.
    pub mac: Mac,
}

impl Seal {
    /// The row for this state of the segment.
    pub fn row(&self, key: &AuditKey) -> SealRow {
        // Numbers and hexadecimal digits: nothing in it can fail to be written.
        let line = ascii(&serde_json::to_string(self).unwrap_or_default());
        let mac = key.seal(&line);
        SealRow { segment: self.segment, line, mac }
    }
}

impl SealRow {
    /// Reads the row; None: somebody else has written it.
    pub fn open(&self, key: &AuditKey) -> Option<Seal> {
        let known = tunnelhead_crypto::ct_eq(&self.mac.0, &key.seal(&self.line).0);
        let seal: Seal = known.then(|| serde_json::from_str(&self.line).ok())??;
        (seal.segment == self.segment).then_some(seal)
    }

    /// The first line of an export.
    pub fn export(&self) -> String {
        format!("{{\"mac\":\"{}\",\"seal\":{}}}", self.mac, self.line)
    }
}
