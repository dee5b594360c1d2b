//! Who may do what: every operation of the document, by every role, on a router of the own tenant,
//! of another one, and on one that does not exist; and who is who.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::live::Live;

const RULES: &str = "
[control]
group = \"60000\"
read_only_socket = \"look/read.sock\"
read_only_group = \"60009\"
[[control.role]]
user = \"60011\"
role = \"read\"
[[control.role]]
user = \"60012\"
role = \"operate\"
[[control.role]]
group = \"60013\"
role = \"admin\"
[[control.role]]
user = \"60021\"
role = \"read\"
tenants = [\"ours\"]
[[control.role]]
user = \"60022\"
role = \"operate\"
tenants = [\"ours\"]
[[control.role]]
user = \"60023\"
role = \"admin\"
tenants = [\"ours\", \"nobodys\"]
[[control.role]]
user = \"60011\"
role = \"admin\"
";

/// User id, role and whether it is bound to a tenant.
const USERS: [(u32, u8, bool); 6] = [
    (60_011, 0, false),
    (60_012, 1, false),
    (60_013, 2, false),
    (60_021, 0, true),
    (60_022, 1, true),
    (60_023, 2, true),
];

fn python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success())
}

/// Has the helper ask; an answer each.
fn ask(requests: &[Value]) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control_api/ask_as.py");
    let mut child = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = Value::from(requests.to_vec()).to_string();
    let mut pipe = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || pipe.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(method: &str, path: &str, body: Option<&str>) -> String {
    let kind = body.map_or("", |_| "Content-Type: application/json\r\n");
    let body = body.unwrap_or("");
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{kind}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn request(socket: &Path, uid: u32, method: &str, path: &str, body: Option<&str>) -> Value {
    json!({"socket": socket, "uid": uid, "gid": uid, "send": text(method, path, body)})
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Starts with these lines and lets everybody reach the socket, so that the rules alone decide.
fn open(test: &str, lines: &str) -> Option<Live> {
    if !python() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: needs python3");
        return None;
    }
    let live = Live::start(test, lines)?;
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(&live.path(""), 0o755).unwrap();
    mode(&live.socket(), 0o666).unwrap();
    Some(live)
}

/// What is the same for two routers that nobody may tell apart.
fn faceless(answer: &str, name: &str) -> String {
    let lines = answer.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
    lines.collect::<Vec<_>>().join("\n").replace(name, "NAME")
}

/// Every operation: method, path template, role, whether it is for every tenant only.
fn operations(live: &Live) -> Vec<(String, String, u8, bool)> {
    let document = live.get("/v1/openapi").json();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let role = match operation["x-role"].as_str() {
                Some("read") => 0,
                Some("operate") => 1,
                Some("admin") => 2,
                other => panic!("{method} {path}: {other:?}"),
            };
            let every = operation["x-scope"].is_string();
            all.push((method.to_uppercase(), path.clone(), role, every));
        }
    }
    all
}

#[test]
fn every_operation_by_every_role_on_own_foreign_and_unknown_routers() {
    let test = "every_operation_by_every_role_on_own_foreign_and_unknown_routers";
    let Some(mut live) = open(test, RULES) else { return };
    for name in ["own-aaaa", "foreignx"] {
        let made = live.send("POST", "/v1/routers", Some(&json!({"name": name})));
        assert_eq!(made.status, 201, "{}", made.body);
    }
    live.end("TERM");
    let database = rusqlite::Connection::open(live.path("state/tunnelhead.db")).unwrap();
    let tenants = "UPDATE routers SET tenant = 'ours' WHERE name = 'own-aaaa';
                   UPDATE routers SET tenant = 'others' WHERE name = 'foreignx'";
    database.execute_batch(tenants).unwrap();
    drop(database);
    live.launch(&[]);
    fs::set_permissions(live.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let before = live.get("/v1/routers/foreignx").body;
    let socket = live.socket();
    let operations = operations(&live);
    assert!(operations.len() >= 20, "{}", operations.len());
    let body = |method: &str| matches!(method, "POST" | "PATCH" | "PUT").then_some("{}");
    let fill = |path: &str, name: &str| {
        path.replace("{name}", name).replace("{segment}", "1").replace("{id}", "1")
    };
    // (user, operation, name) of each request.
    let mut plan = Vec::new();
    let mut requests = Vec::new();
    for user in USERS {
        for operation in &operations {
            let (method, path, ..) = operation;
            for name in ["own-aaaa", "foreignx", "unknownx"] {
                let mut target = fill(path, name);
                // On what it may change, a parameter that does not exist stops it behind the
                // check of its rights.
                if name == "own-aaaa" || !user.2 {
                    target.push_str("?no-such-parameter=1");
                }
                plan.push((user, operation.clone(), name));
                let mut one = request(&socket, user.0, method, &target, body(method));
                one["head_only"] = json!(path.ends_with("/events"));
                requests.push(one);
                if !path.contains("{name}") {
                    break;
                }
            }
        }
    }
    let answers = ask(&requests);
    let mut foreign = String::new();
    for (((uid, role, bound), (method, path, needed, every), name), answer) in
        plan.iter().zip(&answers)
    {
        let place = format!("{uid} {method} {path} {name}: {answer}");
        let allowed = role >= needed && !(*bound && *every);
        assert_eq!(status(answer) != 403, allowed, "{place}");
        assert_ne!(status(answer), 0, "{place}");
        if !allowed {
            assert!(answer.contains("\"forbidden\"") && !answer.contains("foreignx\""), "{place}");
        }
        match *name {
            "foreignx" => foreign = faceless(answer, "foreignx"),
            "unknownx" if *bound || !allowed => {
                assert_eq!(foreign, faceless(answer, "unknownx"), "{place}");
            }
            _ => {}
        }
    }
    // What is listed, and what is asked for by parameter.
    let mut requests = Vec::new();
    let mut shown = Vec::new();
    for (method, path, _, every) in operations.iter().filter(|one| !one.1.contains('{')) {
        if method == "GET" && !every && !path.ends_with("/events") {
            for uid in [60_021, 60_022, 60_023] {
                for query in ["", "?router=foreignx", "?name=foreignx"] {
                    shown.push(format!("{path}{query}"));
                    requests.push(request(&socket, uid, "GET", &format!("{path}{query}"), None));
                }
            }
        }
    }
    for (what, answer) in shown.iter().zip(ask(&requests)) {
        let leaks = answer.contains("foreignx") && status(&answer) == 200;
        assert!(!leaks, "{what} shows a router of somebody else: {answer}");
    }
    let own = ask(&[
        request(&socket, 60_021, "GET", "/v1/routers/own-aaaa", None),
        request(&socket, 60_021, "GET", "/v1/routers/foreignx", None),
        request(&socket, 60_011, "GET", "/v1/routers/foreignx", None),
    ]);
    assert_eq!(own.iter().map(|one| status(one)).collect::<Vec<_>>(), [200, 404, 200], "{own:?}");
    assert_eq!(live.get("/v1/routers/foreignx").body, before, "nobody has touched it");
    // Refusals are in the trail, floods of them as a number.
    let trail = live.get("/v1/audit?limit=1000&uid=60011").body;
    assert!(trail.contains("\"forbidden\""), "{trail}");
}

#[test]
fn a_connection_has_the_rights_of_whoever_opened_it() {
    let Some(live) = open("a_connection_has_the_rights_of_whoever_opened_it", RULES) else {
        return;
    };
    let socket = live.socket();
    let add = |name: &str| text("POST", "/v1/routers", Some(&json!({"name": name}).to_string()));
    let one = |uid: u32, gid: u32, groups: &[u32], send: String| json!({"socket": socket, "uid": uid, "gid": gid, "groups": groups, "send": send});
    let with = |mut one: Value, uid: u32| {
        one["later"] = json!({"uid": uid});
        one
    };
    let answers = ask(&[
        // Root, a member of an admin group by its supplementary groups, a stranger, a reader.
        one(0, 0, &[], add("a")),
        one(60_500, 60_500, &[60_013], add("b")),
        one(60_500, 60_500, &[], add("c")),
        one(60_011, 60_011, &[], add("d")),
        // The first rule counts: a reader by user although his group is an admin's.
        one(60_011, 60_013, &[60_013], add("e")),
        // With rules, membership in the socket's own group is nothing by itself.
        one(60_500, 60_000, &[60_000], add("f")),
        // Passed on: opened by a reader, used by root; opened by root, used by a stranger.
        with(one(60_011, 60_011, &[], add("g")), 0),
        with(one(0, 0, &[], add("h")), 60_500),
    ]);
    let got: Vec<u16> = answers.iter().map(|answer| status(answer)).collect();
    assert_eq!(got, [201, 201, 403, 403, 403, 403, 403, 201], "{answers:?}");
    assert_eq!(fs::metadata(&socket).unwrap().gid(), 60_000);
    // Behind the second socket nobody changes anything; its mode keeps strangers out.
    let second = live.path("look/read.sock");
    let facts = fs::metadata(&second).unwrap();
    assert_eq!((facts.gid(), facts.mode() & 0o777), (60_009, 0o660));
    let folder = fs::metadata(live.path("look")).unwrap();
    assert_eq!((folder.gid(), folder.mode() & 0o777), (60_009, 0o750));
    let look = |uid: u32, groups: &[u32], send: String| json!({"socket": second, "uid": uid, "gid": uid, "groups": groups, "send": send});
    let status_of = || text("GET", "/v1/status", None);
    let answers = ask(&[
        look(60_500, &[60_009], status_of()),
        look(60_500, &[60_009], add("i")),
        look(60_500, &[60_009], text("DELETE", "/v1/tunnels/a", None)),
        look(60_013, &[60_009, 60_013], add("j")),
        look(0, &[], add("k")),
        look(0, &[], status_of()),
        look(60_500, &[], status_of()),
        look(60_013, &[60_013], status_of()),
    ]);
    let got: Vec<u16> = answers.iter().map(|answer| status(answer)).collect();
    assert_eq!(got, [200, 403, 403, 403, 403, 200, 0, 0], "{answers:?}");
    assert_eq!(answers[6], "error: PermissionError");
    let names = live.get("/v1/routers").json();
    let names: Vec<&str> = names["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "b", "h"]);
}

#[test]
fn a_name_that_the_system_does_not_have_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    for (lines, word) in [
        ("group = \"no-such-group-7Q2\"", "no-such-group-7Q2"),
        ("[[control.role]]\nuser = \"no-such-user-7Q2\"\nrole = \"admin\"", "no-such-user-7Q2"),
    ] {
        let text = format!(
            "state_dir = \"state\"\ncontrol_socket = \"c.sock\"\npublic_host = \"192.0.2.1\"\n\
             [control]\n{lines}\n"
        );
        fs::write(&file, text).unwrap();
        let line = format!("serve --config {}", file.display());
        let (code, _, err) = crate::ended(&crate::command(&line).output().unwrap());
        assert!(code == 1 && err.contains(word), "{err}");
        assert!(!dir.path().join("c.sock").exists() && !dir.path().join("state").exists());
    }
}
