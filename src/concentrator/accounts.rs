//! The built-in authenticator: the account directory in memory, with back-off and a bounded pool
//! for human-set passwords. No login touches a disk.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tunnelhead_crypto::{AuthDigest, DataCipher, Secret};

use crate::identity::{
    self, Account, BackOff, BackOffPolicy, Directory, Judgement, Presented, Recalled, Refusal,
    SlowCheck, VerifiedCache,
};
use crate::proto::session::{AccountAuth, Allowed, AuthRequest, DenyReason, Identity, Verdict};
use crate::telemetry::clock;

use super::authenticator::{Answer, Authenticator, LoginRequest};
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
        Ok(Self {
            directory: RwLock::new(directory),
            key,
            memory: Mutex::new(Memory {
                back_off: BackOff::new(clock::now(), BackOffPolicy::default()),
                verified: VerifiedCache::new(cache_key, VERIFIED_PASSWORDS, VERIFIED_FOR),
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

    fn finish(
        &self,
        username: &[u8],
        source: IpAddr,
        judged: Result<Arc<Account>, Refusal>,
    ) -> Verdict {
        let now = clock::now();
        match judged {
            Ok(account) => {
                self.memory().back_off.succeeded(now, username, source);
                Verdict::Allow(allowed(&account))
            }
            Err(refusal) => {
                self.memory().back_off.failed(now, source);
                Verdict::Deny(deny_reason(refusal))
            }
        }
    }
}

/// The built-in authenticator as a value that embedders' ones stand beside.
pub(super) struct DirectoryAuthenticator(pub(super) Arc<Accounts>);

impl Authenticator for DirectoryAuthenticator {
    fn authenticate(&self, login: LoginRequest, answer: Answer) {
        let accounts = &self.0;
        let LoginRequest { request, source } = login;
        let source = source.ip();
        if request.too_long {
            return answer.give(Verdict::Deny(DenyReason::TooLong));
        }
        let now = clock::now();
        if accounts.memory().back_off.allowed(now, &request.username, source).is_err() {
            return answer.give(Verdict::Deny(DenyReason::BackOff));
        }
        let presented = Presented {
            username: &request.username,
            password: request.password.expose(),
            certificate_cn: request.certificate.as_ref().map(|c| c.common_name.as_slice()),
        };
        let judged = match identity::judge(&accounts.read(), &accounts.key, presented) {
            Judgement::Accepted(account) => Ok(account),
            Judgement::Refused(refusal) => Err(refusal),
            Judgement::NeedsSlowHash(check) => {
                let recalled =
                    accounts.memory().verified.recall(now, check, request.password.expose());
                match recalled {
                    Recalled::Verdict(judged) => judged,
                    Recalled::NeedsHash(check) => {
                        return hash_slowly(accounts, check, request, source, answer);
                    }
                }
            }
        };
        answer.give(accounts.finish(&request.username, source, judged));
    }

    fn still_allowed(&self, identity: &Identity) -> bool {
        self.0.read().get(&identity.0).is_some_and(|account| !account.disabled)
    }
}

/// Hashes a human-set password on the pool. A full queue drops the answer, which denies.
fn hash_slowly(
    accounts: &Arc<Accounts>,
    check: SlowCheck,
    request: Box<AuthRequest>,
    source: IpAddr,
    answer: Answer,
) {
    let shared = Arc::clone(accounts);
    let username = request.username.clone();
    let queued = accounts.slow.run(move || {
        let password = request.password.expose();
        let judged = check.verify(password);
        if let Ok(account) = &judged {
            shared.memory().verified.remember(clock::now(), account, password);
        }
        answer.give(shared.finish(&request.username, source, judged));
    });
    if queued.is_err() {
        accounts.memory().back_off.abandoned(clock::now(), &username, source);
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
