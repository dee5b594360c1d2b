//! What was: sessions of a router, and who had which address.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// One tunnel of a router from its login to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct SessionView {
    /// Its number, the `generation` of the tunnel; unique for ever, higher is later.
    pub id: u64,
    /// NAME of the router.
    pub router: String,
    /// Its tunnel address.
    #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
    pub address: Ipv4Addr,
    /// Its real address with port.
    #[cfg_attr(feature = "control-api", schema(value_type = String))]
    pub real_address: SocketAddr,
    /// When it logged in.
    pub since: Timestamp,
    /// When it ended; null while it is up. The last time it was known to be up if the process
    /// ended without telling.
    pub until: Option<Timestamp>,
    /// Bytes of packets from the router; so far while it is up.
    pub rx_bytes: u64,
    /// Bytes of packets to the router; likewise.
    pub tx_bytes: u64,
    /// The stable name of why it ended; null while it is up.
    pub reason: Option<String>,
}

/// Who has or had an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct DirectoryEntry {
    /// The address.
    #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
    pub address: Ipv4Addr,
    /// NAME of the router.
    pub router: String,
    /// When it was given the address.
    pub since: Timestamp,
    /// When it gave the address up; null if it has it.
    pub until: Option<Timestamp>,
    /// True if its tunnel was up, at the time that was asked for.
    pub connected: bool,
    /// Where it was connected from, then.
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>))]
    pub real_address: Option<SocketAddr>,
}

/// Which sessions are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Those that were up at this time or later.
    pub from: Option<Timestamp>,
    /// Those that began at this time or earlier.
    pub to: Option<Timestamp>,
    /// Those with a smaller number.
    pub before: Option<u64>,
    /// At most so many; 0: as many as a page has.
    pub limit: usize,
}
