//! Refusals that one user can provoke at will must not fill the disk: each user has a budget of
//! recorded ones; what goes beyond it is a number in the next record.

use std::collections::HashMap;

/// Refusals that are recorded at once.
const BURST: u64 = 60;
/// Users that are kept apart; further ones share a budget.
const MAX_USERS: usize = 1024;

/// Budgets by user.
#[derive(Debug, Default)]
pub(super) struct Limiter(HashMap<Option<u32>, Budget>);

#[derive(Debug)]
struct Budget {
    left: u64,
    /// Seconds since 1970-01-01 UTC of the last refill.
    at: u64,
    skipped: u64,
}

impl Limiter {
    /// Whether a refusal of this user is recorded now, one a second in the long run; Some: how
    /// many were not since the last one.
    pub(super) fn admit(&mut self, uid: Option<u32>, now: u64) -> Option<u64> {
        let known = self.0.contains_key(&uid) || self.0.len() < MAX_USERS;
        let budget = self.0.entry(if known { uid } else { None }).or_insert(Budget {
            left: BURST,
            at: now,
            skipped: 0,
        });
        let gained = now.saturating_sub(budget.at);
        budget.left = budget.left.saturating_add(gained).min(BURST);
        budget.at = now;
        if budget.left == 0 {
            budget.skipped = budget.skipped.saturating_add(1);
            return None;
        }
        budget.left = budget.left.saturating_sub(1);
        Some(std::mem::take(&mut budget.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_number() {
        let mut limiter = Limiter::default();
        let recorded = (0..1000).filter(|_| limiter.admit(Some(1), 100).is_some()).count();
        assert_eq!(recorded, 60);
        // Somebody else's are recorded all the same.
        assert_eq!(limiter.admit(Some(2), 100), Some(0));
        assert_eq!(limiter.admit(Some(1), 101), Some(940));
        assert_eq!(limiter.admit(Some(1), 101), None);
        assert_eq!(limiter.admit(Some(1), 103), Some(1));
    }

    #[test]
    fn the_number_of_users_is_bounded() {
        let mut limiter = Limiter::default();
        for uid in 0..5000 {
            limiter.admit(Some(uid), 1);
        }
        assert!(limiter.0.len() <= MAX_USERS + 1);
    }
}
