//! What is worth an event although nobody did anything: certificates that near their end, parts
//! that get worse or well again. The judges are pure: somebody looks now and then and hands in what
//! is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::TunnelEvent;
use super::api::ApiHandle;
use super::housekeeping::Housekeeping;
use crate::control_api::types::Timestamp;
use crate::telemetry::clock;

/// Time between two looks at the parts.
const PARTS_EVERY: Duration = Duration::from_secs(2);
/// Time between two looks at the certificates.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(30);

/// Looks from now on. `alive_at` is when an earlier run was last known to look.
pub(super) fn start(housekeeping: &mut Housekeeping, api: &Arc<ApiHandle>, alive_at: u64) {
    let mut parts = PartWatch::default();
    housekeeping.every("parts", PARTS_EVERY, {
        let api = Arc::clone(api);
        move || look_at_parts(&api, &mut parts)
    });
    let mut certificates = CertificateWatch::new(alive_at);
    look_at_certificates(api, &mut certificates);
    housekeeping.every("certificates", CERTIFICATES_EVERY, {
        let api = Arc::clone(api);
        move || look_at_certificates(&api, &mut certificates)
    });
}

fn look_at_parts(api: &ApiHandle, watch: &mut PartWatch) {
    let wrong = api.degraded_now().into_iter().map(|one| (one.part, one.reason));
    for news in watch.look(wrong) {
        api.core.tell(match news {
            PartNews::Degraded { part, reason } => {
                tracing::warn!(part, reason, "degraded");
                TunnelEvent::Degraded { part, reason }
            }
            PartNews::Recovered { part } => {
                tracing::info!(part, "recovered");
                TunnelEvent::Restored { part }
            }
        });
    }
}

fn look_at_certificates(api: &ApiHandle, watch: &mut CertificateWatch) {
    let in_use: Vec<Watched> = api
        .core
        .settings
        .current()
        .certificates
        .iter()
        .map(|one| Watched { subject: one.subject.clone(), not_after: one.not_after.0 })
        .collect();
    for news in watch.look(clock::unix_seconds(), &in_use) {
        api.core.tell(match news {
            CertificateNews::Expiring(Watched { subject, not_after }, days) => {
                let not_after = Timestamp(not_after);
                tracing::warn!(subject, %not_after, days, "a certificate ends soon");
                TunnelEvent::CertificateEnds { subject, not_after, days }
            }
            CertificateNews::Expired(Watched { subject, not_after }) => {
                let not_after = Timestamp(not_after);
                tracing::error!(subject, %not_after, "a certificate has ended");
                TunnelEvent::CertificateEnded { subject, not_after }
            }
        });
    }
}

/// Days before the end of a certificate at which it is worth an event.
pub(super) const WARN_DAYS: [u64; 3] = [30, 7, 1];

const DAY: u64 = 86_400;

/// A certificate that is in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watched {
    /// Its subject.
    pub(super) subject: String,
    /// Its end, unix time in seconds.
    pub(super) not_after: u64,
}

/// News of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CertificateNews {
    /// It ends in at most so many days, one of [`WARN_DAYS`].
    Expiring(Watched, u64),
    /// It has ended.
    Expired(Watched),
}

/// Tells each certificate's way to its end in at most four steps, each once.
///
/// After a restart only steps are told that were passed while nobody looked; steps that were
/// passed together are told as the last of them.
#[derive(Debug)]
pub(super) struct CertificateWatch {
    /// The last look, unix time in seconds; before the first one that of an earlier run.
    looked: u64,
    first: bool,
    known: BTreeSet<Watched>,
}

impl CertificateWatch {
    /// `alive_at` is the last time at which an earlier run is known to have looked; 0 if none has.
    pub(super) fn new(alive_at: u64) -> Self {
        Self { looked: alive_at, first: true, known: BTreeSet::new() }
    }

    /// Looks at everything that is in use at `now` (unix time in seconds).
    pub(super) fn look(&mut self, now: u64, certificates: &[Watched]) -> Vec<CertificateNews> {
        let mut news = Vec::new();
        for one in certificates {
            // One that was put in use while we run has told nothing yet.
            let since = if self.first || self.known.contains(one) { self.looked } else { 0 };
            let steps =
                WARN_DAYS.iter().map(|days| (one.not_after.saturating_sub(days * DAY), *days));
            let passed = steps
                .chain([(one.not_after, 0)])
                .take_while(|(at, _)| *at <= now)
                .last()
                .filter(|(at, _)| *at > since || since == 0);
            match passed {
                Some((_, 0)) => news.push(CertificateNews::Expired(one.clone())),
                Some((_, days)) => news.push(CertificateNews::Expiring(one.clone(), days)),
                None => {}
            }
        }
        self.first = false;
        self.known = certificates.iter().cloned().collect();
        // A clock that was set back must not repeat what was told.
        self.looked = self.looked.max(now);
        news
    }
}

/// News of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PartNews {
    /// It has got worse, or is so for another reason.
    Degraded {
        /// The part.
        part: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing is wrong with it any more.
    Recovered {
        /// The part.
        part: String,
    },
}

/// Compares what is wrong with what was wrong at the last look.
#[derive(Debug, Default)]
pub(super) struct PartWatch {
    known: BTreeMap<String, BTreeSet<String>>,
}

impl PartWatch {
    /// Looks at every part with something wrong and what that is.
    pub(super) fn look(
        &mut self,
        wrong: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<PartNews> {
        let mut now: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (part, reason) in wrong {
            now.entry(part).or_default().insert(reason);
        }
        let mut news = Vec::new();
        for (part, reasons) in &now {
            let known = self.known.get(part);
            for reason in reasons.iter().filter(|one| known.is_none_or(|all| !all.contains(*one))) {
                news.push(PartNews::Degraded { part: part.clone(), reason: reason.clone() });
            }
        }
        for part in self.known.keys().filter(|part| !now.contains_key(*part)) {
            news.push(PartNews::Recovered { part: part.clone() });
        }
        self.known = now;
        news
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: u64 = 1_000 * DAY;
    const NONE: [u64; 0] = [];

    fn certificate(not_after: u64) -> Watched {
        Watched { subject: "CN=head".to_owned(), not_after }
    }

    /// What was told, in days; 0: it has ended.
    fn days(news: &[CertificateNews]) -> Vec<u64> {
        let of = |one: &CertificateNews| match one {
            CertificateNews::Expiring(_, days) => *days,
            CertificateNews::Expired(_) => 0,
        };
        news.iter().map(of).collect()
    }

    #[test]
    fn each_step_is_told_once() {
        let mut watch = CertificateWatch::new(0);
        let mut told = Vec::new();
        for hour in 0..24 * 40 {
            let now = END - 35 * DAY + hour * 3600;
            let news = days(&watch.look(now, &[certificate(END)]));
            told.extend(news.into_iter().map(|days| (days, (END.saturating_sub(now)) / DAY)));
        }
        assert_eq!(told, [(30, 30), (7, 7), (1, 1), (0, 0)]);
    }

    #[test]
    fn a_restart_repeats_nothing_and_tells_what_was_passed_meanwhile() {
        let now = END - 5 * DAY;
        let ours = [certificate(END)];
        assert_eq!(days(&CertificateWatch::new(0).look(now, &ours)), [7], "first run of all");
        assert_eq!(days(&CertificateWatch::new(now - 3600).look(now, &ours)), NONE);
        assert_eq!(days(&CertificateWatch::new(END - 40 * DAY).look(now, &ours)), [7]);
        assert_eq!(days(&CertificateWatch::new(now).look(END + 1, &ours)), [0]);
        assert_eq!(days(&CertificateWatch::new(END + 1).look(END + 2, &ours)), NONE);
    }

    #[test]
    fn a_certificate_that_is_put_in_use_late_is_told_at_once() {
        let mut watch = CertificateWatch::new(END - 6 * DAY);
        let now = END - 5 * DAY;
        assert_eq!(days(&watch.look(now, &[certificate(END)])), NONE);
        let both = [certificate(END), certificate(END + DAY)];
        assert_eq!(days(&watch.look(now + 1, &both)), [7]);
        assert_eq!(days(&watch.look(now + 2, &both)), NONE);
        // Gone and back: as if it were new.
        assert_eq!(days(&watch.look(now + 3, &[])), NONE);
        assert_eq!(days(&watch.look(now + 4, &both)), [7, 7]);
    }

    proptest! {
        #[test]
        fn whoever_looks_ever_so_often_is_told_each_step_at_most_once(
            looks in prop::collection::vec((0u64..40 * DAY, any::<bool>()), 1..60)
        ) {
            let mut times: Vec<_> = looks;
            times.sort_unstable();
            let mut watch = CertificateWatch::new(0);
            let mut told = Vec::new();
            let mut last = 0;
            for (at, restart) in times {
                let now = END - 35 * DAY + at;
                if restart && last != 0 {
                    watch = CertificateWatch::new(last);
                }
                told.extend(days(&watch.look(now, &[certificate(END)])));
                last = now;
                let due = if now >= END { Some(0) } else {
                    WARN_DAYS.into_iter().rev().find(|days| now + days * DAY >= END)
                };
                prop_assert_eq!(told.last().copied(), due, "at {} s before the end", END as i64 - now as i64);
            }
            let mut sorted = told.clone();
            sorted.dedup();
            prop_assert_eq!(&sorted, &told);
            prop_assert!(told.is_sorted_by(|a, b| a > b));
        }
    }

    #[test]
    fn parts_are_told_when_they_change() {
        let mut watch = PartWatch::default();
        let pair = |part: &str, reason: &str| (part.to_owned(), reason.to_owned());
        let worse = |part: &str, reason: &str| {
            let (part, reason) = pair(part, reason);
            PartNews::Degraded { part, reason }
        };
        let well = |part: &str| PartNews::Recovered { part: part.to_owned() };
        assert_eq!(watch.look([]), []);
        assert_eq!(watch.look([pair("store", "full")]), [worse("store", "full")]);
        assert_eq!(watch.look([pair("store", "full")]), []);
        assert_eq!(
            watch.look([pair("store", "read-only"), pair("tun", "down")]),
            [worse("store", "read-only"), worse("tun", "down")]
        );
        assert_eq!(
            watch.look([pair("tun", "down"), pair("tun", "gone")]),
            [worse("tun", "gone"), well("store"),]
        );
        assert_eq!(watch.look([pair("tun", "gone")]), []);
        assert_eq!(watch.look([]), [well("tun")]);
    }
}
