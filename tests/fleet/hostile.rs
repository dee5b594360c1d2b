//! Routers that have logged in and then misbehave.

use std::net::{Ipv4Addr, SocketAddrV4};

use tunnelhead::config::{Allow, Protocol};
use tunnelhead::testing::fleet::{Command, Fleet, inner};
use tunnelhead::testing::profiles;

use crate::head::{Head, SOON};
use crate::support::eventually;

const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);
const SYN: u8 = 0x02;

#[test]
fn packets_that_may_not_pass_are_dropped_and_counted_and_telemetry_arrives() {
    let head = Head::start_with(|config| {
        config.allow = vec![Allow { protocol: Protocol::Udp, port: 514 }];
    });
    let fleet = Fleet::start().expect("a fleet");
    let id = fleet.add(head.member("router", profiles::p3()));
    let other = fleet.add(head.member("other", profiles::p4b()));
    fleet.wait_all_up(SOON);
    let own = fleet.view(id).address.expect("an address");
    let others = fleet.view(other).address.expect("an address");

    let at = SocketAddrV4::new;
    let forbidden = [
        // Another router, by ping and by name of its own address.
        inner::echo_request(own, others, 1, 1, 56),
        inner::echo_request(others, MANAGEMENT, 1, 1, 56),
        // The host's services, another host port, and the internet.
        inner::tcp(at(own, 4000), at(MANAGEMENT, 22), SYN, b""),
        inner::udp(at(own, 4000), at(MANAGEMENT, 53), 1, 64),
        inner::echo_request(own, Ipv4Addr::new(192, 0, 2, 1), 1, 1, 56),
        inner::tcp(at(own, 4000), at(Ipv4Addr::new(192, 0, 2, 1), 443), SYN, b""),
        // What is no IPv4 packet.
        [&[0x60], [0; 47].as_slice()].concat(),
        vec![0x45; 19],
    ];
    let count = forbidden.len() as u64;
    for packet in forbidden {
        fleet.tell(id, Command::Packet(packet));
    }
    fleet.tell(id, Command::Datagrams { count: 50, payload: 600, port: 514 });
    let seen = head.host.wait_for(own, "telemetry", SOON, |seen| seen.datagrams == 50);
    assert_eq!((seen.packets, seen.bytes), (50, 50 * 628));
    assert_eq!(head.host.view(others).packets, 0);
    assert_eq!(head.host.problems(), Vec::<String>::new());
    let tunnel = head.tunnel("router").expect("a tunnel");
    assert_eq!(tunnel.drops.values().sum::<u64>(), count, "{:?}", tunnel.drops);
    assert_eq!(tunnel.rx_packets, count + 50);
    assert_eq!(fleet.view(other).rx_packets, 0);
    assert!(fleet.view(id).up && fleet.view(other).up);
    fleet.expect_no_violations();
}

#[test]
fn a_stream_that_breaks_ends_one_tunnel_and_no_other() {
    let (head, fleet) = (Head::start(), Fleet::start().expect("a fleet"));
    let steady = fleet.add(head.member("steady", profiles::p3()));
    fleet.wait_all_up(SOON);
    // Data packets cut short and never sealed, a frame too long, an empty one, a second session.
    let reset = b"\x00\x0e\x38\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00";
    // One byte, a MAC, an IV and two blocks.
    let sealed_by_nobody = [&[0, 69, 0x30], [7; 68].as_slice()].concat();
    let cases: [(&[u8], &str); 5] = [
        (b"\x00\x02\x30\x07", "data_malformed"),
        (&sealed_by_nobody, "data_authentication"),
        (b"\xff\xff\x30", "bad_frame"),
        (b"\x00\x00", "bad_frame"),
        (reset, "second_session"),
    ];
    for (index, (bytes, reason)) in cases.into_iter().enumerate() {
        let before = head.counter(&format!("tunnel_closed_{reason}"));
        let id = fleet.add(head.member(&format!("router-{index}"), profiles::p3()));
        fleet.wait_for(id, "a tunnel", SOON, |view| view.up);
        fleet.tell(id, Command::Raw(bytes.to_vec()));
        fleet.wait_for(id, "an end", SOON, |view| view.closes == 1);
        head.wait_counter(&format!("tunnel_closed_{reason}"), before + 1);
    }
    eventually("one tunnel", SOON, || (head.tunnels().len() == 1).then_some(()));
    fleet.tell(steady, Command::PingBoth);
    let view =
        fleet.wait_for(steady, "answers", SOON, tunnelhead::testing::fleet::View::pings_answered);
    assert_eq!(view.closes, 0);
}
