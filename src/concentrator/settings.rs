//! What a concentrator runs with at a moment, exchanged as a whole by a reload.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::config::{self, Config};
use crate::control_api::types::{CertificateStatus, CrlStatus, Degraded, ListenerStatus};
use crate::tls::Revocations;

use super::listening::Places;
use super::material::{self, Material};
use super::provisioning::Provisioning;

/// Everything that belongs together: no reader sees parts of two.
pub(super) struct Current {
    /// The configuration as it counts.
    pub(super) config: Config,
    /// Client certificates that count no longer.
    pub(super) revocations: Arc<Revocations>,
    /// The server's certificates.
    pub(super) certificates: Vec<CertificateStatus>,
    /// The revocation lists in force.
    pub(super) crls: Vec<CrlStatus>,
    /// What scripts are written from.
    pub(super) provisioning: Provisioning,
    /// A listener for old TLS, if there is one.
    pub(super) legacy_listener: Option<SocketAddr>,
    /// Where each listens, and how it was configured.
    pub(super) places: Vec<(SocketAddr, config::Listener)>,
    listeners: Vec<(ListenerStatus, Arc<AtomicU64>)>,
    /// What is wanting as long as the configuration is this one.
    degraded: Vec<Degraded>,
}

impl Current {
    /// Puts together what a configuration, its files and its listeners say.
    pub(super) fn new(
        config: Config,
        material: &Material,
        places: &Places,
        mut degraded: Vec<Degraded>,
    ) -> Self {
        degraded.extend(material.degraded());
        let (host, guessed) = router_host(&config);
        if guessed {
            let reason = match &host {
                Some(host) => {
                    format!("public_host is not set; scripts tell routers to dial {host}")
                }
                None => "public_host is not set and this host has no default route; set it, or \
                         put the name in place of HOST in the scripts"
                    .to_owned(),
            };
            degraded.push(Degraded { part: "public_host".to_owned(), reason });
        }
        Self {
            revocations: Arc::clone(&material.revocations),
            certificates: material.certificates(),
            crls: material.crls(),
            provisioning: Provisioning::new(
                &config,
                host.unwrap_or_else(|| "HOST".to_owned()),
                places.first(),
                material.ca_pem.clone(),
                material.server_name.clone(),
            ),
            legacy_listener: places.legacy(),
            places: places.configured(),
            listeners: places.status(),
            degraded,
            config,
        }
    }

    /// The listeners as they are now.
    pub(super) fn listeners(&self) -> Vec<ListenerStatus> {
        let now = |(status, accepted): &(ListenerStatus, Arc<AtomicU64>)| ListenerStatus {
            accepted: accepted.load(Ordering::Relaxed),
            ..status.clone()
        };
        self.listeners.iter().map(now).collect()
    }
}

/// What routers dial, and whether that is a guess.
pub(super) fn router_host(config: &Config) -> (Option<String>, bool) {
    config.router_host(default_source())
}

/// The settings, to be read at any time and exchanged by a reload.
pub(super) struct Settings {
    current: RwLock<Arc<Current>>,
    /// What was found wanting at the start and only a restart mends.
    at_start: Vec<Degraded>,
    /// Why the last reload changed nothing.
    refused: Mutex<Option<String>>,
}

impl Settings {
    pub(super) fn new(current: Current, at_start: Vec<Degraded>) -> Self {
        Self { current: RwLock::new(Arc::new(current)), at_start, refused: Mutex::new(None) }
    }

    /// What counts now.
    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this counts.
    pub(super) fn replace(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        *self.refused() = None;
    }

    /// A reload has changed nothing, for this reason.
    pub(super) fn note_refusal(&self, reason: String) {
        *self.refused() = Some(reason);
    }

    /// What is wanting at a moment, unix seconds.
    pub(super) fn degraded(&self, now: u64) -> Vec<Degraded> {
        let current = self.current();
        let mut all = self.at_start.clone();
        all.extend(current.degraded.iter().cloned());
        all.extend(material::overdue(&current.certificates, &current.crls, now));
        all.extend(self.refused().iter().map(|reason| Degraded {
            part: "reload".to_owned(),
            reason: format!("the last reload changed nothing: {reason}"),
        }));
        all
    }

    fn refused(&self) -> MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The source address of the host's default route: what a router on the internet could dial.
fn default_source() -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing; it asks the routing table.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}
