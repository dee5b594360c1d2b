//! Looks at the machine. Judges nothing.

use std::fs;
use std::path::Path;

use crate::control_api::types::Degraded;
use crate::sys::{machine, nftables, rlimit};
use crate::telemetry::clock;

use super::super::core::Core;
use super::{Chain, Disk, Facts, Listened, Tun};

/// What the parts that don't change know.
pub(in crate::concentrator) struct Known {
    pub(in crate::concentrator) tun: String,
    pub(in crate::concentrator) kernel: bool,
    pub(in crate::concentrator) mtu: u64,
    pub(in crate::concentrator) queues: u64,
    pub(in crate::concentrator) degraded: Vec<Degraded>,
    pub(in crate::concentrator) listeners: Vec<Listened>,
}

/// Collects everything but the logins, which are handed in. Blocks for as long as the disk does.
pub(in crate::concentrator) fn gather(core: &Core, known: Known) -> Facts {
    let current = core.settings.current();
    let config = &current.config;
    let sysctl = |name: &str| number(&format!("/proc/sys/net/{name}"));
    let of_device = |name: &str| sysctl(&format!("ipv4/conf/{name}/rp_filter"));
    let device = Path::new("/sys/class/net").join(&known.tun);
    let link = crate::tun::index_and_mtu(&known.tun);
    // "/sys" shows the namespace that it was mounted in.
    let index = number(&device.join("ifindex").display().to_string());
    let ours = link.is_some_and(|(own, _)| index == Some(u64::from(own)));
    let trouble = known.degraded.iter().find(|one| one.part == "tun" || one.part == "route");
    Facts {
        now: clock::unix_seconds(),
        synchronised: machine::clock_is_synchronised().ok(),
        descriptors: rlimit::nofile().ok(),
        open: fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64),
        tunnels: core.tunnel_count(),
        routers: core.accounts.read().len() as u64,
        somaxconn: sysctl("core/somaxconn"),
        backlog: u64::from(config.limits.listen_backlog),
        disk: disk(&config.state_dir),
        certificates: current.certificates.clone(),
        crls: current.crls.clone(),
        forwarding: sysctl("ipv4/ip_forward").map(|on| on != 0),
        rp_filter: of_device("all").max(of_device(&known.tun)),
        port_range: port_range(),
        dials: config.limits.dials as u64,
        tun: Tun {
            trouble: trouble.map(|one| one.reason.clone()),
            mtu_found: link.map(|(_, mtu)| u64::from(mtu)),
            queues_found: (known.kernel && ours).then(|| queues(&device)).flatten(),
            name: known.tun,
            kernel: known.kernel,
            mtu: known.mtu,
            queues: known.queues,
        },
        firewall: nftables::base_chains()
            .map(|chains| chains.into_iter().filter_map(chain).collect())
            .map_err(|error| error.to_string()),
        iptables: ["ip_tables_names", "ip6_tables_names"]
            .iter()
            .filter_map(|name| fs::read_to_string(Path::new("/proc/net").join(name)).ok())
            .any(|names| !names.trim().is_empty()),
        listeners: known.listeners,
        degraded: known.degraded,
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn port_range() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = text.split_whitespace().map_while(|end| end.parse().ok());
    Some((ends.next()?, ends.next()?))
}

/// One folder "tx-N" a queue.
fn queues(device: &Path) -> Option<u64> {
    let all = fs::read_dir(device.join("queues")).ok()?.flatten();
    let sending = all.filter(|one| one.file_name().as_encoded_bytes().starts_with(b"tx-"));
    Some(sending.count() as u64)
}

fn disk(path: &Path) -> Result<Disk, String> {
    let space = machine::space(path).map_err(|error| error.to_string())?;
    // A mount that is read-only, or full to the last byte, says so only here.
    let probe = path.join(".doctor");
    let written = fs::write(&probe, [0; 4096]);
    let _ = fs::remove_file(&probe);
    Ok(Disk {
        path: path.display().to_string(),
        free_bytes: space.free_bytes,
        free_inodes: space.free_inodes,
        inodes: space.inodes,
        not_writable: written.err().map(|error| error.to_string()),
    })
}

/// Chains before and behind the host's own sockets and the way between interfaces.
fn chain(found: nftables::BaseChain) -> Option<Chain> {
    let family = match found.family {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let hook = match found.hook {
        1 => "input",
        2 => "forward",
        3 => "output",
        _ => return None,
    };
    Some(Chain { family, table: found.table, name: found.name, hook, drops: found.drops })
}
