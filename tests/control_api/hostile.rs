//! Bad input at the real socket of the real binary: a documented answer, bounded memory, nothing
//! half done.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::live::{Live, Reply};
use crate::support::eventually;

/// Memory that bad input may cost, in KiB. A gigabyte that is read shows in any case.
const MOST_GROWTH: u64 = 96 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

fn memory(live: &Live) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", live.process().id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn connect(live: &Live) -> UnixStream {
    let stream = UnixStream::connect(live.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes until the server closes; empty if it says nothing.
fn rest(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    // A reset behind the answer is no news.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn post(live: &Live, body: &[u8]) -> Reply {
    let head = format!(
        "POST /v1/routers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    live.raw(&[head.as_bytes(), body].concat())
}

fn refused(reply: &Reply, status: u16, code: &str, what: &str) {
    let document: Value = serde_json::from_str(&reply.body)
        .unwrap_or_else(|_| panic!("{what}: {} {:?}", reply.status, reply.body));
    assert_eq!((reply.status, &document["code"]), (status, &json!(code)), "{what}: {document}");
    let message = document["message"].as_str().unwrap();
    assert!(message.is_ascii() && message.len() < 400, "{what}: {message}");
    assert!(!message.bytes().any(|byte| byte < b' '), "{what}: {message:?}");
}

#[test]
fn bodies_that_are_no_router_change_nothing() {
    let Some(live) = Live::start("bodies_that_are_no_router_change_nothing", "") else { return };
    let before = memory(&live);
    let deep = |open: &str, depth: usize| format!("{{\"name\":{}", open.repeat(depth)).into_bytes();
    let long = |length: usize| format!("{{\"name\":\"{}\"}}", "x".repeat(length)).into_bytes();
    for (what, body, status, code) in [
        ("nothing", Vec::new(), 400, "bad_request"),
        ("cut short", b"{\"name\": \"a".to_vec(), 400, "bad_request"),
        ("deep lists", deep("[", 30_000), 400, "bad_request"),
        ("deep objects", deep("{\"a\":", 8_000), 400, "bad_request"),
        ("a list", b"[{\"name\":\"a\"}]".to_vec(), 400, "bad_request"),
        ("a number for a name", b"{\"name\":1e999}".to_vec(), 400, "bad_request"),
        ("null for a name", b"{\"name\":null}".to_vec(), 400, "bad_request"),
        ("an unknown field", b"{\"name\":\"a\",\"root\":true}".to_vec(), 400, "bad_request"),
        ("a field twice", b"{\"name\":\"a\",\"name\":\"b\"}".to_vec(), 400, "bad_request"),
        ("more behind it", b"{\"name\":\"a\"}{\"name\":\"b\"}".to_vec(), 400, "bad_request"),
        ("not UTF-8", b"{\"name\":\"\xff\xfe\"}".to_vec(), 400, "bad_request"),
        ("half a surrogate", b"{\"name\":\"\\ud800\"}".to_vec(), 400, "bad_request"),
        ("too long", long(70_000), 413, "too_large"),
    ] {
        refused(&post(&live, &body), status, code, what);
    }
    for name in [
        "",
        ".",
        "..",
        "../x",
        "/etc/x",
        "a/b",
        "-a",
        "--help",
        "a b",
        "A",
        "a\n",
        "a\u{1b}[31m",
        "a\u{202e}b",
        "a\u{200b}",
        "\u{fc}",
        "a\u{0}b",
        "con\\",
        "a;b",
        "$(a)",
        "a%0a",
    ]
    .into_iter()
    .chain([&*"x".repeat(64), &*"x".repeat(256), &*"x".repeat(4096)])
    {
        let body = json!({"name": name}).to_string();
        refused(&post(&live, body.as_bytes()), 422, "invalid", &format!("{name:?}"));
    }
    assert_eq!(live.get("/v1/routers").json()["items"], json!([]));
    let mut files: Vec<String> = fs::read_dir(live.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    files.retain(|name| !name.starts_with('.'));
    assert_eq!(files, ["config.toml", "control.sock", "state"], "no name has become a path");
    assert!(memory(&live) < before + MOST_GROWTH, "{before} KiB, {} KiB", memory(&live));
    // What was claimed stands escaped in the trail, one line each.
    let trail = live.get("/v1/audit?limit=1000").body;
    assert!(!trail.contains('\u{1b}') && !trail.contains('\u{202e}'));
    let (code, out, _) = live.tunnelhead(&["audit", "list"]);
    let printable = |c: char| c == '\n' || (!c.is_control() && !"\u{202e}\u{200b}".contains(c));
    assert!(code == 0 && out.chars().all(printable), "{out:?}");
}

#[test]
fn a_gigabyte_is_refused_before_it_is_sent() {
    let Some(live) = Live::start("a_gigabyte_is_refused_before_it_is_sent", "") else { return };
    let before = memory(&live);
    let head = "POST /v1/routers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for (what, lines) in [
        ("announced", "Content-Length: 1073741824\r\n"),
        ("announced, and asked first", "Content-Length: 1073741824\r\nExpect: 100-continue\r\n"),
    ] {
        let reply = live.raw(format!("{head}Connection: close\r\n{lines}\r\n").as_bytes());
        refused(&reply, 413, "too_large", what);
    }
    // Sent all the same, as long as somebody takes it.
    for chunked in [false, true] {
        let mut stream = connect(&live);
        let lines =
            if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 1073741824" };
        write!(stream, "{head}{lines}\r\n\r\n").unwrap();
        let data = vec![b'x'; 64 * 1024];
        let mut sent = 0_usize;
        while sent < 1 << 30 {
            let chunk = if chunked { b"10000\r\n".as_slice() } else { b"" };
            let end = if chunked { b"\r\n".as_slice() } else { b"" };
            let all = [chunk, &data, end].concat();
            if stream.write_all(&all).is_err() {
                break;
            }
            sent += data.len();
        }
        assert!(sent < 64 << 20, "it took {sent} bytes");
    }
    // Lengths that contradict each other or are none: one request must never become two.
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
    ] {
        let mut stream = connect(&live);
        write!(stream, "{head}Connection: close\r\n{lines}\r\n0\r\n\r\n").unwrap();
        let answer = rest(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{lines}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count().min(2), usize::from(!answer.is_empty()));
    }
    assert!(memory(&live) < before + MOST_GROWTH, "{before} KiB, {} KiB", memory(&live));
    assert_eq!(live.get("/v1/routers").json()["items"], json!([]));
}

#[test]
fn what_is_no_request_gets_no_further() {
    let Some(live) = Live::start("what_is_no_request_gets_no_further", "") else { return };
    let before = memory(&live);
    let long_header = format!("X-Long: {}\r\n", "x".repeat(200_000));
    let many_headers: String = (0..5000).map(|number| format!("X-{number}: y\r\n")).collect();
    let long_path = format!("/v1/routers/{}", "x".repeat(60_000));
    let get = |path: &str, lines: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n").into_bytes()
    };
    for (what, bytes) in [
        ("a long header", get("/v1/status", &long_header)),
        ("many headers", get("/v1/status", &many_headers)),
        ("a long path", get(&long_path, "")),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(10)),
        ("zeros", vec![0; 40_000]),
        ("noise", (0..40_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("no version", b"GET /v1/status\r\n\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("a bare newline", b"\n\n\n\n".repeat(5000)),
        ("a control character in a header", get("/v1/status", "X-A: a\u{1b}b\u{0}c\r\n")),
    ] {
        let mut stream = connect(&live);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = rest(&mut stream);
        let status = answer.split(' ').nth(1).unwrap_or("400");
        assert!(["400", "404", "414", "431", "505"].contains(&status), "{what}: {answer}");
    }
    for (path, status, code) in [
        ("/v1/routers/%ff%fe", 400, "bad_request"),
        ("/v1/routers/..%2f..%2fetc%2fpasswd", 404, "router_not_found"),
        ("/v1/routers/a%0d%0aX-Evil:%201", 404, "router_not_found"),
        ("/v1/routers/a%00", 404, "router_not_found"),
        ("/v1/routers/%2e%2e", 404, "router_not_found"),
        ("/v1/routers/-a", 404, "router_not_found"),
        ("/v1/routers/../status", 404, "not_found"),
        ("//v1/status", 404, "not_found"),
        ("/v1/status?\u{0}", 400, ""),
        ("/v1/tunnels/%e2%80%ae", 404, "tunnel_not_found"),
        ("/v1/logins/%1b%5b2J", 404, ""),
    ] {
        let reply = live.raw(&get(path, ""));
        assert!(!reply.head.contains("x-evil"), "{path}: {}", reply.head);
        if code.is_empty() {
            assert!((400..500).contains(&reply.status), "{path}: {}", reply.status);
        } else {
            refused(&reply, status, code, path);
        }
    }
    // Garbage behind a good request: the good one is answered, the rest is not a second one.
    let mut stream = connect(&live);
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n\x00\x01garbage\r\n\r\n").unwrap();
    let answer = rest(&mut stream);
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert!(memory(&live) < before + MOST_GROWTH, "{before} KiB, {} KiB", memory(&live));
    assert_eq!(live.get("/v1/status").status, 200);
}

#[test]
fn a_thousand_idle_and_a_hundred_slow_clients_keep_nobody_out() {
    let test = "a_thousand_idle_and_a_hundred_slow_clients_keep_nobody_out";
    let Some(live) = Live::start(test, "") else { return };
    let before = memory(&live);
    let mut all = Vec::new();
    for number in 0..1000 {
        let mut stream = connect(&live);
        if number % 3 == 0 {
            // Half a head.
            let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nHo");
        }
        all.push(stream);
    }
    for _ in 0..100 {
        let mut stream = connect(&live);
        // Asks for much and reads nothing.
        let _ = stream.write_all(&b"GET /v1/openapi HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50));
        all.push(stream);
    }
    // R10: an answer within 100 ms, or "busy"; one here may also lose its place to the next.
    for _ in 0..50 {
        eventually("answer among idle clients", PATIENCE, || {
            let mut stream = UnixStream::connect(live.socket()).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream
                .write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .ok()?;
            rest(&mut stream).starts_with("HTTP/1.1 200").then_some(())
        });
    }
    assert!(memory(&live) < before + MOST_GROWTH, "{before} KiB, {} KiB", memory(&live));
    drop(all);
    let (code, _, err) = live.tunnelhead(&["status"]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn without_a_descriptor_left_somebody_can_still_ask() {
    let test = "without_a_descriptor_left_somebody_can_still_ask";
    // Places enough, so that descriptors are what runs out.
    let Some(live) = Live::start(test, "[limits]\ncontrol_connections = 20000\n") else { return };
    let id = live.process().id();
    let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let limit = format!("--nofile={}:{}", open + 20, open + 20);
    let set =
        std::process::Command::new("prlimit").args(["--pid", &id.to_string(), &limit]).status();
    if !set.is_ok_and(|status| status.success()) {
        let line = format!("SKIPPED: {test}: needs prlimit\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        return;
    }
    let mut held = Vec::new();
    let mut served = 0;
    let mut told = 0;
    for _ in 0..100 {
        let mut stream = connect(&live);
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut start = [0; 12];
        match stream.read_exact(&mut start) {
            Ok(()) if start.ends_with(b"200") => {
                served += 1;
                held.push(stream);
            }
            Ok(()) => {
                told += 1;
                assert_eq!(&start, b"HTTP/1.1 503");
                assert!(rest(&mut stream).contains("too many open files"));
            }
            Err(_) => {}
        }
    }
    // Those that fit, those of the reserve, and a word for the rest.
    assert!(served >= 20 && told >= 10, "{served} served, {told} told");
    held.truncate(5);
    eventually("a place after some have gone", PATIENCE, || {
        let mut stream = UnixStream::connect(live.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream
            .write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .ok()?;
        rest(&mut stream).starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn a_signal_is_in_the_trail_too() {
    let Some(live) = Live::start("a_signal_is_in_the_trail_too", "") else { return };
    live.process().signal("HUP");
    let entry = eventually("record of the reload", PATIENCE, || {
        let all = live.get("/v1/audit").json();
        all["items"].as_array()?.iter().find(|one| one["action"] == "reload").cloned()
    });
    assert_eq!((&entry["actor"], &entry["uid"]), (&json!("signal"), &Value::Null));
    assert_eq!(entry["status"], 200);
}
