//! A checked view of one IPv4 packet. Source: RFC 791.

use std::net::Ipv4Addr;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Shortest header, bytes.
pub const MIN_HEADER: usize = 20;

/// Why bytes are no IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPacket {
    /// Fewer bytes than a header has.
    #[error("shorter than an IPv4 header")]
    TooShort,
    /// Version 6.
    #[error("an IPv6 packet")]
    Ipv6,
    /// Any other version.
    #[error("neither IPv4 nor IPv6")]
    Version,
    /// The header claims less than 20 bytes or more than there are.
    #[error("the header length is a lie")]
    HeaderLength,
    /// The packet claims less than its header or more than there is.
    #[error("the total length is a lie")]
    TotalLength,
    /// The fragment would end beyond 65,535 bytes.
    #[error("the fragment ends beyond the largest packet")]
    FragmentEnd,
    /// An option does not fit its header.
    #[error("the header options are malformed")]
    Options,
}

/// A packet whose lengths have been checked; bytes after its total length are cut off.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    header: &'a [u8; MIN_HEADER],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// Checks version, header length, total length, the end of a fragment, and the shape of the
    /// options; not the checksum, which the receiving host checks.
    ///
    /// # Errors
    /// [`BadPacket`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadPacket> {
        match bytes.first().ok_or(BadPacket::TooShort)? >> 4 {
            4 => {}
            6 => return Err(BadPacket::Ipv6),
            _ => return Err(BadPacket::Version),
        }
        let (header, _) = bytes.split_first_chunk().ok_or(BadPacket::TooShort)?;
        let header_length = usize::from(header[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_length < MIN_HEADER || header_length > bytes.len() {
            return Err(BadPacket::HeaderLength);
        }
        if total < header_length {
            return Err(BadPacket::TotalLength);
        }
        let packet = bytes.get(..total).ok_or(BadPacket::TotalLength)?;
        let options = packet.get(MIN_HEADER..header_length).ok_or(BadPacket::HeaderLength)?;
        let payload = packet.get(header_length..).ok_or(BadPacket::TotalLength)?;
        let view = Self { header, options, payload };
        if usize::from(view.fragment_offset()) * 8 + payload.len() > 65_535 - header_length {
            return Err(BadPacket::FragmentEnd);
        }
        view.each_option(|_| {}).ok_or(BadPacket::Options)?;
        Ok(view)
    }

    /// Sender.
    pub fn source(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Receiver.
    pub fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Protocol of the payload.
    pub fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Remaining hops.
    pub fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// Header and payload, bytes: the packet without what may trail it.
    pub fn total_length(&self) -> usize {
        self.header_length() + self.payload.len()
    }

    /// Header with its options, bytes.
    pub fn header_length(&self) -> usize {
        MIN_HEADER + self.options.len()
    }

    /// Offset of this fragment, in units of 8 bytes; 0 for a whole packet and a first fragment.
    pub fn fragment_offset(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]]) & 0x1fff
    }

    /// More fragments follow.
    pub fn more_fragments(&self) -> bool {
        self.header[6] & 0x20 != 0
    }

    /// Part of a packet, first, middle or last.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments() || self.fragment_offset() != 0
    }

    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether the sender prescribes the packet's way (loose or strict source route).
    pub fn has_source_route(&self) -> bool {
        let mut found = false;
        let _ = self.each_option(|kind| found |= matches!(kind, 131 | 137));
        found
    }

    /// Visits the kind of each option; `None` if one does not fit.
    fn each_option(&self, mut visit: impl FnMut(u8)) -> Option<()> {
        let mut rest = self.options;
        while let Some((&kind, after)) = rest.split_first() {
            rest = match kind {
                0 => return Some(()),
                1 => after,
                _ => {
                    let length = usize::from(*after.first()?);
                    if length < 2 {
                        return None;
                    }
                    visit(kind);
                    rest.get(length..)?
                }
            };
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::testing::packet;

    const A: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 2);
    const B: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);

    #[test]
    fn reads_every_field_and_cuts_what_trails() {
        let mut bytes = packet(A, B, UDP, b"payload");
        bytes.extend(b"trailing");
        bytes[6..8].copy_from_slice(&0x2003u16.to_be_bytes());
        let view = View::parse(&bytes).unwrap();
        assert_eq!((view.source(), view.destination()), (A, B));
        assert_eq!((view.protocol(), view.ttl()), (UDP, 64));
        assert_eq!((view.fragment_offset(), view.more_fragments()), (3, true));
        assert_eq!((view.payload(), view.total_length()), (&b"payload"[..], 27));
        assert!(view.is_fragment() && !view.has_source_route());
    }

    #[test]
    fn refuses_every_lie_about_lengths() {
        let good = packet(A, B, UDP, b"payload");
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            View::parse(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(View::parse(&[]).unwrap_err(), BadPacket::TooShort);
        for length in 1..20 {
            assert_eq!(View::parse(&good[..length]).unwrap_err(), BadPacket::TooShort);
        }
        for length in 20..good.len() {
            assert_eq!(View::parse(&good[..length]).unwrap_err(), BadPacket::TotalLength);
        }
        assert_eq!(with(0, 0x44), BadPacket::HeaderLength);
        assert_eq!(with(0, 0x4f), BadPacket::HeaderLength);
        assert_eq!(with(0, 0x65), BadPacket::Ipv6);
        assert_eq!(with(0, 0x55), BadPacket::Version);
        assert_eq!(with(3, 19), BadPacket::TotalLength);
        assert_eq!(with(3, 28), BadPacket::TotalLength);
        assert_eq!(with(2, 0xff), BadPacket::TotalLength);
    }

    #[test]
    fn refuses_a_fragment_beyond_the_end_and_malformed_options() {
        let mut bytes = packet(A, B, ICMP, &[0; 24]);
        bytes[6..8].copy_from_slice(&0x1fffu16.to_be_bytes());
        assert_eq!(View::parse(&bytes).unwrap_err(), BadPacket::FragmentEnd);

        let with_options = |options: [u8; 4]| {
            let mut bytes = packet(A, B, ICMP, &options);
            bytes[0] = 0x46;
            View::parse(&bytes).map(|view| (view.has_source_route(), view.payload().len()))
        };
        assert_eq!(with_options([131, 3, 4, 0]), Ok((true, 0)));
        assert_eq!(with_options([1, 137, 3, 4]), Ok((true, 0)));
        assert_eq!(with_options([0, 131, 3, 4]), Ok((false, 0)));
        assert_eq!(with_options([7, 4, 4, 4]), Ok((false, 0)));
        for bad in [[131, 0, 0, 0], [131, 1, 0, 0], [131, 5, 0, 0], [1, 1, 1, 131]] {
            assert_eq!(with_options(bad), Err(BadPacket::Options));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer_and_a_view_lies_inside_them(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120), fix: bool
        ) {
            if fix && bytes.len() > 4 {
                bytes[0] = 0x40 | (bytes[0] & 15);
                bytes[2] = 0;
            }
            if let Ok(view) = View::parse(&bytes) {
                prop_assert!(view.total_length() <= bytes.len());
                prop_assert!(view.header_length() >= MIN_HEADER);
                prop_assert!(bytes.ends_with(view.payload()) || view.total_length() < bytes.len());
            }
        }
    }
}
