//! Which network a stranger comes from: the unit that budgets and back-off are counted by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The /24 of an IPv4 address or the /56 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourcePrefix {
    /// The first three bytes.
    V4([u8; 3]),
    /// The first seven bytes.
    V6([u8; 7]),
}

/// The network of `address`; an IPv4-mapped IPv6 address counts as the IPv4 address it is.
pub fn source_prefix(address: IpAddr) -> SourcePrefix {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            SourcePrefix::V4([a, b, c])
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, ..] = address.octets();
            SourcePrefix::V6([a, b, c, d, e, f, g])
        }
    }
}

impl fmt::Display for SourcePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4([a, b, c]) => write!(f, "{}/24", Ipv4Addr::new(a, b, c, 0)),
            Self::V6([a, b, c, d, e, p, g]) => {
                let octets = [a, b, c, d, e, p, g, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                write!(f, "{}/56", Ipv6Addr::from(octets))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        source_prefix(text.parse().unwrap()).to_string()
    }

    #[test]
    fn neighbours_share_a_prefix_and_strangers_do_not() {
        assert_eq!(of("192.0.2.1"), "192.0.2.0/24");
        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1:2ff::1"), "2001:db8:1:200::/56");
        assert_eq!(of("2001:db8:1:200::"), of("2001:db8:1:2ff:ffff::1"));
        assert_ne!(of("2001:db8:1:200::"), of("2001:db8:1:300::"));
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        assert_eq!(of("::ffff:192.0.2.9"), of("192.0.2.1"));
    }
}
