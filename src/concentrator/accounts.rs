//! The built-in authenticator: the account directory in memory, with back-off and a bounded pool
//! for human-set passwords. No login touches a disk.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tunnelhead_crypto::{AuthDigest, DataCipher, Secret, SecretBytes, credential_tag};

use crate::identity::{
    self, Accepted, Account, BackOff, BackOffPolicy, Directory, Judgement, Presented, Proof,
    Recalled, Refusal, VerifiedCache,
};
use crate::proto::session::{AccountAuth, Allowed, AuthRequest, DenyReason, Identity, Verdict};
use crate::telemetry::clock;

use super::authenticator::{
    Accept, Answer, Authenticator, AuthenticatorError, Deciding, Decision, Judge, LoginKind,
    LoginRequest, Refusal as Refused,
};
use super::slow_pool::SlowPool;

/// Human-set passwords that may wait for the pool.
const SLOW_QUEUE: usize = 256;

/// Accounts, and what is remembered about their logins.
pub(super) struct Accounts {
    directory: RwLock<Directory>,
    key: Secret<32>,
    memory: Mutex<Memory>,
    slow: SlowPool,
}

struct Memory {
    back_off: BackOff,
    verified: VerifiedCache,
    /// With which password an account was last let in, while two of its passwords count.
    rotating: HashMap<Arc<str>, Proof>,
    /// When a router last had a tunnel, in seconds since 1970-01-01 UTC; not while it has one.
    seen: HashMap<Arc<str>, u64>,
    /// The highest revision that was given to an account.
    revision: u64,
}

/// Verified human-set passwords that are remembered, and for how long.
const VERIFIED_PASSWORDS: usize = 65_536;
const VERIFIED_FOR: Duration = Duration::from_secs(3600);

impl Accounts {
    /// `key` is the server's key of machine-made secrets, `cache_key` that of the memory of
    /// verified passwords; at most `slow_threads` slow hashes run at a time.
    pub(super) fn new(
        directory: Directory,
        key: Secret<32>,
        cache_key: Secret<32>,
        slow_threads: usize,
    ) -> io::Result<Self> {
        let revision = directory.iter().map(|account| account.revision).max().unwrap_or(0);
        Ok(Self {
            directory: RwLock::new(directory),
            key,
            memory: Mutex::new(Memory {
                back_off: BackOff::new(clock::now(), BackOffPolicy::default()),
                verified: VerifiedCache::new(cache_key, VERIFIED_PASSWORDS, VERIFIED_FOR),
                rotating: HashMap::new(),
                seen: HashMap::new(),
                revision,
            }),
            slow: SlowPool::new(slow_threads, SLOW_QUEUE)?,
        })
    }

    /// Notes where a router was last seen, so that a stranger's guesses can't lock it out.
    pub(super) fn remember(&self, username: &str, source: IpAddr) {
        self.memory().back_off.remember(clock::now(), username.as_bytes(), source);
    }

    /// The key of machine-made secrets.
    pub(super) fn key(&self) -> &Secret<32> {
        &self.key
    }

    /// Names the key of machine-made secrets without giving it away.
    pub(super) fn key_id(&self) -> String {
        let tag = credential_tag(&self.key, &[b"tunnelhead name of the router key v1"]);
        tag.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The directory, to look at.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory, to change.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the account was let in with its new password since its last rotation, and not with
    /// the old one after that.
    pub(super) fn uses_new_password(&self, name: &str) -> bool {
        self.memory().rotating.get(name) == Some(&Proof::Password)
    }

    /// Forgets which password was used last: the account has one again, or a newer one.
    pub(super) fn forget_rotation(&self, name: &str) {
        self.memory().rotating.remove(name);
    }

    /// A revision above all others, also of accounts that are gone: an account that is deleted
    /// and made anew must not look unchanged. `unix` is in seconds since 1970-01-01 UTC.
    pub(super) fn next_revision(&self, unix: u64) -> u64 {
        let mut memory = self.memory();
        // Below 2^53, so that every JSON parser keeps it.
        let start = (unix & 0xFFFF_FFFF) << 20;
        memory.revision = memory.revision.saturating_add(1).max(start);
        memory.revision
    }

    /// Notes that a router has a tunnel, or had one until now.
    pub(super) fn note_seen(&self, name: &Arc<str>, unix: u64) {
        let mut memory = self.memory();
        let seen = memory.seen.entry(Arc::clone(name)).or_default();
        *seen = unix.max(*seen);
    }

    /// When a router without a tunnel last had one, in seconds since 1970-01-01 UTC.
    pub(super) fn last_seen(&self, name: &str) -> Option<u64> {
        self.memory().seen.get(name).copied()
    }

    /// The account is gone: so is what is remembered of it.
    pub(super) fn forget(&self, name: &str) {
        let mut memory = self.memory();
        memory.seen.remove(name);
        memory.rotating.remove(name);
    }

    /// Notes what the slow hash found, and which of two passwords is in use.
    fn note_accepted(&self, accepted: &Accepted, password: &[u8], hashed: bool) {
        let account = &accepted.account;
        if !hashed && account.previous.is_none() {
            return;
        }
        let mut memory = self.memory();
        if hashed {
            memory.verified.remember(clock::now(), accepted, password);
        }
        if account.previous.is_some() {
            memory.rotating.insert(Arc::clone(&account.name), accepted.proof);
        }
    }
}

/// An attempt that the back-off has counted. Dropped without a verdict, it is held against nobody.
pub(super) struct Attempt {
    accounts: Arc<Accounts>,
    username: Vec<u8>,
    source: IpAddr,
    end: AttemptEnd,
}

impl Attempt {
    /// Counts an attempt; `None` if its credential must not be looked at.
    pub(super) fn count(accounts: &Arc<Accounts>, username: &[u8], source: IpAddr) -> Option<Self> {
        accounts.memory().back_off.allowed(clock::now(), username, source).ok()?;
        let accounts = Arc::clone(accounts);
        Some(Self { accounts, username: username.to_vec(), source, end: AttemptEnd::NoVerdict })
    }

    /// Ends it.
    pub(super) fn end(mut self, verdict: &Verdict) {
        self.end = match verdict {
            Verdict::Allow(_) => AttemptEnd::Right,
            Verdict::Deny(reason) | Verdict::Refuse { reason, .. } if reason.is_refusal() => {
                AttemptEnd::Wrong
            }
            Verdict::Deny(_) | Verdict::Refuse { .. } => AttemptEnd::NoVerdict,
        };
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (now, username, source) = (clock::now(), &self.username, self.source);
        let mut memory = self.accounts.memory();
        match self.end {
            AttemptEnd::Right => memory.back_off.succeeded(now, username, source),
            AttemptEnd::Wrong => memory.back_off.failed(now, source),
            AttemptEnd::NoVerdict => memory.back_off.abandoned(now, username, source),
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptEnd {
    /// It was right.
    Right,
    /// It was wrong.
    Wrong,
    /// Nobody can tell.
    NoVerdict,
}

/// The built-in judge: the account directory. It answers on the thread that asks, except for
/// human-set passwords.
pub(super) struct DirectoryJudge(pub(super) Arc<Accounts>);

impl Judge for DirectoryJudge {
    fn judge(&self, login: LoginRequest, answer: Answer) {
        let LoginRequest { kind, request, source, .. } = login;
        if request.too_long {
            return answer.give(Verdict::Deny(DenyReason::TooLong));
        }
        // A rekey presents what was right before: it is nobody's guess.
        let guess = kind == LoginKind::Login;
        let attempt = guess.then(|| Attempt::count(&self.0, &request.username, source.ip()));
        if matches!(attempt, Some(None)) {
            return answer.give(Verdict::Deny(DenyReason::BackOff));
        }
        examine(&self.0, &request, move |judged| {
            let verdict = match judged {
                Ok(accepted) => Verdict::Allow(allowed(&accepted.account)),
                Err(refusal) => Verdict::Deny(deny_reason(refusal)),
            };
            if let Some(attempt) = attempt.flatten() {
                attempt.end(&verdict);
            }
            answer.give(verdict);
        });
    }

    fn still_allowed(&self, identity: &Identity) -> bool {
        self.0.read().get(&identity.0).is_some_and(|account| !account.disabled)
    }
}

/// The account directory as one part of an [`AllOf`](super::AllOf).
pub(super) struct DirectoryAuthenticator(pub(super) Arc<Accounts>);

impl Authenticator for DirectoryAuthenticator {
    fn authenticate<'a>(&'a self, login: &'a LoginRequest) -> Deciding<'a> {
        Box::pin(async move {
            let (done, judged) = tokio::sync::oneshot::channel();
            examine(&self.0, &login.request, move |judged| {
                // Whoever asked may have given up.
                let _ = done.send(judged);
            });
            match judged.await {
                Ok(Ok(Accepted { account, .. })) => {
                    let Allowed { cipher, auth, .. } = allowed(&account);
                    Ok(Decision::Accept(Accept {
                        cipher,
                        auth,
                        ..Accept::new(Arc::clone(&account.name))
                    }))
                }
                Ok(Err(refusal)) => Ok(Decision::Refuse(Refused {
                    reason: deny_reason(refusal),
                    text: String::new(),
                })),
                Err(_) => Err(AuthenticatorError("too many passwords wait to be hashed".into())),
            }
        })
    }

    fn still_allowed(&self, router: &str) -> bool {
        self.0.read().get(router).is_some_and(|account| !account.disabled)
    }
}

/// Judges a credential by the directory. Where a slow hash is needed and too many wait for one,
/// `done` is dropped.
fn examine(
    accounts: &Arc<Accounts>,
    request: &AuthRequest,
    done: impl FnOnce(Result<Accepted, Refusal>) + Send + 'static,
) {
    let password = request.password.expose();
    let presented = Presented {
        username: &request.username,
        password,
        certificate_cn: request.certificate.as_ref().map(|c| c.common_name.as_slice()),
    };
    let unix = clock::unix_seconds();
    let judgement = identity::judge(&accounts.read(), &accounts.key, presented, unix);
    let check = match judgement {
        Judgement::Accepted(accepted) => {
            accounts.note_accepted(&accepted, password, false);
            return done(Ok(accepted));
        }
        Judgement::Refused(refusal) => return done(Err(refusal)),
        Judgement::NeedsSlowHash(check) => check,
    };
    let recalled = accounts.memory().verified.recall(clock::now(), check, password);
    match recalled {
        Recalled::Verdict(judged) => {
            if let Ok(accepted) = &judged {
                accounts.note_accepted(accepted, password, false);
            }
            done(judged);
        }
        Recalled::NeedsHash(check) => {
            let (shared, password) = (Arc::clone(accounts), SecretBytes::from(password.to_vec()));
            // A full queue drops `done`.
            let _ = accounts.slow.run(move || {
                let password = password.expose();
                let judged = check.verify(password);
                if let Ok(accepted) = &judged {
                    shared.note_accepted(accepted, password, true);
                }
                done(judged);
            });
        }
    }
}

fn allowed(account: &Account) -> Allowed {
    let auth = account.auth.as_deref().and_then(|name| match name {
        "null" => Some(AccountAuth::Null),
        name => AuthDigest::from_name(name).map(AccountAuth::Digest),
    });
    Allowed {
        identity: Identity(Arc::clone(&account.name)),
        cipher: account.cipher.as_deref().and_then(DataCipher::from_name),
        auth,
    }
}

fn deny_reason(refusal: Refusal) -> DenyReason {
    match refusal {
        Refusal::UnknownUser => DenyReason::UnknownUser,
        Refusal::WrongPassword => DenyReason::WrongPassword,
        Refusal::Disabled => DenyReason::Disabled,
        Refusal::CertificateMissing => DenyReason::CertificateMissing,
        Refusal::CertificateMismatch => DenyReason::CertificateMismatch,
    }
}
