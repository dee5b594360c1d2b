//! The audit trail as values: records, the chain that ties them, seals, and the check of all of it.
//!
//! Nothing here reads a clock, a file or a database. A [`Record`] becomes one canonical line of
//! printable ASCII; [`AuditKey`] ties it to its predecessor:
//!
//! ```text
//! mac(n) = HMAC-SHA256(key, len(mac(n-1)) | mac(n-1) | len(line(n)) | line(n))     mac(0) = 32 x 00
//! ```
//!
//! with lengths as u64 big-endian. The key is derived from the server's secret, which lies outside
//! the database: whoever can write to the database alone can not make a record that fits. A tail
//! that was cut fits too, so the last number and mac ([`Head`]) are kept in a file of their own and
//! written to the log; [`Verifier`] compares with both. Long trails are cut into segments, and a
//! [`Seal`] keeps the ends of a segment when its records have been exported and pruned.

mod chain;
mod record;
mod seal;
mod verify;

pub use chain::{AuditKey, Chain, Head, Mac, Row};
pub use record::{
    Action, MAX_ACTOR_BYTES, MAX_DETAIL_BYTES, MAX_DETAILS, Record, Who, bounded, read_line,
};
pub use seal::{Seal, SealRow};
pub use verify::{Finding, HeadFile, MAX_FINDINGS, Report, Verifier};

#[cfg(test)]
mod tests;
