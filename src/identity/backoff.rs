//! Back-off against guessing.
//!
//! Every attempt at a password takes from the budget of its user name and of the pair of user
//! name and source, every failure from the budget of its source; a success gives back what it took. Sources are
//! /24 and /56 prefixes. Where an identity last succeeded from it is only held to the budget of
//! the pair: strangers who guess at it can not lock it out. Memory does not depend on how many
//! names or addresses strangers invent.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::aging::AgingMap;
pub use super::sketch::Budget;
use super::sketch::LeakySketch;

/// The budgets of [`BackOff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOffPolicy {
    /// Attempts at one user name from anywhere.
    pub per_user: Budget,
    /// Failures of one source prefix.
    pub per_source: Budget,
    /// Attempts at one user name from one source prefix.
    pub per_pair: Budget,
}

impl Default for BackOffPolicy {
    fn default() -> Self {
        let budget = |burst, seconds| Budget { burst, every: Duration::from_secs(seconds) };
        Self { per_user: budget(20, 6), per_source: budget(100, 1), per_pair: budget(10, 10) }
    }
}

/// The attempt is not allowed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

/// Back-off against guessing.
pub struct BackOff {
    users: LeakySketch,
    sources: LeakySketch,
    pairs: LeakySketch,
    /// Where a user name succeeded from last.
    home: AgingMap<Vec<u8>, u64>,
    /// When a source had its last success.
    trusted: AgingMap<u64, Instant>,
}

impl BackOff {
    /// Nobody has failed so far. Takes about 3 MiB.
    pub fn new(now: Instant, policy: BackOffPolicy) -> Self {
        Self {
            users: LeakySketch::new(now, policy.per_user),
            sources: LeakySketch::new(now, policy.per_source),
            pairs: LeakySketch::new(now, policy.per_pair),
            home: AgingMap::new(MAX_REMEMBERED),
            trusted: AgingMap::new(MAX_REMEMBERED),
        }
    }

    /// Whether the password of this attempt may be looked at. If so, the attempt has been counted:
    /// tell its end with [`Self::failed`], [`Self::succeeded`] or [`Self::abandoned`].
    ///
    /// # Errors
    /// The attempt must be refused without looking at the password.
    pub fn allowed(
        &mut self,
        now: Instant,
        username: &[u8],
        source: IpAddr,
    ) -> Result<(), RetryAfter> {
        let prefix = prefix_of(source);
        let mut wait = self.pairs.wait(now, &(username, prefix));
        if !self.is_home(username, prefix) {
            wait = wait.max(self.users.wait(now, &username)).max(self.sources.wait(now, &prefix));
        }
        if !wait.is_zero() {
            return Err(RetryAfter(wait));
        }
        self.pairs.add(now, &(username, prefix));
        self.users.add(now, &username);
        Ok(())
    }

    /// An allowed attempt was wrong.
    pub fn failed(&mut self, now: Instant, source: IpAddr) {
        self.sources.add(now, &prefix_of(source));
    }

    /// An allowed attempt was right: nothing is held against it, and this source is where the
    /// user belongs.
    pub fn succeeded(&mut self, now: Instant, username: &[u8], source: IpAddr) {
        self.abandoned(now, username, source);
        self.remember(now, username, source);
    }

    /// An allowed attempt ended without a verdict, or by no fault of the one who tried.
    pub fn abandoned(&mut self, now: Instant, username: &[u8], source: IpAddr) {
        self.pairs.refund(now, &(username, prefix_of(source)));
        self.users.refund(now, &username);
    }

    /// Notes a success of an earlier life of the process.
    pub fn remember(&mut self, now: Instant, username: &[u8], source: IpAddr) {
        let prefix = prefix_of(source);
        self.home.insert(username.to_vec(), prefix);
        self.trusted.insert(prefix, now);
    }

    /// True if the source prefix had a success within the last 24 hours.
    pub fn is_trusted(&self, now: Instant, source: IpAddr) -> bool {
        self.trusted
            .get(&prefix_of(source))
            .is_some_and(|at| now.saturating_duration_since(*at) < TRUST)
    }

    fn is_home(&self, username: &[u8], prefix: u64) -> bool {
        self.home.get(&username.to_vec()) == Some(&prefix)
    }
}

/// The /24 or /56 of an address as one number; an IPv4 address in IPv6 clothes counts as itself.
fn prefix_of(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(v4) => IPV4 | u64::from(v4.to_bits() >> 8),
        // The upper 56 bits; bit 63 stays clear.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 72).unwrap_or(u64::MAX),
    }
}

const IPV4: u64 = 1 << 63;
const TRUST: Duration = Duration::from_secs(24 * 3600);
/// Half of the user names and sources that are remembered for their successes.
const MAX_REMEMBERED: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_million_guesses_from_50_000_addresses_stay_within_the_budget_of_the_identity() {
        let start = clock::now();
        let mut backoff = BackOff::new(start, BackOffPolicy::default());
        let mut allowed = 0;
        for guess in 0..1_000_000_u32 {
            let now = start + Duration::from_micros(u64::from(guess) * 3600);
            let source = IpAddr::from((0x0B00_0000 + (guess % 50_000) * 256).to_be_bytes());
            if backoff.allowed(now, b"victim", source).is_ok() {
                allowed += 1;
                backoff.failed(now, source);
            }
        }
        // One hour of virtual time: 20 at once, then one each 6 seconds.
        assert!((600..=621).contains(&allowed), "{allowed}");
    }

    #[test]
    fn a_flood_does_not_lock_the_real_router_out_of_its_usual_place() {
        let start = clock::now();
        let mut backoff = BackOff::new(start, BackOffPolicy::default());
        let home = ip("203.0.113.7");
        backoff.allowed(start, b"r", home).unwrap();
        backoff.succeeded(start, b"r", home);
        for second in 1..=600 {
            let now = start + seconds(second);
            for host in 0..100_u32 {
                let source = IpAddr::from((0x0B00_0000 + host * 256).to_be_bytes());
                if backoff.allowed(now, b"r", source).is_ok() {
                    backoff.failed(now, source);
                }
            }
            // Another address of the same prefix: the router got a new lease from its provider.
            assert!(backoff.allowed(now, b"r", ip("203.0.113.99")).is_ok(), "second {second}");
            backoff.succeeded(now, b"r", ip("203.0.113.99"));
            assert!(backoff.allowed(now, b"r", ip("198.51.100.1")).is_err());
        }
    }

    #[test]
    fn guessing_from_the_usual_place_is_held_to_the_pair() {
        let start = clock::now();
        let mut backoff = BackOff::new(start, BackOffPolicy::default());
        backoff.remember(start, b"r", ip("203.0.113.7"));
        let tries = (0..1000).filter(|_| backoff.allowed(start, b"r", ip("203.0.113.8")).is_ok());
        assert_eq!(tries.count(), 10);
        let RetryAfter(wait) = backoff.allowed(start, b"r", ip("203.0.113.8")).unwrap_err();
        assert!(wait > seconds(9) && wait <= seconds(10), "{wait:?}");
        assert!(backoff.allowed(start + wait, b"r", ip("203.0.113.8")).is_ok());
    }

    #[test]
    fn one_source_that_tries_many_names_is_slowed_down() {
        let start = clock::now();
        let mut backoff = BackOff::new(start, BackOffPolicy::default());
        let mut allowed = 0;
        for name in 0..10_000_u32 {
            if backoff.allowed(start, &name.to_be_bytes(), ip("2001:db8:0:1::1")).is_ok() {
                allowed += 1;
                backoff.failed(start, ip("2001:db8:0:1::1"));
            }
        }
        assert_eq!(allowed, 100);
        assert!(backoff.allowed(start, b"x", ip("2001:db8:0:fe::2")).is_err(), "same /56");
        assert!(backoff.allowed(start, b"x", ip("2001:db8:0:100::2")).is_ok(), "another /56");
    }

    #[test]
    fn two_thousand_logins_from_one_address_are_no_guessing() {
        let start = clock::now();
        let mut backoff = BackOff::new(start, BackOffPolicy::default());
        for name in 0..2000_u32 {
            backoff.allowed(start, &name.to_be_bytes(), ip("198.51.100.1")).unwrap();
        }
        for name in 0..2000_u32 {
            backoff.succeeded(start, &name.to_be_bytes(), ip("198.51.100.1"));
        }
        for _ in 0..100 {
            backoff.allowed(start, b"flapping", ip("198.51.100.1")).unwrap();
            backoff.succeeded(start, b"flapping", ip("198.51.100.1"));
        }
    }

    #[test]
    fn trust_in_a_source_ends_after_a_day() {
        let start = clock::now();
        let mut backoff = BackOff::new(start, BackOffPolicy::default());
        assert!(!backoff.is_trusted(start, ip("198.51.100.1")));
        backoff.remember(start, b"r", ip("::ffff:198.51.100.1"));
        assert!(backoff.is_trusted(start + TRUST - seconds(1), ip("198.51.100.200")));
        assert!(!backoff.is_trusted(start + TRUST, ip("198.51.100.200")));
        assert!(!backoff.is_trusted(start, ip("198.51.101.1")));
    }

    #[test]
    fn a_spray_of_names_does_not_grow_the_memory() {
        let start = clock::now();
        let mut backoff = BackOff::new(start, BackOffPolicy::default());
        for name in 0..200_000_u32 {
            backoff.remember(start, &name.to_be_bytes(), IpAddr::from((name << 8).to_be_bytes()));
        }
        assert!(backoff.home.len() <= 2 * MAX_REMEMBERED);
        assert!(backoff.trusted.len() <= 2 * MAX_REMEMBERED);
    }
}
