//! What the client makes of a push reply: is it allowed, and can this client live with it?

use std::net::Ipv4Addr;

use super::config::Quirks;
use crate::proto::control::{PeerInfo, iv_proto};
use crate::proto::negotiate::{MAX_PUSH, ParsedPush};

/// Options that our server may push to anybody.
const ALWAYS: [&str; 6] =
    ["route-gateway", "topology", "ifconfig", "ping", "ping-restart", "route"];
/// Routes with which some routers never finish.
const MANY_ROUTES: usize = 32;

/// What a client does with a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Goes on.
    Fine,
    /// Waits for the next part.
    Partial,
    /// Never goes on.
    Stall,
    /// Gives up.
    GiveUp(&'static str),
}

/// A sentence for each option that this client must not have been sent.
pub(super) fn violations(push: &ParsedPush, text_len: usize, peer_info: &PeerInfo) -> Vec<String> {
    let mut found = Vec::new();
    if text_len + 1 >= MAX_PUSH {
        found.push(format!("a push reply of {text_len} bytes"));
    }
    for name in &push.names {
        let announced = match name.as_str() {
            "cipher" => peer_info.negotiates(),
            "peer-id" => peer_info.supports(iv_proto::DATA_V2),
            "protocol-flags" => peer_info.supports(iv_proto::CC_EXIT_NOTIFY),
            "key-derivation" => {
                peer_info.supports(iv_proto::TLS_KEY_EXPORT)
                    && !peer_info.supports(iv_proto::CC_EXIT_NOTIFY)
            }
            "tun-mtu" => push.tun_mtu.is_some_and(|mtu| peer_info.iv_mtu() >= Some(u32::from(mtu))),
            other => ALWAYS.contains(&other),
        };
        if !announced {
            found.push(format!("{name} was pushed and not announced or not allowed"));
        }
    }
    for flag in &push.flags {
        let announced = match flag.as_str() {
            "tls-ekm" => peer_info.supports(iv_proto::TLS_KEY_EXPORT),
            "dyn-tls-crypt" => peer_info.supports(iv_proto::DYN_TLS_CRYPT),
            _ => false,
        };
        if !announced {
            found.push(format!("protocol flag {flag} was pushed and not announced or not allowed"));
        }
    }
    if push.topology.as_deref() != Some("subnet") && push.continuation != Some(2) {
        found.push("the topology is not subnet".to_owned());
    }
    if push.ifconfig.is_none() && push.continuation != Some(2) {
        found.push("no ifconfig was pushed".to_owned());
    }
    found
}

/// How a client with these quirks takes the reply.
pub(super) fn read(push: &ParsedPush, quirks: Quirks) -> Reading {
    if push.continuation.is_some() && quirks.no_continuation {
        return Reading::GiveUp("wrong OVPN data");
    }
    if push.continuation == Some(2) {
        return Reading::Partial;
    }
    if push.routes.len() > MANY_ROUTES && quirks.stalls_on_routes {
        return Reading::Stall;
    }
    match push.ifconfig {
        None => Reading::GiveUp("no address was pushed"),
        Some((_, mask)) if quirks.ifconfig_is_netmask && !is_netmask(mask) => {
            Reading::GiveUp("the pushed netmask is none")
        }
        Some(_) => Reading::Fine,
    }
}

/// True for ones followed by zeros, at least one of each kind or all ones.
fn is_netmask(mask: Ipv4Addr) -> bool {
    let bits = mask.to_bits();
    bits != 0 && bits.leading_ones() + bits.trailing_zeros() >= 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::negotiate::push_parse;

    const BASE: &str = "topology subnet,ifconfig 100.64.7.9 255.255.255.0";

    fn found(options: &str, peer_info: &str) -> usize {
        let push = push_parse(&format!("{BASE}{options}")).unwrap();
        violations(&push, 300, &PeerInfo::parse(peer_info)).len()
    }

    #[test]
    fn only_what_was_announced_may_be_pushed() {
        for (options, without, with) in [
            (",cipher AES-256-GCM", "IV_PROTO=2", "IV_NCP=2"),
            (",peer-id 0", "IV_NCP=2", "IV_PROTO=2"),
            (",protocol-flags tls-ekm", "IV_PROTO=2", "IV_PROTO=136"),
            (",protocol-flags dyn-tls-crypt", "IV_PROTO=136", "IV_PROTO=640"),
            (",key-derivation tls-ekm", "IV_PROTO=2", "IV_PROTO=8"),
            (",tun-mtu 1500", "IV_PROTO=2", "IV_MTU=1500"),
            (",tun-mtu 1500", "IV_MTU=1400", "IV_MTU=1600"),
        ] {
            assert_ne!(found(options, without), 0, "{options} {without}");
            assert_eq!(found(options, with), 0, "{options} {with}");
        }
        assert_eq!(found(",ping 1,ping-restart 2,route-gateway 1.1.1.1,route 1.1.1.1", ""), 0);
        for never in [",protocol-flags cc-exit", ",dhcp-option DNS 1.1.1.1", ",comp-lzo no"] {
            assert_eq!(found(never, "IV_PROTO=990"), 1, "{never}");
        }
    }

    #[test]
    fn a_reply_needs_address_and_subnet_topology_and_a_bounded_length() {
        let push = push_parse("topology net30").unwrap();
        assert_eq!(violations(&push, 300, &PeerInfo::default()).len(), 2);
        let push = push_parse(BASE).unwrap();
        assert_eq!(violations(&push, 1022, &PeerInfo::default()).len(), 0);
        assert_eq!(violations(&push, 1023, &PeerInfo::default()).len(), 1);
    }

    #[test]
    fn routers_stumble_where_they_do() {
        let router = Quirks {
            ifconfig_is_netmask: true,
            no_continuation: true,
            stalls_on_routes: true,
            ..Quirks::default()
        };
        let stock = Quirks::default();
        let routes = ",route 1.1.1.1".repeat(33);
        for (options, quirky) in [
            (format!("{BASE},push-continuation 1"), Reading::GiveUp("wrong OVPN data")),
            (format!("{BASE}{routes}"), Reading::Stall),
            ("ifconfig 10.8.0.6 10.8.0.5".into(), Reading::GiveUp("the pushed netmask is none")),
            (BASE.into(), Reading::Fine),
        ] {
            let push = push_parse(&options).unwrap();
            assert_eq!(read(&push, router), quirky, "{options}");
            assert_eq!(read(&push, stock), Reading::Fine, "{options}");
        }
        let part = push_parse("ping 1,push-continuation 2").unwrap();
        assert_eq!(read(&part, stock), Reading::Partial);
        let nothing = push_parse("ping 1").unwrap();
        assert_eq!(read(&nothing, stock), Reading::GiveUp("no address was pushed"));
    }

    #[test]
    fn netmasks_are_told_from_addresses() {
        for (mask, is) in [
            ("255.255.255.0", true),
            ("255.255.255.255", true),
            ("128.0.0.0", true),
            ("0.0.0.0", false),
            ("10.8.0.5", false),
            ("255.0.255.0", false),
        ] {
            assert_eq!(is_netmask(mask.parse().unwrap()), is, "{mask}");
        }
    }
}
