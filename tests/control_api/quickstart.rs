//! `quickstart` as a new operator runs it, in a network namespace of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{PROGRAM, command, ended};

/// Why it cannot run here.
fn missing() -> Option<&'static str> {
    if fs::metadata("/proc/self").map(|facts| facts.uid()).ok() != Some(0) {
        return Some("needs root");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun");
    }
    let unshare = Command::new("unshare").args(["-n", "true"]).status();
    (!unshare.is_ok_and(|status| status.success())).then_some("needs unshare and its right")
}

fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}

struct Quickstart(Child);

impl Quickstart {
    /// Starts it with `dir` as its present folder and reads what it prints until it serves.
    fn start(dir: &Path, line: &str, last: &str) -> (Self, String) {
        let child = Command::new("unshare")
            .args(["-n", PROGRAM, "quickstart"])
            .args(line.split_whitespace())
            .current_dir(dir)
            .env_remove("TUNNELHEAD_SOCKET")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Self(child);
        let mut out = BufReader::new(running.0.stdout.take().unwrap());
        let mut text = String::new();
        while out.read_line(&mut text).unwrap() > 0 {
            if text.lines().last() == Some(last) {
                return (running, text);
            }
        }
        let mut err = String::new();
        running.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        panic!("it ended:\n{text}{err}");
    }

    /// Asks it to stop and returns its log; `unshare` has become the program.
    fn stop(mut self) -> String {
        let kill = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(kill.success());
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn quickstart_serves_from_a_relative_folder_and_keeps_its_secrets() {
    if let Some(why) = missing() {
        skip("quickstart_serves_from_a_relative_folder_and_keeps_its_secrets", why);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let last = "Serving; Ctrl-C stops.";
    let (first, text) = Quickstart::start(dir.path(), "--listen 0.0.0.0:0", last);
    let home = dir.path().join("tunnelhead-quickstart");
    let socket = home.join("control.sock");
    assert_eq!(fs::metadata(&home).unwrap().mode() & 0o777, 0o700);
    for part in ["/ppp profile add", "router-1-v6.rsc", "router-1.ovpn", " tunnel list\n"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains(&format!("--socket {} status\n", socket.display())), "{text}");
    let ask = |line: &str| {
        let (code, out, err) = ended(&command(line).arg("--socket").arg(&socket).output().unwrap());
        assert_eq!(code, 0, "{line}: {out}{err}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    assert_eq!(ask("status --json")["ready"], true);
    let before = ask("router list --json");
    assert_eq!(before.as_array().unwrap().len(), 1);
    let saved = |name: &str| {
        let file = home.join(name);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        fs::read_to_string(file).unwrap()
    };
    let password = |text: &str| serde_json::from_str::<Value>(text).unwrap()["password"].clone();
    let secret = password(&saved("router-1.json"));
    assert!(saved("router-1.rsc").contains(secret.as_str().unwrap()));
    // Another one at the same time is told so, and nothing is lost.
    let (code, _, err) = ended(&command("quickstart").current_dir(dir.path()).output().unwrap());
    assert!(code == 1 && err.contains("already listens on"), "{err}");
    let log = first.stop();
    assert!(log.contains("serving") && !log.contains(secret.as_str().unwrap()), "{log}");
    assert!(!socket.exists());

    let line = "--dir tunnelhead-quickstart --listen 0.0.0.0:0 --verify-server";
    let (second, text) = Quickstart::start(dir.path(), line, last);
    assert_eq!(password(&saved("router-1.json")), secret);
    assert!(
        text.contains(secret.as_str().unwrap()) && text.contains("/certificate import"),
        "{text}"
    );
    let after = ask("router list --json");
    assert_eq!(after.as_array().unwrap().len(), 1);
    assert_eq!(after[0]["address"], before[0]["address"]);
    assert!(!second.stop().contains(secret.as_str().unwrap()));
}

#[test]
fn quickstart_without_the_right_writes_nothing() {
    if let Some(why) = missing() {
        skip("quickstart_without_the_right_writes_nothing", why);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut asked = command("quickstart");
    asked.uid(65_534).gid(65_534).current_dir(dir.path());
    let (code, out, err) = ended(&asked.output().unwrap());
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
