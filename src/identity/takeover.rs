//! Two routers with one identity.
//!
//! A router that comes back before its old connection is known to be dead replaces itself; that
//! is normal. Two routers that share an identity (a copied configuration, a thief) throw each
//! other out for ever; after [`MAX_TAKEOVERS`] exchanges between two addresses within
//! [`WINDOW`] the one that is in stays. Between whatever number of addresses, an identity changes
//! hands [`MAX_EXCHANGES`] times in that time at most.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::aging::AgingMap;

/// What to do with a login whose identity may be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Takeover {
    /// Nobody holds the identity.
    Free,
    /// The newcomer takes the place of the incumbent.
    Replace,
    /// Two routers fight for the identity: the incumbent stays, the newcomer is refused.
    Refuse {
        /// Real address of the one that stays.
        incumbent: IpAddr,
        /// Real address of the one that is refused.
        newcomer: IpAddr,
        /// Exchanges in the last five minutes.
        takeovers: usize,
        /// When the newcomer would be let in again.
        retry_after: Duration,
    },
}

/// Remembers who replaced whom of late.
#[derive(Debug)]
pub struct Takeovers {
    recent: AgingMap<Arc<str>, VecDeque<Exchange>>,
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    at: Instant,
    from: IpAddr,
    to: IpAddr,
}

impl Takeovers {
    /// Nobody replaced anybody so far.
    pub fn new() -> Self {
        Self { recent: AgingMap::new(MAX_IDENTITIES) }
    }

    /// Decides on a login, and remembers the exchange if there is one.
    pub fn decide(
        &mut self,
        now: Instant,
        identity: &Arc<str>,
        incumbent: Option<IpAddr>,
        newcomer: IpAddr,
    ) -> Takeover {
        let newcomer = newcomer.to_canonical();
        let Some(incumbent) = incumbent.map(|address| address.to_canonical()) else {
            return Takeover::Free;
        };
        if incumbent == newcomer {
            return Takeover::Replace;
        }
        let mut exchanges = self.recent.remove(identity).unwrap_or_default();
        exchanges.retain(|exchange| now.saturating_duration_since(exchange.at) < WINDOW);
        let same_two = |exchange: &&Exchange| {
            (exchange.from, exchange.to) == (incumbent, newcomer)
                || (exchange.from, exchange.to) == (newcomer, incumbent)
        };
        let takeovers = exchanges.iter().filter(same_two).count();
        let oldest = if takeovers >= MAX_TAKEOVERS {
            exchanges.iter().find(same_two).map(|exchange| exchange.at)
        } else if exchanges.len() >= MAX_EXCHANGES {
            exchanges.front().map(|exchange| exchange.at)
        } else {
            None
        };
        let decision = if let Some(oldest) = oldest {
            let retry_after = WINDOW.saturating_sub(now.saturating_duration_since(oldest));
            let takeovers = exchanges.len();
            Takeover::Refuse { incumbent, newcomer, takeovers, retry_after }
        } else {
            exchanges.push_back(Exchange { at: now, from: incumbent, to: newcomer });
            Takeover::Replace
        };
        self.recent.insert(Arc::clone(identity), exchanges);
        decision
    }
}

impl Default for Takeovers {
    fn default() -> Self {
        Self::new()
    }
}

const WINDOW: Duration = Duration::from_secs(300);
const MAX_TAKEOVERS: usize = 6;
const MAX_EXCHANGES: usize = 18;
/// Half of the identities that are remembered at the same time.
const MAX_IDENTITIES: usize = 1 << 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    fn ip(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    /// Logs `routers` in one after the other, one a second; counts who got in.
    fn fight(routers: &[u8], seconds: u64) -> usize {
        let (start, id) = (clock::now(), Arc::from("r"));
        let mut takeovers = Takeovers::new();
        let mut holder = None;
        let mut exchanged = 0;
        for second in 0..seconds {
            let newcomer = ip(routers[usize::try_from(second).unwrap() % routers.len()]);
            let now = start + Duration::from_secs(second);
            match takeovers.decide(now, &id, holder, newcomer) {
                Takeover::Refuse { incumbent, newcomer: refused, .. } => {
                    assert_eq!((Some(incumbent), refused), (holder, newcomer));
                }
                Takeover::Free | Takeover::Replace => {
                    exchanged += usize::from(holder.is_some_and(|holder| holder != newcomer));
                    holder = Some(newcomer);
                }
            }
        }
        exchanged
    }

    #[test]
    fn the_seventh_takeover_between_two_addresses_in_five_minutes_is_refused() {
        let (start, id) = (clock::now(), Arc::from("r"));
        let mut takeovers = Takeovers::new();
        assert_eq!(takeovers.decide(start, &id, None, ip(1)), Takeover::Free);
        let (mut holder, mut other) = (ip(1), ip(2));
        for _ in 0..6 {
            assert_eq!(takeovers.decide(start, &id, Some(holder), other), Takeover::Replace);
            std::mem::swap(&mut holder, &mut other);
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(
            takeovers.decide(later, &id, Some(holder), other),
            Takeover::Refuse {
                incumbent: holder,
                newcomer: other,
                takeovers: 6,
                retry_after: Duration::from_secs(240),
            }
        );
        assert_eq!(takeovers.decide(later, &id, Some(holder), holder), Takeover::Replace);
        assert_eq!(
            takeovers.decide(later, &Arc::from("q"), Some(holder), other),
            Takeover::Replace
        );
        let over = start + WINDOW;
        assert_eq!(takeovers.decide(over, &id, Some(holder), other), Takeover::Replace);
    }

    #[test]
    fn clones_exchange_a_bounded_number_of_times() {
        let two = fight(&[1, 2], 600);
        assert!((6..=12).contains(&two), "{two}");
        let ten = fight(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 600);
        assert!(ten <= 36, "{ten}");
    }

    #[test]
    fn a_router_that_flaps_on_one_address_is_never_refused() {
        let (start, id) = (clock::now(), Arc::from("r"));
        let mut takeovers = Takeovers::new();
        let mapped: IpAddr = "::ffff:198.51.100.1".parse().unwrap();
        for _ in 0..100 {
            assert_eq!(takeovers.decide(start, &id, Some(ip(1)), mapped), Takeover::Replace);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let start = clock::now();
        let mut takeovers = Takeovers::new();
        for identity in 0..200_000 {
            let id = Arc::from(identity.to_string());
            let _ = takeovers.decide(start, &id, Some(ip(1)), ip(2));
        }
        assert!(takeovers.recent.len() <= 2 * MAX_IDENTITIES);
    }
}
