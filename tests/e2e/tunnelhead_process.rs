//! `tunnelhead serve` in the concentrator's namespace, and the command line beside it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{CONCENTRATOR, Lab};
use crate::support::client::{Config, write_private};
use crate::support::process::Process;
use crate::support::{eventually, run, try_run};

/// Start to ready, key generation included, in a debug build on a busy machine.
const START: Duration = Duration::from_secs(40);

/// A running concentrator with its folder, which outlives restarts.
pub(crate) struct Tunnelhead<'a> {
    lab: &'a Lab,
    process: Process,
    folder: TempDir,
}

/// What `router add --json` says.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) document: Value,
}

impl<'a> Tunnelhead<'a> {
    /// Starts it with a configuration that ends in `lines` (first the listener's), and waits until it is ready.
    pub(crate) fn start(lab: &'a Lab, lines: &str) -> Self {
        Self::start_with(lab, &[], lines)
    }

    /// The same with files beside the configuration.
    pub(crate) fn start_with(lab: &'a Lab, files: &[(&str, &str)], lines: &str) -> Self {
        Self::start_keeping(lab, "ping = \"1s\"\nrestart = \"6s\"", files, lines)
    }

    /// The same with other lines in `[keepalive]`.
    pub(crate) fn start_keeping(
        lab: &'a Lab,
        keepalive: &str,
        files: &[(&str, &str)],
        lines: &str,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            write_private(&folder.path().join(name), text);
        }
        let path = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "public_host = \"{CONCENTRATOR}\"\n\
             state_dir = \"{}\"\ncontrol_socket = \"{}\"\n\
             [keepalive]\n{keepalive}\n\
             [[listener]]\naddress = \"{CONCENTRATOR}:8443\"\n{lines}\n",
            path("state"),
            path("control.sock"),
        );
        std::fs::write(folder.path().join("config.toml"), text).expect("the configuration");
        let process = Self::spawn(lab, &folder);
        let this = Self { lab, process, folder };
        this.wait_ready();
        this
    }

    fn spawn(lab: &Lab, folder: &TempDir) -> Process {
        let mut command = lab.concentrator.command(PROGRAM);
        command.arg("serve").arg("--config").arg(folder.path().join("config.toml"));
        Process::spawn("tunnelhead serve", &mut command)
    }

    fn wait_ready(&self) {
        let ready = eventually("ready concentrator", START, || {
            if self.process.ended() {
                return Some(false);
            }
            try_run(self.command().arg("status")).is_ok().then_some(true)
        });
        assert!(ready, "{}", self.process.tail(60));
    }

    /// Kills it as a power failure would, and starts it again on the same state.
    pub(crate) fn kill_and_restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(self.lab, &self.folder);
        self.wait_ready();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// The command line, with this concentrator's socket.
    pub(crate) fn command(&self) -> Command {
        // A unix socket is reached from every network namespace.
        let mut command = Command::new(PROGRAM);
        command.arg("--socket").arg(self.socket());
        command
    }

    /// Runs a command that must succeed.
    pub(crate) fn run(&self, arguments: &[&str]) {
        run(self.command().args(arguments));
    }

    /// Runs a command and reads its JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = run(self.command().arg("--json").args(arguments));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Adds a router.
    pub(crate) fn add(&self, name: &str, arguments: &[&str]) -> Account {
        let mut words = vec!["router", "add", name];
        words.extend(arguments);
        Account { name: name.to_owned(), document: self.json(&words) }
    }

    /// The tunnel of a router, as `tunnel list --json` shows it.
    pub(crate) fn tunnel(&self, name: &str) -> Option<Value> {
        let list = self.json(&["tunnel", "list"]);
        let list = list.as_array().expect("an array of tunnels");
        list.iter().find(|tunnel| tunnel["router"] == name).cloned()
    }

    /// How many packets of a router were dropped for reasons whose name holds `word`.
    pub(crate) fn drops(&self, name: &str, word: &str) -> u64 {
        let tunnel = self.tunnel(name).expect("the tunnel is up");
        let drops = tunnel["drops"].as_object().expect("drops by reason");
        let chosen = drops.iter().filter(|(reason, _)| reason.contains(word));
        chosen.filter_map(|(_, count)| count.as_u64()).sum()
    }
}

impl Account {
    /// The .ovpn file as it was handed out, used as it is.
    pub(crate) fn config(&self) -> Config {
        Config::given(self.text("ovpn"))
    }

    /// A text of the document.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.document[key].as_str().unwrap_or_else(|| panic!("no {key} for {}", self.name))
    }
}

/// The binary under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_tunnelhead");
