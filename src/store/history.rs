//! What is kept of the past: tunnels that were, and who had which address.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// One tunnel from its login to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its number: unique for ever, rising with the connections of a process, below 2^53.
    pub id: u64,
    /// NAME of the router.
    pub router: Arc<str>,
    /// Its tunnel address.
    pub address: Ipv4Addr,
    /// Its real address.
    pub real_address: SocketAddr,
    /// When it logged in, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// Bytes of packets from the router; known at the end.
    pub rx_bytes: u64,
    /// Bytes of packets to the router; likewise.
    pub tx_bytes: u64,
    /// How it ended; `None` while it is up.
    pub ended: Option<SessionEnd>,
}

/// How a tunnel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// When, in seconds since 1970-01-01 UTC; the last time it was known to be up if the process
    /// could not tell.
    pub at: u64,
    /// The stable name of the reason.
    pub reason: Arc<str>,
}

/// Which sessions of a router are asked for. They come newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionQuery {
    /// NAME of the router.
    pub router: Arc<str>,
    /// Only those that were up at this time or later, in seconds since 1970-01-01 UTC.
    pub from: Option<u64>,
    /// Only those that began at this time or earlier; likewise.
    pub to: Option<u64>,
    /// Only those with a smaller number: the last one of the page before.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

impl SessionQuery {
    /// True if the session is one of those that are asked for, the limit aside.
    pub(super) fn wants(&self, session: &SessionRecord) -> bool {
        let until = session.ended.as_ref().map(|end| end.at);
        session.router == self.router
            && self.before.is_none_or(|before| session.id < before)
            && self.to.is_none_or(|to| session.since <= to)
            && self.from.is_none_or(|from| until.is_none_or(|until| until >= from))
    }
}

/// Who has or had an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The address.
    pub address: Ipv4Addr,
    /// Whose it is or was.
    pub identity: Arc<str>,
    /// From when on, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// Until when; `None` if still.
    pub until: Option<u64>,
}

/// The reason of a session whose process ended without telling.
pub const PROCESS_ENDED: &str = "process_ended";
