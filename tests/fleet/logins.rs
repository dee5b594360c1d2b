//! How logins end: replaced, refused, ended by a change of mind.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tunnelhead::concentrator::{Accept, Authenticator, Deciding, Decision, LoginRequest};
use tunnelhead::config::{CertificatePolicy, Config};
use tunnelhead::control_api::types::{Login, NewRouter};
use tunnelhead::testing::fleet::{Command, Fleet, Member, Message, View};
use tunnelhead::testing::profiles;
use tunnelhead::tls::CertAndKey;
use tunnelhead::tls::pki::issue_client;
use tunnelhead_crypto::SecretBytes;

use crate::head::{Head, SOON};
use crate::support::eventually;

fn fleet() -> Fleet {
    Fleet::start().expect("a fleet")
}

/// Adds a member and waits for the end of its only connection.
fn attempt(fleet: &Fleet, member: Member) -> View {
    let id = fleet.add(member);
    fleet.wait_for(id, "an end", SOON, |view| view.up || view.closes == 1)
}

#[test]
fn a_repeated_push_request_changes_nothing() {
    let (head, fleet) = (Head::start(), fleet());
    let member = Member { keep_engines: true, ..head.member("again", profiles::p1()) };
    let id = fleet.add(member);
    fleet.wait_for(id, "a tunnel", SOON, |view| view.up);
    for _ in 0..20 {
        fleet.tell(id, Command::Message(Message::PushRequest));
    }
    fleet.tell(id, Command::PingBoth);
    let view = fleet.wait_for(id, "answers", SOON, View::pings_answered);
    assert!(view.up && view.closes == 0, "{view:?}");
    fleet.expect_no_violations();
    // Not every one of twenty within a second is answered; those are counted.
    eventually("dropped push request", SOON, || {
        let tunnel = head.tunnel("again").expect("a tunnel");
        tunnel.drops.get("drop_push_request").copied()
    });
    assert!(fleet.view(id).up);
}

#[test]
fn the_same_refusal_whatever_was_wrong_with_the_credentials() {
    let (head, fleet) = (Head::start(), fleet());
    let right = head.member("right", profiles::p3());
    let disabled = head.member("disabled", profiles::p3());
    head.disable("disabled");
    let with = |username: &str, password: &str| Member {
        username: username.as_bytes().to_vec(),
        password: password.as_bytes().to_vec(),
        ..right.clone()
    };
    let cases = [
        ("login_closed_wrong_password", with("right", "wrong")),
        ("login_closed_unknown_user", with("nobody", "wrong")),
        ("login_closed_disabled", disabled),
        ("login_closed_credentials_too_long", with(&"x".repeat(300), "wrong")),
    ];
    let mut texts = Vec::new();
    for (counter, member) in cases {
        let view = attempt(&fleet, member);
        assert_eq!((view.logins, view.refusals), (0, 1), "{counter}: {view:?}");
        texts.push(view.refusal().expect("a refusal").to_owned());
        head.wait_counter(counter, 1);
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert!(attempt(&fleet, right).up);
    fleet.expect_no_violations();
}

/// Lets everybody in under the user name that it gives.
struct Anybody;

impl Authenticator for Anybody {
    fn authenticate<'a>(&'a self, login: &'a LoginRequest) -> Deciding<'a> {
        let name = String::from_utf8_lossy(&login.request.username).into_owned();
        Box::pin(async move { Ok(Decision::Accept(Accept::new(name))) })
    }
}

#[test]
fn a_full_pool_is_an_ordinary_answer_and_its_owners_still_get_in() {
    let tiny = |config: &mut Config| {
        // One block: 253 addresses.
        config.pool.network = "100.66.1.0/24".parse().expect("a network");
        config.pool.excluded = vec!["100.66.1.8/29", "100.66.1.16/28", "100.66.1.32/27"]
            .into_iter()
            .chain(["100.66.1.64/26", "100.66.1.128/25"])
            .map(|network| network.parse().expect("a network"))
            .collect();
    };
    let head = Head::start_for(tiny, Some(Arc::new(Anybody)));
    let capacity = head.status().pool.capacity;
    assert_eq!(capacity, 6);
    let fleet = fleet();
    let member = |name: &str| Member::new(head.listens(0), profiles::p3(), name, "any");
    let ids: Vec<_> = (0..6).map(|n| fleet.add(member(&format!("router-{n}")))).collect();
    fleet.wait_all_up(SOON);
    for late in ["late-1", "late-2"] {
        let view = attempt(&fleet, member(late));
        assert_eq!((view.logins, view.refusals), (0, 1), "{view:?}");
        let text = view.refusal().expect("a refusal");
        assert!(text.contains("address"), "{text}");
    }
    head.wait_counter("login_closed_pool_full", 2);
    // Those who have an address keep it, in and out.
    let before = fleet.view(ids[0]);
    fleet.tell(ids[0], Command::HangUp);
    fleet.tell(ids[0], Command::Dial);
    let view = fleet.wait_for(ids[0], "a tunnel", SOON, |view| view.logins == 2);
    assert_eq!(view.address, before.address);
    fleet.expect_no_violations();
}

#[test]
fn a_password_changed_during_a_rekey_ends_the_session() {
    let (head, fleet) = (Head::start(), fleet());
    let ids = [profiles::p3(), profiles::stock_2_6()].map(|profile| {
        let member = head.member(&format!("r-{}", profile.tls.max as u8), profile);
        fleet.add(member)
    });
    fleet.wait_all_up(SOON);
    for id in ids {
        fleet.tell(id, Command::Rekey);
        fleet.wait_for(id, "new keys", SOON, |view| view.rekeys == 1);
        let name = String::from_utf8(b"somebody".to_vec()).expect("a name");
        fleet.tell(id, Command::Credentials(name, "else".to_owned()));
        fleet.tell(id, Command::Rekey);
        let view = fleet.wait_for(id, "an end", SOON, |view| view.closes == 1);
        assert_eq!((view.rekeys, view.logins), (1, 1), "{view:?}");
    }
    head.wait_counter("tunnel_closed_credential_changed", 2);
    assert_eq!(head.tunnels().len(), 0);
}

#[test]
fn a_second_login_replaces_the_first_and_keeps_the_address() {
    let (head, fleet) = (Head::start(), fleet());
    let member = head.member("twice", profiles::p3());
    let first = fleet.add(member.clone());
    let address = fleet.wait_for(first, "a tunnel", SOON, |view| view.up).address;
    let second = fleet.add(member);
    let view = fleet.wait_for(second, "a tunnel", SOON, |view| view.up);
    assert_eq!(view.address, address);
    fleet.wait_for(first, "an end", SOON, |view| view.closes == 1);
    fleet.tell(second, Command::PingBoth);
    fleet.wait_for(second, "answers", SOON, View::pings_answered);
    assert_eq!(head.tunnels().len(), 1);
    fleet.expect_no_violations();
}

#[test]
fn two_routers_with_one_identity_take_turns_a_few_times_and_then_one_stays() {
    let (head, fleet) = (Head::start(), fleet());
    let member = head.member("clone", profiles::p3());
    let from = |last| Member {
        source: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))),
        redial: Some(Duration::from_millis(20)),
        ..member.clone()
    };
    let ids = [fleet.add(from(2)), fleet.add(from(3))];
    fleet.wait("an end of the fight", SOON, |views| {
        views.iter().any(|view| view.up) && views.iter().any(|view| view.refusals >= 5)
    });
    let status = head.status();
    assert!(status.counters["clones_refused"] >= 5, "{:?}", status.counters);
    assert!(status.counters["takeovers"] <= 7, "{:?}", status.counters);
    assert_eq!(head.tunnels().len(), 1);
    // The one that is in stays in, whatever the other does, and its packets are its own.
    let logins = ids.map(|id| fleet.view(id).logins);
    let stays = if fleet.view(ids[0]).up { ids[0] } else { ids[1] };
    let refusals = fleet.view(ids[0] + ids[1] - stays).refusals;
    fleet.tell(stays, Command::PingBoth);
    fleet.wait("more refusals and answers", SOON, |views| {
        views[ids[0] + ids[1] - stays].refusals >= refusals + 5 && views[stays].pings_answered()
    });
    assert_eq!(ids.map(|id| fleet.view(id).logins), logins);
    assert!(fleet.view(stays).up);
    fleet.expect_no_violations();
}

#[test]
fn certificates_count_where_the_account_says_so() {
    let head = Head::start_with(|config| {
        config.listeners[0].client_certificate = CertificatePolicy::Optional;
    });
    let fleet = fleet();
    let pki = head.folder().join("state/pki");
    let certificate = |name: &str| {
        let (certificate, key) = issue_client(&pki, name).expect("a certificate");
        CertAndKey {
            certificate_pem: certificate.into_bytes(),
            key_pem: SecretBytes::from(key.as_bytes().to_vec()),
        }
    };
    let account = |name: &str, login: Login| {
        let account = head.add_router(NewRouter { login, ..NewRouter::named(name) });
        let account = account.expect("an account");
        let (username, password) = (account.router.username, account.password.expose().to_owned());
        Member::new(head.listens(0), profiles::p5(), &username, &password)
    };
    let (only, both) = (account("only", Login::Certificate), account("both", Login::Both));
    let own = |member: &Member, name: &str| {
        member.clone().with_certificate(certificate(name)).expect("a usable certificate")
    };
    let wrong = |member: Member| Member { password: b"wrong".to_vec(), ..member };
    // The password is not looked at where a certificate is enough.
    for member in [own(&only, "only"), wrong(own(&only, "only")), own(&both, "both")] {
        assert!(attempt(&fleet, member).up);
    }
    let refused = [
        only.clone(),
        own(&only, "both"),
        own(&only, "Only"),
        both.clone(),
        wrong(own(&both, "both")),
        own(&both, "only"),
    ];
    let mut texts = Vec::new();
    for member in refused {
        let view = attempt(&fleet, member);
        assert_eq!((view.logins, view.refusals), (0, 1), "{view:?}");
        texts.push(view.refusal().expect("a refusal").to_owned());
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    fleet.expect_no_violations();
}

#[test]
fn a_disconnected_router_hears_why_and_comes_back() {
    let (head, fleet) = (Head::start(), fleet());
    let member = Member {
        keep_engines: true,
        redial: Some(Duration::from_millis(10)),
        ..head.member("back", profiles::p3())
    };
    let id = fleet.add(member);
    let address = fleet.wait_for(id, "a tunnel", SOON, |view| view.up).address;
    head.disconnect("back");
    let view = fleet.wait_for(id, "another login", SOON, |view| view.logins == 2);
    assert_eq!(view.address, address);
    head.wait_counter("tunnel_closed_disconnected_by_operator", 1);
    assert_eq!(head.counter("tunnel_closed_peer_closed"), 0);
    fleet.expect_no_violations();
}
