//! The verdict on a login.
//!
//! | presented certificate | user name names | verdict by |
//! |---|---|---|
//! | any | an account with `password` | its password; a certificate of another account, or another than the one it is bound to, is refused |
//! | any | an account with `both` | its password and exactly its certificate |
//! | of an account with `certificate` | nobody, or an account with `certificate` | the certificate: user name and password are not looked at |
//! | any other | an account with `certificate` | refused |
//! | any other | nobody | refused |
//!
//! So a login never mixes what belongs to two accounts. Every refusal does the work of a wrong
//! password: one keyed hash, and the slow hash where the named account has one. A user name that
//! nobody has pays the slow hash as often as accounts have one, decided by a keyed hash of the
//! name, so that neither speed tells who exists.

use std::sync::Arc;

use tunnelhead_crypto::{Secret, credential_tag};

use super::hashing::verify_decoy;
use super::{Account, Directory, LoginMode, StoredSecret};

/// What a client presented.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// User name as sent; empty if absent.
    pub username: &'a [u8],
    /// Password as sent; empty if absent.
    pub password: &'a [u8],
    /// Common name of the verified client certificate, if there is one.
    pub certificate_cn: Option<&'a [u8]>,
}

/// Why a login was refused. The peer is told the same for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No account has this user name.
    UnknownUser,
    /// The password is wrong.
    WrongPassword,
    /// Everything is right and the account is disabled.
    Disabled,
    /// The account wants a client certificate and none was presented.
    CertificateMissing,
    /// The certificate belongs to somebody else, or to nobody.
    CertificateMismatch,
}

impl Refusal {
    /// Stable name for metrics and the API.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::WrongPassword => "wrong_password",
            Self::Disabled => "disabled",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateMismatch => "certificate_mismatch",
        }
    }
}

/// The outcome of [`judge`].
#[derive(Debug)]
#[must_use]
pub enum Judgement {
    /// Refused.
    Refused(Refusal),
    /// Accepted as this account.
    Accepted(Arc<Account>),
    /// The password has to go through the slow hash first.
    NeedsSlowHash(SlowCheck),
}

/// A verdict that waits for the slow hash; for unknown users too, so that they take as long.
#[derive(Debug)]
#[must_use]
pub struct SlowCheck {
    /// `None` for a user that does not exist.
    account: Option<Arc<Account>>,
    right: Result<(), Refusal>,
    wrong: Refusal,
}

impl SlowCheck {
    /// The account whose password is in question; `None` if the user does not exist.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.account.as_ref()
    }

    /// Does the slow hash and gives the verdict. Some ten milliseconds and 19 MiB: not on a
    /// thread that has other things to do, and never on more threads than memory allows.
    ///
    /// # Errors
    /// The login is refused.
    pub fn verify(self, password: &[u8]) -> Result<Arc<Account>, Refusal> {
        let matches = match &self.account {
            Some(account) => verify_slow(account, password),
            None => {
                verify_decoy(password);
                false
            }
        };
        self.conclude(matches)
    }

    /// Gives the verdict where [`super::VerifiedCache`] knows that the password is right.
    pub(super) fn conclude(self, password_matches: bool) -> Result<Arc<Account>, Refusal> {
        conclude(self.account, password_matches, self.right, self.wrong)
    }
}

/// Verifies a human-set password; false for a machine secret. Slow, see [`SlowCheck::verify`].
pub fn verify_slow(account: &Account, password: &[u8]) -> bool {
    account.secret.verify_slow(password)
}

/// Judges a login. `key` is the server's key of [`StoredSecret::machine`].
pub fn judge(directory: &Directory, key: &Secret<32>, presented: Presented<'_>) -> Judgement {
    let user = directory.by_username(presented.username);
    let certificate = match presented.certificate_cn {
        None => Certificate::Absent,
        Some(name) => directory.by_common_name(name).map_or(Certificate::Unbound, Certificate::Of),
    };
    // Asked for everybody, so that it takes everybody as long.
    let unknown_is_slow = pretends_slow(directory, key, presented.username);
    let fast =
        |secret: &StoredSecret, name: &[u8]| secret.verify_fast(key, name, presented.password);
    match claim(user, certificate) {
        Claim::Certificate(account) => {
            // The keyed hash is computed and not looked at: refusals take as long.
            std::hint::black_box(fast(&account.secret, account.name.as_bytes()));
            conclude(Some(Arc::clone(account)), true, enabled(account), Refusal::Disabled).into()
        }
        Claim::Password { account, right, wrong } => {
            let matches = fast(&account.secret, account.name.as_bytes());
            let account = Arc::clone(account);
            if account.secret.is_slow() {
                return Judgement::NeedsSlowHash(SlowCheck {
                    account: Some(account),
                    right,
                    wrong,
                });
            }
            conclude(Some(account), matches, right, wrong).into()
        }
        Claim::Nobody => {
            let decoy = StoredSecret::Machine { tag: [0; 32] };
            std::hint::black_box(fast(&decoy, presented.username));
            let (right, wrong) = (Err(Refusal::UnknownUser), Refusal::UnknownUser);
            if unknown_is_slow {
                return Judgement::NeedsSlowHash(SlowCheck { account: None, right, wrong });
            }
            Judgement::Refused(wrong)
        }
    }
}

impl From<Result<Arc<Account>, Refusal>> for Judgement {
    fn from(verdict: Result<Arc<Account>, Refusal>) -> Self {
        match verdict {
            Ok(account) => Self::Accepted(account),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

#[derive(Clone, Copy)]
enum Certificate<'a> {
    Absent,
    /// Verified, and no account is bound to its common name.
    Unbound,
    Of(&'a Arc<Account>),
}

enum Claim<'a> {
    /// The certificate alone decides, and it is right.
    Certificate(&'a Arc<Account>),
    /// The password decides between these two.
    Password { account: &'a Arc<Account>, right: Result<(), Refusal>, wrong: Refusal },
    /// Nothing that was presented names an account.
    Nobody,
}

/// The table at the top of this file.
fn claim<'a>(user: Option<&'a Arc<Account>>, certificate: Certificate<'a>) -> Claim<'a> {
    let names_password = user.is_some_and(|user| user.login.wants_password());
    if let Certificate::Of(account) = certificate
        && account.login == LoginMode::Certificate
        && !names_password
    {
        return Claim::Certificate(account);
    }
    let Some(account) = user else { return Claim::Nobody };
    match certificate_fits(account, certificate) {
        Ok(()) => {
            Claim::Password { account, right: enabled(account), wrong: Refusal::WrongPassword }
        }
        // Refused whatever the password is, after the same work.
        Err(refusal) => Claim::Password { account, right: Err(refusal), wrong: refusal },
    }
}

/// Whether the certificate lets a login with this account's user name go on to the password.
fn certificate_fits(account: &Account, certificate: Certificate<'_>) -> Result<(), Refusal> {
    match (account.login, certificate) {
        (LoginMode::Password, Certificate::Absent) => Ok(()),
        (LoginMode::Both | LoginMode::Certificate, Certificate::Absent) => {
            Err(Refusal::CertificateMissing)
        }
        (LoginMode::Password, Certificate::Unbound) if account.certificate_cn.is_none() => Ok(()),
        (LoginMode::Password | LoginMode::Both, Certificate::Of(owner))
            if owner.name == account.name =>
        {
            Ok(())
        }
        _ => Err(Refusal::CertificateMismatch),
    }
}

fn enabled(account: &Account) -> Result<(), Refusal> {
    if account.disabled { Err(Refusal::Disabled) } else { Ok(()) }
}

fn conclude(
    account: Option<Arc<Account>>,
    password_matches: bool,
    right: Result<(), Refusal>,
    wrong: Refusal,
) -> Result<Arc<Account>, Refusal> {
    match (account, password_matches, right) {
        (Some(account), true, Ok(())) => Ok(account),
        (Some(_), true, Err(refusal)) => Err(refusal),
        (Some(_), false, _) | (None, _, _) => Err(wrong),
    }
}

/// True for as large a part of all names as accounts have a slow secret; stable for a name while
/// the accounts stay.
fn pretends_slow(directory: &Directory, key: &Secret<32>, username: &[u8]) -> bool {
    let tag = credential_tag(key, &[b"tunnelhead unknown user v1", username]);
    let [a, b, c, d, ..] = tag;
    let draw = u64::from(u32::from_le_bytes([a, b, c, d]));
    // draw / 2^32 < slow / all, without division; counts stay far below 2^32.
    draw.saturating_mul(directory.len() as u64)
        < (directory.slow_secrets() as u64).saturating_mul(1 << 32)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
