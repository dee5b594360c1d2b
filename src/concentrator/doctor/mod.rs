//! What could keep the concentrator from working, and what to do about it.
//!
//! `gather` collects facts and judges nothing; the functions here judge facts and look at nothing,
//! so each is tested both ways. [`probe`] logs in through each listener, as a router would.

mod gather;
pub(super) mod probe;

use std::net::SocketAddr;

use crate::control_api::types::{CertificateStatus, CrlStatus, Degraded, Finding, Timestamp};

pub(super) use gather::{Known, gather};

/// What was found, unjudged. `None` and errors: it could not be found out.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Unix seconds.
    pub(super) now: u64,
    /// True: the kernel's clock is disciplined by NTP or the like.
    pub(super) synchronised: Option<bool>,
    /// Descriptors that the process may open, and has open.
    pub(super) descriptors: Option<u64>,
    pub(super) open: Option<u64>,
    pub(super) tunnels: u64,
    pub(super) routers: u64,
    pub(super) somaxconn: Option<u64>,
    pub(super) backlog: u64,
    pub(super) disk: Result<Disk, String>,
    pub(super) certificates: Vec<CertificateStatus>,
    pub(super) crls: Vec<CrlStatus>,
    /// `net.ipv4.ip_forward`.
    pub(super) forwarding: Option<bool>,
    /// The larger of `rp_filter` for all and for our device.
    pub(super) rp_filter: Option<u64>,
    pub(super) port_range: Option<(u64, u64)>,
    /// Connections to routers that may be open at once.
    pub(super) dials: u64,
    pub(super) tun: Tun,
    pub(super) firewall: Result<Vec<Chain>, String>,
    /// Tables of the old iptables are loaded.
    pub(super) iptables: bool,
    pub(super) listeners: Vec<Listened>,
    /// What the status says already.
    pub(super) degraded: Vec<Degraded>,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) path: String,
    pub(super) free_bytes: u64,
    pub(super) free_inodes: u64,
    /// Zero: the file system doesn't count them.
    pub(super) inodes: u64,
    /// Why a file could not be written.
    pub(super) not_writable: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Tun {
    pub(super) name: String,
    /// False: packets go elsewhere, as in a test.
    pub(super) kernel: bool,
    /// Why packets don't pass.
    pub(super) trouble: Option<String>,
    pub(super) mtu: u64,
    pub(super) mtu_found: Option<u64>,
    pub(super) queues: u64,
    pub(super) queues_found: Option<u64>,
}

/// A chain that somebody has hooked into the path of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: &'static str,
    pub(super) table: String,
    pub(super) name: String,
    /// "input", "output", "forward".
    pub(super) hook: &'static str,
    /// What no rule accepts is dropped.
    pub(super) drops: bool,
}

/// What a login through one listener came to.
#[derive(Clone, Debug)]
pub(super) struct Listened {
    pub(super) address: SocketAddr,
    pub(super) outcome: Result<Served, String>,
}

/// What a router would see.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// Subject, key and end of the certificate.
    pub(super) subject: String,
    pub(super) key: String,
    pub(super) not_after: u64,
    /// "TLSv1.3"
    pub(super) tls: String,
    /// The login went as far as its verdict; otherwise to the certificate that it doesn't have.
    pub(super) verdict: bool,
}

/// Judges everything, in the order in which one would look.
pub(super) fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![descriptors(facts), backlog(facts), clock(facts), disk(facts)];
    found.extend(facts.certificates.iter().map(|one| certificate(one, facts.now)));
    found.extend(facts.crls.iter().map(|one| crl(one, facts.now)));
    found.extend([forwarding(facts), rp_filter(facts), port_range(facts), tun(facts)]);
    found.extend(firewall(facts));
    found.extend(facts.listeners.iter().map(|one| listener(one, facts.now)));
    // What has a check of its own has been judged.
    let judged = ["tun", "route", "certificate", "descriptors"];
    let rest = facts.degraded.iter().filter(|one| !judged.contains(&one.part.as_str()));
    found.extend(rest.map(|one| {
        let overdue = one.part == "crl" && found_overdue(&facts.crls, facts.now);
        let advice = if overdue { "see the line above" } else { advice_for(&one.part) };
        Finding::warn(&one.part, &one.reason, advice)
    }));
    found
}

fn found_overdue(crls: &[CrlStatus], now: u64) -> bool {
    crls.iter().any(|one| one.next_update.is_some_and(|due| due.0 <= now))
}

fn advice_for(part: &str) -> &'static str {
    match part {
        "public_host" => "set public_host in the configuration, then: tunnelhead reload",
        "crl" => "add the CA's revocation list to tls.crl, then: tunnelhead reload",
        "reload" => "mend what it says, then: tunnelhead reload",
        "store" => "make room on the disk of state_dir, or mend its mount",
        _ => "see what it says and the log",
    }
}

fn descriptors(facts: &Facts) -> Finding {
    let check = "descriptors";
    let Some(limit) = facts.descriptors else {
        return Finding::warn(check, "the limit can not be read", "look: ulimit -n");
    };
    let open = facts.open.unwrap_or(facts.tunnels);
    let wanted = facts.routers.saturating_add(SPARE_DESCRIPTORS);
    let advice = format!("set LimitNOFILE={} in the unit, then restart", wanted.max(65_536));
    if open.saturating_add(SPARE_DESCRIPTORS / 8) >= limit {
        return Finding::fail(
            check,
            format!("{open} of {limit} are open; logins stop there"),
            advice,
        );
    }
    if limit < wanted {
        let routers = facts.routers;
        let message = format!("{limit} are too few for {routers} routers, one each");
        return Finding::warn(check, message, advice);
    }
    Finding::ok(check, format!("{open} of {limit} are open"))
}

fn backlog(facts: &Facts) -> Finding {
    let check = "backlog";
    match facts.somaxconn {
        None => Finding::ok(check, "the kernel does not say what it allows"),
        Some(most) if most < facts.backlog => Finding::warn(
            check,
            format!(
                "the kernel cuts limits.listen_backlog, {}, to {most}: a fleet that comes back at \
                 once is refused",
                facts.backlog
            ),
            format!("sysctl -w net.core.somaxconn={}, then: tunnelhead reload", facts.backlog),
        ),
        Some(most) => Finding::ok(check, format!("{} of at most {most}", facts.backlog)),
    }
}

fn clock(facts: &Facts) -> Finding {
    let check = "clock";
    let shown = Timestamp(facts.now);
    if facts.now < BUILT_AFTER || facts.now > BUILT_AFTER + 50 * YEAR {
        let message = format!("it says {shown}, which can not be");
        return Finding::fail(check, message, "set it: timedatectl set-ntp true");
    }
    match facts.synchronised {
        Some(false) => Finding::warn(
            check,
            format!("it says {shown}, but nothing keeps it right"),
            "run an NTP client: timedatectl set-ntp true",
        ),
        Some(true) => Finding::ok(check, format!("{shown}, kept right by NTP")),
        None => Finding::ok(check, format!("{shown}")),
    }
}

fn disk(facts: &Facts) -> Finding {
    let check = "disk";
    let disk = match &facts.disk {
        Ok(disk) => disk,
        Err(error) => {
            let message = format!("the state folder can not be looked at: {error}");
            return Finding::fail(check, message, "check state_dir and its mount");
        }
    };
    let path = &disk.path;
    if let Some(error) = &disk.not_writable {
        let message = format!("nothing can be written to {path}: {error}");
        let advice = "make room or mend the mount; until then changes are refused";
        return Finding::fail(check, message, advice);
    }
    let free = disk.free_bytes >> 20;
    let advice = format!("make room: df -h {path}; df -i {path}");
    let inodes_low = disk.inodes > 0 && disk.free_inodes < MIN_FREE_INODES;
    if disk.free_bytes < MIN_FREE_BYTES || inodes_low {
        let inodes = disk.free_inodes;
        let message = format!("{path} has {free} MiB and {inodes} inodes left");
        return Finding::warn(check, message, advice);
    }
    Finding::ok(check, format!("{path} is writable and has {free} MiB left"))
}

fn certificate(one: &CertificateStatus, now: u64) -> Finding {
    let check = "certificate";
    let what = format!("{} \"{}\"", one.key, one.subject);
    let advice = "put a new certificate and key in place, then: tunnelhead reload";
    if one.not_after.0 <= now {
        return Finding::fail(check, format!("{what} has ended at {}", one.not_after), advice);
    }
    if one.not_before.0 > now {
        let message = format!("{what} begins only at {}", one.not_before);
        return Finding::fail(check, message, "check the clock of this host, or the certificate");
    }
    let days = (one.not_after.0 - now) / DAY;
    if days < WARN_DAYS {
        return Finding::warn(check, format!("{what} ends in {days} days"), advice);
    }
    Finding::ok(check, format!("{what} until {}", one.not_after))
}

fn crl(one: &CrlStatus, now: u64) -> Finding {
    let check = "crl";
    let what = format!("the list of {} with {} certificates", one.issuer, one.revoked);
    let Some(due) = one.next_update else { return Finding::ok(check, format!("{what}, no date")) };
    let advice = "fetch a new list, then: tunnelhead reload";
    if due.0 <= now {
        return Finding::warn(check, format!("{what} was due for renewal at {due}"), advice);
    }
    Finding::ok(check, format!("{what}, due at {due}"))
}

fn forwarding(facts: &Facts) -> Finding {
    let message = match facts.forwarding {
        Some(true) => "on; what routers may reach is decided before the kernel sees a packet",
        Some(false) => "off; nothing here needs it",
        None => "the kernel does not say",
    };
    Finding::ok("forwarding", message)
}

fn rp_filter(facts: &Facts) -> Finding {
    let check = "rp_filter";
    let name = &facts.tun.name;
    match facts.rp_filter {
        Some(1) if facts.tun.trouble.is_some() => Finding::fail(
            check,
            format!(
                "strict, and the routes of {name} are not in order: packets of routers are dropped"
            ),
            format!("mend the route, or: sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
        ),
        Some(1) => Finding::ok(check, "strict, and the pool is routed where its packets come from"),
        Some(_) => Finding::ok(check, "off or loose"),
        None => Finding::ok(check, "the kernel does not say"),
    }
}

fn port_range(facts: &Facts) -> Finding {
    let check = "port_range";
    let Some((low, high)) = facts.port_range else {
        return Finding::ok(check, "the kernel does not say");
    };
    let size = high.saturating_sub(low).saturating_add(1);
    let wanted = facts.dials.saturating_mul(2).max(1024);
    if size < wanted {
        return Finding::warn(
            check,
            format!("{low} to {high} are too few for {} connections to routers", facts.dials),
            "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"",
        );
    }
    Finding::ok(check, format!("{low} to {high}"))
}

fn tun(facts: &Facts) -> Finding {
    let check = "tun";
    let tun = &facts.tun;
    let name = &tun.name;
    if !tun.kernel {
        return Finding::ok(check, "packets don't go through a device of the kernel");
    }
    if let Some(trouble) = &tun.trouble {
        return Finding::fail(check, trouble, "systemctl restart tunnelhead");
    }
    if let Some(found) = tun.mtu_found.filter(|found| *found != tun.mtu) {
        return Finding::warn(
            check,
            format!("{name} has MTU {found} instead of {}", tun.mtu),
            format!("ip link set {name} mtu {}", tun.mtu),
        );
    }
    if let Some(found) = tun.queues_found.filter(|found| *found != tun.queues) {
        let message = format!("{name} has {found} queues instead of {}", tun.queues);
        return Finding::warn(check, message, "systemctl restart tunnelhead");
    }
    Finding::ok(check, format!("{name} is up, mtu {}, {} queues", tun.mtu, tun.queues))
}

fn firewall(facts: &Facts) -> Vec<Finding> {
    let check = "firewall";
    let ports: Vec<String> =
        facts.listeners.iter().map(|one| one.address.port().to_string()).collect();
    let (ports, name) = (ports.join(", "), &facts.tun.name);
    let mut found = Vec::new();
    match &facts.firewall {
        Err(error) => found.push(Finding::warn(
            check,
            format!("the rules of nftables can not be read: {error}"),
            format!("look yourself: nft list ruleset; tcp port {ports} and {name} must pass"),
        )),
        Ok(chains) => {
            for one in chains.iter().filter(|one| one.drops && one.hook != "forward") {
                let Chain { family, table, name: chain, hook, .. } = one;
                found.push(Finding::warn(
                    check,
                    format!(
                        "chain {chain} of table {family} {table} drops on {hook} what no rule \
                         accepts; a login over the loopback does not tell whether routers pass"
                    ),
                    format!(
                        "make sure that tcp port {ports} and the interface {name} are accepted: \
                         nft list chain {family} {table} {chain}"
                    ),
                ));
            }
        }
    }
    if facts.iptables {
        found.push(Finding::warn(
            check,
            "rules of the old iptables are loaded",
            format!("make sure that tcp port {ports} and {name} are accepted: iptables-legacy -S"),
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(check, "no chain drops by default"));
    }
    found
}

fn listener(one: &Listened, now: u64) -> Finding {
    let check = "listener";
    let address = one.address;
    match &one.outcome {
        Err(reason) => Finding::fail(
            check,
            format!("{address}: a login over it failed: {reason}"),
            "see the log; tunnelhead status",
        ),
        Ok(served) => {
            let end = Timestamp(served.not_after);
            let far = if served.verdict {
                "a login reaches its verdict"
            } else {
                "TLS works; it asks for a client certificate, so the login ends there"
            };
            let message = format!(
                "{address}: {far}; {}, certificate {} \"{}\" until {end}",
                served.tls, served.key, served.subject
            );
            if served.not_after <= now {
                let advice = "put a new certificate in place, then: tunnelhead reload";
                return Finding::fail(check, message, advice);
            }
            Finding::ok(check, message)
        }
    }
}

const DAY: u64 = 86_400;
const YEAR: u64 = 365 * DAY;
/// 2026-01-01: nobody runs this version earlier.
const BUILT_AFTER: u64 = 1_767_225_600;
/// A certificate with less left is worth a line.
const WARN_DAYS: u64 = 30;
/// Descriptors beside one a router.
const SPARE_DESCRIPTORS: u64 = 1024;
const MIN_FREE_BYTES: u64 = 512 << 20;
const MIN_FREE_INODES: u64 = 1000;

#[cfg(test)]
mod tests;
