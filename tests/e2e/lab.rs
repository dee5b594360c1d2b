//! Network namespaces and what runs in them.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use tunnelhead::sys::netns;

use crate::support::{missing_tools, run, skip, try_run};

/// Every namespace of these tests starts with this and the process id of its run.
const PREFIX: &str = "th-e2e-";

/// The concentrator's address on the internet of the lab.
pub(crate) const CONCENTRATOR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Another address of the concentrator's host.
pub(crate) const OTHER_HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A server on the internet of the lab.
pub(crate) const INTERNET_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Whether these tests can run here; says so if not.
pub(crate) fn ready(name: &str) -> bool {
    let missing = missing_tools(&["openvpn", "ip", "ping", "iperf3"]);
    if !missing.is_empty() {
        skip(name, &format!("not installed: {}", missing.join(", ")));
        return false;
    }
    if let Err(error) = netns::isolated(|| ()) {
        skip(name, &format!("can't make network namespaces: {error}"));
        return false;
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        skip(name, &format!("can't open /dev/net/tun: {error}"));
        return false;
    }
    true
}

/// A named network namespace; deleted when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: String) -> Self {
        run(ip().args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` with the words of `arguments` in this namespace.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run(ip().args(["-n", &self.name]).args(arguments.split(' ')))
    }

    /// A command that will run in this namespace, as the same process id.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = ip();
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `work` on a thread in this namespace. A socket stays in the namespace it was made in.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let path = PathBuf::from("/run/netns").join(&self.name);
                netns::enter(&path).unwrap_or_else(|error| panic!("{}: {error}", self.name));
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Pings `target` with `options`; what `ping` printed on failure.
    pub(crate) fn ping(&self, options: &str, target: Ipv4Addr) -> Result<(), String> {
        let mut command = self.command("ping");
        command.args(["-n", "-q"]).args(options.split_whitespace()).arg(target.to_string());
        try_run(&mut command).map(drop)
    }

    /// Expects answers to a few pings.
    pub(crate) fn expect_ping(&self, target: Ipv4Addr) {
        if let Err(output) = self.ping("-c 3 -i 0.1 -W 3", target) {
            panic!("{} can't ping {target}:\n{output}\n{}", self.name, self.ip("route"));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = try_run(ip().args(["netns", "del", &self.name]));
    }
}

fn ip() -> Command {
    Command::new("ip")
}

/// The whole topology.
pub(crate) struct Lab {
    pub(crate) routers: Vec<Namespace>,
    pub(crate) concentrator: Namespace,
    pub(crate) internet: Namespace,
}

impl Lab {
    /// Makes the internet, the concentrator's host and `routers` routers.
    pub(crate) fn new(routers: usize) -> Self {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("{PREFIX}{}-{number}-{role}", std::process::id());

        let internet = Namespace::new(name("internet"));
        internet.ip("link add br0 type bridge");
        internet.ip("link set br0 up");
        internet.ip("addr add 203.0.113.1/24 dev br0");
        internet.ip(&format!("addr add {INTERNET_SERVER}/32 dev lo"));

        let join = |namespace: &Namespace, host: usize| {
            let outside = format!("to-{host}");
            let peer = &namespace.name;
            internet.ip(&format!("link add {outside} type veth peer name eth0 netns {peer}"));
            internet.ip(&format!("link set {outside} master br0 up"));
            namespace.ip(&format!("addr add 203.0.113.{host}/24 dev eth0"));
            namespace.ip("link set eth0 up");
            namespace.ip("route add default via 203.0.113.1");
        };
        let concentrator = Namespace::new(name("concentrator"));
        join(&concentrator, 2);
        concentrator.ip(&format!("addr add {OTHER_HOST_ADDRESS}/32 dev lo"));
        // The worst case for isolation: a host that would pass on what it is given.
        run(concentrator.command("sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]));

        let routers = (1..=routers)
            .map(|index| {
                let router = Namespace::new(name(&format!("router-{index}")));
                join(&router, 10 + index);
                router
            })
            .collect();
        Self { routers, concentrator, internet }
    }
}

/// Removes what a killed run has left behind.
fn sweep() {
    let listed = try_run(ip().args(["netns", "list"])).unwrap_or_default();
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let process = rest.split('-').next().unwrap_or_default();
        if PathBuf::from("/proc").join(process).exists() {
            continue;
        }
        let mut script = String::new();
        for id in try_run(ip().args(["netns", "pids", name])).unwrap_or_default().lines() {
            let _ = writeln!(script, "kill -KILL {id}");
        }
        let _ = try_run(Command::new("sh").args(["-c", &script]));
        let _ = try_run(ip().args(["netns", "del", name]));
    }
}
