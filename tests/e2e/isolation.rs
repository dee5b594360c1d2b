//! What a router reaches, and everything that it does not.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::lab::{CONCENTRATOR, INTERNET_SERVER, Lab, Namespace, OTHER_HOST_ADDRESS, ready};
use crate::service::{GREETING, Service, greeting, no_greeting};
use crate::site::{MANAGEMENT, Router, expect_reachable};
use crate::tunnelhead_process::Tunnelhead;

#[test]
fn a_router_reaches_nothing_that_is_not_allowed() {
    if !ready("a_router_reaches_nothing_that_is_not_allowed") {
        return;
    }
    let lab = Lab::new(2);
    let head = Tunnelhead::start(&lab, "");
    let router = Router::connect(&lab, 0, head.add("branch-1", &[]).config());
    let other = Router::connect(&lab, 1, head.add("branch-2", &[]).config());
    let host_ssh = Service::start(&lab.concentrator, 22);
    let other_ssh = Service::start(other.namespace, 22);
    let internet_ssh = Service::start(&lab.internet, 22);

    // The services are there for those who may: over the outer network, and from the host.
    assert_eq!(greeting(router.namespace, CONCENTRATOR, 22).as_deref(), Some(GREETING));
    assert_eq!(greeting(&lab.concentrator, other.address, 22).as_deref(), Some(GREETING));
    assert_eq!(greeting(&lab.concentrator, INTERNET_SERVER, 22).as_deref(), Some(GREETING));
    let before = [&host_ssh, &other_ssh, &internet_ssh].map(Service::callers);

    // The router sends everything that is not its uplink into the tunnel.
    let device = tunnel_device(router.namespace);
    for network in ["100.64.0.0/10", "198.51.100.0/24", "192.0.2.0/24"] {
        router.namespace.ip(&format!("route replace {network} dev {device}"));
    }
    let targets = [
        MANAGEMENT,
        router.gateway,
        other.address,
        other.gateway,
        OTHER_HOST_ADDRESS,
        INTERNET_SERVER,
    ];
    std::thread::scope(|scope| {
        for target in targets {
            let namespace = router.namespace;
            scope.spawn(move || {
                assert!(no_greeting(namespace, target, 22), "ssh to {target}");
            });
        }
    });
    for target in [other.address, OTHER_HOST_ADDRESS, INTERNET_SERVER] {
        assert!(router.namespace.ping("-c 2 -i 0.1 -W 0.5", target).is_err(), "ping to {target}");
    }
    assert_eq!(before, [&host_ssh, &other_ssh, &internet_ssh].map(Service::callers));
    // Each refusal has its counter: to other addresses, to the gateway, to the management address.
    for (reason, least) in [("foreign_destination", 8), ("gateway_service", 1), ("tcp_open", 1)] {
        let count = head.drops("branch-1", reason);
        assert!(count >= least, "{reason}: {count} of {:?}", head.tunnel("branch-1"));
    }
    assert_eq!(head.drops("branch-2", "foreign"), 0, "{:?}", head.tunnel("branch-2"));

    // What is allowed still works, for both.
    for router in [&router, &other] {
        expect_reachable(&lab, router);
    }
}

#[test]
fn the_allow_list_opens_exactly_what_it_names() {
    if !ready("the_allow_list_opens_exactly_what_it_names") {
        return;
    }
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "[isolation]\nallow = [\"udp/514\", \"tcp/2222\"]");
    let router = Router::connect(&lab, 0, head.add("branch", &[]).config());
    let allowed = Service::start(&lab.concentrator, 2222);
    let forbidden = Service::start(&lab.concentrator, 514);
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let bind = |port| lab.concentrator.inside(|| UdpSocket::bind(any(port))).expect("a socket");
    let [syslog, wrong_number, wrong_protocol] = [514, 515, 2222].map(bind);
    syslog.set_read_timeout(Some(Duration::from_secs(10))).expect("a read timeout");
    let sender = router.namespace.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");

    assert_eq!(greeting(router.namespace, MANAGEMENT, 2222).as_deref(), Some(GREETING));
    assert!(no_greeting(router.namespace, MANAGEMENT, 514));
    assert_eq!((allowed.callers(), forbidden.callers()), (1, 0));

    // The tunnel keeps the order: when the last has arrived, the others will not any more.
    for (port, text) in [(515, "forbidden"), (2222, "forbidden"), (514, "allowed")] {
        sender.send_to(text.as_bytes(), (MANAGEMENT, port)).expect("a datagram");
    }
    let mut buffer = [0; 64];
    let (length, from) = syslog.recv_from(&mut buffer).expect("the allowed datagram");
    assert_eq!((&buffer[..length], from.ip()), (b"allowed".as_slice(), router.address.into()));
    for socket in [wrong_number, wrong_protocol] {
        socket.set_nonblocking(true).expect("non-blocking");
        let error = socket.recv(&mut buffer).expect_err("a forbidden datagram arrived");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn packets_with_a_foreign_source_are_dropped_and_counted() {
    if !ready("packets_with_a_foreign_source_are_dropped_and_counted") {
        return;
    }
    let lab = Lab::new(2);
    let head = Tunnelhead::start(&lab, "");
    let router = Router::connect(&lab, 0, head.add("branch-1", &[]).config());
    let other = Router::connect(&lab, 1, head.add("branch-2", &[]).config());
    // The host would know the way back to both: only the check of the source stops them.
    lab.concentrator.ip("route add 10.66.0.0/24 dev tunnelhead0");
    for (count, foreign) in [(3, Ipv4Addr::new(10, 66, 0, 1)), (6, other.address)] {
        router.namespace.ip(&format!("addr add {foreign}/32 dev lo"));
        let ping = router.namespace.ping(&format!("-c 3 -i 0.1 -W 0.5 -I {foreign}"), MANAGEMENT);
        assert!(ping.is_err(), "answers came for {foreign}");
        assert_eq!(
            head.drops("branch-1", "foreign_source"),
            count,
            "{:?}",
            head.tunnel("branch-1")
        );
        router.namespace.ip(&format!("addr del {foreign}/32 dev lo"));
    }
    assert_eq!(head.drops("branch-2", "foreign"), 0, "{:?}", head.tunnel("branch-2"));
    for router in [&router, &other] {
        expect_reachable(&lab, router);
    }
}

/// The name of a router's TUN device.
fn tunnel_device(namespace: &Namespace) -> String {
    let text = namespace.ip("-o link show type tun");
    let name = text.split(':').nth(1).expect("a TUN device");
    name.trim().to_owned()
}
