//! Counters by reason, and one log line for many events.
//!
//! What a stranger can trigger is counted here and reported as a sum every few seconds, so that
//! a flood of bad packets is a number and never a flood of log lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two summaries of one tally.
pub const SUMMARY_EVERY: Duration = Duration::from_secs(10);

/// Counts by reason. Shared between threads; never touched once a packet.
#[derive(Debug, Default)]
pub struct Tally {
    inner: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    totals: BTreeMap<&'static str, u64>,
    unreported: BTreeMap<&'static str, u64>,
    last_summary: Option<Instant>,
}

impl Tally {
    /// Counts one event.
    pub fn note(&self, reason: &'static str) {
        let mut counts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.totals.entry(reason).or_default() += 1;
        *counts.unreported.entry(reason).or_default() += 1;
    }

    /// All counts since the start.
    pub fn totals(&self) -> BTreeMap<&'static str, u64> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).totals.clone()
    }

    /// `"reason=3, other=1"` for what happened since the last summary, at most once every
    /// [`SUMMARY_EVERY`]; `None` if nothing happened or it is too early.
    pub fn summary(&self, now: Instant) -> Option<String> {
        let mut counts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let early = counts.last_summary.is_some_and(|last| now < last + SUMMARY_EVERY);
        if early || counts.unreported.is_empty() {
            return None;
        }
        counts.last_summary = Some(now);
        let mut line = String::new();
        for (reason, count) in std::mem::take(&mut counts.unreported) {
            let separator = if line.is_empty() { "" } else { ", " };
            let _ = write!(line, "{separator}{reason}={count}");
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    #[test]
    fn a_flood_is_one_line() {
        let tally = Tally::default();
        let start = clock::now();
        for _ in 0..1000 {
            tally.note("frame_too_long");
        }
        tally.note("first_packet");
        assert_eq!(tally.summary(start).as_deref(), Some("first_packet=1, frame_too_long=1000"));
        tally.note("first_packet");
        assert_eq!(tally.summary(start + Duration::from_secs(1)), None);
        assert_eq!(tally.summary(start + SUMMARY_EVERY).as_deref(), Some("first_packet=1"));
        assert_eq!(tally.summary(start + SUMMARY_EVERY * 3), None);
        assert_eq!(tally.totals().get("first_packet"), Some(&2));
    }
}
