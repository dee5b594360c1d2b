//! Tunnels.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct TunnelView {
    /// NAME of the router.
    pub router: String,
    /// Its tunnel address.
    #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
    pub address: Ipv4Addr,
    /// Where it dials from, "address:port"; behind a load balancer: what the PROXY header says.
    #[cfg_attr(feature = "control-api", schema(value_type = String))]
    pub real_address: SocketAddr,
    /// "up"; later versions also "suspect".
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
}
