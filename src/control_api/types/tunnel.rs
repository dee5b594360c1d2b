//! Tunnels, who is kept out, and what reaches into a tunnel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::page::Page;
use super::{CIPHERS, Timestamp, known};
use crate::control_api::ApiError;

/// Longest ban, seconds: 30 days. What shall last longer is disabled.
pub const MAX_BAN_SECONDS: u64 = 30 * 86_400;

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct TunnelView {
    /// NAME of the router.
    pub router: String,
    /// Number of the session; a later login has a higher one, after a restart of the concentrator
    /// too.
    pub generation: u64,
    /// Whose the router is.
    pub tenant: Option<String>,
    /// The router's tags.
    pub tags: Vec<String>,
    /// Its tunnel address.
    #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
    pub address: Ipv4Addr,
    /// Where it dials from, "address:port"; behind a load balancer: what the PROXY header says.
    #[cfg_attr(feature = "control-api", schema(value_type = String))]
    pub real_address: SocketAddr,
    /// "up", or "suspect" while the router acknowledges nothing.
    pub state: String,
    /// Since when packets can flow.
    pub since: Timestamp,
    /// When an authentic packet last came; null: none yet.
    pub last_heard: Option<Timestamp>,
    /// The data cipher in use, OpenVPN's spelling.
    pub cipher: String,
    /// The digest in use ("SHA1", "null"); a GCM cipher does not need one.
    pub auth: String,
    /// TLS version of the last key exchange.
    pub tls_version: Option<String>,
    /// TLS suite of the last key exchange.
    pub tls_suite: Option<String>,
    /// Age of the key that packets to the router are sealed with.
    pub key_age_seconds: u64,
    /// Inner bytes from the router.
    pub rx_bytes: u64,
    /// Inner bytes to the router.
    pub tx_bytes: u64,
    /// Inner packets from the router.
    pub rx_packets: u64,
    /// Inner packets to the router.
    pub tx_packets: u64,
    /// Packets that were dropped, by reason; reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
    /// Inner bytes that wait for the outer connection.
    pub queued_bytes: u64,
    /// Round-trip time of the outer connection, microseconds; null: not known.
    pub rtt_us: Option<u64>,
    /// Retransmitted segments of the outer connection; null: not known.
    pub retransmits: Option<u64>,
    /// Milliseconds since the router last acknowledged anything; null: not known.
    pub silent_ms: Option<u64>,
    /// Connections to the router that are open through the control socket.
    pub dials_open: u64,
    /// Connections that were opened in this session.
    pub dials_total: u64,
    /// Bytes of those from the router.
    pub dial_rx_bytes: u64,
    /// Bytes of those to the router.
    pub dial_tx_bytes: u64,
}

/// Which tunnels are asked for: those that fit everything that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "control-api", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct TunnelQuery {
    /// Entries at most, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "control-api", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// NAME of the router; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A tag of the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whose the router is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// "up" or "suspect".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The data cipher in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<String>,
    /// The tunnel address or the real address, or a network that holds one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A [`TunnelQuery`] that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelFilter {
    /// The part of the list.
    pub page: Page,
    /// Pattern of the router's NAME.
    pub name: Option<String>,
    /// A tag.
    pub tag: Option<String>,
    /// A tenant.
    pub tenant: Option<String>,
    /// True: suspect ones only; false: the others only.
    pub suspect: Option<bool>,
    /// A cipher, in OpenVPN's spelling.
    pub cipher: Option<String>,
    /// A network that holds the tunnel address or the real address.
    pub network: Option<IpNet>,
}

impl TunnelFilter {
    /// Every tunnel.
    pub const ALL: Self = Self {
        page: Page::ALL,
        name: None,
        tag: None,
        tenant: None,
        suspect: None,
        cipher: None,
        network: None,
    };

    /// True if one of the addresses is in the network that is asked for.
    pub fn holds(&self, tunnel: Ipv4Addr, real: IpAddr) -> bool {
        self.network.is_none_or(|network| {
            network.contains(&IpAddr::V4(tunnel)) || network.contains(&real.to_canonical())
        })
    }
}

impl TunnelQuery {
    /// Checks every field.
    ///
    /// # Errors
    /// `invalid`, with the field at fault.
    pub fn check(self) -> Result<TunnelFilter, ApiError> {
        let suspect = match self.state.as_deref() {
            None => None,
            Some("up") => Some(false),
            Some("suspect") => Some(true),
            Some(_) => return Err(ApiError::invalid("state", "must be \"up\" or \"suspect\"")),
        };
        let network = match self.address.as_deref() {
            None => None,
            Some(text) => {
                let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
                Some(network.map_err(|_| {
                    let what = "must be an address or a network such as 100.64.7.0/24";
                    ApiError::invalid("address", what)
                })?)
            }
        };
        let cipher = self.cipher.map(|name| known("cipher", &name, &CIPHERS)).transpose()?;
        Ok(TunnelFilter {
            page: Page::new(self.limit, self.after)?,
            name: self.name,
            tag: self.tag,
            tenant: self.tenant,
            suspect,
            cipher,
            network,
        })
    }
}

/// What `DELETE /v1/tunnels/{name}` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "control-api", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct DisconnectQuery {
    /// Keep the router out for so many seconds, at most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "control-api", param(minimum = 1, maximum = 2_592_000))]
    pub ban: Option<u64>,
}

/// What `PUT /v1/bans/{name}` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewBan {
    /// For how long, from now on, at most 30 days.
    #[cfg_attr(feature = "control-api", schema(minimum = 1, maximum = 2_592_000))]
    pub seconds: u64,
}

/// Checks the length of a ban.
///
/// # Errors
/// `invalid`, for `field`.
pub fn check_ban(field: &str, seconds: u64) -> Result<u64, ApiError> {
    if (1..=MAX_BAN_SECONDS).contains(&seconds) {
        return Ok(seconds);
    }
    let what = format!("must be 1 to {MAX_BAN_SECONDS} seconds; to keep it out longer, disable it");
    Err(ApiError::invalid(field, what))
}

/// A router that may not log in for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct BanView {
    /// NAME of the router.
    pub router: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// How long that is from now.
    pub remaining_seconds: u64,
}

/// What `/v1/tunnels/{name}/dial` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "control-api", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct DialQuery {
    /// Port of the router.
    #[cfg_attr(feature = "control-api", param(minimum = 1, maximum = 65_535))]
    pub port: u32,
    /// Only this session of the router (`generation` of its tunnel); another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

impl DialQuery {
    /// The port.
    ///
    /// # Errors
    /// `invalid` for the field `port`.
    pub fn check(self) -> Result<DialTo, ApiError> {
        match u16::try_from(self.port) {
            Ok(port) if port != 0 => Ok(DialTo { port, generation: self.generation }),
            _ => Err(ApiError::invalid("port", "must be 1 to 65535")),
        }
    }
}

/// A checked [`DialQuery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialTo {
    /// Port of the router, never 0.
    pub port: u16,
    /// Only this session.
    pub generation: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: TunnelQuery, field: &str) {
        assert_eq!(query.check().unwrap_err().field.as_deref(), Some(field));
    }

    #[test]
    fn filters_are_checked_field_by_field() {
        let text = |text: &str| Some(text.to_owned());
        refused(TunnelQuery { state: text("down"), ..TunnelQuery::default() }, "state");
        refused(TunnelQuery { cipher: text("bf-cbc"), ..TunnelQuery::default() }, "cipher");
        refused(
            TunnelQuery { address: text("100.64.0.1/33"), ..TunnelQuery::default() },
            "address",
        );
        refused(TunnelQuery { address: text("010.0.0.1"), ..TunnelQuery::default() }, "address");
        refused(TunnelQuery { limit: Some(0), ..TunnelQuery::default() }, "limit");
        let filter = TunnelQuery {
            state: text("suspect"),
            cipher: text("aes-256-gcm"),
            address: text("192.0.2.0/24"),
            ..TunnelQuery::default()
        };
        let filter = filter.check().unwrap();
        assert_eq!(filter.suspect, Some(true));
        assert_eq!(filter.cipher.as_deref(), Some("AES-256-GCM"));
        let tunnel = Ipv4Addr::new(100, 64, 1, 2);
        assert!(filter.holds(tunnel, "::ffff:192.0.2.9".parse().unwrap()));
        assert!(!filter.holds(tunnel, "192.0.3.9".parse().unwrap()));
        assert!(TunnelFilter::ALL.holds(tunnel, "192.0.3.9".parse().unwrap()));
    }

    #[test]
    fn bans_and_ports_have_a_range() {
        assert!(check_ban("ban", 0).is_err() && check_ban("ban", MAX_BAN_SECONDS + 1).is_err());
        assert_eq!(check_ban("ban", 1).unwrap(), 1);
        for port in [0, 65_536, u32::MAX] {
            let refused = DialQuery { port, generation: None }.check().unwrap_err();
            assert_eq!(refused.field.as_deref(), Some("port"));
        }
        assert_eq!(DialQuery { port: 65_535, generation: Some(1) }.check().unwrap().port, 65_535);
    }
}
