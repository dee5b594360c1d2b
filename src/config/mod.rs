//! Configuration: file -> raw values -> validated values; all errors at once, unknown keys refused.
//!
//! Every key has a default, [`Config::default`] is what an empty file gives, and `docs/CONFIG.md`
//! describes each key (a test compares the two). Nothing here opens a socket or asks the system
//! which addresses it has: those are handed in, see [`LocalAddress`].

mod authenticator;
mod changes;
mod check;
mod control;
mod error;
mod keeping;
mod limits;
mod read;
mod section;
mod values;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tunnelhead_crypto::{AuthDigest, DataCipher, StaticKey, TlsCryptV2ServerKey};

pub use authenticator::{AuthenticatorConfig, Endpoint};
pub use changes::Changes;
pub use control::{Audit, Control, Principal, Role, RoleRule, Whom};
pub use error::{ConfigError, Problem};
pub use keeping::{History, StoreKeeping};
pub use limits::Limits;

/// Largest accepted configuration file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What routers dial; never empty.
    pub listeners: Vec<Listener>,
    /// The name or address routers dial. None: see [`Config::router_host`].
    pub public_host: Option<String>,
    /// What grants match in the kernel.
    pub public_addresses: Vec<IpAddr>,
    /// Where the database, keys and certificates live.
    pub state_dir: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// The one address that the platform speaks to routers from.
    pub management_address: Ipv4Addr,
    /// `[pool]`
    pub pool: Pool,
    /// `[tun]`
    pub tun: Tun,
    /// `[tls]`
    pub tls: Tls,
    /// `[data]`
    pub data: Data,
    /// `[keepalive]`
    pub keepalive: Keepalive,
    /// `[isolation] allow`: host ports on the management address that routers may reach.
    pub allow: Vec<Allow>,
    /// `[authenticator]`
    pub authenticator: AuthenticatorConfig,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[threads]`
    pub threads: Threads,
    /// `[control]`: who may steer it.
    pub control: Control,
    /// `[audit]`
    pub audit: Audit,
    /// `[limits]`
    pub limits: Limits,
    /// `[store]`
    pub store: StoreKeeping,
    /// `[history]`
    pub history: History,
}

/// `[[listener]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where it listens; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Control-channel wrapping.
    pub wrap: Wrap,
    /// Whether clients are asked for a certificate.
    pub client_certificate: CertificatePolicy,
    /// Peers that send a PROXY header; others on this listener send none.
    pub proxy_protocol: Vec<IpNet>,
    /// True: TLS 1.0 and 1.1 are accepted too.
    pub legacy: bool,
}

impl Listener {
    /// A listener with every default.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            wrap: Wrap::None,
            client_certificate: CertificatePolicy::No,
            proxy_protocol: Vec::new(),
            legacy: false,
        }
    }
}

/// Control-channel wrapping with its key, read and parsed.
#[derive(Clone)]
#[non_exhaustive]
pub enum Wrap {
    /// None; what RouterOS speaks.
    None,
    /// HMAC with a shared key; the server's direction is 0, the clients' 1.
    TlsAuth {
        /// The shared key.
        key: Arc<StaticKey>,
        /// Must equal the clients' `auth`.
        digest: AuthDigest,
    },
    /// Encryption with a shared key.
    TlsCrypt {
        /// The shared key.
        key: Arc<StaticKey>,
    },
    /// Encryption with a key per client.
    TlsCryptV2 {
        /// Opens the clients' wrapped keys.
        key: Arc<TlsCryptV2ServerKey>,
    },
}

impl Wrap {
    /// The word of the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::TlsAuth { .. } => "tls-auth",
            Self::TlsCrypt { .. } => "tls-crypt",
            Self::TlsCryptV2 { .. } => "tls-crypt-v2",
        }
    }
}

impl PartialEq for Wrap {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::TlsAuth { key, digest }, Self::TlsAuth { key: other, digest: theirs }) => {
                digest == theirs && key.ct_eq(other)
            }
            (Self::TlsCrypt { key }, Self::TlsCrypt { key: other }) => key.ct_eq(other),
            (Self::TlsCryptV2 { key }, Self::TlsCryptV2 { key: other }) => key.ct_eq(other),
            _ => false,
        }
    }
}

impl fmt::Debug for Wrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificatePolicy {
    /// Not asked.
    No,
    /// Asked; a client without one may go on.
    Optional,
    /// No TLS without one.
    Required,
}

/// `[pool]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Where router addresses come from; at least a /24.
    pub network: Ipv4Net,
    /// Parts of it that are not given to routers.
    pub excluded: Vec<Ipv4Net>,
}

/// `[tun]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tun {
    /// Name of the device.
    pub name: String,
    /// Bytes, 1280 to 1500.
    pub mtu: u16,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Empty: made under the state folder.
    pub certificates: Vec<CertificateFiles>,
    /// Certificates that may sign clients' certificates. None: no client certificates.
    pub client_ca: Option<PathBuf>,
    /// Lists of client certificates that count no longer.
    pub crl: Vec<PathBuf>,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The server's certificate first, then its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// In order of preference; also the allow-list. Never empty.
    pub ciphers: Vec<DataCipher>,
    /// The server starts a new key after this. None: only when a key nears its limits.
    pub rekey_after: Option<Duration>,
}

/// `[keepalive]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// A ping after this long without a packet; whole seconds.
    pub ping: Duration,
    /// A peer that has pinged is dead after this long without a packet; whole seconds.
    pub restart: Duration,
    /// A router that acknowledges nothing for this long is suspect; whole seconds.
    pub suspect: Duration,
}

/// `[metrics]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// True: series that name each router.
    pub per_router: bool,
}

/// A host port that routers may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Allow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Never 0.
    pub port: u16,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
}

/// `[threads]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Threads {
    /// Packet threads, a power of two. None: from the number of cores.
    pub shards: Option<usize>,
    /// Login threads. None: from the number of cores.
    pub greeters: Option<usize>,
}

impl Threads {
    /// Most packet threads, and most login threads.
    pub const MAX: usize = 64;

    /// Packet threads on a machine with `cores`: the largest power of two that is not more.
    pub fn shards(self, cores: usize) -> usize {
        self.shards.unwrap_or_else(|| {
            let cores = cores.clamp(1, Self::MAX);
            if cores.is_power_of_two() { cores } else { cores.next_power_of_two() / 2 }
        })
    }

    /// Login threads on a machine with `cores`: a quarter of them, at least 1.
    pub fn greeters(self, cores: usize) -> usize {
        self.greeters.unwrap_or_else(|| cores.div_ceil(4).clamp(1, Self::MAX))
    }
}

/// An address of this host, for the checks that need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The interface that has it.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

impl Default for Config {
    /// What an empty file gives.
    fn default() -> Self {
        read::defaults()
    }
}

impl Config {
    /// Reads and checks a file. Relative paths in it are taken from its folder.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(path: &Path, local: &[LocalAddress]) -> Result<Self, ConfigError> {
        let unreadable =
            |reason: String| ConfigError::Unreadable { path: path.display().to_string(), reason };
        let absolute = std::path::absolute(path).map_err(|error| unreadable(error.to_string()))?;
        let text = read::text_file(&absolute, MAX_FILE_BYTES).map_err(unreadable)?;
        let base = absolute.parent().unwrap_or_else(|| Path::new("/"));
        Self::parse(&text, base, local)
    }

    /// Checks the text of a file that lies in `base`; reads the key and certificate files it names.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn parse(text: &str, base: &Path, local: &[LocalAddress]) -> Result<Self, ConfigError> {
        let (config, notes) = read::config(text, base)?;
        let mut problems = notes.problems;
        // What could not be read was replaced by its default; a clash with that would mislead.
        let mut clashes = Vec::new();
        check::problems(&config, local, &mut clashes);
        clashes.retain(|clash| !problems.iter().any(|problem| problem.key.starts_with(&clash.key)));
        problems.extend(clashes);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// The checks between keys, for a configuration that was put together in code.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn check(&self, local: &[LocalAddress]) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        check::problems(self, local, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// What is allowed but probably not meant.
    pub fn warnings(&self, local: &[LocalAddress]) -> Vec<Problem> {
        let mut warnings = Vec::new();
        check::warnings(self, local, &mut warnings);
        warnings
    }

    /// What a router dials: `public_host`, else the first listener's address if it is one, else
    /// `default_source` (the source address of the host's default route), else None. The second
    /// value is true if the answer is a guess that deserves a warning.
    pub fn router_host(&self, default_source: Option<IpAddr>) -> (Option<String>, bool) {
        if let Some(host) = &self.public_host {
            return (Some(host.clone()), false);
        }
        let listening =
            self.listeners.iter().map(|l| l.address.ip()).find(|ip| !ip.is_unspecified());
        match listening.or(default_source) {
            Some(address) => (Some(address.to_string()), listening.is_none()),
            None => (None, true),
        }
    }
}

#[cfg(test)]
mod tests;
