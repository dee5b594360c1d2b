//! Several authenticators that all have to agree.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{
    Accept, Authenticator, AuthenticatorError, Deciding, Decision, LoginKind, LoginRequest,
};

/// Lets a login in if every part does, and as the same router. A refusal of any part refuses; an
/// error, or two parts that contradict each other, is an error of the whole.
///
/// All parts are asked at the same time, and a login is refused only when all have answered, so
/// that the time of a refusal doesn't tell who refused. At a rekey the first refusal decides: it
/// counts even if another part is dead.
pub struct AllOf {
    parts: Vec<Arc<dyn Authenticator>>,
}

impl AllOf {
    /// Asks `first` and `others`. There is no combination of nobody.
    pub fn new(
        first: Arc<dyn Authenticator>,
        others: impl IntoIterator<Item = Arc<dyn Authenticator>>,
    ) -> Self {
        Self { parts: std::iter::once(first).chain(others).collect() }
    }
}

impl Authenticator for AllOf {
    fn authenticate<'a>(&'a self, login: &'a LoginRequest) -> Deciding<'a> {
        let mut parts: Vec<Part<'a>> =
            self.parts.iter().map(|part| Part::Asked(part.authenticate(login))).collect();
        let hasty = matches!(login.kind, LoginKind::Rekey { .. });
        Box::pin(poll_fn(move |context| poll(&mut parts, hasty, context)))
    }

    fn still_allowed(&self, router: &str) -> bool {
        self.parts.iter().all(|part| part.still_allowed(router))
    }
}

enum Part<'a> {
    Asked(Deciding<'a>),
    Said(Result<Decision, AuthenticatorError>),
}

fn poll(
    parts: &mut [Part<'_>],
    hasty: bool,
    context: &mut Context<'_>,
) -> Poll<Result<Decision, AuthenticatorError>> {
    let mut waiting = false;
    for part in parts.iter_mut() {
        if let Part::Asked(deciding) = part {
            match deciding.as_mut().poll(context) {
                Poll::Ready(said) => *part = Part::Said(said),
                Poll::Pending => waiting = true,
            }
        }
    }
    let refusal = parts.iter().find_map(|part| match part {
        Part::Said(Ok(Decision::Refuse(refusal))) => Some(refusal.clone()),
        _ => None,
    });
    match refusal {
        Some(refusal) if hasty || !waiting => Poll::Ready(Ok(Decision::Refuse(refusal))),
        _ if waiting => Poll::Pending,
        _ => Poll::Ready(agreed(parts)),
    }
}

/// What parts that have all answered, and none of which refused, agree on.
fn agreed(parts: &[Part<'_>]) -> Result<Decision, AuthenticatorError> {
    let mut whole: Option<Accept> = None;
    for part in parts {
        let accept = match part {
            Part::Said(Ok(Decision::Accept(accept))) => accept,
            Part::Said(Err(error)) => return Err(error.clone()),
            Part::Said(Ok(Decision::Refuse(_))) | Part::Asked(_) => {
                return Err(AuthenticatorError("an authenticator gave no verdict".to_owned()));
            }
        };
        whole = Some(match whole {
            None => accept.clone(),
            Some(before) => both(before, accept)?,
        });
    }
    whole
        .map(Decision::Accept)
        .ok_or_else(|| AuthenticatorError("no authenticator was asked".to_owned()))
}

fn both(mut one: Accept, other: &Accept) -> Result<Accept, AuthenticatorError> {
    if one.router != other.router {
        return contradiction("router");
    }
    one.address = same("address", one.address, other.address)?;
    one.tenant = same("tenant", one.tenant, other.tenant.clone())?;
    one.cipher = same("cipher", one.cipher, other.cipher)?;
    one.auth = same("auth", one.auth, other.auth)?;
    for tag in &other.tags {
        if !one.tags.contains(tag) {
            one.tags.push(tag.clone());
        }
    }
    Ok(one)
}

fn same<T: PartialEq>(
    what: &str,
    one: Option<T>,
    other: Option<T>,
) -> Result<Option<T>, AuthenticatorError> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => contradiction(what),
        (one, other) => Ok(one.or(other)),
    }
}

fn contradiction<T>(what: &str) -> Result<T, AuthenticatorError> {
    Err(AuthenticatorError(format!("two authenticators name different values for {what}")))
}
