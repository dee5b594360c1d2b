//! Reading a push reply, for the client role.

use std::net::Ipv4Addr;

use thiserror::Error;

/// Most options of one reply that are read.
const MAX_OPTIONS: usize = 512;

/// A pushed route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedRoute {
    /// The destination.
    pub network: Ipv4Addr,
    /// Its mask; a host route if none was sent.
    pub netmask: Ipv4Addr,
}

/// A push reply as the client reads it. Options that it does not know are only named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedPush {
    /// The name of every option, in order, known or not.
    pub names: Vec<String>,
    /// `ifconfig`: the client's address, and a netmask (topology subnet) or a peer address.
    pub ifconfig: Option<(Ipv4Addr, Ipv4Addr)>,
    /// `topology`.
    pub topology: Option<String>,
    /// `route-gateway`.
    pub route_gateway: Option<Ipv4Addr>,
    /// `route`.
    pub routes: Vec<PushedRoute>,
    /// `ping`, seconds.
    pub ping: Option<u32>,
    /// `ping-restart`, seconds.
    pub ping_restart: Option<u32>,
    /// `peer-id`, 24 bits.
    pub peer_id: Option<u32>,
    /// `cipher`.
    pub cipher: Option<String>,
    /// The words of `protocol-flags` and `key-derivation`.
    pub flags: Vec<String>,
    /// `tun-mtu`, bytes.
    pub tun_mtu: Option<u16>,
    /// `push-continuation`: 2 if more follows, 1 in the last part.
    pub continuation: Option<u8>,
}

impl ParsedPush {
    /// True if data keys come from the TLS exporter.
    pub fn key_export(&self) -> bool {
        self.flag("tls-ekm")
    }

    /// True if renegotiations are wrapped with a dynamic key.
    pub fn dyn_tls_crypt(&self) -> bool {
        self.flag("dyn-tls-crypt")
    }

    /// Adds a later part of a split reply; its single-valued options win.
    pub fn merge(&mut self, later: Self) {
        self.names.extend(later.names);
        self.routes.extend(later.routes);
        self.flags.extend(later.flags);
        self.ifconfig = later.ifconfig.or(self.ifconfig);
        self.topology = later.topology.or_else(|| self.topology.take());
        self.route_gateway = later.route_gateway.or(self.route_gateway);
        self.ping = later.ping.or(self.ping);
        self.ping_restart = later.ping_restart.or(self.ping_restart);
        self.peer_id = later.peer_id.or(self.peer_id);
        self.cipher = later.cipher.or_else(|| self.cipher.take());
        self.tun_mtu = later.tun_mtu.or(self.tun_mtu);
        self.continuation = later.continuation;
    }

    fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }
}

/// A pushed option that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PushError {
    /// A known option with a missing or malformed value.
    #[error("pushed option \"{0}\" is malformed")]
    Malformed(String),
    /// More options than any server pushes.
    #[error("too many pushed options")]
    TooMany,
}

/// Reads a push reply, with or without the leading `PUSH_REPLY`.
///
/// # Errors
/// [`PushError`] names the first bad option.
pub fn push_parse(text: &str) -> Result<ParsedPush, PushError> {
    let text = text.strip_prefix("PUSH_REPLY").unwrap_or(text);
    let mut push = ParsedPush::default();
    for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        if push.names.len() >= MAX_OPTIONS {
            return Err(PushError::TooMany);
        }
        apply(&mut push, option).ok_or_else(|| PushError::Malformed(option.to_owned()))?;
    }
    Ok(push)
}

/// `None`: malformed.
fn apply(push: &mut ParsedPush, option: &str) -> Option<()> {
    let mut words = option.split_ascii_whitespace();
    let name = words.next()?;
    let mut word = || words.next();
    match name {
        "ifconfig" => push.ifconfig = Some((word()?.parse().ok()?, word()?.parse().ok()?)),
        "topology" => push.topology = Some(word()?.to_owned()),
        "route-gateway" => push.route_gateway = Some(word()?.parse().ok()?),
        "route" => push.routes.push(PushedRoute {
            network: word()?.parse().ok()?,
            netmask: word().map_or(Some(Ipv4Addr::BROADCAST), |mask| mask.parse().ok())?,
        }),
        "ping" => push.ping = Some(word()?.parse().ok()?),
        "ping-restart" => push.ping_restart = Some(word()?.parse().ok()?),
        "peer-id" => {
            push.peer_id = Some(word()?.parse().ok().filter(|id| *id < 0xFF_FFFF)?);
        }
        "cipher" => push.cipher = Some(word()?.to_owned()),
        "protocol-flags" | "key-derivation" => push.flags.extend(words.map(str::to_owned)),
        "tun-mtu" => push.tun_mtu = Some(word()?.parse().ok()?),
        "push-continuation" => {
            push.continuation = Some(word()?.parse().ok().filter(|part| (1..=2).contains(part))?);
        }
        _ => {}
    }
    push.names.push(name.to_owned());
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_reply_of_a_stock_server() {
        let push = push_parse(
            "PUSH_REPLY,route-gateway 10.99.0.1,topology subnet,ping 3,ping-restart 12,\
             ifconfig 10.99.0.2 255.255.255.0,peer-id 0,cipher AES-256-GCM,\
             protocol-flags cc-exit tls-ekm dyn-tls-crypt,tun-mtu 1500,block-ipv6",
        )
        .unwrap();
        let address = |last| Ipv4Addr::new(10, 99, 0, last);
        assert_eq!(push.ifconfig, Some((address(2), Ipv4Addr::new(255, 255, 255, 0))));
        assert_eq!((push.route_gateway, push.peer_id), (Some(address(1)), Some(0)));
        assert_eq!((push.ping, push.ping_restart, push.tun_mtu), (Some(3), Some(12), Some(1500)));
        assert_eq!(push.cipher.as_deref(), Some("AES-256-GCM"));
        assert!(push.key_export() && push.dyn_tls_crypt());
        assert_eq!(push.names.last().map(String::as_str), Some("block-ipv6"));
        assert_eq!(push_parse("PUSH_REPLY"), Ok(ParsedPush::default()));
    }

    #[test]
    fn routes_have_a_host_mask_unless_one_is_given() {
        let push = push_parse("route 1.2.3.4,route 10.0.0.0 255.0.0.0 1.1.1.1").unwrap();
        assert_eq!(push.routes.len(), 2);
        assert_eq!(push.routes[0].netmask, Ipv4Addr::BROADCAST);
        assert_eq!(push.routes[1].netmask, Ipv4Addr::new(255, 0, 0, 0));
    }

    #[test]
    fn a_malformed_option_is_named() {
        for bad in [
            "ifconfig 1.2.3.4",
            "ifconfig x y",
            "peer-id 16777215",
            "ping many",
            "push-continuation 3",
            "route 1.2.3.4 x",
            "topology",
        ] {
            let error = push_parse(&format!("PUSH_REPLY,ping 1,{bad}")).unwrap_err();
            assert_eq!(error, PushError::Malformed(bad.to_owned()));
        }
        assert_eq!(push_parse(&"x,".repeat(600)), Err(PushError::TooMany));
    }

    #[test]
    fn parts_of_a_split_reply_add_up() {
        let mut push = push_parse("ping 1,route 1.1.1.1,push-continuation 2").unwrap();
        push.merge(push_parse("ping 2,route 2.2.2.2,peer-id 7,push-continuation 1").unwrap());
        assert_eq!((push.ping, push.routes.len(), push.peer_id), (Some(2), 2, Some(7)));
        assert_eq!(push.continuation, Some(1));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(PUSH_REPLY)?([ ,]|route|ifconfig|ping|[0-9.]{0,9}|.){0,60}") {
            let _ = push_parse(&text);
        }
    }
}
