//! Login attempts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::control_api::types::{
    IncidentView, List, LoginAnswer, LoginAttempt, LoginFilter, LoginOffer, LoginReport, LoginStep,
    SharedProperty, Timestamp,
};
use crate::control_api::{Answer, ApiError, ErrorCode, Logins, Scope};
use crate::identity::Account;
use crate::telemetry::clock;
use crate::telemetry::flight::explain::{
    self, AccountFacts, CertificateFacts, Explanation, ListenerFacts, Setting,
};
use crate::telemetry::flight::incidents::{self, Context};
use crate::telemetry::flight::{Attempt, Outcome, Owner, Record, capture};

use super::super::flights::ROUTEROS_USERNAME;
use super::ApiHandle;

/// Attempts looked at while the recorder is locked once.
const STEP: usize = 512;

impl Logins for Arc<ApiHandle> {
    fn list_logins(
        &self,
        scope: &Scope,
        filter: LoginFilter,
        limit: usize,
        after: Option<String>,
    ) -> Answer<'_, List<LoginAttempt>> {
        let scope = scope.clone();
        Box::pin(async move {
            let event_id = self.core.event_id();
            let before = match after.as_deref().map(str::parse) {
                None => u64::MAX,
                Some(Ok(before)) => before,
                Some(Err(_)) => {
                    return Err(ApiError::field(
                        ErrorCode::BadRequest,
                        "after",
                        "is not the \"next\" of a page",
                    ));
                }
            };
            let (items, next) = self.page(&scope, &filter, limit, before).await;
            Ok(List { items, next: next.map(|seq| seq.to_string()), event_id })
        })
    }

    fn why(&self, scope: &Scope, name: &str) -> Answer<'_, LoginReport> {
        let report = self.report(scope, name);
        Box::pin(std::future::ready(report))
    }

    fn capture(&self, scope: &Scope, name: &str) -> Answer<'_, String> {
        let result = self.attempts_of(scope, name).and_then(|found| {
            let all = found.attempts.iter().chain(&found.related);
            let kept = all.filter_map(|attempt| Some((attempt, attempt.trace.as_ref()?)));
            kept.map(|(attempt, trace)| capture::write(&attempt.record, trace)).next().ok_or_else(
                || {
                    ApiError::new(
                        ErrorCode::NotFound,
                        "nothing of its logins is kept; ask again after its next attempt",
                    )
                },
            )
        });
        Box::pin(std::future::ready(result))
    }

    fn incidents(&self, scope: &Scope, since: Duration) -> Answer<'_, List<IncidentView>> {
        let scope = scope.clone();
        Box::pin(async move {
            let event_id = self.core.event_id();
            let items = self.find_incidents(&scope, since);
            Ok(List::complete(event_id, items))
        })
    }
}

/// The attempts of one name.
struct Found {
    account: Option<Arc<Account>>,
    attempts: Vec<Attempt>,
    related: Vec<Attempt>,
    up_ms: Option<u64>,
}

impl ApiHandle {
    /// True if the caller may see what this attempt says.
    fn may_see(&self, scope: &Scope, owner: &Owner) -> bool {
        if *scope == Scope::All {
            return true;
        }
        let covers = |name: &str| {
            let directory = self.core.accounts.read();
            directory.get(name).is_some_and(|account| scope.covers(account.tenant.as_deref()))
        };
        match owner {
            Owner::Router(name) => covers(name),
            // All that were ever seen there have to be theirs.
            Owner::Source(source) => {
                let routers = self.core.recorder().fleet.routers_at(*source).to_vec();
                !routers.is_empty() && routers.iter().all(|name| covers(name))
            }
            Owner::Stranger(_) => false,
        }
    }

    /// Attempts that pass, and where to go on; the recorder is locked for a while at a time.
    async fn page(
        &self,
        scope: &Scope,
        filter: &LoginFilter,
        limit: usize,
        mut before: u64,
    ) -> (Vec<LoginAttempt>, Option<u64>) {
        let mut items = Vec::new();
        loop {
            let (seen, next) = self.core.recorder().walk(before, STEP);
            for attempt in seen {
                before = attempt.seq;
                if passes(filter, &attempt) && self.may_see(scope, &attempt.owner) {
                    if items.len() >= limit {
                        // One more passes: the page ends before it.
                        return (items, Some(attempt.seq + 1));
                    }
                    items.push(self.attempt_view(scope, &attempt));
                }
            }
            if next.is_none() {
                return (items, None);
            }
            tokio::task::yield_now().await;
        }
    }

    fn attempts_of(&self, scope: &Scope, name: &str) -> Result<Found, ApiError> {
        let account = self.account(scope, name).ok();
        let mut attempts = Vec::new();
        let mut related = Vec::new();
        if account.is_some() || *scope == Scope::All {
            attempts = self.core.recorder().of(&Owner::Router(name.into()));
        }
        match &account {
            Some(account) => {
                let home = self.core.home_of(name).map(Owner::Source);
                if let Some(owner) = home.filter(|owner| self.may_see(scope, owner)) {
                    related = self.core.recorder().of(&owner);
                }
                let username = account.username.as_bytes();
                if let Some(cut) = username.get(..ROUTEROS_USERNAME)
                    && cut.len() < username.len()
                {
                    related.extend(self.core.recorder().of_stranger(cut));
                }
                related.sort_by_key(|attempt| std::cmp::Reverse(attempt.seq));
            }
            None if *scope == Scope::All => {
                let tried = unescape(name);
                let strangers = self.core.recorder().of_stranger(&tried);
                attempts.extend(strangers);
                attempts.sort_by_key(|attempt| std::cmp::Reverse(attempt.seq));
            }
            None => {}
        }
        if account.is_none() && attempts.is_empty() {
            return Err(ApiError::router_not_found(name));
        }
        let up_ms = self.core.recorder().fleet.up_since(name);
        Ok(Found { account, attempts, related, up_ms })
    }

    fn report(&self, scope: &Scope, name: &str) -> Result<LoginReport, ApiError> {
        let found = self.attempts_of(scope, name)?;
        let all = |attempts: &[Attempt]| -> Vec<LoginAttempt> {
            attempts.iter().map(|attempt| self.attempt_view(scope, attempt)).collect()
        };
        let (attempts, related) = (all(&found.attempts), all(&found.related));
        let known = found.account.is_some();
        let since = found.up_ms.map(|ms| Timestamp(ms / 1000));
        let newest = [found.attempts.first(), found.related.first()];
        let newest = newest.into_iter().flatten().max_by_key(|attempt| attempt.seq);
        let shown = newest.and_then(|newest| {
            attempts.iter().chain(&related).find(|view| view.id == newest.record.id)
        });
        let mut answer = None;
        let sentence = match (since, shown) {
            (Some(since), _) => {
                let from = attempts.iter().find(|view| view.outcome == "up");
                let from = from.map_or_else(String::new, |up| format!(" from {}", up.source));
                format!("{name} is connected since {since}{from}.")
            }
            (None, Some(view)) => {
                answer.clone_from(&view.answer);
                let times = if view.times > 1 {
                    format!(" ({} times since {})", view.times, view.first)
                } else {
                    String::new()
                };
                match &view.answer {
                    Some(LoginAnswer { sentence, .. }) if known => {
                        format!("{name} can't log in{times}: {sentence}")
                    }
                    Some(LoginAnswer { sentence, .. }) => {
                        format!("{name} is no router; somebody tried it{times}: {sentence}")
                    }
                    None if view.outcome == "up" => {
                        format!("{name} was connected from {} and is not any more.", view.started)
                    }
                    None => format!("{name} has logged in; its first packet is awaited."),
                }
            }
            (None, None) => format!(
                "{name} has not tried to log in since the concentrator was started: look whether \
                 its interface is enabled and whether it reaches the listener."
            ),
        };
        Ok(LoginReport {
            name: name.to_owned(),
            known,
            connected_since: since,
            sentence,
            answer,
            attempts,
            related,
        })
    }

    /// One attempt for the API, explained.
    fn attempt_view(&self, scope: &Scope, attempt: &Attempt) -> LoginAttempt {
        let record = &attempt.record;
        let router = match &attempt.owner {
            Owner::Router(name) => Some(name.to_string()),
            Owner::Source(_) | Owner::Stranger(_) => None,
        };
        let failed = matches!(record.outcome, Outcome::Failed { .. });
        let text = |text: &Arc<str>| text.to_string();
        LoginAttempt {
            id: record.id,
            answer: failed.then(|| self.answer(scope, router.as_deref(), record)),
            router,
            username: record.username.as_deref().map(|name| name.escape_ascii().to_string()),
            source: record.source,
            proxy: record.proxy,
            listener: self
                .listener(record.listener)
                .map_or_else(String::new, |(a, _)| a.to_string()),
            started: Timestamp(record.started_ms / 1000),
            first: Timestamp(attempt.first_ms / 1000),
            times: attempt.times,
            outcome: record.outcome.code().to_owned(),
            reason: record.outcome.reason().map(str::to_owned),
            offered: LoginOffer {
                hard_resets: record.resets,
                tls_version: record.hello.as_ref().map(|hello| hello.newest().to_owned()),
                tls_suites: record.hello.as_ref().map(|hello| hello.suites),
                server_name: record
                    .hello
                    .as_ref()
                    .and_then(|hello| hello.server_name.as_deref().map(str::to_owned)),
                tls_client: record.hello.as_ref().map(|hello| format!("{:08x}", hello.kind)),
                certificate: record
                    .certificate
                    .as_ref()
                    .map(|certificate| certificate.common_name.escape_ascii().to_string()),
                options: record.options.as_ref().map(text),
                peer_info: record.peer_info.as_ref().map(text),
            },
            tls: record.tls.as_ref().map(|(version, suite)| format!("{version} {suite}")),
            cipher: record.data.map(|(cipher, _)| cipher.to_owned()),
            auth: record.data.map(|(_, auth)| auth.to_owned()),
            address: record.address,
            steps: record
                .marks
                .iter()
                .map(|mark| LoginStep { step: mark.step.code().to_owned(), at_ms: mark.at_ms })
                .collect(),
            captured: attempt.trace.is_some(),
        }
    }

    fn answer(&self, scope: &Scope, router: Option<&str>, record: &Record) -> LoginAnswer {
        let account = router.and_then(|name| self.account(scope, name).ok());
        let sent = record.username.as_deref().unwrap_or_default();
        let cut = self
            .core
            .cut_username(sent, |account| scope.covers(account.tenant.as_deref()))
            .filter(|_| account.is_none());
        let ciphers = self.ciphers();
        let ciphers: Vec<&str> = ciphers.iter().map(String::as_str).collect();
        let certificate = self.first_certificate();
        let listener = self.listener(record.listener);
        let setting = Setting {
            now_s: clock::unix_seconds(),
            account: account.as_ref().map(|account| AccountFacts {
                name: &account.name,
                username: &account.username,
                cipher: account.cipher.as_deref(),
                auth: account.auth.as_deref(),
                certificate_cn: account.certificate_cn.as_deref(),
            }),
            cut: cut.as_ref().map(|account| &*account.name),
            listener: listener
                .as_ref()
                .map(|(address, wrap)| ListenerFacts { address: *address, wrap }),
            legacy_listener: self.legacy_listener(),
            ciphers: &ciphers,
            certificate: certificate
                .as_ref()
                .map(|(subject, end)| CertificateFacts { subject, not_after_s: *end }),
        };
        let Explanation { cause, sentence, routeros, routeros_v6, shell } =
            explain::explain(record, &setting);
        LoginAnswer { cause: cause.to_owned(), sentence, routeros, routeros_v6, shell }
    }

    fn find_incidents(&self, scope: &Scope, since: Duration) -> Vec<IncidentView> {
        let now_ms = clock::unix_millis();
        let window = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let listeners = self.all_listeners();
        let listeners: Vec<(SocketAddr, &str)> =
            listeners.iter().map(|(address, wrap)| (*address, wrap.as_str())).collect();
        let certificate = self.first_certificate();
        let ciphers = self.ciphers();
        let ciphers: Vec<&str> = ciphers.iter().map(String::as_str).collect();
        // A copy, so that nobody's login waits for the search.
        let (fleet, changed) = {
            let recorder = self.core.recorder();
            (recorder.fleet.clone(), recorder.certificates_changed_ms())
        };
        let context = Context {
            now_ms,
            from_ms: now_ms.saturating_sub(window),
            listeners: &listeners,
            certificate: certificate.as_ref().map(|(subject, end)| (*end, subject.as_str())),
            certificates_changed_ms: changed,
            ciphers: &ciphers,
            strangers: *scope == Scope::All,
        };
        let may_see = |name: &str| *scope == Scope::All || self.account(scope, name).is_ok();
        incidents::find(&fleet, &context, &may_see)
            .into_iter()
            .map(|incident| IncidentView {
                count: incident.count,
                of: incident.of,
                sentence: incident.sentence,
                command: incident.command,
                cause: incident.cause.to_owned(),
                shared: incident
                    .shared
                    .into_iter()
                    .map(|(property, value)| SharedProperty {
                        property: property.to_owned(),
                        value,
                    })
                    .collect(),
                first: Timestamp(incident.first_ms / 1000),
                last: Timestamp(incident.last_ms / 1000),
                recovered: incident.recovered,
                examples: incident.examples.iter().map(|name| name.to_string()).collect(),
            })
            .collect()
    }

    fn listener(&self, index: usize) -> Option<(SocketAddr, String)> {
        self.all_listeners().get(index).cloned()
    }

    fn all_listeners(&self) -> Vec<(SocketAddr, String)> {
        let listeners = self.core.settings.current().listeners();
        listeners.into_iter().map(|listener| (listener.address, listener.wrap)).collect()
    }

    fn legacy_listener(&self) -> Option<SocketAddr> {
        self.core.settings.current().legacy_listener
    }

    fn ciphers(&self) -> Vec<String> {
        let current = self.core.settings.current();
        current.config.data.ciphers.iter().map(|cipher| cipher.name().to_owned()).collect()
    }

    /// The certificate that ends first: whom it names, and its end.
    fn first_certificate(&self) -> Option<(String, u64)> {
        let current = self.core.settings.current();
        let first = current.certificates.iter().min_by_key(|one| one.not_after.0)?;
        Some((first.subject.clone(), first.not_after.0))
    }
}

fn passes(filter: &LoginFilter, attempt: &Attempt) -> bool {
    let record = &attempt.record;
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    let router = match &attempt.owner {
        Owner::Router(name) => Some(&**name),
        Owner::Source(_) | Owner::Stranger(_) => None,
    };
    let username = record.username.as_deref().map(|name| name.escape_ascii().to_string());
    let source: IpAddr = record.source.ip().to_canonical();
    is(&filter.router, router)
        && is(&filter.username, username.as_deref())
        && filter.source.is_none_or(|wanted| wanted.to_canonical() == source)
        && (!filter.unknown || router.is_none())
        && filter.outcome.as_deref().is_none_or(|wanted| {
            wanted == record.outcome.code()
                || Some(wanted) == record.outcome.reason()
                || wanted == explain::cause(record)
        })
}

/// The bytes of a name as `escape_ascii` shows them.
fn unescape(shown: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(shown.len());
    let mut rest = shown.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'x') => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                bytes.extend(u8::from_str_radix(digits, 16).ok());
            }
            Some(other) => bytes.push(other),
            None => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn a_name_is_found_by_what_is_shown_of_it() {
        for name in [b"branch-42".as_slice(), b"a\\b\n\t\x1b\xff'\"", b""] {
            assert_eq!(unescape(&name.escape_ascii().to_string()), name);
        }
    }
}
