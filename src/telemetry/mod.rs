//! The clock, counters and rate-limited summaries.

pub mod clock;
pub mod event_log;
pub mod tally;
