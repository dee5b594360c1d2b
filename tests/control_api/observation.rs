//! Metrics, health, the log, the service manager and an authenticator from outside, over the real
//! binary.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::PROGRAM;
use crate::live::Live;
use crate::support::client::{Client, Config, Outcome};
use crate::support::process::Process;
use crate::support::{eventually, missing_tools, run};

const SOON: Duration = Duration::from_secs(60);

/// One scrape: the families with their types, and every sample with its labels as text.
struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// A strict reader of the format.
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>
fn parse(text: &str) -> Scrape {
    let mut scrape = Scrape { kinds: BTreeMap::new(), samples: BTreeMap::new() };
    let mut helped = BTreeSet::new();
    let mut family = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()), "{name} has two HELP lines");
            assert!(!help.is_empty(), "{name} has no help");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name}: TYPE before HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            family = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let histogram = scrape.kinds[&family] == "histogram";
            let of = if histogram { bare.unwrap() } else { name };
            assert_eq!(of, family, "{line} stands outside its family");
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.starts_with("tunnelhead_") && name.chars().all(fine), "{line}");
            let number: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(scrape.samples.insert(series.to_owned(), number).is_none(), "twice: {line}");
        }
    }
    for (name, kind) in &scrape.kinds {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    scrape
}

impl Scrape {
    fn of(live: &Live) -> Self {
        let reply = live.get("/v1/metrics");
        assert_eq!(reply.status, 200, "{}", reply.body);
        let head = reply.head.to_ascii_lowercase();
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        parse(&reply.body)
    }

    /// The sum of the samples of a name that carry this label text.
    fn sum(&self, name: &str, label: &str) -> f64 {
        let wanted =
            |series: &str| series.split('{').next() == Some(name) && series.contains(label);
        self.samples.iter().filter(|(series, _)| wanted(series)).map(|(_, value)| value).sum()
    }

    fn is_balanced(&self, shard: &str) -> bool {
        let sum = |name: &str| self.sum(name, shard);
        sum("tunnelhead_received_packets_total")
            == sum("tunnelhead_sent_packets_total")
                + sum("tunnelhead_dropped_packets_total")
                + sum("tunnelhead_queued_packets")
    }
}

/// Runs a command in the namespace of the concentrator.
fn inside(live: &Live, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-n", "-t", &live.process().id().to_string(), program]);
    command
}

fn dial(live: &Live, username: &str, password: &str) -> Client {
    let listener = live.get("/v1/status").json()["listeners"][0]["address"].clone();
    let remote = listener.as_str().unwrap().parse().unwrap();
    let ca = std::fs::read_to_string(live.path("state/pki/ca.crt")).unwrap();
    let config = Config::null(remote).inline("ca", &ca).password(username, password);
    config.once().start_by(username, |program| inside(live, program))
}

fn add(live: &Live, name: &str) -> Value {
    let reply = live.send("POST", "/v1/routers", Some(&json!({"name": name})));
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.json()
}

#[test]
fn metrics_are_what_prometheus_reads_and_account_for_every_packet() {
    let Some(live) = Live::start("metrics", "") else { return };
    let first = Scrape::of(&live);
    let made = add(&live, "branch-1");
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let client = dial(&live, &text("username"), &text("password"));
    client.expect_up(0);
    client.expect_pings(0, 1, SOON);
    // A router that is there and one that is not; both without an answer.
    for address in [text("address"), "100.64.200.200".to_owned()] {
        let _ = inside(&live, "ping").args(["-c", "3", "-i", "0.2", "-W", "1", &address]).output();
    }
    let second = eventually("balance of packets", SOON, || {
        let scrape = Scrape::of(&live);
        (0..64).all(|n| scrape.is_balanced(&format!("shard=\"{n}\""))).then_some(scrape)
    });
    assert!(second.sum("tunnelhead_received_packets_total", "from=\"host\"") >= 6.0);
    assert!(second.sum("tunnelhead_sent_packets_total", "to=\"router\"") >= 3.0);
    assert!(second.sum("tunnelhead_dropped_packets_total", "reason=\"no_tunnel\"") >= 3.0);
    assert_eq!(second.sum("tunnelhead_logins_total", "result=\"accepted\""), 1.0);
    assert_eq!(second.sum("tunnelhead_login_duration_seconds_count", ""), 1.0);
    assert_eq!(second.sum("tunnelhead_tunnels", ""), 1.0);
    assert!(second.sum("tunnelhead_store_commit_duration_seconds_count", "") >= 1.0);
    assert!(second.sum("tunnelhead_certificate_end_timestamp_seconds", "key=") > 1e9);
    let counted = |series: &str| {
        let name = series.split('{').next().unwrap();
        ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end))
    };
    for (series, before) in first.samples.iter().filter(|(series, _)| counted(series)) {
        let after = second.samples.get(series).unwrap_or_else(|| panic!("{series} is gone"));
        assert!(after >= before, "{series} fell from {before} to {after}");
    }
    assert!(!second.samples.keys().any(|series| series.contains("branch-1")), "a router's name");
    promtool(&live.get("/v1/metrics").body);
}

/// Lets Prometheus' own tool look at it.
fn promtool(text: &str) {
    if !missing_tools(&["promtool"]).is_empty() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: metrics: promtool is not installed");
        return;
    }
    let mut tool = Command::new("promtool");
    tool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut tool = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn routers_are_named_only_when_wanted() {
    let Some(live) = Live::start("metrics by router", "[metrics]\nper_router = true") else {
        return;
    };
    let made = add(&live, "branch-1");
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let client = dial(&live, &text("username"), &text("password"));
    client.expect_up(0);
    let scrape = Scrape::of(&live);
    let series = "tunnelhead_router_bytes_total{router=\"branch-1\",direction=\"from\"}";
    assert!(scrape.samples.contains_key(series));
}

#[test]
fn health_says_what_is_missing() {
    let Some(live) = Live::start("health", "") else { return };
    for path in ["/v1/healthz", "/v1/readyz"] {
        let reply = live.get(path);
        assert_eq!(
            (reply.status, reply.json()),
            (200, json!({"ok": true, "reasons": []})),
            "{path}"
        );
    }
    run(inside(&live, "ip").args(["link", "set", "tunnelhead0", "down"]));
    let reply = live.get("/v1/readyz");
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert_eq!(reply.json()["reasons"][0]["part"], "tun");
    assert_eq!(live.get("/v1/healthz").status, 200, "a new process would not help");
}

#[test]
fn the_log_changes_its_level_and_its_form() {
    let Some(mut live) = Live::start("log level", "") else { return };
    assert_eq!(live.get("/v1/log-level").json(), json!({"filter": "info"}));
    assert_eq!(live.process().count(0, "DEBUG"), 0);
    let (code, out, err) = live.tunnelhead(&["log-level", "debug"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "debug\n", ""));
    assert_eq!(live.tunnelhead(&["log-level", "--json"]).1.trim(), "{\n  \"filter\": \"debug\"\n}");
    let mark = live.process().mark();
    let _refused = dial(&live, "nobody", "wrong");
    live.process().expect_line(mark, SOON, "DEBUG");
    for wrong in ["", "loud", "info debug", "a=b=c=d"] {
        let reply = live.send("PUT", "/v1/log-level", Some(&json!({"filter": wrong})));
        assert_eq!(
            (reply.status, reply.json()["field"].clone()),
            (400, json!("filter")),
            "{wrong}"
        );
    }
    assert_eq!(live.get("/v1/log-level").json(), json!({"filter": "debug"}));
    live.end("TERM");
    live.launch(&["--log-format", "json"]);
    let text = live.process().text();
    let mut lines = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
        lines += 1;
    }
    assert!(lines > 0);
}

#[test]
fn the_service_manager_is_told() {
    let Some(mut live) = Live::start("service manager", "") else { return };
    live.end("TERM");
    let path = live.path("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut command = Command::new("unshare");
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    command.args(["-n", "sh", "-c", script, PROGRAM, "serve", "--config"]);
    command.arg(live.path("config.toml"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3000000");
    let mut process = Process::spawn("tunnelhead serve", &mut command);
    let next = |wanted: &str| {
        let mut bytes = [0; 4096];
        loop {
            let n = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
            if text.contains(wanted) {
                return text;
            }
            assert!(!text.contains("READY") && !text.contains("STOPPING"), "{wanted}: {text}");
        }
    };
    next("READY=1");
    next("STATUS=serving 0 tunnels");
    next("WATCHDOG=1");
    next("WATCHDOG=1");
    process.signal("HUP");
    assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
    next("READY=1");
    next("WATCHDOG=1");
    process.signal("TERM");
    next("STOPPING=1");
    assert!(process.exit(SOON).unwrap().success());
}

/// Opens what a service manager would, and becomes the program.
const ACTIVATE: &str = r#"
import os, socket, sys
program, config, control = sys.argv[1:4]
routers = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
routers.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
routers.bind(("127.0.0.1", 18443))
routers.listen(64)
steer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
steer.bind(control)
os.chmod(control, 0o660)
steer.listen(64)
high = [os.dup2(one.fileno(), 100 + n) for n, one in enumerate((routers, steer))]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n, inheritable=True)
os.environ.update(LISTEN_FDS="2", LISTEN_FDNAMES="listener:control", LISTEN_PID=str(os.getpid()))
os.execv(program, [program, "serve", "--config", config])
"#;

#[test]
fn sockets_of_the_service_manager_are_taken_and_left_alone() {
    if !missing_tools(&["python3"]).is_empty() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: socket activation: needs python3");
        return;
    }
    let Some(mut live) = Live::start("socket activation", "") else { return };
    live.end("TERM");
    let text = std::fs::read_to_string(live.path("config.toml")).unwrap();
    let text = text.replace("127.0.0.1:0", "127.0.0.1:18443");
    std::fs::write(live.path("config.toml"), text).unwrap();
    let mut command = Command::new("unshare");
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    command.args(["-n", "sh", "-c", script, "python3", "-c", ACTIVATE, PROGRAM]);
    command.arg(live.path("config.toml")).arg(live.socket());
    let mut process = Process::spawn("tunnelhead serve", &mut command);
    process.expect_line(0, SOON, "serving");
    let status = live.get("/v1/status").json();
    assert_eq!(status["listeners"][0]["address"], "127.0.0.1:18443");
    process.signal("TERM");
    assert!(process.exit(SOON).unwrap().success(), "{}", process.tail(40));
    assert!(live.socket().exists(), "the socket is the service manager's");
}

#[test]
fn an_endpoint_decides_and_its_death_ends_no_tunnel() {
    if !missing_tools(&["python3"]).is_empty() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: authenticator: needs python3");
        return;
    }
    let lines = "[authenticator]\nurl = \"unix:AUTH:/login\"\ntimeout = \"2s\"\nrekeys = true";
    let Some(mut live) = Live::start("authenticator", "") else { return };
    let auth = live.path("auth.sock");
    live.configure(&lines.replace("AUTH", auth.to_str().unwrap()));
    live.end("TERM");
    live.launch(&[]);
    let routers = live.path("routers.json");
    let known = json!({
        "branch-1": {"password": "secret", "address": "100.64.7.9", "tags": ["north"], "tenant": "acme"},
        "branch-2": {"password": "secret", "address": "100.64.7.9"},
        "branch-3": {"password": "secret", "refuse": "has not paid"},
    });
    std::fs::write(&routers, known.to_string()).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/authenticator.py");
    let mut python = Command::new("python3");
    let mut endpoint =
        Process::spawn("authenticator", python.arg(example).arg(&auth).arg(&routers));
    endpoint.expect_line(0, SOON, "listening");

    let client = dial(&live, "branch-1", "secret");
    client.expect_up(0);
    assert_eq!(client.address().to_string(), "100.64.7.9");
    let tunnel = live.get("/v1/tunnels/branch-1").json();
    assert_eq!((&tunnel["tags"], &tunnel["tenant"]), (&json!(["north"]), &json!("acme")));
    // Its address is somebody's, its bill is not paid, its password is wrong, it is unknown: the
    // router sees the same.
    for (username, password) in
        [("branch-2", "secret"), ("branch-3", "secret"), ("branch-1", "wrong"), ("nobody", "x")]
    {
        let outcome = dial(&live, username, password).outcome();
        assert_eq!(outcome, Outcome::AuthFailed(String::new()), "{username} {password}");
    }
    endpoint.kill();
    let outcome = dial(&live, "branch-4", "secret").outcome();
    assert_eq!(outcome, Outcome::AuthFailed(String::new()));
    let mark = client.process.mark();
    client.expect_pings(mark, 1, SOON);
    let counters = live.get("/v1/status").json()["counters"].clone();
    for (name, least) in
        [("authenticator_accepted", 2), ("authenticator_refused", 3), ("authenticator_failed", 1)]
    {
        assert!(counters[name].as_u64().unwrap_or(0) >= least, "{name}: {counters}");
    }
    let count = live.get("/v1/tunnels").json()["items"].as_array().unwrap().len();
    assert_eq!(count, 1);
}

/// What keeps a hole in the program from being a hole in the host.
const TIGHT: &[(&str, &str)] = &[
    ("Type", "notify"),
    ("NotifyAccess", "main"),
    ("CapabilityBoundingSet", "CAP_NET_ADMIN"),
    ("AmbientCapabilities", "CAP_NET_ADMIN"),
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("RestrictNamespaces", "yes"),
    ("DevicePolicy", "closed"),
    ("RuntimeDirectoryMode", "0750"),
    ("StateDirectory", "tunnelhead"),
    ("LimitCORE", "0"),
];

#[test]
fn the_unit_file_is_tight_and_systemd_takes_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy");
    let unit = std::fs::read_to_string(folder.join("tunnelhead.service")).unwrap();
    for (key, value) in TIGHT {
        assert!(unit.lines().any(|line| line == format!("{key}={value}")), "{key}={value}");
    }
    for key in ["SystemCallFilter=", "WatchdogSec=", "LimitNOFILE=", "RestrictAddressFamilies="] {
        assert!(unit.lines().any(|line| line.starts_with(key)), "{key}");
    }
    // The command line of the unit is one that the program has.
    let help = run(Command::new(PROGRAM).args(["serve", "--help"]));
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    for flag in command.split_whitespace().filter(|word| word.starts_with("--")) {
        assert!(help.contains(flag), "{flag} is unknown");
    }
    if !missing_tools(&["systemd-analyze"]).is_empty() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: unit file: systemd-analyze is not installed");
        return;
    }
    let copy = tempfile::tempdir().unwrap();
    let at = copy.path().join("tunnelhead.service");
    std::fs::write(&at, unit.replace("/usr/bin/tunnelhead", PROGRAM)).unwrap();
    run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&at));
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=20", "--no-pager"]);
    run(security.arg(&at));
}
