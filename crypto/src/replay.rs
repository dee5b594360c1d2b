//! The sliding window against replays: 64 ids, changed only by authentic packets.
//!
//! Deviation: no time limit inside the window (OpenVPN expires unseen ids after 15 s); over TCP
//! packets can't arrive late.

/// Width of the window in ids. Source: OpenVPN 2 DEFAULT_SEQ_BACKTRACK.
pub(crate) const WINDOW: u32 = 64;

/// Why an id was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Zero,
    Replay,
}

/// The ids seen of one key and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplayWindow {
    /// Highest id seen, 0 if none.
    highest: u32,
    /// Bit n: id `highest - n` was seen.
    seen: u64,
}

impl ReplayWindow {
    pub(crate) const fn new() -> Self {
        Self { highest: 0, seen: 0 }
    }

    /// Restores an exported window; refuses states that no sequence of packets leads to.
    pub(crate) fn restore(highest: u32, seen: u64) -> Option<Self> {
        let has_highest = seen & 1 == 1;
        // An id below 1 can't have been seen.
        let possible = match highest {
            0 => 0,
            1..WINDOW => (1u64 << highest).wrapping_sub(1),
            _ => u64::MAX,
        };
        (has_highest == (highest > 0) && seen & !possible == 0).then_some(Self { highest, seen })
    }

    /// Records the id of an **authentic** packet; an id seen before or too old changes nothing.
    pub(crate) fn accept(&mut self, id: u32) -> Result<(), Refused> {
        if id == 0 {
            return Err(Refused::Zero);
        }
        if let Some(ahead) = id.checked_sub(self.highest)
            && ahead > 0
        {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = id;
            return Ok(());
        }
        let behind = self.highest.abs_diff(id);
        let bit = 1u64.checked_shl(behind).ok_or(Refused::Replay)?;
        if self.seen & bit != 0 {
            return Err(Refused::Replay);
        }
        self.seen |= bit;
        Ok(())
    }

    pub(crate) const fn highest(self) -> u32 {
        self.highest
    }

    pub(crate) const fn seen(self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_in_order_and_refuses_repeats() {
        let mut window = ReplayWindow::new();
        for id in 1..200 {
            assert_eq!(window.accept(id), Ok(()));
            assert_eq!(window.accept(id), Err(Refused::Replay));
        }
    }

    #[test]
    fn refuses_zero_always() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.accept(0), Err(Refused::Zero));
        window.accept(5).unwrap();
        assert_eq!(window.accept(0), Err(Refused::Zero));
    }

    #[test]
    fn the_window_is_64_wide() {
        let mut window = ReplayWindow::new();
        window.accept(100).unwrap();
        assert_eq!(window.accept(36), Err(Refused::Replay));
        assert_eq!(window.accept(37), Ok(()));
        assert_eq!(window.accept(37), Err(Refused::Replay));
    }

    #[test]
    fn jumps_forget_the_past_without_overflow() {
        let mut window = ReplayWindow::new();
        window.accept(1).unwrap();
        window.accept(65).unwrap();
        assert_eq!(window.accept(1), Err(Refused::Replay));
        window.accept(u32::MAX).unwrap();
        assert_eq!(window.accept(u32::MAX), Err(Refused::Replay));
        assert_eq!(window.accept(u32::MAX - 1), Ok(()));
    }

    #[test]
    fn refuses_impossible_states() {
        assert!(ReplayWindow::restore(0, 0).is_some());
        assert!(ReplayWindow::restore(0, 1).is_none());
        assert!(ReplayWindow::restore(1, 0).is_none());
        assert!(ReplayWindow::restore(1, 1).is_some());
        assert!(ReplayWindow::restore(1, 3).is_none());
        assert!(ReplayWindow::restore(63, u64::MAX >> 1).is_some());
        assert!(ReplayWindow::restore(63, u64::MAX).is_none());
        assert!(ReplayWindow::restore(64, u64::MAX).is_some());
        assert!(ReplayWindow::restore(9, 2).is_none());
    }

    proptest! {
        /// Against a set of everything seen; restored from its export at every step.
        #[test]
        fn behaves_like_a_set(
            start in prop_oneof![Just(0u32), Just(u32::MAX - 300)],
            offsets in prop::collection::vec(0u32..300, 0..400),
        ) {
            let mut window = ReplayWindow::new();
            let mut seen = HashSet::new();
            let mut highest = 0u32;
            for offset in offsets {
                let id = start + offset;
                let fresh = id != 0
                    && !seen.contains(&id)
                    && u64::from(id) + 64 > u64::from(highest);
                prop_assert_eq!(window.accept(id).is_ok(), fresh, "id {} highest {}", id, highest);
                if fresh {
                    seen.insert(id);
                    highest = highest.max(id);
                }
                let restored = ReplayWindow::restore(window.highest(), window.seen());
                prop_assert_eq!(restored, Some(window));
            }
        }
    }
}
