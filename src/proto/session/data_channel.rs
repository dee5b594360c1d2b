//! What is inside a data packet, and the two payloads that peers say to each other.

use crate::proto::wire::MAX_FRAME;

/// The keepalive payload. Source: OpenVPN ping.c `ping_string`.
pub(super) const PING: [u8; 16] = [
    0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb, 0x07, 0xed, 0x2d, 0x0a, 0x98, 0x1f, 0xc7, 0x48,
];

/// Begin of an OCC message. Source: OpenVPN occ.c `occ_magic`.
pub(super) const OCC: [u8; 16] = [
    0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81, 0x2d, 0x56, 0xb8, 0xd3, 0xaf, 0xc5, 0x45, 0x9c,
];

/// The OCC message by which a peer leaves. Source: OpenVPN occ.h `OCC_EXIT`.
pub(super) const OCC_EXIT: u8 = 6;

/// Bytes of the length field of a frame.
pub(super) const FRAME_PREFIX: usize = 2;

/// The kind of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// A packet for the network layer, which judges it.
    Packet,
    /// The peer's keepalive.
    Ping,
    /// The peer leaves.
    Exit,
    /// Another OCC message.
    Occ,
    /// A packet in compression framing, which was never agreed on.
    Compressed,
    /// Nothing.
    Empty,
}

/// Tells what a payload is. IPv4 is recognised first, since it is nearly all there is.
pub(super) fn classify(payload: &[u8]) -> Payload {
    match payload {
        [] => Payload::Empty,
        [0x40..=0x4f, ..] => Payload::Packet,
        [first, ..] if *first == PING[0] && payload == PING => Payload::Ping,
        [first, ..] if *first == OCC[0] && payload.starts_with(&OCC) => match payload.get(16) {
            Some(&OCC_EXIT) => Payload::Exit,
            _ => Payload::Occ,
        },
        // Source: OpenVPN comp.h and lzo.h: NO_COMPRESS 0xfa, NO_COMPRESS_SWAP 0xfb, V2 0x50.
        [0xfa | 0xfb | 0x50, ..] => Payload::Compressed,
        // LZO 0x66 and LZ4 0x69 look like IPv6 with a traffic class; a real one states its length.
        [0x66 | 0x69, ..] if !is_whole_ipv6(payload) => Payload::Compressed,
        _ => Payload::Packet,
    }
}

/// True if a sealed packet of this length fits into a frame.
pub(super) fn fits(sealed_len: usize) -> bool {
    sealed_len <= MAX_FRAME
}

fn is_whole_ipv6(packet: &[u8]) -> bool {
    match packet {
        [_, _, _, _, high, low, ..] => {
            usize::from(u16::from_be_bytes([*high, *low])) + 40 == packet.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_told_apart() {
        let mut exit = OCC.to_vec();
        exit.push(OCC_EXIT);
        let mut request = OCC.to_vec();
        request.push(0);
        let mut ipv6 = vec![0x66; 48];
        ipv6[4..6].copy_from_slice(&8_u16.to_be_bytes());
        let mut short_ping = PING.to_vec();
        short_ping.pop();
        for (payload, kind) in [
            (&[][..], Payload::Empty),
            (&PING, Payload::Ping),
            (&short_ping, Payload::Packet),
            (&exit, Payload::Exit),
            (&request, Payload::Occ),
            (&OCC, Payload::Occ),
            (&[0x45, 0, 0, 20], Payload::Packet),
            (&[0x60, 0, 0, 0, 0, 0], Payload::Packet),
            (&[0xfa, 0x45], Payload::Compressed),
            (&[0xfb, 0x45], Payload::Compressed),
            (&[0x50, 0, 0x45], Payload::Compressed),
            (&[0x66, 1, 2, 3], Payload::Compressed),
            (&[0x69, 1, 2, 3, 4, 5, 6], Payload::Compressed),
            (&ipv6, Payload::Packet),
        ] {
            assert_eq!(classify(payload), kind, "{payload:02x?}");
        }
    }
}
