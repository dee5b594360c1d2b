//! What an embedder can listen to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Something that happened to a router.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TunnelEvent {
    /// Packets can flow both ways.
    Up {
        /// The router's NAME.
        router: Arc<str>,
        /// Its tunnel address.
        address: Ipv4Addr,
        /// Where it dials from.
        real_address: SocketAddr,
    },
    /// A tunnel has ended.
    Down {
        /// The router's NAME.
        router: Arc<str>,
        /// Its tunnel address.
        address: Ipv4Addr,
        /// Stable name of the reason.
        reason: &'static str,
    },
    /// A login attempt ended without a tunnel, at a point where a user name was known.
    LoginFailed {
        /// The user name, escaped.
        username: String,
        /// Where it dials from.
        real_address: SocketAddr,
        /// Stable name of the reason.
        reason: &'static str,
    },
    /// Two routers fight for one identity; the incumbent stays.
    Clone {
        /// The router's NAME.
        router: Arc<str>,
        /// Who holds the tunnel.
        incumbent: IpAddr,
        /// Who was refused.
        refused: IpAddr,
    },
    /// The router has not acknowledged a probe; the tunnel is still there.
    Suspect {
        /// The router's NAME.
        router: Arc<str>,
        /// Its tunnel address.
        address: Ipv4Addr,
    },
    /// A suspect router was heard again.
    Recovered {
        /// The router's NAME.
        router: Arc<str>,
        /// Its tunnel address.
        address: Ipv4Addr,
    },
    /// The keys of a tunnel were renewed.
    Rekeyed {
        /// The router's NAME.
        router: Arc<str>,
    },
    /// A router was given an address for the first time, or another one.
    AddressGiven {
        /// The router's NAME.
        router: Arc<str>,
        /// Its tunnel address.
        address: Ipv4Addr,
    },
    /// An account was made.
    RouterAdded {
        /// The router's NAME.
        router: Arc<str>,
    },
    /// An account was changed.
    RouterChanged {
        /// The router's NAME.
        router: Arc<str>,
    },
    /// An account was deleted.
    RouterRemoved {
        /// The router's NAME.
        router: Arc<str>,
        /// Whose it was.
        tenant: Option<Arc<str>>,
    },
    /// A router may not log in for a while.
    Banned {
        /// The router's NAME.
        router: Arc<str>,
        /// Until when, in seconds since 1970-01-01 UTC.
        until: u64,
    },
    /// A ban has ended or was lifted.
    BanLifted {
        /// The router's NAME.
        router: Arc<str>,
    },
    /// A certificate of the server ends soon, or has ended.
    CertificateEnds {
        /// Its subject.
        subject: String,
        /// When, in seconds since 1970-01-01 UTC.
        not_after: u64,
        /// Whole days until then; 0: it has ended.
        days: u32,
    },
    /// The configuration was read again and applies.
    Reloaded,
    /// Something does not work as it should.
    Degraded {
        /// What.
        part: String,
        /// One sentence.
        reason: String,
    },
    /// It works again.
    Restored {
        /// What.
        part: String,
    },
}
