//! The real binary as a client of the real control socket, before a concentrator of cardboard:
//! output, exit codes, and what it says when something is wrong.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is the report"
)]

mod audit;
mod cardboard;
mod events;
mod hostile;
#[allow(dead_code, reason = "each resource uses its own part of it")]
mod live;
mod logins;
mod observation;
mod openapi;
mod quickstart;
mod reload;
mod rights;
mod routers;
mod schemathesis;
mod store;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tunnelhead::concentrator::local_addresses;
use tunnelhead::config::LocalAddress;
use tunnelhead::control_api::server::{ServerLimits, serve};
use tunnelhead::control_api::socket::ControlSocket;

use cardboard::Cardboard;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tunnelhead");

struct Running {
    // Dropped in this order: the server ends before its folder goes.
    _stop: oneshot::Sender<()>,
    _runtime: Runtime,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

fn start(cardboard: Cardboard) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let bound = ControlSocket::bind(&socket).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    runtime.spawn(serve(bound, Arc::new(cardboard), ServerLimits::default(), async {
        let _ = stopped.await;
    }));
    Running { _stop: stop, _runtime: runtime, socket, _dir: dir }
}

fn command(line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(line.split_whitespace()).env_remove("TUNNELHEAD_SOCKET");
    command
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

impl Running {
    fn tunnelhead(&self, line: &str) -> (i32, String, String) {
        ended(&command(line).env("TUNNELHEAD_SOCKET", &self.socket).output().unwrap())
    }

    /// Expects success and JSON.
    fn json(&self, line: &str) -> Value {
        let (code, out, err) = self.tunnelhead(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{line}: {error}\n{out}"))
    }

    /// Expects failure with one sentence.
    fn sentence(&self, line: &str) -> String {
        let (code, out, err) = self.tunnelhead(line);
        assert_eq!((code, out.as_str()), (1, ""), "{line}");
        assert!(err.starts_with("error: ") && err.lines().count() == 1, "{line}: {err}");
        err
    }
}

#[test]
fn a_router_is_added_shown_changed_and_removed() {
    let running = start(Cardboard::default());
    let made = running.json("router add branch-42 --cipher aes-256-cbc --auth SHA256 --json");
    for key in ["name", "username", "password", "script", "script_v6", "ovpn"] {
        assert!(made[key].is_string(), "{key} in {made}");
    }
    assert_eq!((&made["cipher"], &made["auth"]), (&"AES-256-CBC".into(), &"SHA256".into()));
    let list = running.json("--json router list");
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert!(list[0].get("password").is_none());
    assert_eq!(running.json("router show --json branch-42")["name"], "branch-42");
    assert_eq!(running.json("router disable branch-42 --json")["disabled"], true);
    assert_eq!(running.json("router enable branch-42 --json")["disabled"], false);
    let (code, out, _) = running.tunnelhead("router list");
    assert!(code == 0 && out.starts_with("NAME ") && out.contains("\nbranch-42 "), "{out}");
    let (code, out, _) = running.tunnelhead("router remove branch-42");
    assert_eq!((code, out.as_str()), (0, "branch-42 is removed\n"));
    assert!(running.sentence("router show branch-42").contains("there is no router \"branch-42\""));
    assert_eq!(running.json("router list --json"), Value::Array(Vec::new()));
}

#[test]
fn tunnels_are_a_bare_array_with_the_promised_fields() {
    let running = start(Cardboard { tunnels: 2, ..Cardboard::default() });
    let list = running.json("tunnel list --json");
    let one = &list.as_array().unwrap()[1];
    for key in ["router", "address", "real_address", "since", "cipher", "auth"] {
        assert!(one[key].is_string(), "{key} in {one}");
    }
    assert!(one["rx_bytes"].is_u64() && one["tx_bytes"].is_u64());
    assert_eq!(one["address"], "100.64.1.1");
    assert_eq!(running.json("tunnel show r1 --json")["router"], "r1");
    assert_eq!(running.json("tunnel disconnect r1 --json")["disconnected"], true);
    assert!(running.sentence("tunnel disconnect absent").contains("has no tunnel now"));
    let (code, out, _) = running.tunnelhead("tunnel list");
    assert!(code == 0 && out.starts_with("ROUTER ") && out.contains("AES-256-CBC/SHA1"), "{out}");
}

#[test]
fn status_is_a_success_only_when_tun_and_listeners_are_up() {
    for (tun_up, listener_up, code) in [(true, true, 0), (false, true, 1), (true, false, 1)] {
        let running = start(Cardboard { tun_up, listener_up, ..Cardboard::default() });
        for line in ["status", "status --json"] {
            let (got, out, err) = running.tunnelhead(line);
            assert_eq!(got, code, "{line}: {out}{err}");
            assert!(!out.is_empty() && err.is_empty() == (code == 0), "{line}: {err}");
        }
        let (_, out, _) = running.tunnelhead("status");
        assert_eq!(out.contains("DOWN"), code == 1, "{out}");
    }
}

#[test]
fn a_password_comes_from_standard_input_without_its_newline() {
    let running = start(Cardboard::default());
    let ask = |name: &str, input: &[u8]| {
        let mut child = command(&format!("router add {name} --password-stdin --json"))
            .env("TUNNELHEAD_SOCKET", &running.socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may refuse before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        ended(&child.wait_with_output().unwrap())
    };
    for (name, input, password) in [("a", "s e$c\"ret\n", "s e$c\"ret"), ("b", "secret", "secret")]
    {
        let (code, out, err) = ask(name, input.as_bytes());
        assert_eq!(code, 0, "{err}");
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["password"], password);
    }
    for input in [&b"\n"[..], b"", b"a\n\n", &[0xff], "x".repeat(5000).as_bytes()] {
        let (code, out, err) = ask("c", input);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
    }
    assert_eq!(running.json("router list --json").as_array().unwrap().len(), 2);
}

#[test]
fn refusals_name_the_field_and_wrong_lines_are_usage() {
    let running = start(Cardboard::default());
    running.json("router add a --json");
    assert!(running.sentence("router add a").starts_with("error: name: "));
    assert!(running.sentence("router add b --auth null").starts_with("error: auth: "));
    assert!(
        running.sentence("router add b --certificate-cn x").starts_with("error: certificate_cn: ")
    );
    for line in
        ["router add ../a", "router", "tunnel show", "nonsense", "router add b --cipher bf-cbc"]
    {
        let (code, out, err) = running.tunnelhead(line);
        assert!(code == 2 && out.is_empty() && !err.is_empty(), "{line}: {code} {err}");
    }
    assert_eq!(running.tunnelhead("--help").0, 0);
    assert_eq!(running.tunnelhead("--version").0, 0);
}

#[test]
fn the_socket_is_named_by_flag_or_variable_and_the_flag_wins() {
    let running = start(Cardboard::default());
    let socket = running.socket.display();
    for line in [
        format!("--socket {socket} status"),
        format!("status --socket {socket}"),
        format!("tunnel --socket={socket} list"),
    ] {
        let output = command(&line).env("TUNNELHEAD_SOCKET", "/nowhere").output().unwrap();
        assert_eq!(ended(&output).0, 0, "{line}");
    }
    let absent = running.socket.with_file_name("absent.sock");
    for line in [format!("--socket {} status", absent.display()), "tunnel list --socket /no".into()]
    {
        let text = running.sentence(&line);
        assert!(text.contains("not running") && text.contains("tunnelhead serve"), "{text}");
    }
    fs::write(&absent, "").unwrap();
    assert!(
        running
            .sentence(&format!("--socket {} status", absent.display()))
            .contains("nobody answers")
    );
}

#[test]
fn check_config_reports_everything_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    let check = |text: &str, flag: &str| {
        fs::write(&file, text).unwrap();
        ended(&command(&format!("check-config {} {flag}", file.display())).output().unwrap())
    };
    let (code, out, err) = check("public_host = \"vpn.example.net\"\n", "");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.ends_with("t.toml is good\n"), "{out}");
    let bad = "lisen = 1\n[tun]\nmtu = 9000\n[data]\nciphers = [\"BF-CBC\"]\n";
    let (code, out, err) = check(bad, "");
    assert_eq!((code, out.as_str()), (1, ""));
    for part in ["3 errors", "\n  lisen: ", "\n  tun.mtu: ", "\n  data.ciphers[0]: "] {
        assert!(err.contains(part), "{part} in {err}");
    }
    let (code, out, _) = check(bad, "--json");
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, document["errors"].as_array().unwrap().len()), (1, 3));
    let (code, _, err) = check("a = = 1", "");
    assert!(code == 1 && err.contains("line 1") && err.lines().count() == 1, "{err}");
    let absent = dir.path().join("absent");
    let (code, _, err) =
        ended(&command(&format!("check-config {}", absent.display())).output().unwrap());
    assert!(
        code == 1 && err.contains("there is no such file") && err.lines().count() == 1,
        "{err}"
    );
}

#[test]
fn a_local_address_cannot_be_the_management_address() {
    let usable = |address: &LocalAddress| match address.address {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local() => Some(v4),
        _ => None,
    };
    let Some(address) = local_addresses().unwrap().iter().find_map(usable) else {
        let line = b"SKIPPED: a_local_address_cannot_be_the_management_address: no address\n";
        let _ = std::io::stderr().write_all(line);
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    fs::write(&file, format!("management_address = \"{address}\"\n")).unwrap();
    let (code, _, err) =
        ended(&command(&format!("check-config {}", file.display())).output().unwrap());
    assert!(code == 1 && err.contains("is the address of the interface"), "{err}");
}

#[test]
fn serve_opens_nothing_before_the_file_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    let socket = dir.path().join("run/control.sock");
    let text = format!("control_socket = \"{}\"\n[tun]\nmtu = 1\n", socket.display());
    fs::write(&file, text).unwrap();
    let (code, out, err) =
        ended(&command(&format!("serve --config {}", file.display())).output().unwrap());
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("tun.mtu: "), "{err}");
    assert!(!Path::exists(socket.parent().unwrap()));
}

#[test]
fn serve_refuses_a_socket_that_answers() {
    let running = start(Cardboard::default());
    let (code, out, err) = running.tunnelhead("serve");
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("already listens on"), "{err}");
    running.json("status --json");
}

#[test]
fn serve_says_in_one_sentence_what_is_in_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap();
    let serve = |listen: &str| {
        let text = format!(
            "public_host = \"vpn.example.net\"\nlisten = [\"{listen}\"]\nstate_dir = \"state\"\n\
             control_socket = \"control.sock\"\n"
        );
        let file = dir.path().join("t.toml");
        fs::write(&file, text).unwrap();
        let (code, out, err) =
            ended(&command(&format!("serve --config {}", file.display())).output().unwrap());
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        let errors: Vec<&str> = err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((errors.len(), err.lines().last()), (1, errors.first().copied()), "{err}");
        assert!(!dir.path().join("control.sock").exists());
        errors[0].to_owned()
    };
    let text = serve(&busy.to_string());
    assert!(text.contains(&format!("{busy}")) && text.contains("in use"), "{text}");
    // What the first attempt has made is damaged; it is refused and not overwritten.
    let database = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3")));
    let database = database.expect("a database in the state folder");
    fs::write(&database, "not a database, but somebody's precious text").unwrap();
    let text = serve(&busy.to_string());
    assert!(text.contains(&database.display().to_string()), "{text}");
    assert!(fs::read(&database).unwrap().starts_with(b"not a database"));
}

#[test]
fn completions_exist_for_every_shell_and_bash_takes_them() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = ended(&command(&format!("completions {shell}")).output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        assert!(out.contains("tunnelhead") && out.contains("disconnect"), "{shell}");
    }
    let script = format!("source <({PROGRAM} completions bash) && complete -p tunnelhead");
    let (code, out, err) = ended(&Command::new("bash").args(["-c", &script]).output().unwrap());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("tunnelhead"), "{out}");
}
