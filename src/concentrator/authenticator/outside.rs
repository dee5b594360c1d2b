//! Asks an [`Authenticator`]: on the runtime, within a deadline, so many at a time, with the same
//! back-off as the built-in accounts. Everything that is not a clear yes is a no.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::identity::valid_name;
use crate::proto::session::{Allowed, AuthRequest, DenyReason, Identity, Verdict};
use crate::telemetry::clock;
use crate::telemetry::tally::Tally;

use super::super::accounts::{Accounts, Attempt};
use super::{
    Accept, Answer, Authenticator, Claims, Decision, Judge, LoginKind, LoginRequest, Refusal,
};

/// Longest sentence of an authenticator that is kept, bytes.
const MAX_TEXT_BYTES: usize = 256;
/// Most tags of a router.
const MAX_TAGS: usize = 32;

/// How an authenticator is asked.
#[derive(Clone, Copy, Debug)]
pub(in crate::concentrator) struct OutsideLimits {
    /// From the question to the answer, waiting included.
    pub(in crate::concentrator) timeout: Duration,
    /// Questions that may be open; rekeys may take half of the places.
    pub(in crate::concentrator) open: usize,
}

/// What came of the questions.
#[derive(Debug, Default)]
pub(in crate::concentrator) struct OutsideCounters {
    /// By outcome: accepted, refused, timed_out, failed, invalid, overloaded.
    pub(in crate::concentrator) outcomes: Tally,
    /// What went wrong and has not been logged yet.
    trouble: Tally,
    /// Questions that are open.
    pub(in crate::concentrator) open: AtomicUsize,
}

/// The judge that asks somebody else.
pub(in crate::concentrator) struct Outside {
    runtime: Handle,
    shared: Arc<Shared>,
}

struct Shared {
    authenticator: Arc<dyn Authenticator>,
    limits: OutsideLimits,
    accounts: Arc<Accounts>,
    counters: Arc<OutsideCounters>,
}

impl Outside {
    pub(in crate::concentrator) fn new(
        runtime: Handle,
        authenticator: Arc<dyn Authenticator>,
        limits: OutsideLimits,
        accounts: Arc<Accounts>,
        counters: Arc<OutsideCounters>,
    ) -> Self {
        Self { runtime, shared: Arc::new(Shared { authenticator, limits, accounts, counters }) }
    }
}

impl Judge for Outside {
    fn judge(&self, login: LoginRequest, answer: Answer) {
        if login.request.too_long {
            return answer.give(Verdict::Deny(DenyReason::TooLong));
        }
        let shared = Arc::clone(&self.shared);
        let rekey = matches!(login.kind, LoginKind::Rekey { .. });
        let Some(place) = Place::take(&shared, rekey) else {
            shared.trouble("overloaded", "more questions are open than are allowed");
            return answer.give(Verdict::Deny(DenyReason::Unavailable));
        };
        // A rekey presents what was right before: it is nobody's guess.
        let mut attempt = None;
        if !rekey {
            let name = credential_name(&login.request);
            let Some(counted) = Attempt::count(&shared.accounts, &name, login.source.ip()) else {
                return answer.give(Verdict::Deny(DenyReason::BackOff));
            };
            attempt = Some(counted);
        }
        self.runtime.spawn(async move {
            let (verdict, claims) = shared.decide(&login).await;
            if let Some(attempt) = attempt {
                attempt.end(&verdict);
            }
            drop(place);
            answer.give_with(verdict, claims);
        });
    }

    fn still_allowed(&self, identity: &Identity) -> bool {
        let disabled = self.shared.accounts.read().get(&identity.0).is_some_and(|a| a.disabled);
        !disabled && self.shared.authenticator.still_allowed(&identity.0)
    }
}

impl Shared {
    async fn decide(&self, login: &LoginRequest) -> (Verdict, Claims) {
        let asked = self.authenticator.authenticate(login);
        match tokio::time::timeout(self.limits.timeout, asked).await {
            Err(_) => self.no_verdict("timed_out", "no answer in time"),
            Ok(Err(error)) => self.no_verdict("failed", &error.0),
            Ok(Ok(Decision::Refuse(refusal))) => {
                self.counters.outcomes.note("refused");
                (refused(&refusal), Claims::default())
            }
            Ok(Ok(Decision::Accept(accept))) => match self.accepted(accept) {
                Ok((allowed, claims)) => {
                    self.counters.outcomes.note("accepted");
                    (Verdict::Allow(allowed), claims)
                }
                Err(Unfit::Invalid(what)) => self.no_verdict("invalid", what),
                Err(Unfit::Disabled) => {
                    self.counters.outcomes.note("refused");
                    (Verdict::Deny(DenyReason::Disabled), Claims::default())
                }
            },
        }
    }

    fn accepted(&self, accept: Accept) -> Result<(Allowed, Claims), Unfit> {
        let Accept { router, address, mut tags, tenant, cipher, auth } = accept;
        if !valid_name(&router) {
            return Err(Unfit::Invalid("the name of the router is not valid"));
        }
        if tags.len() > MAX_TAGS || !tags.iter().all(|tag| valid_tag(tag)) {
            return Err(Unfit::Invalid("a tag is not valid, or there are more than 32"));
        }
        if tenant.as_deref().is_some_and(|tenant| !valid_name(tenant)) {
            return Err(Unfit::Invalid("the tenant is not valid"));
        }
        // An account of this name is obeyed, whoever decides about logins.
        if self.accounts.read().get(&router).is_some_and(|account| account.disabled) {
            return Err(Unfit::Disabled);
        }
        tags.sort();
        tags.dedup();
        Ok((Allowed { identity: Identity(router), cipher, auth }, Claims { address, tags, tenant }))
    }

    fn no_verdict(&self, outcome: &'static str, what: &str) -> (Verdict, Claims) {
        self.trouble(outcome, what);
        (Verdict::Deny(DenyReason::Unavailable), Claims::default())
    }

    /// Counts it; one line in ten seconds names the sum and the latest.
    fn trouble(&self, outcome: &'static str, latest: &str) {
        self.counters.outcomes.note(outcome);
        self.counters.trouble.note(outcome);
        if let Some(summary) = self.counters.trouble.summary(clock::now()) {
            let latest = printable(latest);
            tracing::warn!(summary, latest, "the authenticator gave no verdict");
        }
    }
}

/// Why an acceptance is none.
enum Unfit {
    Invalid(&'static str),
    Disabled,
}

fn refused(refusal: &Refusal) -> Verdict {
    if refusal.text.is_empty() {
        return Verdict::Deny(refusal.reason);
    }
    Verdict::Refuse { reason: refusal.reason, text: printable(&refusal.text).into() }
}

/// Bounded, without control characters or anything that changes how a line is read.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        let fine = !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        let before = shown.len();
        if fine {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
        if shown.len() > MAX_TEXT_BYTES {
            shown.truncate(before);
            break;
        }
    }
    shown
}

fn valid_tag(tag: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    tag.len() <= 63
        && tag.bytes().next().is_some_and(lower)
        && tag.bytes().all(|byte| lower(byte) || b"._:=/-".contains(&byte))
}

/// One open question; its end gives the place back.
struct Place(Arc<OutsideCounters>);

impl Place {
    fn take(shared: &Shared, rekey: bool) -> Option<Self> {
        let bound = if rekey { shared.limits.open.div_ceil(2) } else { shared.limits.open };
        let open = &shared.counters.open;
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < bound).then_some(open.saturating_add(1))
        })
        .ok()
        .map(|_| Self(Arc::clone(&shared.counters)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What guesses are counted under: the user name, or without one the certificate.
fn credential_name(request: &AuthRequest) -> Vec<u8> {
    match &request.certificate {
        Some(certificate) if request.username.is_empty() => {
            [b"\0certificate ", &certificate.fingerprint[..]].concat()
        }
        _ => request.username.clone(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
