//! Event ids that rise over restarts.
//!
//! A run's first id follows from the clock: seconds since 1970 times 2^20, which no run reaches by
//! counting. A clock that was set back is no danger either, because blocks of ids are written to
//! the store ahead of their use. Ids stay below 2^53, so that every JSON reader takes them exactly.

use super::Reserve;

/// Ids that are reserved at a time: hours of a storm, so that nobody waits for the store.
const BLOCK: u64 = 1 << 20;
/// The last id that every reader of JSON takes exactly. Source: RFC 8259 section 6.
const LAST: u64 = (1 << 53) - 1;

/// The id before a run's first one. `unix_seconds` is the present, `reserved` the highest id that
/// an earlier run may have used.
pub(in crate::concentrator) fn before_first(unix_seconds: u64, reserved: u64) -> u64 {
    // One id stays unused, so that "after the last one of the earlier run" is not "after nothing".
    unix_seconds.saturating_mul(BLOCK).max(reserved.saturating_add(1)).min(LAST - BLOCK)
}

/// Reserves blocks.
pub(super) struct Ids {
    reserved: u64,
    reserve: Reserve,
}

impl Ids {
    pub(super) fn new(before: u64, mut reserve: Reserve) -> Self {
        let reserved = before + BLOCK;
        reserve(reserved);
        Self { reserved, reserve }
    }

    /// Reserves the next block in time.
    pub(super) fn about_to_use(&mut self, id: u64) {
        if id + BLOCK / 2 > self.reserved {
            self.reserved += BLOCK;
            (self.reserve)(self.reserved);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_run_starts_above_the_clock_and_above_what_was_reserved() {
        assert_eq!(before_first(3, 0), 3 * BLOCK);
        assert_eq!(before_first(3, 3 * BLOCK - 1), 3 * BLOCK);
        assert_eq!(before_first(3, 9 * BLOCK), 9 * BLOCK + 1, "the clock was set back");
        assert!(before_first(u64::MAX, 0) < LAST);
        assert!(before_first(253_402_300_799, u64::MAX) < LAST);
    }

    #[test]
    fn blocks_are_reserved_before_they_are_used() {
        let reserved = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&reserved);
        let mut ids = Ids::new(100, Box::new(move |up_to| *seen.lock().unwrap() = up_to));
        for id in (101..5 * BLOCK).step_by(1000) {
            ids.about_to_use(id);
            assert!(*reserved.lock().unwrap() >= id + BLOCK / 2 - 1000);
        }
    }
}
