//! A short memory of passwords that the slow hash found right.

use std::time::{Duration, Instant};

use tunnelhead_crypto::{Secret, credential_tag};

use super::aging::AgingMap;
use super::judge::{Accepted, Proof, Refusal, SlowCheck};
use super::{Account, StoredSecret};

/// Lets a router that reconnects skip the slow hash. Keeps keyed hashes of (account, stored
/// secret, password) only, so that a changed password is never found; bounded.
pub struct VerifiedCache {
    key: Secret<32>,
    lifetime: Duration,
    seen: AgingMap<[u8; 32], Instant>,
}

/// The answer of [`VerifiedCache::recall`].
#[derive(Debug)]
#[must_use]
pub enum Recalled {
    /// The password is known to be right, and this is the verdict.
    Verdict(Result<Accepted, Refusal>),
    /// The password has to be hashed: [`SlowCheck::verify`].
    NeedsHash(SlowCheck),
}

impl VerifiedCache {
    /// An empty cache of at most `capacity` passwords, each known for `lifetime`. The key should
    /// be random and used for nothing else.
    pub fn new(key: Secret<32>, capacity: usize, lifetime: Duration) -> Self {
        Self { key, lifetime, seen: AgingMap::new(capacity.div_ceil(2)) }
    }

    /// Notes that the password is right for the account as it is now.
    pub fn remember(&mut self, now: Instant, accepted: &Accepted, password: &[u8]) {
        let account = &accepted.account;
        let secret = match accepted.proof {
            Proof::Password => Some(&account.secret),
            Proof::PreviousPassword => account.previous.as_ref().map(|previous| &previous.secret),
            Proof::Certificate => None,
        };
        if let Some(secret) = secret.filter(|secret| secret.is_slow()) {
            self.seen.insert(self.tag(account, secret, password), now);
        }
    }

    /// Gives the verdict at once if the password was found right not long ago.
    pub fn recall(&self, now: Instant, check: SlowCheck, password: &[u8]) -> Recalled {
        let known = check.account().and_then(|account| {
            check.slow_secrets().find_map(|(proof, secret)| {
                let at = self.seen.get(&self.tag(account, secret, password))?;
                (now.saturating_duration_since(*at) < self.lifetime).then_some(proof)
            })
        });
        match known {
            Some(proof) => Recalled::Verdict(check.conclude(Some(proof))),
            None => Recalled::NeedsHash(check),
        }
    }

    fn tag(&self, account: &Account, secret: &StoredSecret, password: &[u8]) -> [u8; 32] {
        let stored = StoredSecret::to_text(secret);
        credential_tag(&self.key, &[account.name.as_bytes(), stored.as_bytes(), password])
    }
}

#[cfg(test)]
mod tests {
    use tunnelhead_crypto::FastRandom;

    use std::sync::Arc;

    use super::super::{Directory, Judgement, LoginMode, Presented, PreviousSecret, judge};
    use super::*;
    use crate::telemetry::clock;

    const HOUR: Duration = Duration::from_secs(3600);

    fn account(password: &[u8]) -> Account {
        Account {
            name: "a".into(),
            username: "a".into(),
            secret: StoredSecret::argon2id(password, &mut FastRandom::from_seed([1; 32])).unwrap(),
            login: LoginMode::Password,
            certificate_cn: None,
            cipher: None,
            auth: None,
            disabled: false,
            address: None,
            created_at: 0,
            tenant: None,
            tags: Vec::new(),
            note: String::new(),
            previous: None,
            revision: 0,
        }
    }

    fn check(account: &Account, password: &[u8]) -> SlowCheck {
        let mut directory = Directory::new();
        directory.insert(account.clone()).unwrap();
        let username = account.username.as_bytes();
        let presented = Presented { username, password, certificate_cn: None };
        match judge(&directory, &Secret::new([0; 32]), presented, 100) {
            Judgement::NeedsSlowHash(check) => check,
            other => panic!("{other:?}"),
        }
    }

    fn accepted(account: &Account, proof: Proof) -> Accepted {
        Accepted { account: Arc::new(account.clone()), proof }
    }

    fn is_known(cache: &VerifiedCache, now: Instant, account: &Account, password: &[u8]) -> bool {
        match cache.recall(now, check(account, password), password) {
            Recalled::Verdict(verdict) => verdict.is_ok(),
            Recalled::NeedsHash(_) => false,
        }
    }

    #[test]
    fn knows_a_password_until_it_expires_or_changes() {
        let now = clock::now();
        let mut cache = VerifiedCache::new(Secret::new([2; 32]), 100, HOUR);
        let known = account(b"password");
        assert!(!is_known(&cache, now, &known, b"password"));
        cache.remember(now, &accepted(&known, Proof::Password), b"password");
        assert!(is_known(&cache, now + HOUR - Duration::from_secs(1), &known, b"password"));
        assert!(!is_known(&cache, now + HOUR, &known, b"password"));
        assert!(!is_known(&cache, now, &known, b"passwort"));
        assert!(!is_known(&cache, now, &account(b"new password"), b"password"));
        let renamed = Account { name: "b".into(), ..known };
        assert!(!is_known(&cache, now, &renamed, b"password"));
    }

    #[test]
    fn a_known_password_opens_no_disabled_account() {
        let now = clock::now();
        let mut cache = VerifiedCache::new(Secret::new([2; 32]), 100, HOUR);
        let known = account(b"password");
        cache.remember(now, &accepted(&known, Proof::Password), b"password");
        let disabled = Account { disabled: true, ..known };
        let Recalled::Verdict(verdict) =
            cache.recall(now, check(&disabled, b"password"), b"password")
        else {
            panic!("must be known");
        };
        assert_eq!(verdict.unwrap_err(), Refusal::Disabled);
    }

    /// The old password must not live on under the name of the new one.
    #[test]
    fn a_known_old_password_is_forgotten_when_its_grace_ends() {
        let now = clock::now();
        let mut cache = VerifiedCache::new(Secret::new([2; 32]), 100, HOUR);
        let old = account(b"old").secret;
        let rotated = |until| Account {
            previous: Some(PreviousSecret { secret: old.clone(), until }),
            ..account(b"new")
        };
        cache.remember(now, &accepted(&rotated(101), Proof::PreviousPassword), b"old");
        let Recalled::Verdict(Ok(got)) = cache.recall(now, check(&rotated(101), b"old"), b"old")
        else {
            panic!("must be known");
        };
        assert_eq!(got.proof, Proof::PreviousPassword);
        assert!(!is_known(&cache, now, &rotated(100), b"old"));
        assert!(!is_known(&cache, now, &account(b"new"), b"old"));
        // What was known before the rotation stays known during the grace.
        cache.remember(now, &accepted(&account(b"old"), Proof::Password), b"old");
        assert!(is_known(&cache, now, &rotated(101), b"old"));
    }

    #[test]
    fn is_bounded() {
        let now = clock::now();
        let mut cache = VerifiedCache::new(Secret::new([2; 32]), 100, HOUR);
        let account = account(b"password");
        for number in 0..10_000_u32 {
            let accepted = accepted(&account, Proof::Password);
            cache.remember(now, &accepted, &number.to_be_bytes());
        }
        assert!(cache.seen.len() <= 100);
        assert!(is_known(&cache, now, &account, &9_999_u32.to_be_bytes()));
    }
}
