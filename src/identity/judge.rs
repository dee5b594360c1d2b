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
//! So a login never mixes what belongs to two accounts. For a while after a rotation an account has
//! two passwords, the new one and the one before it; each counts where the table says "password".
//!
//! Every refusal does the work of a wrong password: one keyed hash, compared with both passwords
//! whether or not there are two, and a slow hash for each password of the account that needs one.
//! A user name that nobody has pays slow hashes as often as accounts have them, decided by a keyed
//! hash of the name, so that speed does not tell who exists.

use std::sync::Arc;

use tunnelhead_crypto::{Secret, credential_tag};

use super::hashing::{MachineTag, verify_decoy};
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

/// A login that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who it is.
    pub account: Arc<Account>,
    /// What convinced us.
    pub proof: Proof,
}

/// What of an account a client has proved to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// Its password, and its certificate where the account wants one.
    Password,
    /// Likewise, with the password from before the last rotation.
    PreviousPassword,
    /// Its certificate alone.
    Certificate,
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
    /// Accepted.
    Accepted(Accepted),
    /// The password has to go through the slow hash first.
    NeedsSlowHash(SlowCheck),
}

/// A verdict that waits for the slow hash; for unknown users too, so that they take as long.
#[derive(Debug)]
#[must_use]
pub struct SlowCheck {
    /// `None` for a user that does not exist.
    account: Option<Arc<Account>>,
    /// The password from before the last rotation counts.
    previous_counts: bool,
    /// What the keyed hash has proved already.
    proof: Option<Proof>,
    /// Slow hashes that a user who does not exist pays.
    decoys: usize,
    right: Result<(), Refusal>,
    wrong: Refusal,
}

impl SlowCheck {
    /// The account whose password is in question; `None` if the user does not exist.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.account.as_ref()
    }

    /// Does the slow hash and gives the verdict. Some ten milliseconds and 19 MiB, twice that if
    /// two passwords count: not on a thread that has other things to do, and never on more threads
    /// than memory allows.
    ///
    /// # Errors
    /// The login is refused.
    pub fn verify(self, password: &[u8]) -> Result<Accepted, Refusal> {
        let mut proof = self.proof;
        for (kind, secret) in self.slow_secrets() {
            // Only who is let in may notice that it went faster.
            if proof.is_some() && self.right.is_ok() {
                break;
            }
            let matches = secret.verify_slow(password);
            if matches && proof.is_none() {
                proof = Some(kind);
            }
        }
        for _ in 0..self.decoys {
            verify_decoy(password);
        }
        self.conclude(proof)
    }

    /// The secrets that need the slow hash, with what each would prove.
    pub(super) fn slow_secrets(&self) -> impl Iterator<Item = (Proof, &StoredSecret)> {
        self.account.iter().flat_map(|account| {
            let previous = account.previous.as_ref().filter(|_| self.previous_counts);
            [
                (Proof::Password, Some(&account.secret)),
                (Proof::PreviousPassword, previous.map(|previous| &previous.secret)),
            ]
            .into_iter()
            .filter_map(|(kind, secret)| Some((kind, secret.filter(|secret| secret.is_slow())?)))
        })
    }

    /// Gives the verdict where [`super::VerifiedCache`] knows what the password proves.
    pub(super) fn conclude(self, proof: Option<Proof>) -> Result<Accepted, Refusal> {
        conclude(self.account, proof, self.right, self.wrong)
    }
}

/// Judges a login at `unix` (seconds since 1970-01-01 UTC). `key` is the server's key of
/// [`StoredSecret::machine`].
pub fn judge(
    directory: &Directory,
    key: &Secret<32>,
    presented: Presented<'_>,
    unix: u64,
) -> Judgement {
    let user = directory.by_username(presented.username);
    let certificate = match presented.certificate_cn {
        None => Certificate::Absent,
        Some(name) => directory.by_common_name(name).map_or(Certificate::Unbound, Certificate::Of),
    };
    // Asked for everybody, so that it takes everybody as long.
    let decoys = pretended_hashes(directory, key, presented.username);
    match claim(user, certificate) {
        Claim::Certificate(account) => {
            // Computed and not looked at: refusals take as long.
            std::hint::black_box(fast(key, account, unix, presented.password));
            let (right, wrong) = (enabled(account), Refusal::Disabled);
            conclude(Some(Arc::clone(account)), Some(Proof::Certificate), right, wrong).into()
        }
        Claim::Password { account, right, wrong } => {
            let proof = fast(key, account, unix, presented.password);
            let account = Some(Arc::clone(account));
            let previous_counts =
                account.as_ref().is_some_and(|account| account.previous_at(unix).is_some());
            let check = SlowCheck { account, previous_counts, proof, decoys: 0, right, wrong };
            let let_in = proof.is_some() && right.is_ok();
            if let_in || check.slow_secrets().next().is_none() {
                return check.conclude(proof).into();
            }
            Judgement::NeedsSlowHash(check)
        }
        Claim::Nobody => {
            let decoy = StoredSecret::Machine { tag: [0; 32] };
            let tag = MachineTag::of(key, presented.username, presented.password);
            std::hint::black_box((decoy.is_tag(&tag), decoy.is_tag(&tag)));
            let wrong = Refusal::UnknownUser;
            if decoys == 0 {
                return Judgement::Refused(wrong);
            }
            Judgement::NeedsSlowHash(SlowCheck {
                account: None,
                previous_counts: false,
                proof: None,
                decoys,
                right: Err(wrong),
                wrong,
            })
        }
    }
}

/// What the keyed hash proves. The same work whether the account has one password or two.
fn fast(key: &Secret<32>, account: &Account, unix: u64, password: &[u8]) -> Option<Proof> {
    let tag = MachineTag::of(key, account.name.as_bytes(), password);
    let nothing = StoredSecret::Machine { tag: [0; 32] };
    let previous = account.previous_at(unix);
    let is_current = account.secret.is_tag(&tag);
    let is_previous = previous.unwrap_or(&nothing).is_tag(&tag) & previous.is_some();
    match (is_current, is_previous) {
        (true, _) => Some(Proof::Password),
        (false, true) => Some(Proof::PreviousPassword),
        (false, false) => None,
    }
}

impl From<Result<Accepted, Refusal>> for Judgement {
    fn from(verdict: Result<Accepted, Refusal>) -> Self {
        match verdict {
            Ok(accepted) => Self::Accepted(accepted),
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
    proof: Option<Proof>,
    right: Result<(), Refusal>,
    wrong: Refusal,
) -> Result<Accepted, Refusal> {
    match (account, proof, right) {
        (Some(account), Some(proof), Ok(())) => Ok(Accepted { account, proof }),
        (Some(_), Some(_), Err(refusal)) => Err(refusal),
        (Some(_), None, _) | (None, _, _) => Err(wrong),
    }
}

/// How many slow hashes a user name that nobody has pays: as often one and two as accounts need
/// one and two; stable for a name while the accounts stay.
fn pretended_hashes(directory: &Directory, key: &Secret<32>, username: &[u8]) -> usize {
    let tag = credential_tag(key, &[b"tunnelhead unknown user v1", username]);
    let [a, b, c, d, ..] = tag;
    let draw = u64::from(u32::from_le_bytes([a, b, c, d]));
    let all = directory.len() as u64;
    // draw / 2^32 < part / all, without division; counts stay far below 2^32.
    let falls_into = |part: usize| draw.saturating_mul(all) < (part as u64).saturating_mul(1 << 32);
    let (slow, twice) = (directory.slow_secrets(), directory.twice_slow());
    usize::from(falls_into(slow)).saturating_add(usize::from(falls_into(twice)))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
