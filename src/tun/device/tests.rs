//! Against the real kernel, in a network namespace of each test's own.

use std::fs::Permissions;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::sys::epoll::{Epoll, Event, Interest};
use crate::sys::netns::interface_exists;
use crate::sys::netns::testing::{become_nobody, drop_net_admin, root_test};
use crate::tun::{host_addresses, link_trouble, route_trouble};

const HOST: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);
const ROUTER: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 2);

fn config(queues: usize) -> TunConfig {
    TunConfig { name: "thtest0".to_owned(), queues, mtu: 1300 }
}

fn pool() -> Ipv4Net {
    "100.64.0.0/10".parse().unwrap()
}

/// The next packet of any queue, with the queue's number.
fn next(queues: &[DeviceQueue]) -> (usize, Vec<u8>) {
    let (epoll, mut events) = (Epoll::new().unwrap(), [Event::EMPTY; 1]);
    for (index, queue) in queues.iter().enumerate() {
        epoll.add(queue.as_fd(), u64::try_from(index).unwrap(), Interest::READ).unwrap();
    }
    assert_eq!(epoll.wait(&mut events, Some(Duration::from_secs(20))).unwrap(), 1, "no packet");
    let index = usize::try_from(events[0].token()).unwrap();
    let mut buf = vec![0; 2000];
    let length = queues[index].recv(&mut buf).unwrap();
    buf.truncate(length);
    (index, buf)
}

#[test]
fn a_configured_device_carries_packets_both_ways_from_the_management_address() {
    root_test("a_configured_device_carries_packets_both_ways", || {
        let device = Device::create(&config(4)).unwrap();
        assert_eq!(device.name(), "thtest0");
        assert_eq!(device.configure(HOST, pool()).unwrap(), Configured::default());
        assert_eq!(device.configure(HOST, pool()).unwrap(), Configured::default());
        let addresses = host_addresses().unwrap();
        assert!(addresses.iter().any(|(_, address)| *address == HOST));
        let queues = device.into_queues();

        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.send_to(b"question", (ROUTER, 161)).unwrap();
        // The first packet is ours: the kernel has sent nothing of IPv6 before it.
        let (index, mut packet) = next(&queues);
        assert_eq!(packet[0], 0x45);
        assert_eq!(packet[12..16], HOST.octets());
        assert_eq!(packet[16..20], ROUTER.octets());
        assert!(packet.ends_with(b"question"));

        // Swapping the ends leaves both checksums right.
        let (source, destination) = packet[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        let (from, to) = packet[20..24].split_at_mut(2);
        from.swap_with_slice(to);
        queues[index].send(&packet).unwrap();
        let mut buf = [0; 64];
        let (length, peer) = socket.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..length], peer), (&b"question"[..], (ROUTER, 161).into()));

        let empty = queues[0].recv(&mut buf).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        assert!(queues[0].send(&[0x55; 40]).is_err());
    });
}

#[test]
fn a_burst_for_thousands_of_routers_waits_in_the_kernel() {
    root_test("a_burst_for_thousands_of_routers_waits_in_the_kernel", || {
        let device = Device::create(&config(1)).unwrap();
        device.configure(HOST, pool()).unwrap();
        let queues = device.into_queues();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..4000 {
            socket.send_to(b"question", (ROUTER, 161)).unwrap();
        }
        let mut buf = [0; 2000];
        let read = std::iter::from_fn(|| queues[0].recv(&mut buf).ok()).count();
        assert_eq!(read, 4000);
    });
}

#[test]
fn a_link_that_somebody_takes_down_is_named() {
    root_test("a_link_that_somebody_takes_down_is_named", || {
        let device = Device::create(&config(1)).unwrap();
        assert!(link_trouble(device.name()).unwrap().contains("taken"));
        device.configure(HOST, pool()).unwrap();
        assert_eq!(link_trouble(device.name()), None);
        assert_eq!(route_trouble(device.name(), HOST, pool()), None);
        let gone = route_trouble(device.name(), HOST, "203.0.113.0/24".parse().unwrap()).unwrap();
        assert!(gone.contains("ip route add 203.0.113.0/24 dev thtest0"), "{gone}");
        assert!(link_trouble("absent").unwrap().contains("no interface absent"));
    });
}

#[test]
fn the_mtu_holds_and_flows_spread_over_the_queues() {
    root_test("the_mtu_holds_and_flows_spread_over_the_queues", || {
        let device = Device::create(&config(4)).unwrap();
        device.configure(HOST, pool()).unwrap();
        let queues = device.into_queues();
        let mut used = std::collections::BTreeSet::new();
        for port in 1..=32 {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", (ROUTER, port)).unwrap();
            used.insert(next(&queues).0);
        }
        assert!(used.len() > 1, "{used:?}");
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(&[7; 1400], (ROUTER, 9)).unwrap();
        let lengths = [next(&queues).1.len(), next(&queues).1.len()];
        assert!(lengths[0] <= 1300 && lengths[1] <= 1300, "{lengths:?}");
        assert_eq!(lengths[0] + lengths[1], 1400 + 8 + 2 * 20);
    });
}

#[test]
fn the_route_prefers_the_management_address_over_others_of_the_device() {
    root_test("the_route_prefers_the_management_address", || {
        let device = Device::create(&config(1)).unwrap();
        device.configure(Ipv4Addr::new(192, 0, 2, 9), pool()).unwrap();
        device.configure(HOST, pool()).unwrap();
        let queues = device.into_queues();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"x", (ROUTER, 9)).unwrap();
        assert_eq!(next(&queues).1[12..16], HOST.octets());
    });
}

#[test]
fn ipv6_is_off_where_the_kernel_has_it() {
    root_test("ipv6_is_off_where_the_kernel_has_it", || {
        let device = Device::create(&config(1)).unwrap();
        device.configure(HOST, pool()).unwrap();
        if let Ok(text) = std::fs::read("/proc/sys/net/ipv6/conf/thtest0/disable_ipv6") {
            assert_eq!(text, b"1\n");
        }
    });
}

#[test]
fn a_name_that_is_taken_is_refused_and_nothing_is_joined_or_left_behind() {
    root_test("a_name_that_is_taken_is_refused", || {
        let held = Device::create(&config(2)).unwrap();
        let again = Device::create(&config(2)).unwrap_err();
        assert!(matches!(&again, TunError::NameTaken { name } if name == "thtest0"), "{again}");
        assert!(again.to_string().contains("tun.name"));
        let other = TunConfig { name: "lo".to_owned(), ..config(1) };
        assert!(matches!(Device::create(&other), Err(TunError::NameTaken { .. })));
        drop(held);
        assert!(!interface_exists("thtest0"));
        drop(Device::create(&config(2)).unwrap());
    });
}

#[test]
fn configuring_inside_an_async_runtime_works_too() {
    root_test("configuring_inside_an_async_runtime_works_too", || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let device = Device::create(&config(1)).unwrap();
            device.configure(HOST, pool()).unwrap();
        });
    });
}

#[test]
fn somebody_elses_route_to_the_pool_is_not_taken_away() {
    root_test("somebody_elses_route_to_the_pool_is_not_taken_away", || {
        let theirs = TunConfig { name: "thother0".to_owned(), ..config(1) };
        let theirs = Device::create(&theirs).unwrap();
        theirs.configure(Ipv4Addr::new(192, 0, 2, 1), pool()).unwrap();
        let ours = Device::create(&config(1)).unwrap();
        let refused = ours.configure(HOST, pool()).unwrap_err();
        assert!(matches!(refused, TunError::RouteTaken { .. }), "{refused}");
        // Narrower or wider networks are no conflict.
        ours.configure(HOST, "100.64.0.0/11".parse().unwrap()).unwrap();
        drop(theirs);
        ours.configure(HOST, pool()).unwrap();
    });
}

#[test]
fn the_kernels_refusal_names_the_step() {
    root_test("the_kernels_refusal_names_the_step", || {
        let device = Device::create(&TunConfig { mtu: 10, ..config(1) }).unwrap();
        let refused = device.configure(HOST, pool()).unwrap_err().to_string();
        assert!(refused.starts_with("could not set the MTU for the device thtest0"), "{refused}");
    });
}

#[test]
fn a_permission_check_leaves_no_device() {
    root_test("a_permission_check_leaves_no_device", || {
        check_permission().unwrap();
        check_permission().unwrap();
        assert!((0..4).all(|n| !interface_exists(&format!("thcheck{n}"))));
    });
}

#[test]
fn each_missing_right_has_its_own_sentence() {
    let missing = check_permission_at(Path::new("/nonexistent/tun")).unwrap_err();
    assert!(
        matches!(missing, TunError::NoDriver { .. }) && missing.to_string().contains("modprobe")
    );
    root_test("no CAP_NET_ADMIN has its own sentence", || {
        drop_net_admin();
        let refused = check_permission().unwrap_err();
        assert!(matches!(refused, TunError::MayNotCreate), "{refused}");
        assert!(refused.to_string().contains("CAP_NET_ADMIN"));
        assert!(matches!(Device::create(&config(1)), Err(TunError::MayNotCreate)));
    });
    root_test("no right to configure has its own sentence", || {
        let device = Device::create(&config(1)).unwrap();
        drop_net_admin();
        let refused = device.configure(HOST, pool()).unwrap_err();
        assert!(matches!(refused, TunError::MayNotCreate), "{refused}");
    });
    root_test("a node that may not be opened has its own sentence", || {
        let node = tempfile::NamedTempFile::new().unwrap();
        node.as_file().set_permissions(Permissions::from_mode(0o000)).unwrap();
        become_nobody();
        let refused = check_permission_at(node.path()).unwrap_err();
        assert!(matches!(refused, TunError::MayNotOpen { .. }), "{refused}");
    });
}

#[test]
fn names_and_queue_counts_are_checked_before_anything_is_made() {
    let too_long = "x".repeat(16);
    for name in ["", ".", "..", "all", "default", "a/b", "a b", "th%d", "ä", too_long.as_str()] {
        let bad = TunConfig { name: name.to_owned(), ..config(1) };
        assert!(matches!(Device::create(&bad), Err(TunError::BadName { .. })), "{name:?}");
    }
    for queues in [0, 257] {
        assert!(matches!(Device::create(&config(queues)), Err(TunError::BadQueues { .. })));
    }
}
