//! The seam at which somebody else decides who may log in.
//!
//! An [`Authenticator`] is asked on the runtime that the concentrator was started on, never on a
//! thread that carries packets or logins, and always within a deadline. What it says has no
//! default: an error, a time-out, a panic or an answer that makes no sense refuses a login. At a
//! rekey of an established tunnel it is the other way round: only an explicit refusal ends it.

mod admit;
mod all_of;
#[cfg(feature = "http-authenticator")]
mod document;
#[cfg(feature = "http-authenticator")]
mod http;
mod outside;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tunnelhead_crypto::DataCipher;

use crate::config::{AuthenticatorConfig, Config, Endpoint};
use crate::proto::session::{AccountAuth, AuthRequest, DenyReason, Identity, Verdict};

use super::StartError;
use super::accounts::{Accounts, DirectoryAuthenticator, DirectoryJudge};

pub(super) use admit::Guests;
pub use all_of::AllOf;
#[cfg(feature = "http-authenticator")]
pub use http::HttpAuthenticator;
pub(super) use outside::OutsideCounters;
use outside::{Outside, OutsideLimits};

/// Decides who may log in.
///
/// Several concentrators may share one; it is asked about many logins at the same time.
pub trait Authenticator: Send + Sync + 'static {
    /// Judges one login.
    ///
    /// # Errors
    /// It can not tell. At a login that refuses, at a rekey it changes nothing.
    fn authenticate<'a>(&'a self, login: &'a LoginRequest) -> Deciding<'a>;

    /// False if a login that was accepted a moment ago must not become a tunnel, because the
    /// router has been disabled or removed since. Called on a login thread: answer from memory.
    fn still_allowed(&self, router: &str) -> bool {
        let _ = router;
        true
    }
}

/// A verdict in the making; `Box::pin(async move { ... })`.
pub type Deciding<'a> =
    Pin<Box<dyn Future<Output = Result<Decision, AuthenticatorError>> + Send + 'a>>;

/// One login that waits for a verdict.
#[derive(Debug)]
pub struct LoginRequest {
    /// A login, or a rekey of an established tunnel.
    pub kind: LoginKind,
    /// What the client presented.
    pub request: Box<AuthRequest>,
    /// Where it dials from.
    pub source: SocketAddr,
    /// The listener that it dialled; `None` at a rekey.
    pub listener: Option<SocketAddr>,
}

/// What is being judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginKind {
    /// A newcomer: anything but an acceptance keeps it out.
    Login,
    /// A rekey of an established tunnel with the credential of its login: only a refusal ends it.
    Rekey {
        /// The router that the login was accepted as.
        router: Arc<str>,
    },
}

/// What an authenticator says. There is no third answer and no default.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Let in.
    Accept(Accept),
    /// Keep out.
    Refuse(Refusal),
}

/// An accepted login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The router's name: `[a-z0-9]` and inner `.`, `_`, `-`, as for accounts.
    pub router: Arc<str>,
    /// The address that it has to have. It must lie in the pool and be nobody else's, or the login
    /// is refused. `None`: the one that it holds, else the next free one.
    pub address: Option<Ipv4Addr>,
    /// Labels for lists and filters; those of an account of the same name come first.
    pub tags: Vec<String>,
    /// The tenant; that of an account of the same name comes first.
    pub tenant: Option<Arc<str>>,
    /// The data cipher that the router is bound to.
    pub cipher: Option<DataCipher>,
    /// The digest that the router is bound to.
    pub auth: Option<AccountAuth>,
}

impl Accept {
    /// Lets a router in and prescribes nothing.
    pub fn new(router: impl Into<Arc<str>>) -> Self {
        Self {
            router: router.into(),
            address: None,
            tags: Vec::new(),
            tenant: None,
            cipher: None,
            auth: None,
        }
    }
}

/// A refused login. The client is told the same whatever stands here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For counters and the API.
    pub reason: DenyReason,
    /// One sentence for our log and our operator; control characters are escaped, and what is
    /// longer than 256 bytes is cut.
    pub text: String,
}

impl Refusal {
    /// A refusal with one sentence for the log.
    pub fn new(text: impl Into<String>) -> Self {
        Self { reason: DenyReason::Refused, text: text.into() }
    }
}

/// Why an authenticator can not tell; one sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticatorError(pub String);

/// What an accepted login asks for besides being let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) address: Option<Ipv4Addr>,
    pub(super) tags: Vec<String>,
    pub(super) tenant: Option<Arc<str>>,
}

/// What the core asks: the built-in accounts, or [`Outside`]. Returns at once; the answer comes
/// from wherever it is made.
pub(super) trait Judge: Send + Sync {
    /// Judges one login.
    fn judge(&self, login: LoginRequest, answer: Answer);

    /// See [`Authenticator::still_allowed`].
    fn still_allowed(&self, identity: &Identity) -> bool;
}

type Deliver = Box<dyn FnOnce(Verdict, Claims) + Send>;

/// Takes the verdict. Dropped without one, it says [`DenyReason::Unavailable`]: nobody gets in
/// because a judge forgot to answer.
pub(super) struct Answer {
    deliver: Option<Deliver>,
}

impl Answer {
    /// An answer that `deliver` takes to the asking session.
    pub(super) fn new(deliver: impl FnOnce(Verdict, Claims) + Send + 'static) -> Self {
        Self { deliver: Some(Box::new(deliver)) }
    }

    /// Gives the verdict.
    pub(super) fn give(self, verdict: Verdict) {
        self.give_with(verdict, Claims::default());
    }

    /// Gives the verdict with what goes with it.
    pub(super) fn give_with(mut self, verdict: Verdict, claims: Claims) {
        if let Some(deliver) = self.deliver.take() {
            deliver(verdict, claims);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(deliver) = self.deliver.take() {
            deliver(Verdict::Deny(DenyReason::Unavailable), Claims::default());
        }
    }
}

/// A judge, and its counters if it asks outside.
type Chosen = (Arc<dyn Judge>, Option<Arc<OutsideCounters>>);

/// What decides about logins, as the configuration and the builder say.
///
/// # Errors
/// The endpoint of the configuration can't be used.
pub(super) fn judge(
    config: &Config,
    given: Option<Arc<dyn Authenticator>>,
    accounts: &Arc<Accounts>,
    runtime: &Handle,
) -> Result<Chosen, StartError> {
    let settings = &config.authenticator;
    let outside = match (given, &settings.endpoint) {
        (Some(given), _) => given,
        (None, Some(endpoint)) => endpoint_authenticator(settings, endpoint)?,
        (None, None) => return Ok((Arc::new(DirectoryJudge(Arc::clone(accounts))), None)),
    };
    let asked = if settings.accounts {
        let directory = DirectoryAuthenticator(Arc::clone(accounts));
        Arc::new(AllOf::new(Arc::new(directory), [outside]))
    } else {
        outside
    };
    let limits = OutsideLimits {
        timeout: settings.timeout.min(config.limits.login_deadline),
        open: settings.connections.saturating_add(settings.queue),
    };
    let counters = Arc::new(OutsideCounters::default());
    let accounts = Arc::clone(accounts);
    let outside = Outside::new(runtime.clone(), asked, limits, accounts, Arc::clone(&counters));
    Ok((Arc::new(outside), Some(counters)))
}

#[cfg(feature = "http-authenticator")]
fn endpoint_authenticator(
    settings: &AuthenticatorConfig,
    endpoint: &Endpoint,
) -> Result<Arc<dyn Authenticator>, StartError> {
    let secret = settings.secret.as_deref().map(|secret| std::str::from_utf8(secret.expose()));
    let secret =
        secret.transpose().map_err(|error| StartError::Authenticator(error.to_string()))?;
    HttpAuthenticator::new(endpoint.clone(), settings.connections, secret)
        .map(|made| Arc::new(made) as Arc<dyn Authenticator>)
        .map_err(|error| StartError::Authenticator(error.0))
}

#[cfg(not(feature = "http-authenticator"))]
fn endpoint_authenticator(
    _: &AuthenticatorConfig,
    _: &Endpoint,
) -> Result<Arc<dyn Authenticator>, StartError> {
    let reason = "url needs the feature http-authenticator, which this build lacks";
    Err(StartError::Authenticator(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_answer_that_is_dropped_denies() {
        let (sender, receiver) = mpsc::sync_channel(1);
        drop(Answer::new(move |verdict, _| sender.send(verdict).unwrap()));
        assert!(matches!(receiver.recv().unwrap(), Verdict::Deny(DenyReason::Unavailable)));
    }
}
