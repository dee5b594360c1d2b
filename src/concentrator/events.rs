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
}
