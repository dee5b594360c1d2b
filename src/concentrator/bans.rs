//! Routers that an operator keeps out for a while. Refused before anybody looks at a password.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bans at once; further ones are refused. Whoever wants more than that disables accounts.
pub(super) const MOST: usize = 10_000;

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ban {
    /// The router's NAME.
    pub(super) router: Arc<str>,
    /// Unix time of its begin, seconds.
    pub(super) since: u64,
    /// Unix time of its end, seconds, as far as the wall clock is right.
    pub(super) until: u64,
    /// Its end.
    pub(super) ends: Instant,
}

/// Who is banned until when.
#[derive(Debug, Default)]
pub(super) struct Bans {
    by_name: BTreeMap<Arc<str>, Ban>,
}

/// As many bans as there may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Bans {
    /// Bans a router from now on; a ban that it has gets the new end.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed.
    pub(super) fn set(
        &mut self,
        now: Instant,
        unix: u64,
        router: &Arc<str>,
        time: Duration,
    ) -> Result<Ban, Full> {
        let since = self.current(now, router).map(|ban| ban.since);
        if since.is_none() && self.by_name.len() >= MOST {
            self.by_name.retain(|_, ban| ban.ends > now);
            if self.by_name.len() >= MOST {
                return Err(Full);
            }
        }
        let ban = Ban {
            router: Arc::clone(router),
            since: since.unwrap_or(unix),
            until: unix.saturating_add(time.as_secs()),
            ends: now + time,
        };
        self.by_name.insert(Arc::clone(router), ban.clone());
        Ok(ban)
    }

    /// Ends a ban; `None` if there was none.
    pub(super) fn lift(&mut self, now: Instant, router: &str) -> Option<Ban> {
        self.by_name.remove(router).filter(|ban| ban.ends > now)
    }

    /// The ban of a router, if it has one now.
    pub(super) fn current(&self, now: Instant, router: &str) -> Option<&Ban> {
        self.by_name.get(router).filter(|ban| ban.ends > now)
    }

    /// Forgets bans that are over, and names them.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Ban> {
        self.by_name.extract_if(.., |_, ban| ban.ends <= now).map(|(_, ban)| ban).collect()
    }

    /// True if nobody is banned.
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Every ban, sorted by name.
    pub(super) fn list(&self, now: Instant) -> Vec<Ban> {
        self.by_name.values().filter(|ban| ban.ends > now).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn a_ban_holds_until_its_end_or_until_it_is_lifted() {
        let (start, mut bans) = (clock::now(), Bans::default());
        bans.set(start, 1000, &name("a"), MINUTE).unwrap();
        bans.set(start, 1000, &name("b"), MINUTE).unwrap();
        assert_eq!(bans.current(start, "a").unwrap().until, 1060);
        assert!(bans.current(start, "c").is_none());
        assert!(bans.current(start + MINUTE - Duration::from_nanos(1), "a").is_some());
        assert!(bans.current(start + MINUTE, "a").is_none());
        assert!(bans.lift(start, "a").is_some() && bans.lift(start, "a").is_none());
        assert!(bans.current(start, "a").is_none());
        assert_eq!(bans.list(start).len(), 1);
        assert!(bans.expire(start).is_empty());
        assert_eq!(bans.expire(start + MINUTE).len(), 1);
        assert!(bans.list(start).is_empty());
    }

    #[test]
    fn a_second_ban_moves_the_end_and_keeps_the_begin() {
        let (start, mut bans) = (clock::now(), Bans::default());
        bans.set(start, 1000, &name("a"), MINUTE).unwrap();
        let longer = bans.set(start + MINUTE / 2, 1030, &name("a"), MINUTE).unwrap();
        assert_eq!((longer.since, longer.until), (1000, 1090));
        let shorter = bans.set(start + MINUTE / 2, 1030, &name("a"), MINUTE / 60).unwrap();
        assert_eq!((shorter.since, shorter.until), (1000, 1031));
        let anew = bans.set(start + MINUTE, 1060, &name("a"), MINUTE).unwrap();
        assert_eq!(anew.since, 1060);
    }

    #[test]
    fn the_table_is_bounded_and_makes_room_for_what_is_over() {
        let (start, mut bans) = (clock::now(), Bans::default());
        for number in 0..MOST {
            bans.set(start, 0, &name(&format!("r{number}")), MINUTE).unwrap();
        }
        assert_eq!(bans.set(start, 0, &name("one-more"), MINUTE), Err(Full));
        bans.set(start, 0, &name("r7"), MINUTE * 2).unwrap();
        bans.set(start + MINUTE, 60, &name("one-more"), MINUTE).unwrap();
        assert_eq!(bans.list(start + MINUTE).len(), 2);
    }
}
