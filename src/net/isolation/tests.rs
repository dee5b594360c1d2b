//! Each rule with what it lets through and what it refuses.

use proptest::prelude::*;

use super::*;
use crate::net::testing::{icmp as message, packet, start, tcp, udp};

const ROUTER: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 3);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);

fn policy() -> Policy {
    Policy::new(HOST, &["udp/514".parse().unwrap(), "tcp/601".parse().unwrap()])
}

fn judge_with(packet: &[u8], flows: &UdpFlows, now: Instant) -> Inbound {
    policy().inbound(ROUTER, GATEWAY, packet, now, flows)
}

fn judge(packet: &[u8]) -> Inbound {
    judge_with(packet, &UdpFlows::new(8), start())
}

#[track_caller]
fn passes(packet: &[u8]) {
    assert_eq!(judge(packet), Inbound::ToHost { length: packet.len() });
}

#[track_caller]
fn drops(packet: &[u8], reason: DropReason) {
    assert_eq!(judge(packet), Inbound::Drop(reason));
}

/// A packet of the router to the management address with the given fragment field.
fn fragment(protocol: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = packet(ROUTER, HOST, protocol, payload);
    let field = offset | if more { 0x2000 } else { 0 };
    bytes[6..8].copy_from_slice(&field.to_be_bytes());
    bytes
}

fn quoting(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    packet(from, to, ipv4::UDP, &udp(1, 2, b""))
}

#[test]
fn only_the_routers_own_address_may_send() {
    let ping = message(icmp::ECHO_REQUEST, 0, b"");
    passes(&packet(ROUTER, HOST, ipv4::ICMP, &ping));
    let forged = ["100.64.1.3", "100.64.1.1", "100.127.255.254", "127.0.0.1", "0.0.0.0"];
    for source in forged.iter().chain(&["224.0.0.1", "192.0.2.1", "255.255.255.255"]) {
        for to in [HOST, GATEWAY, OTHER] {
            let bytes = packet(source.parse().unwrap(), to, ipv4::ICMP, &ping);
            drops(&bytes, DropReason::ForeignSource);
        }
    }
    // Also when there is no transport header to look at.
    let mut late = fragment(ipv4::UDP, 8, false, b"data");
    late[12..16].copy_from_slice(&OTHER.octets());
    drops(&late, DropReason::ForeignSource);
}

#[test]
fn no_address_but_gateway_and_management_is_reachable() {
    let ping = message(icmp::ECHO_REQUEST, 0, b"");
    let elsewhere = ["100.64.1.3", "100.64.2.1", "100.64.1.255", "127.0.0.1", "192.0.2.1"];
    for to in elsewhere.iter().chain(&["169.254.169.254", "10.0.0.1", "0.0.0.0", "100.64.1.2"]) {
        let bytes = packet(ROUTER, to.parse().unwrap(), ipv4::ICMP, &ping);
        drops(&bytes, DropReason::ForeignDestination);
    }
    for to in ["224.0.0.1", "239.255.255.250", "255.255.255.255"] {
        let bytes = packet(ROUTER, to.parse().unwrap(), ipv4::UDP, &udp(514, 514, b""));
        drops(&bytes, DropReason::Multicast);
    }
    drops(&packet(ROUTER, OTHER, ipv4::UDP, &udp(514, 514, b"")), DropReason::ForeignDestination);
}

#[test]
fn the_gateway_answers_a_whole_echo_request_and_nothing_else() {
    let ping = packet(ROUTER, GATEWAY, ipv4::ICMP, &message(icmp::ECHO_REQUEST, 0, b"abc"));
    assert_eq!(judge(&ping), Inbound::EchoReply { length: ping.len() });
    let mut reply = ping.clone();
    assert!(icmp::echo_reply_in_place(&mut reply));
    for kind in [icmp::ECHO_REPLY, icmp::UNREACHABLE, icmp::TIME_EXCEEDED, 5, 13] {
        let bytes = packet(ROUTER, GATEWAY, ipv4::ICMP, &message(kind, 0, &quoting(HOST, ROUTER)));
        drops(&bytes, DropReason::GatewayService);
    }
    drops(&packet(ROUTER, GATEWAY, ipv4::UDP, &udp(9, 514, b"")), DropReason::GatewayService);
    drops(&packet(ROUTER, GATEWAY, ipv4::TCP, &tcp(9, 601, TCP_SYN)), DropReason::GatewayService);
    drops(&packet(ROUTER, GATEWAY, ipv4::ICMP, &[8, 0, 0]), DropReason::GatewayService);
    for field in [0x2000u16, 0x0003] {
        let mut part = ping.clone();
        part[6..8].copy_from_slice(&field.to_be_bytes());
        drops(&part, DropReason::GatewayService);
    }
}

#[test]
fn icmp_to_the_host_is_echo_and_errors_about_the_routers_own_flows() {
    let send = |kind: u8, body: &[u8]| packet(ROUTER, HOST, ipv4::ICMP, &message(kind, 0, body));
    passes(&send(icmp::ECHO_REQUEST, b"x"));
    passes(&send(icmp::ECHO_REPLY, b"x"));
    for kind in [icmp::UNREACHABLE, icmp::TIME_EXCEEDED] {
        passes(&send(kind, &quoting(HOST, ROUTER)));
        for (from, to) in [(HOST, OTHER), (ROUTER, HOST), (OTHER, ROUTER)] {
            drops(&send(kind, &quoting(from, to)), DropReason::IcmpForeign);
        }
        drops(&send(kind, &quoting(HOST, ROUTER)[..27]), DropReason::IcmpForeign);
        drops(&send(kind, b""), DropReason::IcmpForeign);
    }
    for kind in [1, 2, 4, 5, 9, 10, 12, 13, 14, 15, 17, 18, 30, 42, 255] {
        drops(&send(kind, &quoting(HOST, ROUTER)), DropReason::IcmpType);
    }
    drops(&packet(ROUTER, HOST, ipv4::ICMP, &[8, 0, 0, 0, 0, 0, 0]), DropReason::TransportHeader);
}

#[test]
fn a_router_opens_tcp_only_to_an_allowed_port() {
    const FIN: u8 = 0x01;
    const RST: u8 = 0x04;
    const PSH: u8 = 0x08;
    let send = |port: u16, flags: u8| packet(ROUTER, HOST, ipv4::TCP, &tcp(4000, port, flags));
    for flags in [TCP_SYN, TCP_SYN | FIN, TCP_SYN | RST, TCP_SYN | PSH, 0xc0 | TCP_SYN] {
        drops(&send(22, flags), DropReason::TcpOpen);
        drops(&send(514, flags), DropReason::TcpOpen);
        passes(&send(601, flags));
    }
    for flags in [TCP_SYN | TCP_ACK, TCP_ACK, TCP_ACK | PSH, TCP_ACK | FIN, RST, RST | TCP_ACK] {
        passes(&send(22, flags));
    }
    let mut short = tcp(4000, 22, TCP_ACK);
    short[12] = 0x40;
    drops(&packet(ROUTER, HOST, ipv4::TCP, &short), DropReason::TransportHeader);
    short[12] = 0x60;
    drops(&packet(ROUTER, HOST, ipv4::TCP, &short), DropReason::TransportHeader);
    let cut = &tcp(4000, 601, TCP_ACK)[..19];
    drops(&packet(ROUTER, HOST, ipv4::TCP, cut), DropReason::TransportHeader);
}

#[test]
fn udp_needs_an_allowed_port_or_a_flow_of_the_host() {
    let send = |from: u16, to: u16| packet(ROUTER, HOST, ipv4::UDP, &udp(from, to, b"data"));
    passes(&send(9, 514));
    drops(&send(9, 601), DropReason::UdpUnsolicited);
    drops(&send(161, 4000), DropReason::UdpUnsolicited);

    let (mut flows, t0) = (UdpFlows::new(8), start());
    let query = packet(HOST, ROUTER, ipv4::UDP, &udp(4000, 161, b"get"));
    assert_eq!(policy().outbound(&query, t0, &mut flows), Ok(ROUTER));
    let reply = send(161, 4000);
    let passed = Inbound::ToHost { length: reply.len() };
    assert_eq!(judge_with(&reply, &flows, t0), passed);
    for (from, to) in [(162, 4000), (161, 4001), (4000, 161)] {
        let refused = judge_with(&send(from, to), &flows, t0);
        assert_eq!(refused, Inbound::Drop(DropReason::UdpUnsolicited));
    }
    // Another router can't answer in its place.
    let stolen = packet(OTHER, HOST, ipv4::UDP, &udp(161, 4000, b"data"));
    let refused = policy().inbound(OTHER, GATEWAY, &stolen, t0, &flows);
    assert_eq!(refused, Inbound::Drop(DropReason::UdpUnsolicited));

    // Replies do not keep the door open; the host's own packets do.
    let late = t0 + FLOW_AGE - std::time::Duration::from_millis(1);
    assert_eq!(judge_with(&reply, &flows, late), passed);
    let refused = judge_with(&reply, &flows, t0 + FLOW_AGE);
    assert_eq!(refused, Inbound::Drop(DropReason::UdpUnsolicited));
    policy().outbound(&query, late, &mut flows).unwrap();
    assert_eq!(judge_with(&reply, &flows, t0 + FLOW_AGE), passed);
    flows.expire(late + FLOW_AGE);
    assert!(flows.is_empty());
}

#[test]
fn udp_lengths_that_contradict_the_packet_are_refused() {
    let with = |length: u16| {
        let mut datagram = udp(9, 514, b"data");
        datagram[4..6].copy_from_slice(&length.to_be_bytes());
        packet(ROUTER, HOST, ipv4::UDP, &datagram)
    };
    passes(&with(12));
    passes(&with(8));
    drops(&with(7), DropReason::TransportHeader);
    drops(&with(13), DropReason::TransportHeader);
    drops(&packet(ROUTER, HOST, ipv4::UDP, &[0; 7]), DropReason::TransportHeader);
}

#[test]
fn the_table_of_flows_is_bounded_and_counts_what_it_forgets() {
    let (mut flows, t0) = (UdpFlows::new(2), start());
    for port in 1..=3 {
        let query = packet(HOST, ROUTER, ipv4::UDP, &udp(port, 161, b""));
        policy().outbound(&query, t0, &mut flows).unwrap();
    }
    assert_eq!((flows.len(), flows.evicted()), (2, 1));
    assert!(!flows.is_reply(t0, ROUTER, 161, 1) && flows.is_reply(t0, ROUTER, 161, 3));
    assert_eq!(UdpFlows::default().len(), 0);
}

#[test]
fn a_first_fragment_shows_its_whole_header_and_is_judged_by_it() {
    passes(&fragment(ipv4::UDP, 0, true, &udp(9, 514, &[0; 16])));
    drops(&fragment(ipv4::UDP, 0, true, &udp(9, 22, &[0; 16])), DropReason::UdpUnsolicited);
    drops(&fragment(ipv4::TCP, 0, true, &tcp(9, 22, TCP_SYN)), DropReason::TcpOpen);
    passes(&fragment(ipv4::TCP, 0, true, &tcp(9, 22, TCP_ACK)));
    // Of a datagram in pieces the first piece is shorter than the datagram.
    let mut long = udp(9, 514, &[0; 16]);
    long[4..6].copy_from_slice(&2000u16.to_be_bytes());
    passes(&fragment(ipv4::UDP, 0, true, &long));
    // Tiny first fragments.
    drops(&fragment(ipv4::TCP, 0, true, &tcp(9, 22, TCP_ACK)[..8]), DropReason::Fragment);
    drops(&fragment(ipv4::TCP, 0, true, &tcp(9, 22, TCP_ACK)[..16]), DropReason::Fragment);
    drops(&fragment(ipv4::UDP, 0, true, &[]), DropReason::Fragment);
    drops(&fragment(ipv4::ICMP, 0, true, &[8, 0, 0, 0]), DropReason::Fragment);
    let mut options = tcp(9, 22, TCP_ACK);
    options[12] = 0xf0;
    drops(&fragment(ipv4::TCP, 0, true, &options), DropReason::Fragment);
    // Errors do not come in pieces: a later piece could change what they quote.
    let error = message(icmp::UNREACHABLE, 0, &quoting(HOST, ROUTER));
    drops(&fragment(ipv4::ICMP, 0, true, &error), DropReason::Fragment);
    passes(&fragment(ipv4::ICMP, 0, true, &message(icmp::ECHO_REQUEST, 0, &[0; 16])));
}

#[test]
fn later_fragments_pass_only_behind_the_header_that_was_judged() {
    for protocol in [ipv4::ICMP, ipv4::TCP, ipv4::UDP] {
        for offset in [1, 2] {
            drops(&fragment(protocol, offset, false, &[0; 8]), DropReason::Fragment);
            drops(&fragment(protocol, offset, true, &[0; 1400]), DropReason::Fragment);
        }
        passes(&fragment(protocol, 3, false, &[0; 8]));
        passes(&fragment(protocol, 185, true, &[0; 1480]));
    }
    drops(&fragment(ipv4::UDP, 0x1fff, false, &[0; 100]), DropReason::Fragment);
    drops(&fragment(47, 3, false, &[0; 8]), DropReason::Protocol);
    let mut to_gateway = fragment(ipv4::ICMP, 3, false, &[0; 8]);
    to_gateway[16..20].copy_from_slice(&GATEWAY.octets());
    drops(&to_gateway, DropReason::GatewayService);
}

#[test]
fn other_protocols_versions_and_lies_are_dropped() {
    for protocol in [0, 2, 4, 41, 47, 50, 89, 132, 136, 255] {
        drops(&packet(ROUTER, HOST, protocol, &udp(9, 514, b"")), DropReason::Protocol);
    }
    let mut v6 = packet(ROUTER, HOST, ipv4::UDP, &udp(9, 514, b"data"));
    v6[0] = 0x60;
    drops(&v6, DropReason::Ipv6);
    let good = packet(ROUTER, HOST, ipv4::UDP, &udp(9, 514, b"data"));
    drops(&[], DropReason::Malformed);
    for length in 1..good.len() {
        drops(&good[..length], DropReason::Malformed);
    }
    for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x05), (3, 19), (3, 33), (2, 1)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        drops(&bytes, DropReason::Malformed);
    }
    let mut routed = packet(ROUTER, HOST, ipv4::ICMP, &[131, 4, 4, 0]);
    routed.extend(message(icmp::ECHO_REQUEST, 0, b""));
    routed[0] = 0x46;
    routed[3] = 32;
    drops(&routed, DropReason::SourceRoute);
}

#[test]
fn bytes_behind_the_packet_do_not_reach_the_host() {
    let mut bytes = packet(ROUTER, HOST, ipv4::UDP, &udp(9, 514, b"data"));
    let length = bytes.len();
    bytes.extend([0xaa; 9]);
    assert_eq!(judge(&bytes), Inbound::ToHost { length });
}

#[test]
fn the_host_sends_only_from_its_management_address() {
    let (mut flows, t0) = (UdpFlows::new(8), start());
    let mut send = |bytes: &[u8]| policy().outbound(bytes, t0, &mut flows);
    let ping = message(icmp::ECHO_REQUEST, 0, b"");
    assert_eq!(send(&packet(HOST, ROUTER, ipv4::ICMP, &ping)), Ok(ROUTER));
    assert_eq!(send(&packet(HOST, OTHER, ipv4::TCP, &tcp(1, 22, TCP_SYN))), Ok(OTHER));
    for source in ["192.0.2.1", "100.64.1.2", "127.0.0.1"] {
        let bytes = packet(source.parse().unwrap(), ROUTER, ipv4::UDP, &udp(1, 2, b""));
        assert_eq!(send(&bytes), Err(DropReason::HostSource));
    }
    for to in ["224.0.0.22", "239.255.255.250", "255.255.255.255"] {
        let bytes = packet(HOST, to.parse().unwrap(), ipv4::UDP, &udp(1, 2, b""));
        assert_eq!(send(&bytes), Err(DropReason::Multicast));
    }
    assert_eq!(send(&[0x60; 48]), Err(DropReason::Ipv6));
    assert_eq!(send(&[0x45; 12]), Err(DropReason::Malformed));
    assert_eq!(send(&packet(HOST, ROUTER, ipv4::UDP, &[1, 2])), Ok(ROUTER));
    assert!(flows.is_empty(), "a dropped or cut datagram opens nothing");
}

#[test]
fn a_first_fragment_of_the_host_opens_a_flow_and_a_later_one_does_not() {
    let (mut flows, t0) = (UdpFlows::new(8), start());
    let mut bytes = packet(HOST, ROUTER, ipv4::UDP, &udp(4000, 161, &[0; 16]));
    bytes[7] = 3;
    policy().outbound(&bytes, t0, &mut flows).unwrap();
    assert!(flows.is_empty());
    bytes[6..8].copy_from_slice(&[0x20, 0]);
    policy().outbound(&bytes, t0, &mut flows).unwrap();
    assert!(flows.is_reply(t0, ROUTER, 161, 4000));
}

#[test]
fn allowed_ports_are_written_like_udp_514() {
    let port: AllowedPort = "udp/514".parse().unwrap();
    assert_eq!(port, AllowedPort { proto: Proto::Udp, port: 514 });
    assert_eq!("tcp/65535".parse::<AllowedPort>().unwrap().to_string(), "tcp/65535");
    for bad in ["", "udp", "udp/", "udp/0", "udp/65536", "udp/+5", "UDP/5", "icmp/8", "udp/5 "] {
        assert_eq!(bad.parse::<AllowedPort>(), Err(BadAllowedPort), "{bad}");
    }
}

#[test]
fn every_reason_has_a_counter_and_a_code_of_its_own() {
    let mut counters = Counters::default();
    for reason in DropReason::ALL {
        counters.note_inbound(Inbound::Drop(*reason));
        assert_eq!(counters.dropped(*reason), 1);
    }
    let codes: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.code()).collect();
    assert_eq!(codes.len(), DropReason::ALL.len());
    let mut twice = counters.clone();
    twice += &counters;
    assert_eq!(twice.total(), 2 * counters.total());
}

proptest! {
    #[test]
    fn counters_add_up_and_nothing_foreign_reaches_the_host(
        packets in prop::collection::vec(
            (
                prop::sample::select(vec![ROUTER, OTHER, GATEWAY, HOST]),
                prop::sample::select(vec![ROUTER, OTHER, GATEWAY, HOST, Ipv4Addr::BROADCAST]),
                prop::sample::select(vec![1u8, 6, 17, 47]),
                prop::collection::vec(any::<u8>(), 0..60),
                prop::sample::select(vec![0u16, 0, 0, 0x2000, 1, 2, 3, 0x2003, 0x1fff]),
                prop::option::of((0usize..24, any::<u8>())),
                any::<bool>(),
            ),
            1..40,
        )
    ) {
        let (mut counters, mut flows, t0) = (Counters::default(), UdpFlows::new(4), start());
        let total = u64::try_from(packets.len()).unwrap();
        for (from, to, protocol, payload, field, flip, from_host) in packets {
            let mut bytes = packet(from, to, protocol, &payload);
            bytes[6..8].copy_from_slice(&field.to_be_bytes());
            if let Some((at, value)) = flip
                && let Some(byte) = bytes.get_mut(at)
            {
                *byte = value;
            }
            if from_host {
                counters.note_outbound(policy().outbound(&bytes, t0, &mut flows));
                continue;
            }
            let outcome = judge_with(&bytes, &flows, t0);
            counters.note_inbound(outcome);
            if let Inbound::ToHost { length } = outcome {
                prop_assert!(length <= bytes.len() && bytes[0] >> 4 == 4);
                prop_assert_eq!(&bytes[12..16], &ROUTER.octets());
                prop_assert_eq!(&bytes[16..20], &HOST.octets());
            }
        }
        prop_assert_eq!(counters.total(), total);
    }
}
