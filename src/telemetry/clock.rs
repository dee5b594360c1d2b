//! The only place that reads a clock; everything else is handed the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970-01-01 UTC; 0 if the host's clock is set before that.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Milliseconds since 1970-01-01 UTC; 0 if the host's clock is set before that.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
