//! The seam at which an embedder decides who may log in.

use std::net::SocketAddr;

use crate::proto::session::{AuthRequest, DenyReason, Identity, Verdict};

/// One login that waits for a verdict.
#[derive(Debug)]
pub struct LoginRequest {
    /// What the client presented.
    pub request: Box<AuthRequest>,
    /// Where it dials from.
    pub source: SocketAddr,
}

/// Takes the verdict. Dropped without one, it says [`DenyReason::Unavailable`]: nobody gets in
/// because an authenticator forgot to answer.
pub struct Answer {
    deliver: Option<Box<dyn FnOnce(Verdict) + Send>>,
}

impl Answer {
    /// An answer that `deliver` takes to the asking session.
    pub fn new(deliver: impl FnOnce(Verdict) + Send + 'static) -> Self {
        Self { deliver: Some(Box::new(deliver)) }
    }

    /// Gives the verdict.
    pub fn give(mut self, verdict: Verdict) {
        if let Some(deliver) = self.deliver.take() {
            deliver(verdict);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(deliver) = self.deliver.take() {
            deliver(Verdict::Deny(DenyReason::Unavailable));
        }
    }
}

/// Decides who may log in.
///
/// Called on a greeter thread: implementations return at once and answer from wherever they like.
/// An established tunnel never waits for an authenticator.
pub trait Authenticator: Send + Sync + 'static {
    /// Judges one login.
    fn authenticate(&self, login: LoginRequest, answer: Answer);

    /// False if a login that was accepted a moment ago must not become a tunnel, because the
    /// account has been disabled or removed since.
    fn still_allowed(&self, identity: &Identity) -> bool {
        let _ = identity;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_answer_that_is_dropped_denies() {
        let (sender, receiver) = mpsc::sync_channel(1);
        drop(Answer::new(move |verdict| sender.send(verdict).unwrap()));
        assert!(matches!(receiver.recv().unwrap(), Verdict::Deny(DenyReason::Unavailable)));
    }
}
