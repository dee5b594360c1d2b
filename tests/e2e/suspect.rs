//! Routers that are gone without a word, and ones that only seem so.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tunnelhead::telemetry::clock;

use crate::lab::{Lab, ready};
use crate::site::Router;
use crate::support::process::Process;
use crate::support::run;
use crate::tunnelhead_process::Tunnelhead;

/// A wait for an event that ought to come within 15 s.
const EVENT: Duration = Duration::from_secs(60);

/// `events --json` of one kind, from now on.
fn events(head: &Tunnelhead<'_>, kind: &str) -> Process {
    let status = head.json(&["status"]);
    assert!(status["ready"].as_bool().expect("ready"), "{status}");
    let mut command = head.command();
    command.args(["--json", "events", "--after", "0", "--kind", kind]);
    Process::spawn("events", &mut command)
}

/// The next event of a kind at or behind a place in the output.
fn expect_event(from: &Process, place: usize, kind: &str) -> (usize, Value) {
    let wanted = |line: &str| line.contains(kind);
    let (place, line) = from
        .line_after(place, EVENT, wanted)
        .unwrap_or_else(|why| panic!("no {kind} ({why:?}): {}", from.text()));
    (place, serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
}

/// Milliseconds since 1970 of an event's own time.
fn moment(event: &Value) -> u64 {
    let text = event["at"].as_str().unwrap_or_else(|| panic!("no time in {event}"));
    let moment = OffsetDateTime::parse(text, &Rfc3339).expect("RFC 3339");
    u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).expect("after 1970")
}

#[test]
fn a_router_that_is_cut_off_is_suspect_within_fifteen_seconds_and_recovers() {
    if !ready("a_router_that_is_cut_off_is_suspect_within_fifteen_seconds_and_recovers") {
        return;
    }
    let lab = Lab::new(2);
    let head = Tunnelhead::start_keeping(&lab, "ping = \"20s\"\nrestart = \"90s\"", &[], "");
    let _gone = Router::connect(&lab, 0, head.add("gone", &[]).config());
    let _stays = Router::connect(&lab, 1, head.add("stays", &[]).config());
    let events = events(&head, "tunnel.");
    let (place, _) = expect_event(&events, 0, "tunnel.up");

    // Out of the bridge: its packets are lost, and neither side is told.
    lab.internet.ip("link set to-11 nomaster");
    let lost = clock::unix_millis();
    let (place, suspect) = expect_event(&events, place, "tunnel.suspect");
    assert_eq!(suspect["router"], "gone", "{suspect}");
    let late = moment(&suspect).saturating_sub(lost);
    println!("suspect {late} ms after the last packet could pass");
    assert!(late <= 15_000, "suspect only after {late} ms");
    let listed = head.json(&["tunnel", "list", "--state", "suspect"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!((&listed[0]["router"], &listed[0]["state"]), (&"gone".into(), &"suspect".into()));

    lab.internet.ip("link set to-11 master br0");
    let (_, recovered) = expect_event(&events, place, "tunnel.recovered");
    assert_eq!(recovered["router"], "gone", "{recovered}");
    assert_eq!(head.tunnel("gone").expect("still there")["state"], "up");
    assert_eq!(events.count(0, "tunnel.down"), 0, "{}", events.text());
    assert_eq!(events.count(0, "tunnel.suspect"), 1, "{}", events.text());
}

#[test]
fn a_stall_of_ours_makes_nobody_suspect() {
    if !ready("a_stall_of_ours_makes_nobody_suspect") {
        return;
    }
    let lab = Lab::new(1);
    let keepalive = "ping = \"2s\"\nrestart = \"90s\"\nsuspect = \"3s\"";
    let head = Tunnelhead::start_keeping(&lab, keepalive, &[], "");
    let router = Router::connect(&lab, 0, head.add("branch", &[]).config());
    let events = events(&head, "tunnel.");
    let (place, _) = expect_event(&events, 0, "tunnel.up");
    let id = head.id().to_string();
    run(Command::new("kill").args(["-STOP", &id]));
    // Longer than it takes to suspect somebody; nothing announces that time has passed.
    std::thread::park_timeout(Duration::from_secs(8));
    run(Command::new("kill").args(["-CONT", &id]));
    lab.concentrator.expect_ping(router.address);
    // Two looks later there is still nothing.
    std::thread::park_timeout(Duration::from_secs(5));
    assert_eq!(events.count(place, "tunnel."), 0, "{}", events.text());
    assert_eq!(head.tunnel("branch").expect("still there")["state"], "up");
}
