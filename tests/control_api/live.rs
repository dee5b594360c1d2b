//! The real binary, serving in a network namespace of its own with a real TUN device, and its real
//! control socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::process::Process;
use crate::{PROGRAM, ended};

/// Start to ready, key generation included, in a debug build on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A running concentrator; dropped, it is killed.
pub(crate) struct Live {
    process: Option<Process>,
    folder: TempDir,
}

/// An answer: status, head, body.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }
}

impl Live {
    /// Starts it with these lines at the end of its configuration, and waits until it is ready.
    /// None, said loudly: it can't run here.
    pub(crate) fn start(test: &str, lines: &str) -> Option<Self> {
        if let Some(why) = missing() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut live = Self { process: None, folder };
        live.configure(lines);
        live.launch(&[]);
        Some(live)
    }

    /// Writes the configuration anew; a reload or restart reads it.
    pub(crate) fn configure(&self, lines: &str) {
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\npublic_host = \"192.0.2.1\"\n\
             state_dir = \"state\"\ncontrol_socket = \"control.sock\"\n{lines}\n"
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    /// Starts the process, with further arguments, and waits until it is ready.
    pub(crate) fn launch(&mut self, arguments: &[&str]) {
        // The program takes the place of the shell, so that its process id is ours to signal.
        let script = "ip link set lo up && exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", script, PROGRAM, "serve", "--config"]);
        command.arg(self.path("config.toml")).args(arguments).env_remove("TUNNELHEAD_SOCKET");
        let process = Process::spawn("tunnelhead serve", &mut command);
        eventually("ready concentrator", START, || {
            assert!(!process.ended(), "{}", process.tail(60));
            let reply = try_exchange(&self.socket(), &get("/v1/status"))?;
            (reply.status == 200 && reply.json()["ready"] == true).then_some(())
        });
        self.process = Some(process);
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Ends it with this signal ("TERM", "KILL") and waits for the end.
    pub(crate) fn end(&mut self, signal: &str) {
        let process = self.process.take().expect("it runs");
        let kill = Command::new("kill").args(["-s", signal, &process.id().to_string()]).status();
        assert!(kill.unwrap().success());
        eventually("end of the concentrator", START, || process.ended().then_some(()));
    }

    /// Sends bytes as they are and reads the answer to the end.
    pub(crate) fn raw(&self, request: &[u8]) -> Reply {
        try_exchange(&self.socket(), request).expect("an answer")
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.raw(&get(path))
    }

    /// A request with a JSON body; None sends none.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        self.raw(
            format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}\
                 Content-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    }

    /// Runs a command against it: exit code, standard output, standard error.
    pub(crate) fn tunnelhead(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(PROGRAM);
        ended(&command.args(arguments).env("TUNNELHEAD_SOCKET", self.socket()).output().unwrap())
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

fn try_exchange(socket: &Path, request: &[u8]) -> Option<Reply> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(START)).unwrap();
    // A server that refuses early closes before it has read everything.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// Why it cannot run here.
fn missing() -> Option<&'static str> {
    if fs::metadata("/proc/self").map(|facts| facts.uid()).ok() != Some(0) {
        return Some("needs root");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun");
    }
    let unshare = Command::new("unshare").args(["-n", "ip", "link"]).output();
    (!unshare.is_ok_and(|output| output.status.success()))
        .then_some("needs unshare, ip and their right")
}
