//! The rules between keys.

use std::net::{IpAddr, Ipv4Addr};

use super::error::Problem;
use super::{CertificatePolicy, Config, LocalAddress};

const BLOCK_PREFIX: u8 = 24;

/// What cannot work. `local` are the addresses of this host.
pub(super) fn problems(config: &Config, local: &[LocalAddress], out: &mut Vec<Problem>) {
    let mut problem = |key: &str, message: String| {
        out.push(Problem { key: key.to_owned(), message });
    };
    if config.listeners.is_empty() {
        problem("listen", "must name at least one address".to_owned());
    }
    for (index, one) in config.listeners.iter().enumerate() {
        let clash =
            |other: &&super::Listener| other.address == one.address && one.address.port() != 0;
        if config.listeners.iter().take(index).any(|other| clash(&other)) {
            problem("listener", format!("{} stands here twice; remove one", one.address));
        }
        if one.client_certificate != CertificatePolicy::No && config.tls.client_ca.is_none() {
            problem(
                "tls.client_ca",
                format!("is missing; the listener {} asks for client certificates", one.address),
            );
        }
    }
    let checks_nobody = !config.tls.certificates.is_empty() && config.tls.client_ca.is_none();
    if !config.tls.crl.is_empty() && checks_nobody {
        problem("tls.client_ca", "is missing; tls.crl is checked against it".to_owned());
    }
    if config.keepalive.ping >= config.keepalive.restart {
        problem(
            "keepalive.restart",
            format!(
                "{}s must be longer than keepalive.ping, which is {}s",
                config.keepalive.restart.as_secs(),
                config.keepalive.ping.as_secs()
            ),
        );
    }
    if !(1280..=1500).contains(&config.tun.mtu) {
        problem(
            "tun.mtu",
            format!("{} is not possible; write a value from 1280 to 1500", config.tun.mtu),
        );
    }
    if config.authenticator.endpoint.is_some()
        && config.authenticator.timeout >= config.limits.login_deadline
    {
        problem(
            "authenticator.timeout",
            format!(
                "{}s must be shorter than limits.login_deadline, which is {}s",
                config.authenticator.timeout.as_secs(),
                config.limits.login_deadline.as_secs()
            ),
        );
    }
    if config.authenticator.endpoint.is_none() && config.authenticator.secret.is_some() {
        problem("authenticator.url", "is missing; secret_file needs it".to_owned());
    }
    if config.data.ciphers.is_empty() {
        problem("data.ciphers", "must name at least one cipher".to_owned());
    }
    if let Some(shards) = config.threads.shards
        && !shards.is_power_of_two()
    {
        problem(
            "threads.shards",
            format!("{shards} is not a power of two; write 1, 2, 4, 8, ... or 0"),
        );
    }
    if config.limits.unauthenticated_per_source > config.limits.unauthenticated {
        problem(
            "limits.unauthenticated_per_source",
            "must not be more than limits.unauthenticated".to_owned(),
        );
    }
    if config.limits.login_bytes > config.limits.login_bytes_total {
        problem("limits.login_bytes", "must not be more than limits.login_bytes_total".to_owned());
    }
    if config.limits.queue_bytes > config.limits.queue_bytes_total {
        problem("limits.queue_bytes", "must not be more than limits.queue_bytes_total".to_owned());
    }
    if config.control.read_only_socket.as_ref() == Some(&config.control_socket) {
        problem("control.read_only_socket", "is control_socket; use another path".to_owned());
    }
    pool(config, out);
    management(config, local, out);
}

fn pool(config: &Config, out: &mut Vec<Problem>) {
    let mut problem = |key: &str, message: String| {
        out.push(Problem { key: key.to_owned(), message });
    };
    let network = config.pool.network;
    if network.prefix_len() > BLOCK_PREFIX {
        problem("pool.network", format!("{network} is too small; the pool needs at least a /24"));
        return;
    }
    if network.prefix_len() < 8 {
        problem("pool.network", format!("{network} is too large; the pool has at most a /8"));
        return;
    }
    let first = network.network();
    if !unicast(first) || !unicast(network.broadcast()) {
        problem(
            "pool.network",
            format!("{network} cannot be given to routers; use private addresses"),
        );
    }
    let mut outside = false;
    for excluded in &config.pool.excluded {
        if !network.contains(excluded) {
            outside = true;
            problem("pool.excluded", format!("{excluded} lies outside pool.network; remove it"));
        }
    }
    if !outside && !has_room(config) {
        problem("pool.excluded", "leaves no address for routers; exclude less".to_owned());
    }
}

/// Walks the blocks that are not covered by an exclusion of a whole block or more.
fn has_room(config: &Config) -> bool {
    let network = config.pool.network;
    let mut at = u32::from(network.network());
    let end = u32::from(network.broadcast());
    loop {
        let address = Ipv4Addr::from(at);
        let covering = config
            .pool
            .excluded
            .iter()
            .filter(|net| net.prefix_len() <= BLOCK_PREFIX && net.contains(&address))
            .map(|net| u32::from(net.broadcast()))
            .max();
        let block_end = at | 0xff;
        let management = u32::from(config.management_address);
        let last = match covering {
            Some(last) => last,
            None if (at..=block_end).contains(&management) => block_end,
            None => return true,
        };
        if last >= end {
            return false;
        }
        at = last.saturating_add(1);
    }
}

fn management(config: &Config, local: &[LocalAddress], out: &mut Vec<Problem>) {
    let address = config.management_address;
    let mut problem = |message: String| {
        out.push(Problem { key: "management_address".to_owned(), message });
    };
    if !unicast(address) {
        problem(format!("{address} cannot be the address of a host; use a free unicast address"));
        return;
    }
    let network = config.pool.network;
    if address == network.network() || address == network.broadcast() {
        problem(format!("{address} is an end of pool.network {network}; use another one of it"));
    }
    let ip = IpAddr::V4(address);
    let why = "routers get a route to it through the tunnel, which would then carry itself";
    if let Some(listener) = config.listeners.iter().find(|one| folded(one.address.ip()) == ip) {
        problem(format!(
            "{address} is the address of the listener {}: {why}; use an address that nobody dials",
            listener.address
        ));
    }
    if config.public_host.as_deref().and_then(|host| host.parse().ok()).map(folded) == Some(ip) {
        problem(format!("{address} is public_host: {why}; use an address that nobody dials"));
    }
    if config.public_addresses.iter().any(|public| folded(*public) == ip) {
        problem(format!(
            "{address} is one of public_addresses: {why}; use an address that nobody dials"
        ));
    }
    // Our own device has it while we run.
    let own = |local: &&LocalAddress| local.interface != config.tun.name;
    if let Some(clash) = local.iter().filter(own).find(|one| folded(one.address) == ip) {
        problem(format!(
            "{address} is the address of the interface {}; use an address that no interface has",
            clash.interface.escape_default()
        ));
    }
}

/// What is allowed but probably not meant.
pub(super) fn warnings(config: &Config, local: &[LocalAddress], out: &mut Vec<Problem>) {
    let mut warning = |key: &str, message: String| {
        out.push(Problem { key: key.to_owned(), message });
    };
    if config.router_host(None).1 {
        warning(
            "public_host",
            "is not set; scripts will name the source address of the default route, which is \
             wrong behind NAT or a load balancer"
                .to_owned(),
        );
    }
    for one in local.iter().filter(|one| one.interface != config.tun.name) {
        if let IpAddr::V4(address) = one.address
            && config.pool.network.contains(&address)
            && !config.pool.excluded.iter().any(|net| net.contains(&address))
        {
            warning(
                "pool.network",
                format!(
                    "{address} of the interface {} lies in the pool and may be given to a router; \
                     add its network to pool.excluded",
                    one.interface.escape_default()
                ),
            );
        }
    }
    if config.listeners.iter().any(|one| one.legacy) {
        warning(
            "listener.legacy",
            "accepts TLS 1.0 and 1.1; keep it for old routers on a port of its own".to_owned(),
        );
    }
}

fn unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    !(first == 0
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || first >= 240)
}

fn folded(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
