//! The push reply: what a client is told about its address, keepalive and keys.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use tunnelhead_crypto::DataCipher;

use crate::proto::control::iv_proto;

/// Bytes that a push reply stays below, with its NUL: more would have to be split, and some
/// routers fail on split replies.
pub const MAX_PUSH: usize = 1024;

/// What goes into a push reply.
#[derive(Clone, Copy, Debug)]
pub struct PushInput {
    /// The client's tunnel address.
    pub address: Ipv4Addr,
    /// Length of the prefix that is sent as netmask, 0..=32.
    pub prefix_len: u8,
    /// The gateway of the client's block.
    pub gateway: Ipv4Addr,
    /// Seconds of silence after which the client pings; 0: not pushed.
    pub ping: u32,
    /// Seconds of silence after which the client reconnects; 0: not pushed.
    pub ping_restart: u32,
    /// The platform's address, to which a host route is pushed.
    pub management: Ipv4Addr,
    /// The peer id; pushed only to clients that announced data packets with peer ids.
    pub peer_id: Option<u32>,
    /// The cipher, for clients that negotiate.
    pub cipher: Option<DataCipher>,
    /// Data keys come from the TLS exporter; pushed only to clients that announced it.
    pub key_export: bool,
    /// Renegotiations are wrapped with a dynamic key; pushed only to clients that announced it.
    pub dyn_tls_crypt: bool,
    /// The tunnel MTU, for clients with `IV_MTU` at least as large, bytes.
    pub tun_mtu: Option<u16>,
    /// The client's `IV_PROTO`.
    pub iv_proto: u32,
}

impl PushInput {
    /// True if the reply will switch the client to exporter keys: the session must do the same.
    pub fn pushes_key_export(&self) -> bool {
        self.key_export && self.announced(iv_proto::TLS_KEY_EXPORT)
    }

    /// True if the reply will switch the client to dynamic wrapping: the session must do the same.
    pub fn pushes_dyn_tls_crypt(&self) -> bool {
        self.dyn_tls_crypt && self.announced(iv_proto::DYN_TLS_CRYPT | iv_proto::CC_EXIT_NOTIFY)
    }

    /// The peer id that the reply will hold; without one, both sides use packets without.
    pub fn pushed_peer_id(&self) -> Option<u32> {
        self.peer_id.filter(|_| self.announced(iv_proto::DATA_V2))
    }

    fn announced(&self, bits: u32) -> bool {
        self.iv_proto & bits == bits
    }
}

/// Writes the whole message, from `PUSH_REPLY` on, without the NUL. Below [`MAX_PUSH`] for any
/// input. Nothing is pushed that the client did not announce; `cc-exit` never.
pub fn push_reply(input: &PushInput) -> String {
    let mut reply = format!("PUSH_REPLY,route-gateway {},topology subnet", input.gateway);
    let mut push = |option: std::fmt::Arguments<'_>| {
        // Writing into a string does not fail.
        let _ = write!(reply, ",{option}");
    };
    if input.ping > 0 {
        push(format_args!("ping {}", input.ping));
    }
    if input.ping_restart > 0 {
        push(format_args!("ping-restart {}", input.ping_restart));
    }
    push(format_args!("route {} 255.255.255.255", input.management));
    push(format_args!("ifconfig {} {}", input.address, netmask(input.prefix_len)));
    if let Some(peer_id) = input.pushed_peer_id() {
        push(format_args!("peer-id {peer_id}"));
    }
    if let Some(cipher) = input.cipher {
        push(format_args!("cipher {}", cipher.name()));
    }
    match (input.announced(iv_proto::CC_EXIT_NOTIFY), input.pushes_key_export()) {
        (true, export) => {
            let dynamic = input.pushes_dyn_tls_crypt();
            let flags = match (export, dynamic) {
                (true, true) => Some("tls-ekm dyn-tls-crypt"),
                (true, false) => Some("tls-ekm"),
                (false, true) => Some("dyn-tls-crypt"),
                (false, false) => None,
            };
            if let Some(flags) = flags {
                push(format_args!("protocol-flags {flags}"));
            }
        }
        (false, true) => push(format_args!("key-derivation tls-ekm")),
        (false, false) => {}
    }
    if let Some(tun_mtu) = input.tun_mtu {
        push(format_args!("tun-mtu {tun_mtu}"));
    }
    reply
}

/// The netmask of a prefix length; lengths beyond 32 count as 32.
fn netmask(prefix_len: u8) -> Ipv4Addr {
    let host_bits = 32_u32.saturating_sub(u32::from(prefix_len));
    Ipv4Addr::from(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> PushInput {
        PushInput {
            address: Ipv4Addr::new(100, 64, 7, 9),
            prefix_len: 24,
            gateway: Ipv4Addr::new(100, 64, 7, 1),
            ping: 20,
            ping_restart: 90,
            management: Ipv4Addr::new(100, 127, 255, 254),
            peer_id: Some(0),
            cipher: None,
            key_export: true,
            dyn_tls_crypt: true,
            tun_mtu: None,
            iv_proto: 0,
        }
    }

    #[test]
    fn an_old_router_is_told_nothing_that_it_did_not_announce() {
        assert_eq!(
            push_reply(&input()),
            "PUSH_REPLY,route-gateway 100.64.7.1,topology subnet,ping 20,ping-restart 90,\
             route 100.127.255.254 255.255.255.255,ifconfig 100.64.7.9 255.255.255.0"
        );
    }

    #[test]
    fn a_stock_client_gets_everything_but_the_exit_notice() {
        let input = PushInput {
            cipher: Some(DataCipher::Aes256Gcm),
            tun_mtu: Some(1500),
            iv_proto: 990,
            ..input()
        };
        assert_eq!(
            push_reply(&input),
            "PUSH_REPLY,route-gateway 100.64.7.1,topology subnet,ping 20,ping-restart 90,\
             route 100.127.255.254 255.255.255.255,ifconfig 100.64.7.9 255.255.255.0,peer-id 0,\
             cipher AES-256-GCM,protocol-flags tls-ekm dyn-tls-crypt,tun-mtu 1500"
        );
    }

    #[test]
    fn each_announcement_brings_its_option_and_no_other() {
        let ending = |iv_proto| {
            let reply = push_reply(&PushInput { iv_proto, ..input() });
            reply.split("255.255.255.0").last().unwrap().to_owned()
        };
        assert_eq!(ending(2), ",peer-id 0");
        assert_eq!(ending(8), ",key-derivation tls-ekm");
        assert_eq!(ending(128), "");
        assert_eq!(ending(512), "", "no way to say it without protocol-flags");
        assert_eq!(ending(128 | 512), ",protocol-flags dyn-tls-crypt");
        assert_eq!(ending(128 | 8), ",protocol-flags tls-ekm");
        let off =
            PushInput { iv_proto: u32::MAX, key_export: false, dyn_tls_crypt: false, ..input() };
        assert!(!push_reply(&off).contains("flags"));
        assert!(!off.pushes_key_export() && !off.pushes_dyn_tls_crypt());
    }

    #[test]
    fn the_largest_reply_stays_below_the_limit() {
        let most = Ipv4Addr::new(255, 255, 255, 255);
        let input = PushInput {
            address: most,
            prefix_len: 255,
            gateway: most,
            ping: u32::MAX,
            ping_restart: u32::MAX,
            management: most,
            peer_id: Some(u32::MAX),
            cipher: Some(DataCipher::Aes256Gcm),
            tun_mtu: Some(u16::MAX),
            iv_proto: u32::MAX,
            ..input()
        };
        assert!(push_reply(&input).len() + 1 < MAX_PUSH);
    }

    #[test]
    fn netmasks() {
        assert_eq!(netmask(0), Ipv4Addr::new(0, 0, 0, 0));
        assert_eq!(netmask(10), Ipv4Addr::new(255, 192, 0, 0));
        assert_eq!(netmask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(netmask(32), Ipv4Addr::new(255, 255, 255, 255));
        assert_eq!(netmask(40), Ipv4Addr::new(255, 255, 255, 255));
    }
}
