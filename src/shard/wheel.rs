//! The timer wheel of a shard: one entry an idle tunnel, no timer object, no allocation per turn.

use std::time::{Duration, Instant};

/// Width of one slot. Deadlines are rounded up to it.
const TICK: Duration = Duration::from_millis(50);
/// Slots of the wheel; one round is `SLOTS * TICK` = 51.2 s.
const SLOTS: usize = 1024;

/// Fires keys at their deadlines, never early, late by less than one tick plus the driver's delay.
///
/// Entries can't be removed: the owner compares the generation that comes out with its own.
#[derive(Debug)]
pub(crate) struct Wheel {
    start: Instant,
    /// Every tick below this one has fired.
    next_tick: u64,
    /// No entry is due before this tick.
    earliest: Option<u64>,
    slots: Vec<Vec<Entry>>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    due: u64,
    key: usize,
    generation: u32,
}

impl Wheel {
    /// An empty wheel.
    pub(crate) fn new(now: Instant) -> Self {
        Self { start: now, next_tick: 0, earliest: None, slots: vec![Vec::new(); SLOTS], len: 0 }
    }

    /// Fires `(key, generation)` at `at`.
    pub(crate) fn insert(&mut self, at: Instant, key: usize, generation: u32) {
        let due = self.tick_after(at).max(self.next_tick);
        if let Some(slot) = self.slots.get_mut(slot_of(due)) {
            slot.push(Entry { due, key, generation });
            self.len += 1;
        }
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
    }

    /// When to call [`Wheel::advance`] next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.earliest.map(|tick| self.start + tick_length(tick))
    }

    /// Moves everything that is due at `now` to `fired`.
    pub(crate) fn advance(&mut self, now: Instant, fired: &mut Vec<(usize, u32)>) {
        let current = tick_at_or_before(now.saturating_duration_since(self.start));
        if self.earliest.is_none_or(|earliest| earliest > current) {
            self.next_tick = self.next_tick.max(current + 1);
            return;
        }
        // More than a round behind: each slot once is enough.
        let first = self.next_tick.max((current + 1).saturating_sub(SLOTS as u64));
        for tick in first..=current {
            let Some(slot) = self.slots.get_mut(slot_of(tick)) else { continue };
            let before = slot.len();
            slot.retain(|entry| {
                let due = entry.due <= current;
                if due {
                    fired.push((entry.key, entry.generation));
                }
                !due
            });
            self.len -= before - slot.len();
            if slot.is_empty() && slot.capacity() > 64 {
                slot.shrink_to(0);
            }
        }
        self.next_tick = current + 1;
        self.earliest = self.find_earliest();
    }

    fn find_earliest(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        (self.next_tick..self.next_tick + SLOTS as u64)
            .find(|&tick| {
                self.slots.get(slot_of(tick)).is_some_and(|s| s.iter().any(|e| e.due <= tick))
            })
            // Everything lies beyond this round: look again when it is over.
            .or(Some(self.next_tick + SLOTS as u64 - 1))
    }

    fn tick_after(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanos.div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX)
    }
}

fn tick_at_or_before(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX)
}

fn tick_length(tick: u64) -> Duration {
    Duration::from_nanos(tick.saturating_mul(u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX)))
}

#[expect(clippy::cast_possible_truncation, reason = "the remainder is below SLOTS")]
fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;
    use proptest::prelude::*;

    fn drain(wheel: &mut Wheel, now: Instant) -> Vec<usize> {
        let mut fired = Vec::new();
        wheel.advance(now, &mut fired);
        fired.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn fires_at_the_deadline_and_not_before() {
        let start = clock::now();
        let mut wheel = Wheel::new(start);
        wheel.insert(start + Duration::from_secs(20), 7, 1);
        assert_eq!(wheel.next(), Some(start + Duration::from_secs(20)));
        assert!(drain(&mut wheel, start + Duration::from_millis(19_999)).is_empty());
        assert_eq!(drain(&mut wheel, start + Duration::from_secs(20)), [7]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn deadlines_beyond_a_round_are_kept() {
        let start = clock::now();
        let mut wheel = Wheel::new(start);
        wheel.insert(start + Duration::from_secs(3600), 1, 0);
        let mut now = start;
        let mut turns = 0;
        while let Some(next) = wheel.next() {
            assert!(next > now || turns == 0, "the wheel must not spin");
            now = next;
            turns += 1;
            if !drain(&mut wheel, now).is_empty() {
                break;
            }
        }
        assert_eq!(now, start + Duration::from_secs(3600));
        assert!(turns < 100, "{turns} turns");
    }

    proptest! {
        #[test]
        fn like_a_sorted_list(
            deadlines in proptest::collection::vec(0u64..200_000, 1..50),
            steps in proptest::collection::vec(1u64..30_000, 1..40),
        ) {
            let start = clock::now();
            let mut wheel = Wheel::new(start);
            let mut open = Vec::new();
            for (key, &ms) in deadlines.iter().enumerate() {
                wheel.insert(start + Duration::from_millis(ms), key, 0);
                open.push((ms, key));
            }
            let mut now = 0;
            for step in steps {
                now += step;
                let mut fired = drain(&mut wheel, start + Duration::from_millis(now));
                fired.sort_unstable();
                // A deadline counts as due at the end of its tick.
                let mut due: Vec<usize> = open
                    .iter()
                    .filter(|(ms, _)| ms.div_ceil(50) * 50 <= now / 50 * 50)
                    .map(|&(_, key)| key)
                    .collect();
                due.sort_unstable();
                open.retain(|(_, key)| !due.contains(key));
                prop_assert_eq!(fired, due);
            }
        }
    }
}
