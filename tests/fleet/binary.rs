//! The real binary with a real TUN device in the concentrator's namespace of the lab, steered
//! through its control socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tunnelhead::control_api::client::Client;
use tunnelhead::control_api::types::{CreatedRouter, NewRouter, Status, TunnelQuery, TunnelView};

use crate::lab::{CONCENTRATOR, Lab};
use crate::support::eventually;
use crate::support::process::Process;

/// Start to ready, key generation included, in a debug build on a busy machine.
const START: Duration = Duration::from_secs(60);
/// The device's name.
const DEVICE: &str = "tunnelhead0";
/// Packets sent ahead of the concentrator: a quarter of what the kernel holds for one queue.
const RING_PACKETS: i64 = 1000;

/// A running concentrator.
pub(crate) struct Binary<'a> {
    lab: &'a Lab,
    process: Process,
    client: Client,
    runtime: Runtime,
    address: SocketAddr,
    folder: TempDir,
}

impl<'a> Binary<'a> {
    /// Starts it with these lines at the end of its configuration, and waits until it is ready.
    pub(crate) fn start(lab: &'a Lab, lines: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let text = format!(
            "listen = [\"{CONCENTRATOR}:0\"]\npublic_host = \"{CONCENTRATOR}\"\n\
             state_dir = \"state\"\ncontrol_socket = \"control.sock\"\n[tun]\n\
             name = \"{DEVICE}\"\n{lines}\n"
        );
        std::fs::write(at("config.toml"), text).expect("a configuration");
        let runtime = Runtime::new().expect("a runtime");
        let client = Client::new(&at("control.sock"));
        let process = spawn(lab, folder.path());
        let address = until_ready(&process, &runtime, &client).listeners[0].address;
        Self { lab, process, client, runtime, address, folder }
    }

    /// Ends it with this signal ("TERM", "KILL") and starts it again on the same port.
    pub(crate) fn restart(&mut self, signal: &str) {
        let config = self.folder.path().join("config.toml");
        let text = std::fs::read_to_string(&config).expect("a configuration");
        let text = text.replace(&format!("{CONCENTRATOR}:0"), &self.address.to_string());
        std::fs::write(&config, text).expect("a configuration");
        let id = self.process.id().to_string();
        let kill = std::process::Command::new("kill").args(["-s", signal, &id]).status();
        assert!(kill.expect("kill").success());
        eventually("end of the concentrator", START, || self.process.ended().then_some(()));
        self.process = spawn(self.lab, self.folder.path());
        until_ready(&self.process, &self.runtime, &self.client);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.runtime.block_on(self.client.remove_router(name, None)).expect("a removal");
    }

    /// Where it listens.
    pub(crate) fn listens(&self) -> SocketAddr {
        self.address
    }

    /// Its control socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub(crate) fn add(&self, name: &str) -> CreatedRouter {
        self.runtime.block_on(self.client.add_router(&NewRouter::named(name))).expect("an account")
    }

    pub(crate) fn status(&self) -> Status {
        self.runtime.block_on(self.client.status()).expect("the status")
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status().counters.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn tunnels(&self) -> Vec<TunnelView> {
        self.runtime.block_on(self.client.tunnels(&TunnelQuery::default())).expect("the tunnels")
    }

    /// Memory that the process occupies, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(Path::new(&path)).expect("a process status");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Packets of the host that were read, less one for each packet that a router has sent: those
    /// are pings, and what answers them is no part of a flood.
    fn read_unasked(&self) -> i64 {
        let counters = self.status().counters;
        let count = |name: &str| i64::try_from(counters[name]).expect("a counter");
        count("host_packets") - count("router_packets")
    }

    /// Sends `rounds` numbered datagrams from the host to each of these routers, never more at a
    /// time than the kernel's ring can hold. Returns how many.
    pub(crate) fn flood(&self, routers: &[Ipv4Addr], rounds: u64, payload: usize) -> u64 {
        let socket = self.lab.concentrator.inside(|| std::net::UdpSocket::bind("0.0.0.0:0"));
        let socket = socket.expect("a socket");
        let before = self.read_unasked();
        let mut sent = 0;
        let arrived = |sent: i64| {
            eventually("progress", START, || (self.read_unasked() >= before + sent).then_some(()));
        };
        for round in 0..rounds {
            let bytes = tunnelhead::testing::fleet::inner::datagram_payload(round, payload);
            for router in routers {
                socket.send_to(&bytes, (*router, 20_000)).expect("a datagram");
                sent += 1;
                if sent % RING_PACKETS == 0 {
                    arrived(sent);
                }
            }
        }
        arrived(sent);
        u64::try_from(sent).expect("a count")
    }
}

fn spawn(lab: &Lab, folder: &Path) -> Process {
    let mut command = lab.concentrator.command(env!("CARGO_BIN_EXE_tunnelhead"));
    command.arg("serve").arg("--config").arg(folder.join("config.toml"));
    Process::spawn("tunnelhead serve", &mut command)
}

fn until_ready(process: &Process, runtime: &Runtime, client: &Client) -> Status {
    eventually("ready concentrator", START, || {
        assert!(!process.ended(), "{}", process.tail(60));
        runtime.block_on(client.status()).ok().filter(|status| status.ready)
    })
}
