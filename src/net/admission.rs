//! Who may connect while nothing is known about them yet. Source: design section 6; threats
//! T13-T15, T30.
//!
//! The table holds every connection that has not authenticated. A source (a /24 or /56) on which a
//! router logged in during the last 24 hours is *known*: it may have any number of connections, as
//! hundreds of routers sit behind one carrier's address, and the last places of every budget are
//! kept for such sources, so a flood of strangers can't shut the fleet out. Whoever is refused is
//! closed at once and tries again; nothing is remembered about it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::aged::AgedMap;
use super::prefix::{SourcePrefix, source_prefix};

/// Known sources that are remembered; beyond it the one whose last success is oldest is forgotten.
pub const MAX_KNOWN: usize = 65_536;

/// The budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unauthenticated connections in all; an eighth of them is kept for known sources.
    pub total: usize,
    /// Unauthenticated connections of one source that is not known.
    pub per_source: usize,
    /// How long a success makes its source known.
    pub known_for: Duration,
    /// Handshakes in progress; a quarter of them is kept for known sources.
    pub handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: 4096,
            per_source: 512,
            known_for: Duration::from_secs(24 * 3600),
            handshakes: 64,
        }
    }
}

/// Why a connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// Every place, or every place for unknown sources, is taken.
    #[error("too many connections that have not logged in")]
    TotalFull,
    /// The source, which is not known, has its share.
    #[error("too many connections from this network that have not logged in")]
    SourceFull,
}

impl Refused {
    /// Every reason.
    pub const ALL: &[Self] = &[Self::TotalFull, Self::SourceFull];

    /// The stable name, for metrics and the control socket.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TotalFull => "total_full",
            Self::SourceFull => "source_full",
        }
    }
}

/// The table. One for all greeters, behind a lock.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    open: usize,
    // Never iterated, so its order has no influence.
    by_source: HashMap<SourcePrefix, usize>,
    known: AgedMap<SourcePrefix, ()>,
    handshakes: usize,
    refused_total: u64,
    refused_source: u64,
}

impl Admission {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: 0,
            by_source: HashMap::new(),
            known: AgedMap::new(MAX_KNOWN, limits.known_for),
            handshakes: 0,
            refused_total: 0,
            refused_source: 0,
        }
    }

    /// From now on these budgets count. Who holds a place keeps it.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.known.set_max_age(limits.known_for);
    }

    /// A connection has come. On success it holds a place until [`Self::released`].
    ///
    /// # Errors
    /// [`Refused`]: close it.
    pub fn admit(&mut self, now: Instant, source: IpAddr) -> Result<(), Refused> {
        let prefix = source_prefix(source);
        let known = self.is_known(now, prefix);
        let places = share(self.limits.total, self.limits.total / 8, known);
        if self.open >= places {
            self.refused_total += 1;
            return Err(Refused::TotalFull);
        }
        let held = self.by_source.get(&prefix).copied().unwrap_or(0);
        if !known && held >= self.limits.per_source {
            self.refused_source += 1;
            return Err(Refused::SourceFull);
        }
        self.by_source.insert(prefix, held + 1);
        self.open += 1;
        Ok(())
    }

    /// A login from `source` succeeded: the source is known from now on. The connection's place is
    /// given back separately.
    pub fn succeeded(&mut self, now: Instant, source: IpAddr) {
        self.known.put(now, source_prefix(source), ());
    }

    /// An admitted connection has authenticated or ended. Exactly once for each `admit`.
    pub fn released(&mut self, source: IpAddr) {
        let prefix = source_prefix(source);
        let Some(held) = self.by_source.get_mut(&prefix) else {
            debug_assert!(false, "released more often than admitted");
            return;
        };
        *held -= 1;
        if *held == 0 {
            self.by_source.remove(&prefix);
        }
        self.open -= 1;
        if self.open == 0 {
            // A flood is over: give its memory back.
            self.by_source = HashMap::new();
        }
    }

    /// Takes a place among the handshakes in progress, if there is one for this source; otherwise
    /// the connection waits. Given back by [`Self::end_handshake`].
    pub fn begin_handshake(&mut self, now: Instant, source: IpAddr) -> bool {
        let known = self.is_known(now, source_prefix(source));
        let free =
            self.handshakes < share(self.limits.handshakes, self.limits.handshakes / 4, known);
        if free {
            self.handshakes += 1;
        }
        free
    }

    /// A handshake is over, whatever its outcome. Exactly once for each that began.
    pub fn end_handshake(&mut self) {
        debug_assert!(self.handshakes > 0, "ended more handshakes than began");
        self.handshakes = self.handshakes.saturating_sub(1);
    }

    /// Whether accepting another connection makes sense; while not, newcomers wait in the listen
    /// backlog.
    pub fn has_room(&self) -> bool {
        self.open < self.limits.total && self.handshakes < self.limits.handshakes
    }

    /// Unauthenticated connections now.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Handshakes in progress now.
    pub fn handshakes(&self) -> usize {
        self.handshakes
    }

    /// Connections refused for one reason so far.
    pub fn refused(&self, reason: Refused) -> u64 {
        match reason {
            Refused::TotalFull => self.refused_total,
            Refused::SourceFull => self.refused_source,
        }
    }

    fn is_known(&self, now: Instant, prefix: SourcePrefix) -> bool {
        self.known.get(now, &prefix).is_some()
    }
}

/// The part of a budget that a source may use.
fn share(all: usize, reserved: usize, known: bool) -> usize {
    if known { all } else { all - reserved }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::net::testing::start;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn limits(total: usize, per_source: usize) -> Limits {
        Limits { total, per_source, known_for: DAY, handshakes: 4 }
    }

    fn source(network: u8, host: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, network, host).into()
    }

    #[test]
    fn an_unknown_source_has_a_share_and_its_neighbours_count_with_it() {
        let (mut table, t0) = (Admission::new(limits(100, 2)), start());
        table.admit(t0, source(1, 1)).unwrap();
        table.admit(t0, source(1, 2)).unwrap();
        assert_eq!(table.admit(t0, source(1, 3)), Err(Refused::SourceFull));
        table.admit(t0, source(2, 1)).unwrap();
        table.released(source(1, 2));
        table.admit(t0, source(1, 3)).unwrap();
        assert_eq!((table.open(), table.refused(Refused::SourceFull)), (3, 1));
    }

    #[test]
    fn smaller_budgets_take_no_place_away_and_larger_ones_count_at_once() {
        let (mut table, t0) = (Admission::new(limits(100, 2)), start());
        table.admit(t0, source(1, 1)).unwrap();
        table.admit(t0, source(1, 2)).unwrap();
        table.set_limits(limits(100, 1));
        assert_eq!(table.admit(t0, source(1, 3)), Err(Refused::SourceFull));
        table.released(source(1, 1));
        table.set_limits(limits(100, 3));
        table.admit(t0, source(1, 3)).unwrap();
        table.admit(t0, source(1, 4)).unwrap();
        table.succeeded(t0, source(2, 1));
        table.set_limits(Limits { known_for: DAY / 24, ..limits(100, 0) });
        assert!(table.admit(t0 + DAY / 48, source(2, 1)).is_ok());
        assert!(table.admit(t0 + DAY / 12, source(2, 1)).is_err());
    }

    #[test]
    fn a_success_lifts_the_share_for_a_day() {
        let (mut table, t0) = (Admission::new(limits(100, 1)), start());
        table.admit(t0, source(1, 1)).unwrap();
        assert_eq!(table.admit(t0, source(1, 1)), Err(Refused::SourceFull));
        table.succeeded(t0, source(1, 9));
        for _ in 0..20 {
            table.admit(t0, source(1, 1)).unwrap();
        }
        assert_eq!(table.admit(t0 + DAY, source(1, 1)), Err(Refused::SourceFull));
        // A later success starts the day again.
        table.succeeded(t0 + DAY, source(1, 1));
        table.admit(t0 + DAY * 2 - Duration::from_secs(1), source(1, 1)).unwrap();
    }

    #[test]
    fn the_total_is_a_limit_for_everybody_and_its_end_is_kept_for_known_sources() {
        let (mut table, t0) = (Admission::new(limits(16, 512)), start());
        table.succeeded(t0, source(200, 1));
        for network in 0..14 {
            table.admit(t0, source(network, 1)).unwrap();
        }
        assert_eq!(table.admit(t0, source(14, 1)), Err(Refused::TotalFull));
        assert!(table.has_room());
        table.admit(t0, source(200, 1)).unwrap();
        table.admit(t0, source(200, 2)).unwrap();
        assert_eq!(table.admit(t0, source(200, 3)), Err(Refused::TotalFull));
        assert!(!table.has_room());
        assert_eq!((table.open(), table.refused(Refused::TotalFull)), (16, 2));
        table.released(source(200, 1));
        assert!(table.has_room());
    }

    #[test]
    fn handshakes_are_bounded_and_the_last_are_kept_for_known_sources() {
        let (mut table, t0) = (Admission::new(limits(100, 100)), start());
        table.succeeded(t0, source(200, 1));
        for _ in 0..3 {
            assert!(table.begin_handshake(t0, source(1, 1)));
        }
        assert!(!table.begin_handshake(t0, source(1, 1)));
        assert!(table.begin_handshake(t0, source(200, 1)));
        assert!(!table.begin_handshake(t0, source(200, 1)));
        assert!(!table.has_room());
        table.end_handshake();
        assert_eq!(table.handshakes(), 3);
        assert!(table.has_room());
        table.end_handshake();
        assert!(table.begin_handshake(t0, source(1, 1)));
    }

    #[test]
    fn known_sources_are_remembered_in_bounded_memory_oldest_success_forgotten() {
        let (mut table, t0) = (Admission::new(limits(100, 0)), start());
        let numbered = |n: usize| -> IpAddr {
            let n = u32::try_from(n).unwrap();
            Ipv4Addr::from(0x0a00_0000 + (n << 8)).into()
        };
        for n in 0..=MAX_KNOWN {
            table.succeeded(t0, numbered(n));
        }
        assert_eq!(table.known.len(), MAX_KNOWN);
        assert_eq!(table.admit(t0, numbered(0)), Err(Refused::SourceFull));
        table.admit(t0, numbered(1)).unwrap();
        table.admit(t0, numbered(MAX_KNOWN)).unwrap();
    }

    #[test]
    fn the_defaults_are_those_of_the_design_and_codes_differ() {
        let limits = Limits::default();
        assert_eq!((limits.total, limits.per_source, limits.handshakes), (4096, 512, 64));
        assert_eq!(limits.known_for, DAY);
        assert_ne!(Refused::ALL[0].code(), Refused::ALL[1].code());
    }

    proptest! {
        #[test]
        fn counts_never_pass_the_limits_and_everything_released_leaves_nothing(
            steps in prop::collection::vec((0u8..4, 0u8..6, 0u64..20_000), 0..300)
        ) {
            let (mut table, mut now) = (Admission::new(limits(24, 4)), start());
            let mut held: Vec<u8> = Vec::new();
            let mut known: Vec<Option<Instant>> = vec![None; 6];
            for (action, network, wait) in steps {
                now += Duration::from_secs(wait);
                let at = usize::from(network);
                match action {
                    0 if held.contains(&network) => {
                        held.remove(held.iter().position(|n| *n == network).unwrap());
                        table.released(source(network, 1));
                    }
                    1 => {
                        known[at] = Some(now);
                        table.succeeded(now, source(network, 1));
                    }
                    _ => {
                        let is_known = known[at].is_some_and(|since| now - since < DAY);
                        let count = held.iter().filter(|n| **n == network).count();
                        let expected = if held.len() >= if is_known { 24 } else { 21 } {
                            Err(Refused::TotalFull)
                        } else if !is_known && count >= 4 {
                            Err(Refused::SourceFull)
                        } else {
                            held.push(network);
                            Ok(())
                        };
                        prop_assert_eq!(table.admit(now, source(network, 1)), expected);
                    }
                }
                prop_assert_eq!(table.open(), held.len());
            }
            for network in held {
                table.released(source(network, 1));
            }
            prop_assert!(table.open() == 0 && table.by_source.is_empty());
        }
    }
}
