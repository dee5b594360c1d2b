//! Inner packets and PROXY headers.

use std::net::Ipv4Addr;

use super::{Input, some_time};
use crate::net::ipv4::View;
use crate::net::isolation::{AllowedPort, Inbound, Policy, Proto, UdpFlows};
use crate::net::{icmp, proxy_protocol as proxy};

/// Nothing gets past the isolation rules with a foreign source or a foreign destination, and
/// nothing is longer than the packet it came in.
pub fn inner_ip(data: &[u8]) {
    let router = Ipv4Addr::new(100, 64, 9, 7);
    let gateway = Ipv4Addr::new(100, 64, 9, 1);
    let management = Ipv4Addr::new(100, 127, 255, 254);
    let policy = Policy::new(management, &[AllowedPort { proto: Proto::Udp, port: 514 }]);
    let mut flows = UdpFlows::new(16);
    let now = some_time();

    let mut input = Input(data);
    let patch = input.u8();
    let mut packet = input.rest().to_vec();
    patch_addresses(&mut packet, patch, router, if patch & 2 == 0 { management } else { gateway });

    let view = View::parse(&packet);
    if let Ok(view) = &view {
        assert!(view.total_length() <= packet.len());
        assert!(view.header_length() + view.payload().len() == view.total_length());
    }
    match policy.inbound(router, gateway, &packet, now, &flows) {
        Inbound::Drop(reason) => assert!(!reason.code().is_empty()),
        Inbound::ToHost { length } => {
            let Ok(view) = &view else { panic!("an unreadable packet goes to the host") };
            assert_eq!((view.source(), view.destination()), (router, management));
            assert_eq!(length, view.total_length());
        }
        Inbound::EchoReply { length } => {
            let mut reply = packet.clone();
            reply.truncate(length);
            // False checksums and header options get no answer.
            if !icmp::echo_reply_in_place(&mut reply) {
                return;
            }
            let Ok(view) = View::parse(&reply) else { panic!("our reply is unreadable") };
            assert_eq!((view.source(), view.destination()), (gateway, router));
            assert_eq!(reply.len(), length);
        }
    }
    if let Ok(to) = policy.outbound(&packet, now, &mut flows) {
        let Ok(view) = &view else { panic!("an unreadable packet goes to a router") };
        assert_eq!((view.source(), view.destination()), (management, to));
    }
    let _ = icmp::echo_reply_in_place(&mut packet);
}

/// Most inputs would end at the first check; some get the right addresses.
fn patch_addresses(packet: &mut [u8], patch: u8, source: Ipv4Addr, destination: Ipv4Addr) {
    if patch & 1 == 0 {
        return;
    }
    if let Some(first) = packet.first_mut() {
        *first = 0x45;
    }
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    for (at, bytes) in [
        (2, length.to_be_bytes().as_slice()),
        (12, source.octets().as_slice()),
        (16, destination.octets().as_slice()),
    ] {
        if let Some(field) = packet.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }
}

/// A PROXY header is read once it is whole, from a prefix of the stream, and never before.
pub fn proxy_protocol(data: &[u8]) {
    match proxy::parse(data) {
        Ok(Some((header, consumed))) => {
            assert!((1..=data.len()).contains(&consumed));
            let (alone, before) = data.split_at(consumed);
            assert!(!alone.is_empty() && before.len() + consumed == data.len());
            assert_eq!(proxy::parse(alone), Ok(Some((header, consumed))), "what follows counts");
            for cut in 0..consumed {
                let prefix = data.get(..cut).unwrap_or_default();
                assert_eq!(proxy::parse(prefix), Ok(None), "decided after {cut} bytes");
            }
        }
        Ok(None) => assert!(data.len() < 1024, "waits for more than a header can hold"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
