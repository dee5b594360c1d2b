//! Packets inside the tunnel: built and checked without a network stack.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::net::checksum;
use crate::net::icmp;
use crate::net::ipv4::{self, View};

/// Bytes of an IPv4 header without options.
const IP_HEADER: usize = 20;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// A datagram's payload begins with its number.
const NUMBER: usize = 8;

/// What a packet is, as far as the fleet cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An echo request.
    EchoRequest,
    /// The answer to an echo request, whose payload is as it was sent.
    EchoReply {
        /// Its identifier.
        id: u16,
        /// Its sequence number.
        sequence: u16,
    },
    /// A datagram made by [`udp`], undamaged.
    Datagram {
        /// Its number.
        number: u64,
        /// Bytes of its payload.
        payload: usize,
    },
    /// Something else.
    Other,
}

/// A packet that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its source.
    pub source: Ipv4Addr,
    /// Its destination.
    pub destination: Ipv4Addr,
    /// What it is.
    pub kind: Kind,
}

/// Reads a packet.
///
/// # Errors
/// A sentence, if it is no IPv4 packet, a checksum is wrong, or a payload was changed on its way.
pub fn read(packet: &[u8]) -> Result<Seen, String> {
    let view = View::parse(packet).map_err(|error| format!("{error:?}: {packet:02x?}"))?;
    let (source, destination) = (view.source(), view.destination());
    let seen = |kind| Ok(Seen { source, destination, kind });
    let header = packet.get(..view.header_length()).unwrap_or_default();
    if !checksum::verifies(header) {
        return Err(format!("a false header checksum from {source}"));
    }
    let body = view.payload();
    match view.protocol() {
        ipv4::ICMP if !view.is_fragment() => {
            if !checksum::verifies(body) {
                return Err(format!("a false ICMP checksum from {source}"));
            }
            match body {
                [icmp::ECHO_REQUEST, 0, ..] => seen(Kind::EchoRequest),
                [icmp::ECHO_REPLY, 0, _, _, id0, id1, seq0, seq1, payload @ ..] => {
                    let id = u16::from_be_bytes([*id0, *id1]);
                    let sequence = u16::from_be_bytes([*seq0, *seq1]);
                    if payload.iter().any(|byte| *byte != filling(u64::from(sequence))) {
                        return Err(format!("the payload of echo {sequence} was changed"));
                    }
                    seen(Kind::EchoReply { id, sequence })
                }
                _ => seen(Kind::Other),
            }
        }
        ipv4::UDP if !view.is_fragment() => match body.get(UDP_HEADER..).unwrap_or_default() {
            payload if payload.len() >= NUMBER => {
                let (number, rest) = payload.split_at(NUMBER);
                let number = u64::from_be_bytes(number.try_into().unwrap_or_default());
                if rest.iter().any(|byte| *byte != filling(number)) {
                    return Err(format!("the payload of datagram {number} was changed"));
                }
                seen(Kind::Datagram { number, payload: payload.len() })
            }
            _ => seen(Kind::Other),
        },
        _ => seen(Kind::Other),
    }
}

/// An echo request with `payload` bytes behind its header.
pub fn echo_request(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    id: u16,
    sequence: u16,
    payload: usize,
) -> Vec<u8> {
    let mut body = vec![icmp::ECHO_REQUEST, 0, 0, 0];
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(&sequence.to_be_bytes());
    body.resize(icmp::HEADER + payload, filling(u64::from(sequence)));
    let field = checksum::checksum(&body);
    put(&mut body, 2, field);
    ip_packet(ipv4::ICMP, source, destination, &body)
}

/// A UDP datagram whose payload, at least 8 bytes, begins with `number`.
pub fn udp(
    source: SocketAddrV4,
    destination: SocketAddrV4,
    number: u64,
    payload: usize,
) -> Vec<u8> {
    let payload = datagram_payload(number, payload);
    let length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX);
    let mut body = Vec::with_capacity(UDP_HEADER + payload.len());
    for field in [source.port(), destination.port(), length, 0] {
        body.extend_from_slice(&field.to_be_bytes());
    }
    // A checksum of zero is "none", which IPv4 allows.
    body.extend_from_slice(&payload);
    ip_packet(ipv4::UDP, *source.ip(), *destination.ip(), &body)
}

/// The payload of a datagram that [`read`] recognises.
pub fn datagram_payload(number: u64, length: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(length.max(NUMBER), filling(number));
    payload
}

/// A TCP packet without options; `flags` are those of the header's 14th byte.
pub fn tcp(source: SocketAddrV4, destination: SocketAddrV4, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&source.port().to_be_bytes());
    body.extend_from_slice(&destination.port().to_be_bytes());
    body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    body.extend_from_slice(payload);
    ip_packet(ipv4::TCP, *source.ip(), *destination.ip(), &body)
}

fn ip_packet(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(IP_HEADER + body.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let field = checksum::checksum(&packet);
    put(&mut packet, 10, field);
    packet.extend_from_slice(body);
    packet
}

fn put(bytes: &mut [u8], at: usize, field: u16) {
    if let Some(slot) = bytes.get_mut(at..at + 2) {
        slot.copy_from_slice(&field.to_be_bytes());
    }
}

/// The byte that fills the payload of a numbered packet.
fn filling(number: u64) -> u8 {
    number.to_le_bytes().first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(100, 64, 9, 7);
    const B: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);

    #[test]
    fn an_echo_and_its_reply_are_recognised() {
        let mut packet = echo_request(A, B, 7, 300, 56);
        assert_eq!(packet.len(), 84);
        assert_eq!(read(&packet), Ok(Seen { source: A, destination: B, kind: Kind::EchoRequest }));
        assert!(icmp::echo_reply_in_place(&mut packet));
        let kind = Kind::EchoReply { id: 7, sequence: 300 };
        assert_eq!(read(&packet), Ok(Seen { source: B, destination: A, kind }));
    }

    #[test]
    fn damage_is_seen() {
        let (from, to) = (SocketAddrV4::new(A, 9), SocketAddrV4::new(B, 514));
        let good = udp(from, to, 5, 100);
        let kind = Kind::Datagram { number: 5, payload: 100 };
        assert_eq!(read(&good).map(|seen| seen.kind), Ok(kind));
        for at in [12, 60] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "byte {at}");
        }
        let mut bad = echo_request(A, B, 7, 300, 56);
        bad[40] ^= 1;
        assert!(read(&bad).is_err());
        assert!(read(&[]).is_err());
    }

    #[test]
    fn tcp_is_something_else() {
        let (from, to) = (SocketAddrV4::new(A, 9), SocketAddrV4::new(B, 22));
        assert_eq!(read(&tcp(from, to, 2, b"")).map(|seen| seen.kind), Ok(Kind::Other));
    }
}
