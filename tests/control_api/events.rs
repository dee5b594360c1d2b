//! `/v1/events` and `tunnelhead events` of the real binary.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::PROGRAM;
use crate::live::Live;
use crate::support::eventually;
use crate::support::process::Process;

/// Anything that takes milliseconds on an idle machine is done by then.
const SOON: Duration = Duration::from_secs(60);

/// A stream of events as curl would see it.
struct Stream {
    lines: BufReader<UnixStream>,
    status: u16,
}

/// One event: id, kind, document.
type Told = (u64, String, Value);

impl Stream {
    fn open(live: &Live, query: &str, header: &str) -> Self {
        let mut stream = UnixStream::connect(live.socket()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let request = format!("GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status == 200 {
            let head = head.to_ascii_lowercase();
            assert!(head.contains("content-type: text/event-stream"), "{head}");
        }
        Self { lines, status }
    }

    /// The next event; None: the stream has ended.
    fn next(&mut self) -> Option<Told> {
        let (mut id, mut kind, mut data) = (0, String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            // The lengths of chunks stand between the lines that are ours.
            match line.trim_end().split_once(": ") {
                Some(("id", value)) => id = value.parse().unwrap(),
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("data", value)) => value.clone_into(&mut data),
                _ if line == "\n" && !data.is_empty() => {
                    return Some((id, kind, serde_json::from_str(&data).unwrap()));
                }
                _ => {}
            }
        }
    }

    /// What is told next of a part of this kind; others are passed over.
    fn of_part(&mut self, kind: &str, part: &str) -> Value {
        loop {
            let (_, told_kind, told) = self.next().expect("the stream goes on");
            if told_kind == kind && told["part"] == part {
                return told;
            }
        }
    }
}

fn event_id(live: &Live, list: &str) -> u64 {
    live.get(list).json()["event_id"].as_u64().unwrap()
}

fn add(live: &Live, name: &str) {
    let reply = live.send("POST", "/v1/routers", Some(&json!({"name": name})));
    assert_eq!(reply.status, 201, "{}", reply.body);
}

#[test]
fn events_after_a_list_are_complete_and_a_restart_is_told() {
    let Some(mut live) = Live::start("events_after_a_list", "") else { return };
    let listed = event_id(&live, "/v1/routers");
    assert_eq!(event_id(&live, "/v1/tunnels"), listed);
    add(&live, "a");
    add(&live, "b");
    let mut stream = Stream::open(&live, &format!("?after={listed}&kind=router."), "");
    let first = stream.next().unwrap();
    assert_eq!((first.1.as_str(), &first.2["router"]), ("router.added", &json!("a")));
    assert_eq!(first.2["id"], json!(first.0));
    assert!(first.0 > listed);
    let second = stream.next().unwrap();
    assert_eq!(second.2["router"], "b");
    // From now on, of one router.
    let mut later = Stream::open(&live, "?router=a", "");
    assert_eq!(live.send("DELETE", "/v1/routers/b", None).status, 204);
    assert_eq!(live.send("DELETE", "/v1/routers/a", None).status, 204);
    let removed = later.next().unwrap();
    assert_eq!((removed.1.as_str(), &removed.2["router"]), ("router.removed", &json!("a")));
    assert_eq!(stream.next().unwrap().2["router"], "b");
    // As a browser goes on.
    let mut again =
        Stream::open(&live, "?kind=router.", &format!("Last-Event-ID: {}\r\n", first.0));
    assert_eq!(again.next().unwrap(), second);

    // A graceful stop ends the streams, and soon.
    let listed = event_id(&live, "/v1/routers");
    live.end("TERM");
    assert_eq!(stream.of_end(), None);
    live.launch(&[]);
    after_restart(&live, listed);
    // So does a kill.
    let listed = event_id(&live, "/v1/routers");
    add(&live, "c");
    live.end("KILL");
    live.launch(&[]);
    after_restart(&live, listed);
    assert_eq!(live.get("/v1/routers").json()["items"][0]["name"], "c");
}

impl Stream {
    /// Reads to the end; what is told on the way does not matter.
    fn of_end(&mut self) -> Option<Told> {
        while self.next().is_some() {}
        None
    }
}

/// What was listed before a restart can't be followed; a new list can.
fn after_restart(live: &Live, listed: u64) {
    let gone = live.get(&format!("/v1/events?after={listed}"));
    assert_eq!(gone.status, 410, "{}", gone.body);
    let gone = gone.json();
    assert_eq!((&gone["code"], &gone["field"]), (&json!("events_gone"), &json!("after")));
    assert_eq!((&gone["gap"]["from"], &gone["gap"]["lost"]), (&json!(listed + 1), &Value::Null));
    let fresh = event_id(live, "/v1/routers");
    assert!(fresh > listed && fresh >= gone["gap"]["to"].as_u64().unwrap(), "ids rise");
    for after in [fresh, gone["gap"]["to"].as_u64().unwrap()] {
        assert_eq!(Stream::open(live, &format!("?after={after}"), "").status, 200);
    }
}

#[test]
fn what_is_malformed_is_refused_with_its_field() {
    let Some(live) = Live::start("what_is_malformed_is_refused", "") else { return };
    for (query, field) in
        [("?after=x", "after"), ("?kind=tunnel", "kind"), ("?router=-a", "router"), ("?x=1", "x")]
    {
        let reply = live.get(&format!("/v1/events{query}"));
        assert_eq!((reply.status, &reply.json()["field"]), (400, &json!(field)), "{query}");
    }
    let head = live.send("HEAD", "/v1/events", None);
    assert_eq!((head.status, head.body.as_str()), (200, ""), "it ends");
    assert_eq!(live.get(&format!("/v1/events?after={}", u64::MAX)).status, 410);
}

#[test]
fn a_device_that_is_taken_down_is_told_and_so_is_its_return() {
    let Some(live) = Live::start("a_device_that_is_taken_down", "") else { return };
    let mut stream = Stream::open(&live, "?kind=degraded,recovered", "");
    let inside = |command: &str| {
        let id = live.process().id().to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-n", "-t", &id]).args(command.split(' '));
        assert!(nsenter.status().unwrap().success(), "{command}");
    };
    inside("ip link set tunnelhead0 down");
    let told = stream.of_part("degraded", "tun");
    assert!(told["reason"].as_str().unwrap().contains("tunnelhead0 down"), "{told}");
    let status = live.get("/v1/status").json();
    assert_eq!((&status["ready"], &status["tun"]["up"]), (&json!(false), &json!(false)));
    inside("ip link set tunnelhead0 up");
    // The kernel has dropped the route with the link.
    let told = stream.of_part("degraded", "route");
    let command = told["reason"].as_str().unwrap().split_once("add it: ").unwrap().1;
    stream.of_part("recovered", "tun");
    inside(command);
    stream.of_part("recovered", "route");
    let status = live.get("/v1/status").json();
    let parts: Vec<_> = status["degraded"].as_array().unwrap().iter().map(|d| &d["part"]).collect();
    assert!(!parts.contains(&&json!("tun")) && !parts.contains(&&json!("route")), "{status}");
}

#[test]
fn the_command_follows_over_a_restart() {
    let Some(mut live) = Live::start("the_command_follows_over_a_restart", "") else { return };
    let after = event_id(&live, "/v1/routers").to_string();
    let follow = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.arg("events").args(arguments).env("TUNNELHEAD_SOCKET", live.socket());
        Process::spawn("tunnelhead events", &mut command)
    };
    let plain = follow(&["--after", &after, "--kind", "router."]);
    let json = follow(&["--after", &after, "--json", "--router", "b"]);
    add(&live, "a");
    let place = plain.expect_line(0, SOON, "router.added");
    add(&live, "b");
    plain.expect_line(place, SOON, "router.added          b");
    let (_, line) = json.line_after(0, SOON, |line| line.starts_with('{')).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&told["kind"], &told["router"]), (&json!("router.added"), &json!("b")));
    let (place, json_place) = (plain.mark(), json.mark());
    live.end("KILL");
    let place = plain.expect_line(place, SOON, "gone away; waiting");
    live.launch(&[]);
    let place = plain.expect_line(place, SOON, "look at the lists again");
    json.expect_line(json_place, SOON, "\"kind\":\"gap\"");
    assert_eq!(live.send("DELETE", "/v1/routers/b", None).status, 204);
    plain.expect_line(place, SOON, "router.removed        b");
    json.expect_line(json_place, SOON, "router.removed");
    let (code, out, err) = live.tunnelhead(&["events", "--kind", "nonsense"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("no event has the kind \"nonsense\""), "{err}");
}

#[test]
fn a_listener_that_does_not_read_slows_nobody_and_is_let_go() {
    let lines = "[limits]\nevents = 1024\n";
    let Some(live) = Live::start("a_listener_that_does_not_read", lines) else { return };
    let mut slow = Stream::open(&live, "", "");
    let mut fast = Stream::open(&live, "?kind=router.", "");
    add(&live, "a");
    let streams = |live: &Live| live.get("/v1/status").json()["counters"]["event_streams"].clone();
    assert_eq!(streams(&live), 2);
    // More than the socket's buffers and the log can hold.
    assert_eq!(fast.next().unwrap().1, "router.added");
    for round in 0..1500 {
        let body = json!({"disabled": round % 2 == 0});
        assert_eq!(live.send("PATCH", "/v1/routers/a", Some(&body)).status, 200);
        assert_eq!(fast.next().unwrap().1, "router.changed");
    }
    // It is told what it lost, or was let go; either way nothing is lost untold.
    let (mut expected, mut gaps) = (None, 0);
    while let Some((id, kind, told)) = slow.next() {
        let from = if kind == "gap" { told["from"].as_u64().unwrap() } else { id };
        assert_eq!(from, expected.unwrap_or(from), "nothing is missing before {id}");
        gaps += u32::from(kind == "gap");
        expected = Some(id + 1);
        if id >= event_id(&live, "/v1/routers") {
            break;
        }
    }
    drop((slow, fast));
    assert!(gaps <= 1, "{gaps}");
    eventually("end of the streams", SOON, || {
        // A stream whose client has gone is noticed when something is written.
        live.send("PATCH", "/v1/routers/a", Some(&json!({"disabled": false})));
        (streams(&live) == 0).then_some(())
    });
}
