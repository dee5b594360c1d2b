//! Router accounts over the real socket of the real binary: filters and pages, changes field by
//! field, revisions, addresses, and moving a whole fleet to another concentrator.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tunnelhead::telemetry::clock;

use crate::live::{Live, Reply};
use crate::{PROGRAM, ended};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

/// A request with a body of any kind and an `If-Match`.
fn request(
    live: &Live,
    method: &str,
    path: &str,
    kind: &str,
    if_match: Option<&str>,
    body: &str,
) -> Reply {
    let condition = if_match.map(|tag| format!("If-Match: {tag}\r\n")).unwrap_or_default();
    let kind = if body.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let length = body.len();
    live.raw(
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{condition}{kind}\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    )
}

fn etag(reply: &Reply) -> String {
    let line = reply.head.lines().find_map(|line| line.strip_prefix("etag: "));
    line.expect("an ETag").to_owned()
}

fn names(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let list = reply.json();
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn refused(reply: &Reply, status: u16, code: &str, field: Option<&str>) {
    let error = reply.json();
    assert_eq!(
        (reply.status, error["code"].as_str(), error["field"].as_str()),
        (status, Some(code), field),
        "{}",
        reply.body
    );
}

/// The rows of an answer of JSON lines, which may come in chunks.
fn rows(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.head.contains(LINES), "{}", reply.head);
    let mut text = reply.body.clone();
    if reply.head.contains("transfer-encoding: chunked") {
        let (mut rest, mut whole) = (text.as_str(), String::new());
        loop {
            let (size, tail) = rest.split_once("\r\n").unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                break;
            }
            whole.push_str(&tail[..size]);
            rest = &tail[size + 2..];
        }
        text = whole;
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lists_are_filtered_and_come_in_pages() {
    let Some(live) = Live::start("lists_are_filtered_and_come_in_pages", "") else { return };
    for (name, tenant, tags) in [
        ("north-1", Some("north"), vec!["site:a", "backup"]),
        ("north-2", Some("north"), vec!["site:b"]),
        ("south-1", Some("south"), vec!["site:a"]),
        ("a-south", None, vec![]),
        ("z", None, vec!["backup"]),
    ] {
        let new = json!({"name": name, "tenant": tenant, "tags": tags});
        assert_eq!(live.send("POST", "/v1/routers", Some(&new)).status, 201);
    }
    assert_eq!(live.send("POST", "/v1/routers/z/disable", None).status, 200);
    for (filter, expected) in [
        ("", vec!["a-south", "north-1", "north-2", "south-1", "z"]),
        ("name=z", vec!["z"]),
        ("name=north*", vec!["north-1", "north-2"]),
        ("name=*south*", vec!["a-south", "south-1"]),
        ("name=north", vec![]),
        ("tag=site:a", vec!["north-1", "south-1"]),
        ("tag=site%3Aa,backup", vec!["north-1"]),
        ("tag=nothing", vec![]),
        ("tenant=north", vec!["north-1", "north-2"]),
        ("tenant=north&tag=site:b", vec!["north-2"]),
        ("disabled=true", vec!["z"]),
        ("disabled=false&name=*1", vec!["north-1", "south-1"]),
        ("connected=true", vec![]),
        ("connected=false&name=z", vec!["z"]),
        ("last_seen_after=2020-01-01T00:00:00Z", vec![]),
        ("last_seen_before=2020-01-01T00:00:00Z&name=z", vec!["z"]),
        ("limit=2", vec!["a-south", "north-1"]),
        ("after=north-1&limit=1", vec!["north-2"]),
        ("after=zzz", vec![]),
    ] {
        assert_eq!(names(&live.get(&format!("/v1/routers?{filter}"))), expected, "{filter}");
    }
    // Pages, while others come and go.
    let mut seen = Vec::new();
    let mut path = "/v1/routers?limit=2".to_owned();
    for round in 0.. {
        let reply = live.get(&path);
        seen.extend(names(&reply));
        let list = reply.json();
        assert!(list["event_id"].is_u64());
        let Some(next) = list["next"].as_str() else { break };
        path = format!("/v1/routers?limit=2&after={next}");
        if round == 0 {
            live.send("POST", "/v1/routers", Some(&json!({"name": "a-new"})));
            live.send("POST", "/v1/routers", Some(&json!({"name": "north-15"})));
            live.send("DELETE", &format!("/v1/routers/{next}"), None);
        }
    }
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "{seen:?}");
    for name in ["a-south", "north-2", "south-1", "z"] {
        assert!(seen.iter().any(|one| one == name), "{name} in {seen:?}");
    }
    for (parameters, status, field) in [
        ("limit=0", 422, "limit"),
        ("limit=1001", 422, "limit"),
        ("limit=x", 400, "limit"),
        ("name=A", 422, "name"),
        ("name=..%2F", 422, "name"),
        ("tag=A", 422, "tag"),
        ("tenant=-a", 422, "tenant"),
        ("connected=maybe", 400, "connected"),
        ("last_seen_after=yesterday", 400, "last_seen_after"),
        ("colour=red", 400, "colour"),
    ] {
        let reply = live.get(&format!("/v1/routers?{parameters}"));
        let code = if status == 422 { "invalid" } else { "bad_request" };
        refused(&reply, status, code, Some(field));
    }
    // The command walks all pages and says the same.
    let (code, out, _) = live.tunnelhead(&["router", "list", "--json", "--name", "*south*"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap().as_array().unwrap().len(), 2);
    let (code, out, _) = live.tunnelhead(&["router", "list", "--seen-before", "5m", "--disabled"]);
    assert!(code == 0 && out.lines().count() == 2 && out.contains("\nz "), "{out}");
}

#[test]
fn every_field_is_changed_left_and_cleared_on_its_own() {
    let Some(live) = Live::start("every_field_is_changed_left_and_cleared", "") else { return };
    let made = live.send("POST", "/v1/routers", Some(&json!({"name": "a"})));
    let before = live.get("/v1/routers/a");
    assert_eq!(etag(&made), etag(&before));
    let patch = |document: Value| live.send("PATCH", "/v1/routers/a", Some(&document));
    let mut last = before.json();
    for (field, set, shown, cleared) in [
        ("tags", json!(["b", "a", "b"]), json!(["a", "b"]), json!([])),
        ("tenant", json!("north"), json!("north"), Value::Null),
        ("cipher", json!("aes-256-gcm"), json!("AES-256-GCM"), Value::Null),
        ("auth", json!("sha256"), json!("SHA256"), Value::Null),
        ("note", json!("Büro, 2. Stock"), json!("Büro, 2. Stock"), json!("")),
    ] {
        for (value, expected) in [(set, shown), (Value::Null, cleared)] {
            let reply = patch(json!({field: value}));
            let now = reply.json();
            assert_eq!((reply.status, &now[field]), (200, &expected), "{}", reply.body);
            assert!(now["revision"].as_u64() > last["revision"].as_u64(), "{now}");
            assert_eq!(etag(&reply), format!("\"{}\"", now["revision"]));
            for (other, was) in last.as_object().unwrap() {
                if other != field && other != "revision" {
                    assert_eq!(&now[other], was, "{field} has changed {other}");
                }
            }
            last = now;
        }
    }
    // Nothing to change is no change.
    for nothing in [json!({}), json!({"disabled": false}), json!({"note": ""}), json!({"tags": []})]
    {
        assert_eq!(patch(nothing).json()["revision"], last["revision"]);
    }
    assert_eq!(patch(json!({"cipher": "aes-128-gcm", "auth": "null"})).json()["auth"], "null");
    for (document, status, field) in [
        (json!({"cipher": null}), 422, Some("auth")),
        (json!({"cipher": "aes-256-cbc"}), 422, Some("auth")),
        (json!({"cipher": "bf-cbc"}), 422, Some("cipher")),
        (json!({"auth": "md5"}), 422, Some("auth")),
        (json!({"disabled": null}), 422, Some("disabled")),
        (json!({"tenant": "../x"}), 422, Some("tenant")),
        (json!({"tenant": ""}), 422, Some("tenant")),
        (json!({"tags": ["A"]}), 422, Some("tags")),
        (json!({"tags": ["-a"]}), 422, Some("tags")),
        (json!({"tags": ["a\nb"]}), 422, Some("tags")),
        (json!({"tags": (0..33).map(|n| format!("t{n}")).collect::<Vec<_>>()}), 422, Some("tags")),
        (json!({"note": "a\nb"}), 422, Some("note")),
        (json!({"note": "\u{1b}[31m"}), 422, Some("note")),
        (json!({"note": "a\u{202e}b"}), 422, Some("note")),
        (json!({"note": "x".repeat(1001)}), 422, Some("note")),
        (json!({"name": "b"}), 400, Some("name")),
        (json!({"address": "100.64.1.2/24"}), 400, None),
        (json!({"tags": "a"}), 400, None),
    ] {
        let reply = patch(document.clone());
        let code = if status == 422 { "invalid" } else { "bad_request" };
        refused(&reply, status, code, field);
    }
    for name in ["", "A", "-a", "../x", "a\n", "a\u{1b}[m", "a\u{202e}", "export", "import"] {
        let reply = live.send("POST", "/v1/routers", Some(&json!({"name": name})));
        refused(&reply, 422, "invalid", Some("name"));
    }
    assert_eq!(names(&live.get("/v1/routers")), ["a"]);
    let set = ["router", "set", "a", "--no-auth", "--no-cipher", "--tag", "x", "--note", "hi"];
    let (code, out, err) = live.tunnelhead(&set);
    assert!(code == 0 && out.contains("\ntags") && out.contains("hi"), "{out}{err}");
}

#[test]
fn of_two_changes_for_one_revision_exactly_one_happens() {
    let test = "of_two_changes_for_one_revision_exactly_one_happens";
    let Some(live) = Live::start(test, "") else { return };
    let change = |method: &str, path: &str, tag: Option<&str>, body: &str| {
        request(&live, method, &format!("/v1/routers/{path}"), JSON, tag, body)
    };
    for round in 0..5 {
        let name = format!("r{round}");
        let made = live.send("POST", "/v1/routers", Some(&json!({"name": name})));
        let tag = etag(&made);
        let (done, lost) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (live, name, tag, done, lost) = (&live, &name, &tag, &done, &lost);
                scope.spawn(move || {
                    let body = json!({"note": format!("from {n}")}).to_string();
                    let path = format!("/v1/routers/{name}");
                    let reply = request(live, "PATCH", &path, JSON, Some(tag), &body);
                    let counter = if reply.status == 200 { done } else { lost };
                    if reply.status != 200 {
                        refused(&reply, 412, "revision_conflict", None);
                    }
                    counter.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!((done.into_inner(), lost.into_inner()), (1, 7));
    }
    let old = "\"1\"";
    for (method, path, body) in [
        ("PATCH", "r0", "{\"note\":\"x\"}"),
        ("POST", "r0/rotate", ""),
        ("POST", "r0/readdress", ""),
        ("POST", "r0/disable", ""),
        ("DELETE", "r0", ""),
    ] {
        refused(&change(method, path, Some(old), body), 412, "revision_conflict", None);
        refused(&change(method, path, Some("7"), body), 400, "bad_request", Some("If-Match"));
        let absent = path.replace("r0", "absent");
        refused(&change(method, &absent, Some(old), body), 404, "router_not_found", None);
        let tag = etag(&live.get("/v1/routers/r0"));
        let several = format!("\"5\", {tag}");
        let status = change(method, path, Some(&several), body).status;
        assert!(status == 200 || status == 204, "{method} {path}: {status}");
    }
    // The successor of a deleted account is not what an old revision was about.
    let tag = etag(&live.get("/v1/routers/r1"));
    assert_eq!(change("DELETE", "r1", Some("*"), "").status, 204);
    live.send("POST", "/v1/routers", Some(&json!({"name": "r1"})));
    refused(&change("DELETE", "r1", Some(&tag), ""), 412, "revision_conflict", None);
    let (code, _, err) = live.tunnelhead(&["router", "remove", "r1", "--if-revision", "1"]);
    assert!(code == 1 && err.contains("was changed meanwhile"), "{err}");
}

#[test]
fn addresses_are_set_cleared_and_exchanged() {
    let Some(live) = Live::start("addresses_are_set_cleared_and_exchanged", "") else { return };
    for name in ["a", "b"] {
        live.send("POST", "/v1/routers", Some(&json!({"name": name})));
    }
    let address = |name: &str| live.get(&format!("/v1/routers/{name}")).json()["address"].clone();
    let patch = |name: &str, document: Value| {
        live.send("PATCH", &format!("/v1/routers/{name}"), Some(&document))
    };
    let first = address("a");
    let moved = live.send("POST", "/v1/routers/a/readdress", None);
    assert_eq!(moved.status, 200);
    assert_eq!(moved.json()["address"], address("a"));
    assert_ne!(address("a"), first);
    // Nobody else gets the old one for a while.
    refused(&patch("b", json!({"address": first})), 409, "address_taken", Some("address"));
    refused(&patch("b", json!({"address": address("a")})), 409, "address_taken", Some("address"));
    refused(&patch("b", json!({"address": "10.0.0.1"})), 422, "invalid", Some("address"));
    let fixed = patch("b", json!({"address": "100.64.77.7"})).json();
    assert_eq!(
        (&fixed["address"], &fixed["address_static"]),
        (&json!("100.64.77.7"), &json!(true))
    );
    let refusal = live.send("POST", "/v1/routers/b/readdress", None);
    refused(&refusal, 422, "invalid", Some("address"));
    let kept = patch("b", json!({"address": null})).json();
    assert_eq!((&kept["address"], &kept["address_static"]), (&json!("100.64.77.7"), &json!(false)));
    assert_eq!(live.send("POST", "/v1/routers/b/readdress", None).status, 200);
    assert_ne!(address("b"), json!("100.64.77.7"));
    let (code, out, _) = live.tunnelhead(&["router", "readdress", "a"]);
    assert!(code == 0 && out.contains("from its next login on"), "{out}");
}

#[test]
fn an_import_makes_all_accounts_or_none() {
    let Some(live) = Live::start("an_import_makes_all_accounts_or_none", "") else { return };
    live.send("POST", "/v1/routers", Some(&json!({"name": "old", "username": "taken"})));
    let import = |body: &str| request(&live, "POST", "/v1/routers/import", LINES, None, body);
    let good = "{\"name\":\"good\"}\n";
    let address = live.get("/v1/routers/old").json()["address"].as_str().unwrap().to_owned();
    let long = format!("{{\"name\":\"long\",\"note\":\"{}\"}}", "x".repeat(40_000));
    for (bad, status, code, field) in [
        ("not json".to_owned(), 400, "bad_request", None),
        ("{\"name\":\"../x\"}".to_owned(), 422, "invalid", Some("name")),
        ("{\"name\":\"x\",\"colour\":1}".to_owned(), 400, "bad_request", Some("colour")),
        (long, 413, "too_large", None),
        ("{\"name\":\"old\"}".to_owned(), 409, "router_exists", Some("name")),
        ("{\"name\":\"good\"}".to_owned(), 409, "router_exists", Some("name")),
        (
            "{\"name\":\"x\",\"username\":\"taken\"}".to_owned(),
            409,
            "username_taken",
            Some("username"),
        ),
        (
            "{\"name\":\"x\",\"username\":\"good\"}".to_owned(),
            409,
            "username_taken",
            Some("username"),
        ),
        ("{\"name\":\"x\",\"username\":\"a b\"}".to_owned(), 422, "invalid", Some("username")),
        (
            format!("{{\"name\":\"x\",\"address\":\"{address}\"}}"),
            409,
            "address_taken",
            Some("address"),
        ),
        (
            format!("{{\"name\":\"x\",\"pool_address\":\"{address}\"}}"),
            409,
            "address_taken",
            Some("pool_address"),
        ),
        (
            format!("{{\"name\":\"x\",\"secret\":\"machine-v1:{}\"}}", "ab".repeat(32)),
            422,
            "invalid",
            Some("server_key"),
        ),
        ("{\"name\":\"x\",\"secret\":\"canary-7Q2\"}".to_owned(), 422, "invalid", Some("secret")),
    ] {
        let reply = import(&format!("{good}\n{bad}\n{{\"name\":\"later\"}}\n"));
        refused(&reply, status, code, field);
        let report = reply.json();
        assert_eq!((&report["refused"], &report["lines"][0]["line"]), (&json!(1), &json!(3)));
        assert!(report["message"].as_str().unwrap().starts_with("line 3: "), "{report}");
        assert!(!reply.body.contains("canary"), "{}", reply.body);
        assert_eq!(names(&live.get("/v1/routers")), ["old"], "{bad}");
    }
    let wrong_kind = request(&live, "POST", "/v1/routers/import", JSON, None, good);
    refused(&wrong_kind, 415, "unsupported_media_type", None);
    refused(&import("\n\n"), 400, "bad_request", None);
    let announced = "POST /v1/routers/import HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                     Content-Type: application/x-ndjson\r\nContent-Length: 1073741824\r\n\r\n";
    refused(&live.raw(announced.as_bytes()), 413, "too_large", None);
    let path = "/v1/routers/import?scripts=yes";
    refused(&request(&live, "POST", path, LINES, None, good), 400, "bad_request", Some("scripts"));

    // What was put aside for the refused ones is free again, and everything fits now.
    let made = rows(&import(
        "{\"name\":\"good\",\"tags\":[\"x\"],\"disabled\":true}\n\
         {\"name\":\"chosen\",\"password\":\"chosen by hand\",\"address\":\"100.64.9.9\"}\n",
    ));
    assert_eq!((&made[0]["line"], &made[0]["name"]), (&json!(1), &json!("good")));
    assert_eq!(made[0]["password"].as_str().unwrap().len(), 24);
    assert_eq!(
        (&made[1]["password"], &made[1]["address"]),
        (&json!("chosen by hand"), &json!("100.64.9.9"))
    );
    assert!(made[0].get("script").is_none());
    let shown = live.get("/v1/routers/good").json();
    assert_eq!((&shown["disabled"], &shown["tags"]), (&json!(true), &json!(["x"])));
    let path = "/v1/routers/import?scripts=true";
    let made = rows(&request(&live, "POST", path, LINES, None, "{\"name\":\"scripted\"}"));
    let password = made[0]["password"].as_str().unwrap();
    for script in ["script", "script_v6", "ovpn"] {
        assert!(made[0][script].as_str().unwrap().len() > 100, "{script}");
    }
    assert!(made[0]["script"].as_str().unwrap().contains(password));
}

#[test]
fn ten_thousand_routers_move_to_another_concentrator() {
    const ROUTERS: usize = 10_000;
    let test = "ten_thousand_routers_move_to_another_concentrator";
    let Some(live) = Live::start(test, "") else { return };
    let lines: String = (0..ROUTERS)
        .map(|n| {
            let line = json!({"name": format!("branch-{n:05}"), "tenant": "north",
                "tags": [format!("site:{}", n % 100)], "note": format!("number {n}")});
            format!("{line}\n")
        })
        .collect();
    fs::write(live.path("routers.jsonl"), &lines).unwrap();
    let file = live.path("routers.jsonl");
    let begin = clock::now();
    let (code, out, err) = live.tunnelhead(&["router", "import", file.to_str().unwrap(), "--json"]);
    let took = begin.elapsed();
    assert_eq!(code, 0, "{err}");
    let made: Vec<Value> = serde_json::from_str(&out).unwrap();
    println!("{ROUTERS} routers imported in {took:?}");
    assert_eq!(made.len(), ROUTERS);
    let passwords: BTreeSet<&str> =
        made.iter().map(|one| one["password"].as_str().unwrap()).collect();
    let addresses: BTreeSet<&str> =
        made.iter().map(|one| one["address"].as_str().unwrap()).collect();
    assert_eq!((passwords.len(), addresses.len()), (ROUTERS, ROUTERS));
    live.send("PATCH", "/v1/routers/branch-00007", Some(&json!({"address": "100.64.200.7"})));
    live.send("POST", "/v1/routers/branch-00008/disable", None);
    live.send("POST", "/v1/routers/branch-00009/rotate", None);

    let begin = clock::now();
    let export = live.path("export.jsonl");
    let (code, out, err) =
        live.tunnelhead(&["router", "export", "--output", export.to_str().unwrap()]);
    println!("exported in {:?}", begin.elapsed());
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let text = fs::read_to_string(&export).unwrap();
    assert_eq!(text.lines().count(), ROUTERS);
    let values = text.split('"').filter(|value| passwords.contains(value)).count();
    assert!(values == 0 && !text.contains("\"password\":"), "a plain password");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&export).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, err) =
        live.tunnelhead(&["router", "export", "--output", export.to_str().unwrap()]);
    assert!(code == 1 && err.contains("cannot create"), "{err}");

    // A host with another secret can let nobody in and says so.
    let mut other = Live::start(test, "").unwrap();
    let import = |other: &Live| {
        let mut child = Command::new(PROGRAM)
            .args(["router", "import", "-"])
            .env("TUNNELHEAD_SOCKET", other.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let text = text.clone();
        let feeder = std::thread::spawn(move || {
            // It may refuse before it has read everything.
            let _ = input.write_all(text.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        ended(&output)
    };
    let (code, out, err) = import(&other);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("server.secret") && err.contains("9999 more wrong"), "{err}");
    assert_eq!(names(&other.get("/v1/routers")), [""; 0]);

    // With the secret of the first host it is the same fleet.
    other.end("TERM");
    fs::copy(live.path("state/server.secret"), other.path("state/server.secret")).unwrap();
    other.launch(&[]);
    let begin = clock::now();
    let (code, out, err) = import(&other);
    println!("restored in {:?}", begin.elapsed());
    assert_eq!(code, 0, "{err}");
    assert!(out.ends_with("10000 routers imported; the passwords are shown only now\n"));
    let again = rows(&other.get("/v1/routers/export"));
    let before: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(again == before, "the second export differs from the first");
    // And it is on the disk.
    other.end("KILL");
    other.launch(&[]);
    assert!(rows(&other.get("/v1/routers/export")) == before, "a restart has lost something");
}
