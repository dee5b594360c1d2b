//! The clock, counters and rate-limited summaries.

pub mod clock;
pub mod event_log;
pub mod exposition;
pub mod flight;
pub mod histogram;
pub mod log_filter;
pub mod tally;
