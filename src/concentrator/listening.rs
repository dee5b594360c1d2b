//! The listening sockets, and how each of them is served.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tunnelhead_crypto::{KeyDirection, Secret};

use crate::config::{self, Config, Problem};
use crate::control_api::types::{Degraded, ListenerStatus};
use crate::greeter::Listener;
use crate::proto::session::{SessionConfig, WrapConfig};
use crate::tls::{Reloadable, TlsContext};

use super::material::Material;
use super::start::StartError;

/// Time for a rekey. Source: OpenVPN hand-window.
const HAND_WINDOW: Duration = Duration::from_secs(60);
/// Life of the old key after a rekey. Source: OpenVPN tran-window.
const TRANSITION_WINDOW: Duration = Duration::from_secs(3600);
/// Life of a TLS engine after its work is done.
const LINGER: Duration = Duration::from_secs(2);
/// The same while the push reply is not acknowledged.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// Time for a client to read why it was refused. Source: OpenVPN scheduled exit.
const AUTH_FAILED_LINGER: Duration = Duration::from_secs(5);

/// One listening socket.
struct Place {
    configured: config::Listener,
    /// With the real port.
    address: SocketAddr,
    socket: Arc<TcpListener>,
    accepted: Arc<AtomicU64>,
    tls: Arc<Reloadable>,
}

/// How a listener was served that is gone or served otherwise now: tunnels that came over it rekey
/// by its rules.
struct Retired {
    configured: config::Listener,
    tls: Weak<Reloadable>,
}

/// Every listening socket.
pub(super) struct Places {
    open: Vec<Place>,
    retired: Vec<Retired>,
    credential_key: Secret<32>,
}

/// A change of the listeners that can't fail any more.
pub(super) struct Plan {
    open: Vec<Place>,
    retired: Vec<Retired>,
    contexts: Vec<(Arc<Reloadable>, Arc<dyn TlsContext>)>,
    /// Listeners that this host can't have.
    pub(super) degraded: Vec<Degraded>,
}

impl Places {
    /// Binds every listener. One that this host can't have is left out: the default names both
    /// families, and a kernel without IPv6 is no reason not to start.
    pub(super) fn open(
        config: &Config,
        mut inherited: Vec<TcpListener>,
        material: &Material,
        credential_key: Secret<32>,
        degraded: &mut Vec<Degraded>,
    ) -> Result<Self, StartError> {
        let mut open = Vec::new();
        for listener in &config.listeners {
            let at = |one: &TcpListener| one.local_addr().is_ok_and(|at| at == listener.address);
            let bound = match inherited.iter().position(at) {
                Some(index) => Ok(Arc::new(inherited.swap_remove(index))),
                None => bind(listener, config),
            };
            match bound {
                Ok(socket) => open.push(Place {
                    configured: listener.clone(),
                    address: socket.local_addr()?,
                    socket,
                    accepted: Arc::default(),
                    tls: Arc::new(Reloadable::new(material.context(listener)?)),
                }),
                Err(StartError::NoIpv6 { address }) => degraded.push(no_ipv6(address)),
                Err(error) => return Err(error),
            }
        }
        for one in inherited {
            let address = one.local_addr().ok();
            tracing::warn!(?address, "closing a socket that no listener of the configuration has");
        }
        if open.is_empty() {
            return Err(StartError::Internal(NO_LISTENER));
        }
        Ok(Self { open, retired: Vec::new(), credential_key })
    }

    /// Makes everything for other listeners and certificates, and changes nothing.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn plan(&self, config: &Config, material: &Material) -> Result<Plan, Vec<Problem>> {
        let mut plan = Plan {
            open: Vec::new(),
            retired: Vec::new(),
            contexts: Vec::new(),
            degraded: Vec::new(),
        };
        let mut problems = Vec::new();
        let mut problem = |message: String| {
            problems.push(Problem { key: "listener".to_owned(), message });
        };
        let mut left: Vec<&Place> = self.open.iter().collect();
        for listener in &config.listeners {
            let context = match material.context(listener) {
                Ok(context) => context,
                Err(error) => {
                    problem(error.to_string());
                    continue;
                }
            };
            let same = left.iter().position(|one| one.configured.address == listener.address);
            let Some(old) = same.map(|index| left.remove(index)) else {
                match bind(listener, config) {
                    Ok(socket) => plan.open.push(Place {
                        configured: listener.clone(),
                        address: socket.local_addr().unwrap_or(listener.address),
                        socket,
                        accepted: Arc::default(),
                        tls: Arc::new(Reloadable::new(context)),
                    }),
                    Err(StartError::NoIpv6 { address }) => plan.degraded.push(no_ipv6(address)),
                    Err(error) => problem(self.explain(listener, &error)),
                }
                continue;
            };
            let tls = if old.configured == *listener {
                plan.contexts.push((Arc::clone(&old.tls), context));
                Arc::clone(&old.tls)
            } else {
                plan.retired.push(Retired::from(old));
                Arc::new(Reloadable::new(context))
            };
            plan.open.push(Place {
                configured: listener.clone(),
                address: old.address,
                socket: Arc::clone(&old.socket),
                accepted: Arc::clone(&old.accepted),
                tls,
            });
        }
        plan.retired.extend(left.into_iter().map(Retired::from));
        let earlier = self
            .retired
            .iter()
            .map(|one| Retired { configured: one.configured.clone(), tls: Weak::clone(&one.tls) });
        plan.retired.extend(earlier.filter(|one| one.tls.strong_count() > 0));
        for one in &plan.retired {
            // Without a client CA there is nothing to check its certificates against any more:
            // then it stays as it is.
            if let (Some(tls), Ok(context)) = (one.tls.upgrade(), material.context(&one.configured))
            {
                plan.contexts.push((tls, context));
            }
        }
        if plan.open.is_empty() && problems.is_empty() {
            let message = NO_LISTENER.to_owned();
            problems.push(Problem { key: "listener".to_owned(), message });
        }
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    /// Carries a plan out.
    pub(super) fn carry_out(&mut self, plan: Plan, config: &Config) {
        for (tls, context) in plan.contexts {
            tls.replace(context);
        }
        self.open = plan.open;
        self.retired = plan.retired;
        for one in &self.open {
            // The kernel takes a new length for a socket that listens already.
            if let Err(error) = SockRef::from(&*one.socket).listen(backlog(config)) {
                tracing::warn!(%error, address = %one.address, "the backlog stays as it was");
            }
        }
    }

    /// What greeters accept from.
    pub(super) fn listeners(&self, config: &Config) -> Vec<Listener> {
        self.open
            .iter()
            .map(|one| Listener {
                socket: Arc::clone(&one.socket),
                session: Arc::new(session_config(config, &one.configured, &self.credential_key)),
                tls: Arc::clone(&one.tls) as Arc<dyn TlsContext>,
                accepted: Arc::clone(&one.accepted),
                proxies: one.configured.proxy_protocol.clone(),
            })
            .collect()
    }

    /// Where routers dial, with the real ports.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|one| one.address).collect()
    }

    /// The first listener: the one that scripts name.
    pub(super) fn first(&self) -> Option<(&config::Listener, SocketAddr)> {
        self.open.first().map(|one| (&one.configured, one.address))
    }

    /// A listener for old TLS, if there is one.
    pub(super) fn legacy(&self) -> Option<SocketAddr> {
        self.open.iter().find(|one| one.configured.legacy).map(|one| one.address)
    }

    /// Where each listens, and how it was configured.
    pub(super) fn configured(&self) -> Vec<(SocketAddr, config::Listener)> {
        self.open.iter().map(|one| (one.address, one.configured.clone())).collect()
    }

    /// For the status, each with the counter of its connections.
    pub(super) fn status(&self) -> Vec<(ListenerStatus, Arc<AtomicU64>)> {
        let status = |one: &Place| ListenerStatus {
            address: one.address,
            wrap: one.configured.wrap.name().to_owned(),
            up: true,
            accepted: 0,
        };
        self.open.iter().map(|one| (status(one), Arc::clone(&one.accepted))).collect()
    }

    /// Why a listener can't be bound while the present ones are open.
    fn explain(&self, listener: &config::Listener, error: &StartError) -> String {
        let port = listener.address.port();
        let ours = self.open.iter().find(|one| one.address.port() == port && port != 0);
        match ours {
            Some(ours) => format!(
                "{} can not be opened while {} is: restart for this change, or remove the one in \
                 a first reload and add the other in a second",
                listener.address, ours.address
            ),
            None => error.to_string(),
        }
    }
}

impl From<&Place> for Retired {
    fn from(place: &Place) -> Self {
        Self { configured: place.configured.clone(), tls: Arc::downgrade(&place.tls) }
    }
}

fn no_ipv6(address: SocketAddr) -> Degraded {
    Degraded {
        part: "listener".to_owned(),
        reason: format!("this host has no IPv6; {address} is not listened on"),
    }
}

fn backlog(config: &Config) -> i32 {
    i32::try_from(config.limits.listen_backlog).unwrap_or(i32::MAX)
}

fn bind(listener: &config::Listener, config: &Config) -> Result<Arc<TcpListener>, StartError> {
    let address = listener.address;
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // An IPv4 listener on the same port stands beside it.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog(config))?;
        Ok(socket.into())
    };
    open().map(Arc::new).map_err(|error| {
        if address.ip().is_unspecified() && error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
            return StartError::NoIpv6 { address };
        }
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "the port is in use; stop the other program or choose another port".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this host does not have the address".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "no right to use this port; choose one above 1023".to_owned()
            }
            _ => error.to_string(),
        };
        StartError::Listen { address, reason }
    })
}

fn session_config(
    config: &Config,
    listener: &config::Listener,
    credential_key: &Secret<32>,
) -> SessionConfig {
    let wrap = match &listener.wrap {
        config::Wrap::None => WrapConfig::None,
        config::Wrap::TlsAuth { key, digest } => WrapConfig::TlsAuth {
            key: key.duplicate(),
            direction: KeyDirection::Normal,
            digest: *digest,
        },
        config::Wrap::TlsCrypt { key } => WrapConfig::TlsCrypt { key: key.duplicate() },
        config::Wrap::TlsCryptV2 { key } => WrapConfig::TlsCryptV2 { server_key: key.duplicate() },
    };
    SessionConfig {
        wrap,
        ciphers: config.data.ciphers.clone(),
        ping: config.keepalive.ping,
        restart: config.keepalive.restart,
        management: config.management_address,
        tun_mtu: config.tun.mtu,
        hand_window: HAND_WINDOW,
        transition_window: TRANSITION_WINDOW,
        linger: LINGER,
        linger_max: LINGER_MAX,
        auth_failed_linger: AUTH_FAILED_LINGER,
        rekey_after: config.data.rekey_after,
        credential_key: credential_key.duplicate(),
        judge_rekeys: config.authenticator.rekeys,
        preauth_bytes: config.limits.login_bytes,
        frame_bytes: config.limits.frame_bytes,
    }
}

const NO_LISTENER: &str = "this host has no IPv6 and no other listener is set";
