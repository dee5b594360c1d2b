//! The process around a concentrator: logging, signals, control socket, a graceful end.

use std::future::Future;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Failure, Outcome};
use crate::concentrator::Concentrator;
use crate::config::{Config, LocalAddress};
use crate::control_api::Handle;
use crate::control_api::server::{ServerLimits, serve};
use crate::control_api::socket::ControlSocket;

/// Names what is logged, as in "info,tunnelhead::shard=debug".
const LOG_VARIABLE: &str = "TUNNELHEAD_LOG";

/// Log lines go to standard error; colours only on a terminal.
pub(super) fn start_logging() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only if somebody has set one up before.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on neither ends the process by itself.
    pub(super) fn take() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal comes; `ready` runs once the control socket answers. A second signal ends
/// the process without waiting for tunnels to be told.
pub(super) async fn run<F>(
    config: Config,
    mut signals: Signals,
    ready: impl FnOnce(Arc<dyn Handle>, Vec<SocketAddr>) -> F,
) -> Outcome
where
    F: Future<Output = Result<(), Failure>>,
{
    let limits =
        ServerLimits::new(config.limits.control_connections, config.limits.control_body_bytes);
    let socket = ControlSocket::bind(&config.control_socket)?;
    let path = socket.path().to_owned();
    let head = start(config).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = tokio::spawn(serve(socket, head.handle(), limits, async {
        // The sender is dropped if we fail: a stop as well.
        let _ = stopped.await;
    }));
    let result = ready(head.handle(), head.local_addresses().to_vec()).await;
    if result.is_ok() {
        tracing::info!(control_socket = %path.display(), "serving");
        signals.next().await;
        tracing::info!("stopping; a second signal stops at once");
    }
    let end = async {
        let _ = stop.send(());
        if let Ok(Err(error)) = control.await {
            tracing::error!(%error, "the control socket failed");
        }
        head.shutdown().await;
    };
    tokio::select! {
        () = end => {}
        () = signals.next() => return Err(Failure("stopped at once by a second signal".into())),
    }
    result.map(|()| ExitCode::SUCCESS)
}

async fn start(config: Config) -> Result<Concentrator, Failure> {
    Concentrator::builder().config(config).start().await.map_err(|error| Failure(error.to_string()))
}

/// The addresses of this host, for the checks of the configuration. Without them those checks
/// find nothing, and the kernel has the last word.
pub(super) fn local_addresses() -> Vec<LocalAddress> {
    let found = crate::tun::host_addresses().unwrap_or_default();
    found.into_iter().map(|(interface, address)| LocalAddress { interface, address }).collect()
}

/// Whether this process may make a TUN device; makes nothing that stays.
pub(super) fn check_permission() -> Result<(), Failure> {
    crate::tun::check_permission().map_err(|error| Failure(error.to_string()))
}
