//! Lines of the audit trail as they are stored. What they say and how they are chained is decided
//! elsewhere; the store keeps them in order.

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its number, from 1.
    pub seq: u64,
    /// When, in seconds since 1970-01-01 UTC.
    pub at: u64,
    /// The canonical text that `mac` covers.
    pub line: String,
    /// The link of the chain.
    pub mac: [u8; 32],
}

/// Says that a part of the trail is complete, and what became of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSeal {
    /// Number of the part, from 1.
    pub segment: u64,
    /// Number of its last line.
    pub last: u64,
    /// The canonical text that `mac` covers.
    pub line: String,
    /// What proves the seal.
    pub mac: [u8; 32],
}
