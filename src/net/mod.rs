//! Packet helpers and the rules of the packet path. Pure: no sockets, no clock, no threads; every
//! byte they see may come from a hostile peer.

pub mod admission;
pub mod aged;
pub mod checksum;
pub mod flow_queue;
pub mod icmp;
pub mod ipv4;
pub mod isolation;
pub mod prefix;
pub mod proxy_protocol;
pub mod route_table;

#[cfg(test)]
pub(crate) mod testing {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use super::checksum::checksum;

    /// Some moment to count from.
    #[expect(clippy::disallowed_methods, reason = "an Instant can't be made in any other way")]
    pub(crate) fn start() -> Instant {
        Instant::now()
    }

    /// A well-formed IPv4 packet.
    pub(crate) fn packet(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(payload);
        let total = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        seal_header(&mut packet);
        packet
    }

    /// Writes the header checksum again after a test has changed the header.
    pub(crate) fn seal_header(packet: &mut [u8]) {
        let length = usize::from(packet[0] & 15) * 4;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..length]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// An ICMP message with a right checksum.
    pub(crate) fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0, 0x12, 0x34, 0, 1];
        message.extend(body);
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    /// A UDP datagram without checksum.
    pub(crate) fn udp(from: u16, to: u16, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + body.len()).unwrap();
        let mut datagram = Vec::new();
        for field in [from, to, length, 0] {
            datagram.extend(field.to_be_bytes());
        }
        datagram.extend(body);
        datagram
    }

    /// A TCP segment with the given flags and no checksum.
    pub(crate) fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(from.to_be_bytes());
        segment.extend(to.to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment
    }
}
