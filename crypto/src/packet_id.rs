//! The counter of packet ids: starts at 1, counts by 1, never wraps, never goes back.

/// The last id that is given out. Source: OpenVPN 2 stops sending at 0xFFFFFFFF.
const LAST_ID: u32 = u32::MAX - 1;

/// At this id a new key is due. Source: OpenVPN 2 PACKET_ID_WRAP_TRIGGER.
pub(crate) const REKEY_AT_ID: u32 = 0xFF00_0000;

/// Gives each id out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendCounter {
    last: u32,
}

impl SendCounter {
    pub(crate) const fn new() -> Self {
        Self { last: 0 }
    }

    /// Continues after `last`; refuses what no counter reaches.
    pub(crate) fn after(last: u32) -> Option<Self> {
        (last <= LAST_ID).then_some(Self { last })
    }

    /// Takes the next id; `None` when all are used up.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.last >= LAST_ID {
            return None;
        }
        let id = self.last.checked_add(1)?;
        self.last = id;
        Some(id)
    }

    /// How many ids are left.
    const fn remaining(self) -> u32 {
        LAST_ID.saturating_sub(self.last)
    }

    /// Takes `count` ids that follow each other and returns the first; `None`, with nothing taken,
    /// when there are not that many.
    pub(crate) fn take_many(&mut self, count: u32) -> Option<u32> {
        if count > self.remaining() {
            return None;
        }
        let first = self.last.checked_add(1)?;
        self.last = self.last.checked_add(count)?;
        Some(first)
    }

    /// The last id given out, 0 if none.
    pub(crate) const fn last(self) -> u32 {
        self.last
    }

    pub(crate) const fn is_exhausted(self) -> bool {
        self.last >= LAST_ID
    }

    pub(crate) const fn needs_rekey(self) -> bool {
        self.last >= REKEY_AT_ID
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_one_and_counts_by_one() {
        let mut counter = SendCounter::new();
        assert_eq!([counter.take(), counter.take(), counter.take()], [Some(1), Some(2), Some(3)]);
        assert_eq!(counter.last(), 3);
    }

    #[test]
    fn stops_at_the_end_for_good() {
        let mut counter = SendCounter::after(LAST_ID - 1).unwrap();
        assert!(!counter.is_exhausted());
        assert_eq!(counter.remaining(), 1);
        assert_eq!(counter.take(), Some(LAST_ID));
        assert_eq!(counter.remaining(), 0);
        assert!(counter.is_exhausted());
        assert_eq!(counter.take(), None);
        assert_eq!(counter.take(), None);
        assert_eq!(counter.last(), LAST_ID);
        assert_eq!(SendCounter::after(u32::MAX), None);
    }

    #[test]
    fn takes_many_or_none() {
        let mut counter = SendCounter::new();
        assert_eq!(counter.take_many(3), Some(1));
        assert_eq!(counter.take(), Some(4));
        let mut counter = SendCounter::after(LAST_ID - 3).unwrap();
        assert_eq!(counter.take_many(4), None);
        assert_eq!(counter.take_many(3), Some(LAST_ID - 2));
        assert_eq!(counter.take_many(1), None);
    }

    #[test]
    fn asks_for_a_new_key_long_before_the_end() {
        let mut counter = SendCounter::after(REKEY_AT_ID - 2).unwrap();
        counter.take();
        assert!(!counter.needs_rekey());
        counter.take();
        assert!(counter.needs_rekey());
    }
}
