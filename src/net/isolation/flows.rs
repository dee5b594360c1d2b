//! UDP flows that the host opened, so that their replies may come back.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::net::aged::AgedMap;

/// How long replies are accepted after the host's last packet of a flow. A reply does not renew
/// it: a router must not be able to keep a door open that the host has left.
/// Source: RFC 4787 REQ-5 (five minutes recommended) and REQ-6.
pub const FLOW_AGE: Duration = Duration::from_secs(300);

/// Flows a table holds by default (about 4 MiB when full).
pub const DEFAULT_FLOWS: usize = 65_536;

/// The living flows of one shard. When it is full the flow that was silent longest goes, counted.
#[derive(Debug)]
pub struct UdpFlows {
    // Router's address, its port, the host's port. The host's address is always the same.
    seen: AgedMap<(Ipv4Addr, u16, u16), ()>,
}

impl UdpFlows {
    /// An empty table for at most `capacity` flows; takes no memory until it is used.
    pub fn new(capacity: usize) -> Self {
        Self { seen: AgedMap::new(capacity, FLOW_AGE) }
    }

    /// The host sent a datagram to a router.
    pub fn note(&mut self, now: Instant, router: Ipv4Addr, router_port: u16, host_port: u16) {
        self.seen.put(now, (router, router_port, host_port), ());
    }

    /// Whether a datagram from a router answers one of the host's.
    pub fn is_reply(
        &self,
        now: Instant,
        router: Ipv4Addr,
        router_port: u16,
        host_port: u16,
    ) -> bool {
        self.seen.get(now, &(router, router_port, host_port)).is_some()
    }

    /// Gives back the memory of flows that have aged; noting a flow does it too.
    pub fn expire(&mut self, now: Instant) {
        self.seen.expire(now);
    }

    /// Flows held.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether no flow is held.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Living flows that had to go because the table was full.
    pub fn evicted(&self) -> u64 {
        self.seen.evicted()
    }
}

impl Default for UdpFlows {
    fn default() -> Self {
        Self::new(DEFAULT_FLOWS)
    }
}
