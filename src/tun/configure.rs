//! The device's addresses, route and link state, through rtnetlink.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::pin;

use futures_util::stream::{Stream, StreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::TunError;
use crate::sys::netns::{interface_index, interface_is_up, interface_name};

/// Packets that wait for one queue of the device. When thousands of routers are answered at once
/// the kernel makes more packets than its default of 500 before a shard gets to read.
const RING_PACKETS: u32 = 4096;

/// What [`super::Device::configure`] could not do but can live without, a sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// For the log.
    pub warnings: Vec<String>,
}

pub(super) fn configure(
    name: &str,
    mtu: u16,
    management: Ipv4Addr,
    pool: Ipv4Net,
) -> Result<Configured, TunError> {
    let failed = |step: &'static str| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => TunError::MayNotCreate,
            _ => TunError::Failed { name: name.to_owned(), step, source },
        }
    };
    let index = interface_index(name)
        .ok_or_else(|| failed("find the interface")(io::ErrorKind::NotFound.into()))?;
    // Before the link is up, so that the kernel never sends anything of IPv6 into the tunnels.
    let warnings = disable_ipv6(name).err().into_iter().collect();
    let steps = async |handle: Handle| {
        let link = LinkUnspec::new_with_index(index)
            .mtu(u32::from(mtu))
            .append_extra_attribute(LinkAttribute::TxQueueLen(RING_PACKETS))
            .build();
        let mtu_set = handle.link().set(link).execute().await;
        mtu_set.map_err(os_error).map_err(failed("set the MTU"))?;

        let address = handle.address().add(index, IpAddr::V4(management), 32).replace();
        let added = address.execute().await;
        added.map_err(os_error).map_err(failed("add the management address"))?;

        let link = LinkUnspec::new_with_index(index).up().build();
        let up = handle.link().set(link).execute().await;
        up.map_err(os_error).map_err(failed("bring the link up"))?;

        let (existing, step) = (other_route(&handle, pool, index).await, "read the routes");
        if existing.map_err(failed(step))? {
            return Err(TunError::RouteTaken { pool });
        }
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(pool.network(), pool.prefix_len())
            .output_interface(index)
            .pref_source(management)
            .scope(RouteScope::Link)
            .build();
        let routed = handle.route().add(route).replace().execute().await;
        routed.map_err(os_error).map_err(failed("route the pool"))
    };
    with_netlink(steps).map_err(failed("talk to the kernel"))??;
    Ok(Configured { warnings })
}

/// Packets of the host that the kernel could not queue for us, since the device was made. `None`
/// if there is no such device.
pub fn ring_drops(name: &str) -> Option<u64> {
    let file = Path::new("/sys/class/net").join(name).join("statistics/tx_dropped");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What keeps packets from a device that we have made, in one sentence; `None` if nothing does.
pub fn link_trouble(name: &str) -> Option<String> {
    match interface_is_up(name) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "another program has taken {name} down; restart the concentrator, which brings it up \
             with its route"
        )),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Some(format!(
            "there is no interface {name} any more: it was renamed or moved; restart the \
             concentrator"
        )),
        // A descriptor short is no news of the device.
        Err(_) => None,
    }
}

/// Why packets of the host for the pool don't leave through our device, in one sentence; `None` if
/// they do. The kernel takes the route away with the link, and does not bring it back with it.
pub fn route_trouble(name: &str, management: Ipv4Addr, pool: Ipv4Net) -> Option<String> {
    let probe = Ipv4Addr::from_bits(pool.network().to_bits() | 1);
    // Connecting a datagram socket sends nothing; it asks the routing table.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let source = socket.connect((probe, 9)).and_then(|()| socket.local_addr());
    if source.is_ok_and(|source| source.ip() == IpAddr::V4(management)) {
        return None;
    }
    Some(format!(
        "the route to {pool} through {name} is gone; restart the concentrator, or add it: \
         ip route add {pool} dev {name} src {management}"
    ))
}

/// Index and MTU of an interface, from the kernel and not from a `/sys` that may belong to another
/// network namespace. `None` if there is no such interface.
pub fn index_and_mtu(name: &str) -> Option<(u32, u32)> {
    let asked = with_netlink(async |handle: Handle| {
        let mut answers = pin!(handle.link().get().match_name(name.to_owned()).execute());
        let link = next(&mut answers).await.ok()??;
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Some((link.header.index, mtu?))
    });
    asked.ok().flatten()
}

/// Every address of this host, each with the name of its interface.
///
/// # Errors
/// The kernel can't be asked.
pub fn host_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    with_netlink(async |handle: Handle| {
        let mut found = Vec::new();
        let mut answers = pin!(handle.address().get().execute());
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(os_error)?;
            let interface = interface_name(answer.header.index).unwrap_or_default();
            let attributes = answer.attributes;
            // On a point-to-point link only IFA_LOCAL is ours, IFA_ADDRESS is the peer's.
            let local = attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let own = attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            found.extend(local.or(own).map(|address| (interface, address)));
        }
        Ok(found)
    })?
}

/// Whether a route to exactly this network leads to another interface. Replacing would take it
/// from whoever made it.
async fn other_route(handle: &Handle, pool: Ipv4Net, index: u32) -> io::Result<bool> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut answers = pin!(handle.route().get(all).execute());
    let mut found = false;
    while let Some(route) = next(&mut answers).await? {
        found |= is_other(&route, pool, index);
    }
    Ok(found)
}

fn is_other(route: &RouteMessage, pool: Ipv4Net, index: u32) -> bool {
    const MAIN_TABLE: u8 = 254;
    let has = |wanted: &RouteAttribute| route.attributes.contains(wanted);
    let priority =
        route.attributes.iter().any(|a| matches!(a, RouteAttribute::Priority(p) if *p != 0));
    route.header.table == MAIN_TABLE
        && route.header.destination_prefix_length == pool.prefix_len()
        && has(&RouteAttribute::Destination(RouteAddress::Inet(pool.network())))
        && !has(&RouteAttribute::Oif(index))
        // One with a larger metric yields to ours by itself.
        && !priority
}

async fn next<T>(
    answers: &mut (impl Stream<Item = Result<T, rtnetlink::Error>> + Unpin),
) -> io::Result<Option<T>> {
    answers.next().await.transpose().map_err(os_error)
}

/// Runs `work` against the kernel's routing socket in the caller's network namespace.
///
/// On a thread of its own, because a runtime can't be started inside another; a new thread is in
/// the namespace of the one that makes it.
fn with_netlink<T: Send, F: Future<Output = T>>(
    work: impl FnOnce(Handle) -> F + Send,
) -> io::Result<T> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _events) = rtnetlink::new_connection()?;
            // Ends with the runtime.
            let _driver = tokio::spawn(connection);
            Ok(work(handle).await)
        })
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netlink".to_owned());
        match thread.spawn_scoped(scope, run)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn os_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// The warning, if the host has IPv6 and does not let us switch it off.
fn disable_ipv6(name: &str) -> Result<(), String> {
    let folder = Path::new("/proc/sys/net/ipv6/conf").join(name);
    if !folder.exists() {
        return Ok(());
    }
    std::fs::write(folder.join("disable_ipv6"), "1").map_err(|error| {
        format!("IPv6 stays on for {name} ({error}); its packets are dropped and counted")
    })
}
