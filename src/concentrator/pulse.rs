//! Whether the threads turn. A thread that has ended, or hangs, is not mended from inside: the
//! process says so and leaves it to whoever supervises it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Each thread turns at least once a second; one that has not for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(8);
/// Looks that are further apart than this tell of a stall of the whole process (suspend, SIGSTOP):
/// it is held against no thread.
const OWN_STALL: Duration = Duration::from_secs(4);

/// What was seen of each thread's counter of turns.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    looked: Option<Instant>,
    /// The counter, and since when it stands there.
    threads: Vec<(u64, Instant)>,
}

impl Pulse {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the counters of all threads; to be called every second.
    pub(super) fn look(&self, now: Instant, turns: impl Iterator<Item = u64>) {
        let mut seen = self.seen();
        let stalled =
            seen.looked.is_none_or(|last| now.saturating_duration_since(last) > OWN_STALL);
        seen.looked = Some(now);
        for (index, turns) in turns.enumerate() {
            match seen.threads.get_mut(index) {
                Some((count, since)) if stalled || *count != turns => {
                    (*count, *since) = (turns, now)
                }
                Some(_) => {}
                None => seen.threads.push((turns, now)),
            }
        }
    }

    /// The number of the first thread that hangs; `None` also while nobody has looked.
    pub(super) fn hanging(&self) -> Option<usize> {
        let seen = self.seen();
        let looked = seen.looked?;
        seen.threads
            .iter()
            .position(|(_, since)| looked.saturating_duration_since(*since) >= HANGS_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    #[test]
    fn a_thread_that_stands_still_hangs_and_a_stall_of_all_is_forgiven() {
        let (pulse, start) = (Pulse::default(), clock::now());
        let at = |second| start + Duration::from_secs(second);
        for second in 0..8 {
            pulse.look(at(second), [second, 7].into_iter());
            assert_eq!(pulse.hanging(), None, "{second}");
        }
        pulse.look(at(8), [8, 7].into_iter());
        assert_eq!(pulse.hanging(), Some(1));
        pulse.look(at(9), [9, 8].into_iter());
        assert_eq!(pulse.hanging(), None);
        // An hour of sleep: nobody turned, and nobody is to blame.
        pulse.look(at(3609), [9, 8].into_iter());
        assert_eq!(pulse.hanging(), None);
    }
}
