use tunnelhead_crypto::FastRandom;

use super::*;
use crate::identity::PreviousSecret;

const RIGHT: &[u8] = b"right password";
const WRONG: &[u8] = b"wrong password";
const NOW: u64 = 1_000_000;

fn key() -> Secret<32> {
    Secret::new([5; 32])
}

/// Account `name` with user name `name-user`, common name `name-cn` and its own right password.
fn account(name: &str, login: LoginMode, disabled: bool, slow: bool) -> Account {
    let password = [name.as_bytes(), RIGHT].concat();
    let secret = if slow {
        StoredSecret::argon2id(&password, &mut FastRandom::from_seed([1; 32])).unwrap()
    } else {
        StoredSecret::machine(&key(), name, &password)
    };
    Account {
        name: name.into(),
        username: format!("{name}-user"),
        secret,
        login,
        certificate_cn: Some(format!("{name}-cn")),
        cipher: None,
        auth: None,
        disabled,
        address: None,
        created_at: 0,
        tenant: None,
        tags: Vec::new(),
        note: String::new(),
        previous: None,
        revision: 0,
    }
}

fn directory(accounts: impl IntoIterator<Item = Account>) -> Directory {
    let mut directory = Directory::new();
    for account in accounts {
        directory.insert(account).unwrap();
    }
    directory
}

/// Judges, slow hash included; the name of the account that is let in.
fn outcome(
    directory: &Directory,
    username: &[u8],
    password: &[u8],
    certificate_cn: Option<&[u8]>,
) -> Result<String, Refusal> {
    verdict_at(NOW, directory, username, password, certificate_cn)
        .map(|accepted| accepted.account.name.to_string())
}

fn verdict_at(
    unix: u64,
    directory: &Directory,
    username: &[u8],
    password: &[u8],
    certificate_cn: Option<&[u8]>,
) -> Result<Accepted, Refusal> {
    let presented = Presented { username, password, certificate_cn };
    match judge(directory, &key(), presented, unix) {
        Judgement::Accepted(accepted) => Ok(accepted),
        Judgement::Refused(refusal) => Err(refusal),
        Judgement::NeedsSlowHash(check) => check.verify(password),
    }
}

/// What must be let in, written down the other way round than the code: who may be let in as
/// `name` is a list of demands that all have to hold.
fn let_in_as(
    accounts: &[(&str, LoginMode, bool)],
    name: &str,
    user: Option<&str>,
    certificate: Option<&str>,
    password_of: Option<&str>,
) -> bool {
    let find = |name: &str| accounts.iter().find(|account| account.0 == name);
    let Some((_, login, disabled)) = find(name) else { return false };
    let user_account = user.and_then(find);
    let own_user = user == Some(name);
    let own_password = own_user && password_of == Some(name);
    let own_certificate = certificate == Some(name);
    !disabled
        && match login {
            LoginMode::Password => {
                // A certificate that is not this account's contradicts the user name.
                own_password && (certificate.is_none() || own_certificate)
            }
            LoginMode::Both => own_password && own_certificate,
            LoginMode::Certificate => {
                own_certificate
                    && user_account.is_none_or(|(_, login, _)| *login == LoginMode::Certificate)
            }
        }
}

/// Certificate x user x password x mode x disabled x kind of secret, against the rule above.
#[test]
fn the_full_matrix_lets_in_exactly_who_is_allowed() {
    let mut checked = 0;
    let mut accepted = 0;
    // One Argon2 a pair is enough: the secret does not depend on mode and state.
    for slow in [false, true] {
        let template = ["a", "b"].map(|name| account(name, LoginMode::Password, false, slow));
        for (mode_a, mode_b) in pairs(LoginMode::ALL) {
            for (disabled_a, disabled_b) in pairs([false, true]) {
                let accounts = [("a", mode_a, disabled_a), ("b", mode_b, disabled_b)];
                let directory = directory(template.iter().zip(accounts).map(|(account, row)| {
                    Account { login: row.1, disabled: row.2, ..account.clone() }
                }));
                for certificate in [None, Some("a"), Some("b"), Some("stranger")] {
                    for user in [None, Some("a"), Some("b"), Some("stranger")] {
                        for password_of in [None, Some("a"), Some("b")] {
                            if slow && (checked % 5 != 0) {
                                checked += 1;
                                continue;
                            }
                            checked += 1;
                            let got = present(&directory, user, password_of, certificate);
                            let allowed: Vec<_> = ["a", "b"]
                                .into_iter()
                                .filter(|name| {
                                    let_in_as(&accounts, name, user, certificate, password_of)
                                })
                                .collect();
                            let case = format!(
                                "{accounts:?} user {user:?} password of {password_of:?} \
                                 certificate {certificate:?} slow {slow}"
                            );
                            assert!(allowed.len() <= 1, "the rule contradicts itself: {case}");
                            assert_eq!(got.ok().as_deref(), allowed.first().copied(), "{case}");
                            accepted += allowed.len();
                        }
                    }
                }
            }
        }
    }
    println!("{checked} cases, {accepted} let in");
    assert!(accepted > 100);
}

fn pairs<T: Copy, const N: usize>(of: [T; N]) -> impl Iterator<Item = (T, T)> {
    of.into_iter().flat_map(move |a| of.into_iter().map(move |b| (a, b)))
}

fn present(
    directory: &Directory,
    user: Option<&str>,
    password_of: Option<&str>,
    certificate: Option<&str>,
) -> Result<String, Refusal> {
    let username = user.map_or_else(String::new, |user| format!("{user}-user"));
    let password =
        password_of.map_or_else(|| WRONG.to_vec(), |name| [name.as_bytes(), RIGHT].concat());
    let common_name = certificate.map(|name| format!("{name}-cn"));
    outcome(directory, username.as_bytes(), &password, common_name.as_deref().map(str::as_bytes))
}

#[test]
fn each_refusal_has_its_own_reason_for_the_operator() {
    use LoginMode::{Both, Certificate, Password};
    use Refusal::{CertificateMismatch, CertificateMissing, Disabled, UnknownUser, WrongPassword};
    for slow in [false, true] {
        for (mode, disabled, user, password, certificate, expected) in [
            (Password, false, Some("x"), Some("a"), None, UnknownUser),
            (Password, false, None, Some("a"), Some("a"), UnknownUser),
            (Password, false, Some("a"), None, None, WrongPassword),
            (Password, true, Some("a"), None, None, WrongPassword),
            (Password, true, Some("a"), Some("a"), None, Disabled),
            (Password, false, Some("a"), Some("a"), Some("x"), CertificateMismatch),
            (Both, false, Some("a"), Some("a"), None, CertificateMissing),
            (Both, false, Some("a"), Some("a"), Some("b"), CertificateMismatch),
            (Both, false, Some("a"), Some("a"), Some("x"), CertificateMismatch),
            (Both, false, Some("a"), None, Some("a"), WrongPassword),
            (Both, true, Some("a"), Some("a"), Some("a"), Disabled),
            (Certificate, false, Some("a"), Some("a"), None, CertificateMissing),
            (Certificate, false, Some("a"), Some("a"), Some("x"), CertificateMismatch),
            (Certificate, false, Some("x"), None, Some("x"), UnknownUser),
            (Certificate, true, Some("x"), None, Some("a"), Disabled),
        ] {
            let directory = directory([
                account("a", mode, disabled, slow),
                account("b", Password, false, slow),
            ]);
            let got = present(&directory, user, password, certificate);
            assert_eq!(
                got,
                Err(expected),
                "{mode} {disabled} {user:?} {password:?} {certificate:?}"
            );
        }
    }
}

#[test]
fn a_shared_certificate_of_nobody_does_not_hinder_a_password() {
    let mut free = account("a", LoginMode::Password, false, false);
    free.certificate_cn = None;
    let directory = directory([free]);
    assert_eq!(present(&directory, Some("a"), Some("a"), Some("fleet")), Ok("a".into()));
    assert_eq!(present(&directory, Some("a"), None, Some("fleet")), Err(Refusal::WrongPassword));
}

/// T21: crafted subjects against a victim; every one of them must find nobody.
#[test]
fn crafted_common_names_and_user_names_match_nobody() {
    let mut victim = account("victim", LoginMode::Certificate, false, false);
    victim.certificate_cn = Some("Router 42".into());
    let by_certificate = directory([victim]);
    assert!(outcome(&by_certificate, b"", b"", Some(b"Router 42")).is_ok());
    let mut victim = account("victim", LoginMode::Password, false, false);
    victim.username = "Router-42".into();
    let by_password = directory([victim]);
    let password = [b"victim", RIGHT].concat();
    assert!(outcome(&by_password, b"Router-42", &password, None).is_ok());
    let crafted: &[&[u8]] = &[
        b"",
        b" ",
        b"Router 42 ",
        b" Router 42",
        b"Router  42",
        b"router 42",
        b"ROUTER 42",
        b"Router 42\0",
        b"Router 42\0.evil.example",
        b"\0Router 42",
        b"Router\0 42",
        b"Router 4",
        b"Router 422",
        b"Router 42\n",
        b"\tRouter 42",
        b"Router\t42",
        b"Router\xc2\xa042",
        b"R\xd0\xbeuter 42",
        b"\xef\xbb\xbfRouter 42",
        b"Router 42\xe2\x80\x8b",
        b"CN=Router 42",
        b"/CN=Router 42",
        b"Router 42/CN=x",
        b"Router 42,O=x",
        b"\"Router 42\"",
        b"'Router 42'",
        b"Router%2042",
        b"Router+42",
        b"Router_42",
        b"*",
        b"Router *",
        b"Router ?2",
        b"../Router 42",
        b"victim",
        b"victim-user",
        b"victim-cn",
        b"R\0o\0u\0t\0e\0r\0 \x004\x002",
        b"Router 42\xff",
        b"24 retuoR",
        b"Router 42Router 42",
        b"Ro\xc2\xaduter 42",
    ];
    assert!(crafted.len() >= 40);
    for subject in crafted {
        let got = outcome(&by_certificate, b"", b"", Some(subject));
        assert!(got.is_err(), "certificate {subject:?}");
        let username: Vec<u8> =
            subject.iter().map(|byte| if *byte == b' ' { b'-' } else { *byte }).collect();
        let got = outcome(&by_password, &username, &password, None);
        assert!(got.is_err(), "user name {username:?}");
    }
}

#[test]
fn a_password_is_compared_whole_and_belongs_to_one_account() {
    for slow in [false, true] {
        let directory = directory([account("a", LoginMode::Password, false, slow)]);
        let right = [b"a", RIGHT].concat();
        assert!(outcome(&directory, b"a-user", &right, None).is_ok());
        let (head, longer) = (&right[..right.len() - 1], [&right[..], b"\0"].concat());
        for near in [b"", head, &longer, &right.to_ascii_uppercase()] {
            let got = outcome(&directory, b"a-user", near, None);
            assert_eq!(got, Err(Refusal::WrongPassword), "{near:?}");
        }
    }
    // The stored form of one account is worth nothing in another, nor under another key.
    let mut thief = account("b", LoginMode::Password, false, false);
    thief.secret = StoredSecret::machine(&key(), "a", RIGHT);
    let thieves = directory([thief]);
    assert!(outcome(&thieves, b"b-user", RIGHT, None).is_err());
    let mut other = account("c", LoginMode::Password, false, false);
    other.secret = StoredSecret::machine(&Secret::new([6; 32]), "c", RIGHT);
    assert!(outcome(&directory([other]), b"c-user", RIGHT, None).is_err());
}

#[test]
fn unknown_users_are_slow_as_often_as_accounts_are() {
    let slow = account("slow", LoginMode::Password, false, true);
    let slow_part = |slow_accounts: usize, fast_accounts: usize| {
        let copies = |kind: &'static str, count: usize, template: Account| {
            (0..count).map(move |number| Account {
                name: format!("{kind}{number}").into(),
                username: format!("{kind}{number}"),
                certificate_cn: None,
                ..template.clone()
            })
        };
        let fast = account("fast", LoginMode::Password, false, false);
        let directory = directory(copies("slow", slow_accounts, slow.clone()).chain(copies(
            "fast",
            fast_accounts,
            fast,
        )));
        let slow_names = (0..2000_u32).filter(|number| {
            let username = &number.to_be_bytes()[..];
            let presented = Presented { username, password: WRONG, certificate_cn: None };
            let first = is_slow(&directory, presented);
            assert_eq!(first, is_slow(&directory, presented), "stable for a name");
            first
        });
        slow_names.count()
    };
    assert_eq!(slow_part(0, 10), 0);
    assert_eq!(slow_part(0, 0), 0);
    assert_eq!(slow_part(10, 0), 2000);
    assert!((380..620).contains(&slow_part(5, 15)));
}

fn is_slow(directory: &Directory, presented: Presented<'_>) -> bool {
    match judge(directory, &key(), presented, NOW) {
        Judgement::NeedsSlowHash(check) => {
            assert!(check.account().is_none());
            assert_eq!(check.conclude(Some(Proof::Password)).unwrap_err(), Refusal::UnknownUser);
            true
        }
        Judgement::Refused(refusal) => {
            assert_eq!(refusal, Refusal::UnknownUser);
            false
        }
        Judgement::Accepted(account) => panic!("{account:?}"),
    }
}

#[test]
fn every_refusal_of_a_slow_account_goes_through_the_slow_hash() {
    for (mode, disabled, certificate) in [
        (LoginMode::Password, false, None),
        (LoginMode::Password, true, None),
        (LoginMode::Both, false, None),
        (LoginMode::Both, false, Some(&b"x"[..])),
        (LoginMode::Certificate, false, None),
        (LoginMode::Certificate, true, Some(b"x")),
    ] {
        let directory = directory([account("a", mode, disabled, true)]);
        let presented =
            Presented { username: b"a-user", password: WRONG, certificate_cn: certificate };
        let Judgement::NeedsSlowHash(check) = judge(&directory, &key(), presented, NOW) else {
            panic!("{mode} {disabled} {certificate:?} was refused at once");
        };
        assert!(check.verify(WRONG).is_err());
    }
}

/// A secret of account `a` for this password.
fn secret(password: &[u8], slow: bool) -> StoredSecret {
    if slow {
        StoredSecret::argon2id(password, &mut FastRandom::from_seed([9; 32])).unwrap()
    } else {
        StoredSecret::machine(&key(), "a", password)
    }
}

fn rotated(login: LoginMode, disabled: bool, slow_new: bool, slow_old: bool) -> Account {
    let previous = PreviousSecret { secret: secret(b"old", slow_old), until: NOW + 60 };
    Account {
        secret: secret(b"new", slow_new),
        previous: Some(previous),
        ..account("a", login, disabled, false)
    }
}

#[test]
fn both_passwords_count_until_the_grace_ends_and_then_only_the_new_one() {
    for (slow_new, slow_old) in pairs([false, true]) {
        let directory = directory([rotated(LoginMode::Password, false, slow_new, slow_old)]);
        let case = format!("slow: {slow_new} {slow_old}");
        let proof = |unix, password: &[u8]| {
            verdict_at(unix, &directory, b"a-user", password, None).map(|accepted| accepted.proof)
        };
        assert_eq!(proof(NOW, b"new"), Ok(Proof::Password), "{case}");
        assert_eq!(proof(NOW, b"old"), Ok(Proof::PreviousPassword), "{case}");
        assert_eq!(proof(NOW + 59, b"old"), Ok(Proof::PreviousPassword), "{case}");
        assert_eq!(proof(NOW + 60, b"old"), Err(Refusal::WrongPassword), "{case}");
        assert_eq!(proof(u64::MAX, b"old"), Err(Refusal::WrongPassword), "{case}");
        assert_eq!(proof(NOW + 60, b"new"), Ok(Proof::Password), "{case}");
        for near in [&b""[..], b"ol", b"oldnew", b"newold", b"New"] {
            assert_eq!(proof(NOW, near), Err(Refusal::WrongPassword), "{case} {near:?}");
        }
    }
}

#[test]
fn an_old_password_opens_nothing_that_the_new_one_would_not() {
    for (slow_new, slow_old) in pairs([false, true]) {
        let outcome = |login, disabled, certificate: Option<&[u8]>| {
            let account = rotated(login, disabled, slow_new, slow_old);
            let directory = directory([account]);
            verdict_at(NOW, &directory, b"a-user", b"old", certificate).map(|got| got.proof)
        };
        assert_eq!(outcome(LoginMode::Password, true, None), Err(Refusal::Disabled));
        assert_eq!(outcome(LoginMode::Both, false, None), Err(Refusal::CertificateMissing));
        let foreign = Some(&b"x"[..]);
        assert_eq!(outcome(LoginMode::Both, false, foreign), Err(Refusal::CertificateMismatch));
        let own = Some(&b"a-cn"[..]);
        assert_eq!(outcome(LoginMode::Both, false, own), Ok(Proof::PreviousPassword));
        assert_eq!(outcome(LoginMode::Certificate, false, own), Ok(Proof::Certificate));
    }
}

/// T31: how many slow hashes a refusal costs must not tell which password was nearly right, nor
/// whether the account is disabled; unknown users cost as many as accounts do.
#[test]
fn refusals_cost_as_many_slow_hashes_as_the_account_has_passwords_that_need_one() {
    let cost = |directory: &Directory, unix, username: &[u8], password: &[u8]| {
        let presented = Presented { username, password, certificate_cn: None };
        match judge(directory, &key(), presented, unix) {
            Judgement::NeedsSlowHash(check) => check.slow_secrets().count() + check.decoys,
            Judgement::Refused(_) => 0,
            Judgement::Accepted(accepted) => panic!("{accepted:?}"),
        }
    };
    for (slow_new, slow_old) in pairs([false, true]) {
        let both = usize::from(slow_new) + usize::from(slow_old);
        for disabled in [false, true] {
            let directory = directory([rotated(LoginMode::Password, disabled, slow_new, slow_old)]);
            assert_eq!(cost(&directory, NOW, b"a-user", b"wrong"), both);
            assert_eq!(cost(&directory, NOW + 60, b"a-user", b"wrong"), usize::from(slow_new));
            assert_eq!(cost(&directory, NOW, b"nobody", b"wrong"), both);
            if disabled {
                for right in [&b"old"[..], b"new"] {
                    assert_eq!(cost(&directory, NOW, b"a-user", right), both, "{right:?}");
                }
            }
        }
    }
    // Half of the accounts have two, the other half none.
    let mut mixed = directory([rotated(LoginMode::Password, false, true, true)]);
    mixed.insert(account("b", LoginMode::Password, false, false)).unwrap();
    let mut counts = [0_usize; 3];
    for number in 0..2000_u32 {
        counts[cost(&mixed, NOW, &number.to_be_bytes(), b"x")] += 1;
    }
    assert!(counts[1] == 0 && (850..1150).contains(&counts[2]), "{counts:?}");
}
