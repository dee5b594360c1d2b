//! What changes of an account do to the router that has it: the real binary, the reference client.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use tunnelhead::testing::fleet::{Command, Fleet, Member, View};
use tunnelhead::testing::profiles;

use crate::binary::Binary;
use crate::lab::{Lab, ready};
use crate::support::eventually;

/// A login in a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn ask(binary: &Binary<'_>, method: &str, path: &str, body: Option<Value>) -> Value {
    let mut stream = UnixStream::connect(binary.control_socket()).expect("the socket");
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    write!(
        stream,
        "{method} /v1/routers/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{kind}\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {text}");
    serde_json::from_str(body).unwrap_or_default()
}

fn connected(binary: &Binary<'_>, name: &str) -> bool {
    ask(binary, "GET", name, None)["connected"] == true
}

#[test]
fn old_and_new_password_log_in_until_the_grace_period_ends() {
    let name = "old_and_new_password_log_in_until_the_grace_period_ends";
    if !ready(name) {
        return;
    }
    let lab = Lab::new(1);
    let binary = Binary::start(&lab, "");
    let fleet = lab.routers[0].inside(Fleet::start).expect("a fleet");
    let account = binary.add("a");
    let member = |password: &str| {
        Member::new(binary.listens(), profiles::p3(), &account.router.username, password)
    };
    let rotate = |grace: u64| {
        let made = ask(&binary, "POST", "a/rotate", Some(json!({"grace_seconds": grace})));
        made["password"].as_str().expect("a password").to_owned()
    };
    // One after the other: a second login of one identity ends the first.
    let up = |password: &str| {
        let id = fleet.add(member(password));
        fleet.wait_for(id, "a tunnel", SOON, |view| view.up);
        id
    };
    let refused = |password: &str| {
        let id = fleet.add(member(password));
        let view = fleet.wait_for(id, "a refusal", SOON, |view| view.closes == 1);
        assert_eq!((view.logins, view.refusals), (0, 1), "{view:?}");
    };
    let gone = |view: &View| !view.up && view.closes == 1;
    let first = account.password.expose().to_owned();
    let tunnel = up(&first);
    let second = rotate(3600);
    assert!(fleet.view(tunnel).up, "a rotation with grace cuts nothing");
    up(&second);
    assert_eq!(ask(&binary, "GET", "a", None)["rotation"]["new_used"], true);
    up(&first);
    assert_eq!(ask(&binary, "GET", "a", None)["rotation"]["new_used"], false);
    refused("neither");

    // The grace period ends while the old password's tunnel is up: it is cut.
    let old = up(&first);
    let third = rotate(2);
    fleet.wait_for(old, "the end of the old password's tunnel", SOON, gone);
    refused(&first);
    let new = up(&third);
    assert!(ask(&binary, "GET", "a", None)["rotation"].is_null());

    // Without grace the tunnel is gone before the answer.
    let fourth = rotate(0);
    assert!(!connected(&binary, "a"));
    fleet.wait_for(new, "the end of its tunnel", SOON, gone);
    refused(&third);
    up(&fourth);
    fleet.expect_no_violations();
}

#[test]
fn a_router_that_is_disabled_readdressed_or_deleted_has_no_tunnel_when_that_is_answered() {
    let name = "a_router_that_is_disabled_readdressed_or_deleted_has_no_tunnel";
    if !ready(name) {
        return;
    }
    let lab = Lab::new(1);
    let binary = Binary::start(&lab, "");
    let fleet = lab.routers[0].inside(Fleet::start).expect("a fleet");
    let account = binary.add("a");
    let (username, password) = (&account.router.username, account.password.expose());
    let id = fleet.add(Member {
        redial: Some(Duration::from_millis(100)),
        ..Member::new(binary.listens(), profiles::p3(), username, password)
    });
    let first = fleet.wait_for(id, "a tunnel", SOON, |view| view.up).address;
    // The concentrator counts a tunnel once packets can flow both ways.
    eventually("connected router", SOON, || connected(&binary, "a").then_some(()));

    let change = |method: &str, path: &str, body: Option<Value>| {
        let logins = fleet.view(id).logins;
        let closes = fleet.view(id).closes;
        let answer = ask(&binary, method, path, body);
        (answer, logins, closes)
    };
    let (moved, logins, _) = change("POST", "a/readdress", None);
    let second = fleet.wait_for(id, "another login", SOON, |view| view.up && view.logins > logins);
    assert_ne!(second.address, first);
    assert_eq!(moved["address"], json!(second.address));

    let (_, logins, _) = change("PATCH", "a", Some(json!({"address": "100.64.33.3"})));
    let third = fleet.wait_for(id, "another login", SOON, |view| view.up && view.logins > logins);
    assert_eq!(json!(third.address), json!("100.64.33.3"));
    // The same address for good, and a note: neither cuts a tunnel.
    ask(&binary, "PATCH", "a", Some(json!({"address": null, "note": "x", "tags": ["y"]})));
    fleet.tell(id, Command::PingBoth);
    fleet.wait_for(id, "answers", SOON, View::pings_answered);
    assert_eq!(fleet.view(id).logins, third.logins);

    let (disabled, _, closes) = change("POST", "a/disable", None);
    assert_eq!((&disabled["disabled"], &disabled["connected"]), (&json!(true), &json!(false)));
    fleet.wait_for(id, "refusals", SOON, |view| view.closes > closes && view.refusals > 0);
    ask(&binary, "POST", "a/enable", None);
    fleet.wait_for(id, "a tunnel", SOON, |view| view.up);
    assert!(ask(&binary, "GET", "a", None)["last_seen"].is_string());
    ask(&binary, "DELETE", "a", None);
    assert_eq!(binary.tunnels().len(), 0);
    let refusals = fleet.view(id).refusals;
    fleet.wait_for(id, "a refusal", SOON, |view| !view.up && view.refusals > refusals);
    fleet.expect_no_violations();
}
