//! How the concentrator is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// How things are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct Status {
    /// Version of the running concentrator.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it was started.
    pub started: Timestamp,
    /// How long it runs.
    pub uptime_seconds: u64,
    /// True: the TUN device and every listener are up.
    pub ready: bool,
    /// The TUN device.
    pub tun: TunStatus,
    /// What routers dial.
    pub listeners: Vec<ListenerStatus>,
    /// The address that the platform speaks from.
    #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
    pub management_address: Ipv4Addr,
    /// Router accounts.
    pub routers: u64,
    /// Tunnels that are up.
    pub tunnels: u64,
    /// Connections that have not logged in yet.
    pub logins_in_progress: u64,
    /// The address pool.
    pub pool: PoolStatus,
    /// The packet threads.
    pub shards: Vec<ShardStatus>,
    /// The store.
    pub store: StoreStatus,
    /// The server's certificates.
    pub certificates: Vec<CertificateStatus>,
    /// The revocation lists in force.
    #[serde(default)]
    pub crls: Vec<CrlStatus>,
    /// What does not work as it should; empty is good.
    pub degraded: Vec<Degraded>,
    /// Plain counters since the start by stable name: logins by result, closes and drops by reason.
    pub counters: BTreeMap<String, u64>,
}

/// The TUN device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct TunStatus {
    /// Its name.
    pub name: String,
    /// True: it exists, has its address and passes packets.
    pub up: bool,
    /// Bytes.
    pub mtu: u16,
    /// Number of queues.
    pub queues: u32,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct ListenerStatus {
    /// Where it listens; with the real port if the configuration says 0.
    #[cfg_attr(feature = "control-api", schema(value_type = String))]
    pub address: SocketAddr,
    /// "none", "tls-auth", "tls-crypt" or "tls-crypt-v2".
    pub wrap: String,
    /// True: it accepts connections.
    pub up: bool,
    /// Connections accepted since the start.
    pub accepted: u64,
}

/// The address pool, in addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// The network, "100.64.0.0/10".
    pub network: String,
    /// What can be given to routers in all.
    pub capacity: u64,
    /// Given to routers.
    pub in_use: u64,
    /// Given back of late, not yet given again.
    pub quarantined: u64,
}

/// One packet thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct ShardStatus {
    /// Number, from 0.
    pub shard: u32,
    /// Its tunnels.
    pub tunnels: u64,
    /// Inner bytes from routers.
    pub rx_bytes: u64,
    /// Inner bytes to routers.
    pub tx_bytes: u64,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct StoreStatus {
    /// True: it takes changes.
    pub ok: bool,
    /// Why it does not.
    pub reason: Option<String>,
}

/// One certificate of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct CertificateStatus {
    /// Its subject, for people.
    pub subject: String,
    /// "RSA 2048", "ECDSA P-256".
    pub key: String,
    /// Its beginning.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
}

/// One revocation list of client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct CrlStatus {
    /// The CA that made it, for people.
    pub issuer: String,
    /// When it was made.
    pub last_update: Timestamp,
    /// When the next one is due; what it revokes stays revoked all the same.
    pub next_update: Option<Timestamp>,
    /// Certificates in it.
    pub revoked: u64,
}

/// What a reload has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct ReloadReport {
    /// When.
    pub at: Timestamp,
    /// Keys of the configuration that have changed and count now, contents of files included.
    pub applied: Vec<String>,
    /// Keys that have changed and count after a restart.
    pub needs_restart: Vec<String>,
    /// Tunnels that were cut because their certificate is revoked.
    pub tunnels_cut: u64,
    /// What is allowed but probably not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// Something that does not work as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct Degraded {
    /// "store", "listener", "tun", "steering", "public_host", ...
    pub part: String,
    /// One sentence.
    pub reason: String,
}
