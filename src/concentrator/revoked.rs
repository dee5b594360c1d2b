//! Logins that were under way when their account was disabled or removed.
//!
//! A client can hold a login open between the verdict and the push reply. An account that is
//! enabled again, or made anew with another password, is the same name by then: what was accepted
//! before must not become a tunnel of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who was shut out when, for as long as a login can take.
#[derive(Debug)]
pub(super) struct Revoked {
    at: HashMap<Arc<str>, Instant>,
    keep: Duration,
}

impl Revoked {
    /// Nobody yet. `keep` is the longest time from accept to tunnel.
    pub(super) fn new(keep: Duration) -> Self {
        Self { at: HashMap::new(), keep }
    }

    /// The account was disabled or removed.
    pub(super) fn note(&mut self, now: Instant, name: &str) {
        // A login that is older than that has met its deadline.
        let keep = self.keep * 2;
        self.at.retain(|_, at| now.saturating_duration_since(*at) <= keep);
        self.at.insert(name.into(), now);
    }

    /// True if a connection that was accepted then must not become a tunnel of this account.
    pub(super) fn covers(&self, name: &str, accepted_at: Instant) -> bool {
        self.at.get(name).is_some_and(|at| accepted_at <= *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_logins_from_before_are_covered() {
        let start = clock::now();
        let mut revoked = Revoked::new(SECOND * 30);
        revoked.note(start, "a");
        assert!(revoked.covers("a", start));
        assert!(!revoked.covers("a", start + SECOND));
        assert!(!revoked.covers("b", start));
        revoked.note(start + SECOND * 5, "a");
        assert!(revoked.covers("a", start + SECOND));
    }

    #[test]
    fn names_are_forgotten_once_no_login_can_be_that_old() {
        let start = clock::now();
        let mut revoked = Revoked::new(SECOND * 30);
        for n in 0..100 {
            revoked.note(start, &format!("r{n}"));
        }
        revoked.note(start + SECOND * 60, "late");
        assert_eq!(revoked.at.len(), 101);
        revoked.note(start + SECOND * 61, "later");
        assert_eq!(revoked.at.len(), 2);
    }
}
