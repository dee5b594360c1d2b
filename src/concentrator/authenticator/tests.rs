//! Whoever answers what, only a clear yes of everybody lets in; and at a rekey only a clear no
//! ends anything.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;

use tunnelhead_crypto::{DataCipher, Secret, SecretBytes};

use super::super::{AllOf, AuthenticatorError, Deciding, LoginKind};
use super::*;
use crate::concentrator::accounts::Accounts;
use crate::identity::{Account, Directory, StoredSecret};
use crate::proto::control::{OptionsString, PeerInfo};

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for an answer that comes, short enough to wait for one that doesn't.
const TIMEOUT: Duration = Duration::from_millis(300);

/// What an authenticator does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Allow,
    Deny,
    Error,
    Hang,
    Garbage,
    Panic,
}

const ACTS: [Act; 6] = [Act::Allow, Act::Deny, Act::Error, Act::Hang, Act::Garbage, Act::Panic];

struct Actor(Act);

impl Authenticator for Actor {
    fn authenticate<'a>(&'a self, _: &'a LoginRequest) -> Deciding<'a> {
        Box::pin(async move {
            match self.0 {
                Act::Allow => Ok(Decision::Accept(Accept::new("branch-1"))),
                Act::Deny => Ok(Decision::Refuse(Refusal::new("not\u{202e} paid\n"))),
                Act::Error => Err(AuthenticatorError("the database is away".to_owned())),
                Act::Hang => pending().await,
                Act::Garbage => Ok(Decision::Accept(Accept::new("../../etc"))),
                Act::Panic => panic!("an authenticator that panics"),
            }
        })
    }
}

fn accounts(directory: Directory) -> Arc<Accounts> {
    Arc::new(Accounts::new(directory, Secret::new([1; 32]), Secret::new([2; 32]), 1).unwrap())
}

fn login(kind: LoginKind, username: &str, password: &[u8]) -> LoginRequest {
    LoginRequest {
        kind,
        request: Box::new(AuthRequest {
            username: username.as_bytes().to_vec(),
            password: SecretBytes::from(password.to_vec()),
            too_long: false,
            certificate: None,
            options: OptionsString::parse(""),
            peer_info: PeerInfo::parse(""),
        }),
        source: SocketAddr::from(([203, 0, 113, 9], 50_000)),
        listener: None,
    }
}

fn rekey() -> LoginKind {
    LoginKind::Rekey { router: Arc::from("branch-1") }
}

/// An outside judge with a runtime of its own.
struct Stage {
    judge: Outside,
    counters: Arc<OutsideCounters>,
    accounts: Arc<Accounts>,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new(authenticator: Arc<dyn Authenticator>, open: usize) -> Self {
        Self::with(authenticator, open, accounts(Directory::new()), TIMEOUT)
    }

    fn with(
        authenticator: Arc<dyn Authenticator>,
        open: usize,
        accounts: Arc<Accounts>,
        timeout: Duration,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let counters = Arc::new(OutsideCounters::default());
        let limits = OutsideLimits { timeout, open };
        let judge = Outside::new(
            runtime.handle().clone(),
            authenticator,
            limits,
            Arc::clone(&accounts),
            Arc::clone(&counters),
        );
        Self { judge, counters, accounts, runtime }
    }

    fn asked(&self, login: LoginRequest) -> mpsc::Receiver<(Verdict, Claims)> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.judge.judge(login, Answer::new(move |v, claims| sender.send((v, claims)).unwrap()));
        receiver
    }

    fn verdict(&self, login: LoginRequest) -> Verdict {
        self.asked(login).recv_timeout(PATIENCE).unwrap().0
    }

    fn outcome(&self, name: &str) -> u64 {
        self.counters.outcomes.totals().get(name).copied().unwrap_or(0)
    }
}

fn name_of(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allow(_) => "allow",
        Verdict::Deny(reason) | Verdict::Refuse { reason, .. } => reason.code(),
    }
}

#[test]
fn one_authenticator_lets_in_only_with_a_clear_yes() {
    for (act, code, outcome) in [
        (Act::Allow, "allow", Some("accepted")),
        (Act::Deny, "refused_by_authenticator", Some("refused")),
        (Act::Error, "authenticator_unavailable", Some("failed")),
        (Act::Hang, "authenticator_unavailable", Some("timed_out")),
        (Act::Garbage, "authenticator_unavailable", Some("invalid")),
        (Act::Panic, "authenticator_unavailable", None),
    ] {
        let stage = Stage::new(Arc::new(Actor(act)), 8);
        let verdict = stage.verdict(login(LoginKind::Login, "u", b"p"));
        assert_eq!(name_of(&verdict), code, "{act:?}");
        if let Some(outcome) = outcome {
            assert_eq!(stage.outcome(outcome), 1, "{act:?}");
        }
        // The same at a rekey ends a tunnel only if it is a refusal.
        let verdict = stage.verdict(login(rekey(), "u", b"p"));
        let ends = verdict.ends_tunnel_of(&Identity(Arc::from("branch-1")));
        assert_eq!(ends, act == Act::Deny, "{act:?} {verdict:?}");
        assert_eq!(stage.counters.open.load(Ordering::Relaxed), 0, "{act:?} kept its place");
    }
}

#[test]
fn an_acceptance_as_somebody_else_ends_a_tunnel() {
    let stage = Stage::new(Arc::new(Actor(Act::Allow)), 8);
    let verdict = stage.verdict(login(rekey(), "u", b"p"));
    assert!(verdict.ends_tunnel_of(&Identity(Arc::from("branch-2"))));
}

#[test]
fn two_authenticators_let_in_only_if_both_do() {
    for first in ACTS {
        for second in ACTS {
            let both = AllOf::new(Arc::new(Actor(first)), [Arc::new(Actor(second)) as Arc<_>]);
            let stage = Stage::with(
                Arc::new(both),
                8,
                accounts(Directory::new()),
                Duration::from_millis(60),
            );
            let verdict = stage.verdict(login(LoginKind::Login, "u", b"p"));
            let all_allow = [first, second] == [Act::Allow; 2];
            let allowed = matches!(verdict, Verdict::Allow(_));
            assert_eq!(allowed, all_allow, "{first:?} and {second:?}: {verdict:?}");
            let verdict = stage.verdict(login(rekey(), "u", b"p"));
            let ends = verdict.ends_tunnel_of(&Identity(Arc::from("branch-1")));
            let panics = [first, second].contains(&Act::Panic);
            let refused = [first, second].contains(&Act::Deny) && !panics;
            assert_eq!(ends, refused, "{first:?} and {second:?} at a rekey: {verdict:?}");
        }
    }
}

/// Accepts with these wishes.
struct Wishes(Accept);

impl Authenticator for Wishes {
    fn authenticate<'a>(&'a self, _: &'a LoginRequest) -> Deciding<'a> {
        Box::pin(async move { Ok(Decision::Accept(self.0.clone())) })
    }
}

fn combined(one: Accept, other: Accept) -> Result<(Verdict, Claims), ()> {
    let both = AllOf::new(Arc::new(Wishes(one)), [Arc::new(Wishes(other)) as Arc<_>]);
    let stage = Stage::new(Arc::new(both), 8);
    let asked = stage.asked(login(LoginKind::Login, "u", b"p"));
    let (verdict, claims) = asked.recv_timeout(PATIENCE).unwrap();
    if matches!(verdict, Verdict::Allow(_)) { Ok((verdict, claims)) } else { Err(()) }
}

#[test]
fn authenticators_that_contradict_each_other_let_nobody_in() {
    let plain = || Accept::new("branch-1");
    let at = |last| Accept { address: Some(Ipv4Addr::new(100, 64, 9, last)), ..plain() };
    let of = |tenant: &str| Accept { tenant: Some(tenant.into()), ..plain() };
    let with = |cipher| Accept { cipher: Some(cipher), ..plain() };
    assert!(combined(plain(), Accept::new("branch-2")).is_err());
    assert!(combined(at(1), at(2)).is_err());
    assert!(combined(of("a"), of("b")).is_err());
    assert!(combined(with(DataCipher::Aes128Gcm), with(DataCipher::Aes256Gcm)).is_err());
    let tagged = |tags: &[&str]| Accept {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..at(1)
    };
    let (_, claims) =
        combined(tagged(&["b", "a"]), Accept { address: None, ..tagged(&["c", "a"]) })
            .expect("they agree");
    assert_eq!(claims.address, Some(Ipv4Addr::new(100, 64, 9, 1)));
    assert_eq!(claims.tags, ["a", "b", "c"]);
}

#[test]
fn wishes_that_are_not_valid_are_no_acceptance() {
    let plain = || Accept::new("branch-1");
    let refused = |accept: Accept| {
        let stage = Stage::new(Arc::new(Wishes(accept)), 8);
        let verdict = stage.verdict(login(LoginKind::Login, "u", b"p"));
        name_of(&verdict) == "authenticator_unavailable" && stage.outcome("invalid") == 1
    };
    for name in ["", "-x", "A", "a b", "a\n", "../a", "é"] {
        assert!(refused(Accept::new(name)), "{name:?}");
    }
    assert!(refused(Accept { tags: vec!["Upper".into()], ..plain() }));
    assert!(refused(Accept { tags: (0..33).map(|n| format!("t{n}")).collect(), ..plain() }));
    assert!(refused(Accept { tenant: Some("a\u{202e}".into()), ..plain() }));
}

#[test]
fn what_a_refusal_says_is_made_safe() {
    let stage = Stage::new(Arc::new(Actor(Act::Deny)), 8);
    match stage.verdict(login(LoginKind::Login, "u", b"p")) {
        Verdict::Refuse { text, .. } => assert_eq!(&*text, "not\\u{202e} paid\\n"),
        other => panic!("{other:?}"),
    }
    assert!(printable(&"é\n".repeat(1000)).len() <= 256);
}

#[test]
fn a_full_queue_refuses_at_once_and_rekeys_take_half_of_it() {
    let stage = Stage::with(
        Arc::new(Actor(Act::Hang)),
        4,
        accounts(Directory::new()),
        Duration::from_secs(3600),
    );
    let rekeys: Vec<_> = (0..3).map(|_| stage.asked(login(rekey(), "u", b"p"))).collect();
    let (verdict, _) = rekeys[2].recv_timeout(PATIENCE).unwrap();
    assert_eq!(name_of(&verdict), "authenticator_unavailable");
    let logins: Vec<_> =
        (0..3).map(|n| stage.asked(login(LoginKind::Login, &format!("u{n}"), b"p"))).collect();
    let (verdict, _) = logins[2].recv_timeout(PATIENCE).unwrap();
    assert_eq!(name_of(&verdict), "authenticator_unavailable");
    assert_eq!(stage.outcome("overloaded"), 2);
    assert!(logins[1].try_recv().is_err() && rekeys[1].try_recv().is_err());
    // The runtime ends with questions open: they are answered, with a no.
    let Stage { runtime, .. } = stage;
    runtime.shutdown_background();
    let (verdict, _) = logins[1].recv_timeout(PATIENCE).unwrap();
    assert_eq!(name_of(&verdict), "authenticator_unavailable");
}

#[test]
fn guesses_are_counted_and_trouble_is_held_against_nobody() {
    let tries = |act| {
        let stage = Stage::with(
            Arc::new(Actor(act)),
            8,
            accounts(Directory::new()),
            Duration::from_millis(1),
        );
        (0..40)
            .map(|_| stage.verdict(login(LoginKind::Login, "u", b"p")))
            .filter(|verdict| name_of(verdict) == "back_off")
            .count()
    };
    assert!(tries(Act::Deny) > 0);
    for act in [Act::Error, Act::Hang, Act::Panic, Act::Allow] {
        assert_eq!(tries(act), 0, "{act:?}");
    }
}

#[test]
fn a_disabled_account_of_the_same_name_stays_out() {
    let mut directory = Directory::new();
    let secret = StoredSecret::Machine { tag: [0; 32] };
    let account = Account { disabled: true, ..Account::named("branch-1", "u", secret) };
    directory.insert(account).unwrap();
    let accounts = accounts(directory);
    let stage = Stage::with(Arc::new(Actor(Act::Allow)), 8, accounts, TIMEOUT);
    assert_eq!(name_of(&stage.verdict(login(LoginKind::Login, "u", b"p"))), "disabled");
    let identity = Identity(Arc::from("branch-1"));
    assert!(!stage.judge.still_allowed(&identity));
    let account = stage.accounts.read().get("branch-1").map(|a| (**a).clone()).unwrap();
    stage.accounts.write().insert(Account { disabled: false, ..account }).unwrap();
    assert!(stage.judge.still_allowed(&identity));
    assert_eq!(name_of(&stage.verdict(login(LoginKind::Login, "u", b"p"))), "allow");
}

#[test]
fn the_accounts_can_be_one_part_of_the_decision() {
    use crate::concentrator::accounts::DirectoryAuthenticator;
    let key = Secret::new([1; 32]);
    let mut directory = Directory::new();
    let secret = StoredSecret::machine(&key, "branch-1", b"right");
    directory.insert(Account::named("branch-1", "u", secret)).unwrap();
    let accounts = accounts(directory);
    let part = || Arc::new(DirectoryAuthenticator(Arc::clone(&accounts)));
    let verdict = |other: Arc<dyn Authenticator>, password: &[u8]| {
        let both = Arc::new(AllOf::new(part(), [other]));
        let stage = Stage::with(both, 8, Arc::clone(&accounts), TIMEOUT);
        name_of(&stage.verdict(login(LoginKind::Login, "u", password)))
    };
    assert_eq!(verdict(Arc::new(Actor(Act::Allow)), b"right"), "allow");
    assert_eq!(verdict(Arc::new(Actor(Act::Allow)), b"wrong"), "wrong_password");
    assert_eq!(verdict(Arc::new(Actor(Act::Deny)), b"right"), "refused_by_authenticator");
    let other = Arc::new(Wishes(Accept::new("branch-2")));
    assert_eq!(verdict(other, b"right"), "authenticator_unavailable");
}
