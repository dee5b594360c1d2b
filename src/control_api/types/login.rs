//! Login attempts: what was seen of them and why they failed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// One login attempt, or the same one again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct LoginAttempt {
    /// Number of the connection since the start of the process.
    pub id: u64,
    /// NAME of the router that it was, or whose user name was used; null: nobody known.
    pub router: Option<String>,
    /// User name as sent, bytes that are not printable ASCII escaped; null: it never got that far.
    pub username: Option<String>,
    /// Where it came from, "address:port".
    #[cfg_attr(feature = "control-api", schema(value_type = String))]
    pub source: SocketAddr,
    /// The load balancer in between.
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>))]
    pub proxy: Option<IpAddr>,
    /// The listener.
    pub listener: String,
    /// When it began; of several in a row the last.
    pub started: Timestamp,
    /// When the first of those in a row began.
    pub first: Timestamp,
    /// How often the same thing happened in a row.
    pub times: u64,
    /// "up", "logged_in" (its first packet is awaited) or "failed".
    pub outcome: String,
    /// Stable name of the reason of a failure, as in events and counters.
    pub reason: Option<String>,
    /// Why it failed and what mends it; null: it has not failed.
    pub answer: Option<LoginAnswer>,
    /// What the client offered.
    pub offered: LoginOffer,
    /// TLS version and suite, once agreed.
    pub tls: Option<String>,
    /// Data cipher, once agreed.
    pub cipher: Option<String>,
    /// Digest, once agreed; without meaning for GCM ciphers.
    pub auth: Option<String>,
    /// Tunnel address, once assigned.
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>, format = Ipv4))]
    pub address: Option<Ipv4Addr>,
    /// What was seen, in order.
    pub steps: Vec<LoginStep>,
    /// True: `capture` has what crossed the wire.
    pub captured: bool,
}

/// One step of a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct LoginStep {
    /// "accepted", "proxy_header", "first_bytes", "hard_reset", "reset_answered", "client_hello",
    /// "server_hello", "tls_alert", "tls_established", "key_exchange", "verdict", "address",
    /// "push_request", "push_reply", "up" or "end".
    pub step: String,
    /// Milliseconds since the connection was accepted.
    pub at_ms: u32,
}

/// What a client offered; null: it never said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct LoginOffer {
    /// Hard resets; RouterOS 6 sends two.
    pub hard_resets: u8,
    /// Newest TLS version.
    pub tls_version: Option<String>,
    /// Number of TLS cipher suites.
    pub tls_suites: Option<u16>,
    /// Server name that TLS asked for; routers send none.
    pub server_name: Option<String>,
    /// Kind of TLS client: equal for equal software with equal settings.
    pub tls_client: Option<String>,
    /// Common name of a verified client certificate.
    pub certificate: Option<String>,
    /// OpenVPN options string.
    pub options: Option<String>,
    /// OpenVPN peer info, one line a variable; empty: none was sent.
    pub peer_info: Option<String>,
}

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct LoginAnswer {
    /// Stable name of the cause, finer than `reason`.
    pub cause: String,
    /// One sentence.
    pub sentence: String,
    /// What to type in a terminal of the router (RouterOS 7.9 and later).
    pub routeros: Option<String>,
    /// The same for RouterOS 6 and 7.1 to 7.7, where it differs.
    pub routeros_v6: Option<String>,
    /// What to type beside the concentrator.
    pub shell: Option<String>,
}

/// Why a router can, or can't, log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct LoginReport {
    /// What was asked for: NAME of a router, or a user name that somebody tried.
    pub name: String,
    /// True: there is such a router.
    pub known: bool,
    /// Since when its tunnel is up; null: it is not.
    pub connected_since: Option<Timestamp>,
    /// How it stands, in one sentence.
    pub sentence: String,
    /// What mends it; null: nothing has to, or nothing is known.
    pub answer: Option<LoginAnswer>,
    /// Its last attempts, the newest first.
    pub attempts: Vec<LoginAttempt>,
    /// Attempts without a name from the address that it was last seen at, and with a name that
    /// RouterOS has cut; the newest first.
    pub related: Vec<LoginAttempt>,
}

/// Which attempts to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginFilter {
    /// Of this router.
    pub router: Option<String>,
    /// With this user name, as it is shown.
    pub username: Option<String>,
    /// With this outcome, reason or cause.
    pub outcome: Option<String>,
    /// From this address.
    pub source: Option<IpAddr>,
    /// Only those of nobody that is known.
    pub unknown: bool,
}

/// Many routers with one trouble, or strangers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct IncidentView {
    /// How many routers (or attempts of strangers).
    pub count: usize,
    /// Of how many that share the property, or of the fleet; 0: strangers.
    pub of: usize,
    /// One sentence.
    pub sentence: String,
    /// The next command to type.
    pub command: String,
    /// Stable name of the cause.
    pub cause: String,
    /// What sets them apart from the rest of the fleet; empty: nothing does.
    pub shared: Vec<SharedProperty>,
    /// When it began.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
    /// How many are up again.
    pub recovered: usize,
    /// A few of them, by NAME.
    pub examples: Vec<String>,
}

/// Something that routers have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct SharedProperty {
    /// "listener", "source", "client", "client_hello", "server_certificate" or
    /// "certificate_issuer".
    pub property: String,
    /// In words that follow "routers".
    pub value: String,
}
