//! ICMP: the answer to an echo request. Source: RFC 792.

use super::checksum;
use super::ipv4::{self, View};

/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type of "destination unreachable", "fragmentation needed" included.
pub const UNREACHABLE: u8 = 3;
/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type of "time exceeded".
pub const TIME_EXCEEDED: u8 = 11;

/// ICMP header, bytes.
pub const HEADER: usize = 8;

const REPLY_TTL: u8 = 64;

/// Whether the packet is a whole echo request (its checksums not looked at).
pub fn is_echo_request(view: &View<'_>) -> bool {
    view.protocol() == ipv4::ICMP
        && !view.is_fragment()
        && view.payload().len() >= HEADER
        && view.payload().starts_with(&[ECHO_REQUEST, 0])
}

/// Turns an echo request into its reply: addresses swapped, a fresh hop count, checksums right.
/// False, with the packet untouched, if it is not a whole echo request with right checksums.
/// Bytes after the packet's total length stay as they are.
pub fn echo_reply_in_place(packet: &mut [u8]) -> bool {
    let Ok(view) = View::parse(packet) else { return false };
    let (header_length, total) = (view.header_length(), view.total_length());
    if !is_echo_request(&view) || !checksum::verifies(view.payload()) {
        return false;
    }
    // Strangers' options (a recorded route, a time stamp) are not something to send back.
    if header_length != ipv4::MIN_HEADER {
        return false;
    }
    let Some((header, message)) =
        packet.get_mut(..total).and_then(|p| p.split_at_mut_checked(header_length))
    else {
        return false;
    };
    if !checksum::verifies(header) {
        return false;
    }
    let [_, _, _, _, _, _, _, _, ttl, _, sum_high, sum_low, addresses @ ..] = header else {
        return false;
    };
    *ttl = REPLY_TTL;
    (*sum_high, *sum_low) = (0, 0);
    if let Some((source, destination)) = addresses.split_at_mut_checked(4) {
        source.swap_with_slice(destination);
    }
    let field = checksum::checksum(header);
    if let Some(slot) = header.get_mut(10..12) {
        slot.copy_from_slice(&field.to_be_bytes());
    }
    if let [kind, _, sum_high, sum_low, ..] = message {
        *kind = ECHO_REPLY;
        let old = u16::from_be_bytes([*sum_high, *sum_low]);
        let request = u16::from_be_bytes([ECHO_REQUEST, 0]);
        [*sum_high, *sum_low] = checksum::update(old, request, 0).to_be_bytes();
    }
    true
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::net::testing::{icmp, packet, seal_header};

    const ROUTER: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 2);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 1);

    fn untouched(bytes: &[u8]) {
        let mut copy = bytes.to_vec();
        assert!(!echo_reply_in_place(&mut copy));
        assert_eq!(copy, bytes);
    }

    #[test]
    fn refuses_everything_that_is_no_whole_right_echo_request() {
        let good = packet(ROUTER, GATEWAY, ipv4::ICMP, &icmp(ECHO_REQUEST, 0, b"data"));
        for kind in [ECHO_REPLY, UNREACHABLE, TIME_EXCEEDED, 5, 13] {
            untouched(&packet(ROUTER, GATEWAY, ipv4::ICMP, &icmp(kind, 0, b"data")));
        }
        untouched(&packet(ROUTER, GATEWAY, ipv4::ICMP, &icmp(ECHO_REQUEST, 1, b"data")));
        untouched(&packet(ROUTER, GATEWAY, ipv4::UDP, &icmp(ECHO_REQUEST, 0, b"data")));
        untouched(&packet(ROUTER, GATEWAY, ipv4::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0]));
        untouched(&[]);
        let changed = |at: usize, value: u8, seal: bool| {
            let mut bytes = good.clone();
            bytes[at] = value;
            if seal {
                seal_header(&mut bytes);
            }
            untouched(&bytes);
        };
        changed(6, 0x20, true);
        changed(7, 0x03, true);
        changed(8, 63, false);
        changed(30, 0xee, false);
        let mut options = packet(ROUTER, GATEWAY, ipv4::ICMP, &[1, 1, 1, 0]);
        options.extend(icmp(ECHO_REQUEST, 0, b"data"));
        options[0] = 0x46;
        options[3] = 36;
        seal_header(&mut options);
        untouched(&options);
    }

    proptest! {
        #[test]
        fn a_reply_has_swapped_addresses_the_same_body_and_right_checksums(
            body in prop::collection::vec(any::<u8>(), 0..1500), trailing in 0usize..8
        ) {
            let request = packet(ROUTER, GATEWAY, ipv4::ICMP, &icmp(ECHO_REQUEST, 0, &body));
            let mut reply = request.clone();
            reply.resize(request.len() + trailing, 0xaa);
            prop_assert!(echo_reply_in_place(&mut reply));
            let view = View::parse(&reply).unwrap();
            prop_assert_eq!((view.source(), view.destination()), (GATEWAY, ROUTER));
            prop_assert_eq!(view.ttl(), REPLY_TTL);
            prop_assert!(checksum::verifies(&reply[..20]) && checksum::verifies(view.payload()));
            prop_assert_eq!(view.payload()[0], ECHO_REPLY);
            prop_assert_eq!(&view.payload()[4..], &request[24..]);
        }

        #[test]
        fn any_bytes_are_answered_or_left_alone(
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut copy = bytes.clone();
            if !echo_reply_in_place(&mut copy) {
                prop_assert_eq!(copy, bytes);
            }
        }
    }
}
