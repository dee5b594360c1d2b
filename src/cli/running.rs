//! The process around a concentrator: logging, signals, control socket, a graceful end.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Outcome, doors, service};
use crate::audit::{Action, Who};
use crate::concentrator::{self, Builder, Concentrator};
use crate::config::{Config, LocalAddress};
use crate::control_api::server::serve_with;

/// How long tunnels are told to go when a thread hangs; then the process ends anyway.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// SIGTERM and SIGINT end the process, SIGHUP reloads.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Asked {
    Stop,
    Reload,
}

impl Signals {
    /// From now on none of them ends the process by itself.
    pub(super) fn take() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Waits for a signal to stop; others are ignored.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Asked::Stop) {}
    }
}

/// Serves until a signal comes; `ready` runs once the control socket answers. A second signal ends
/// the process without waiting for tunnels to be told.
pub(super) async fn run(
    builder: Builder,
    config: Config,
    mut signals: Signals,
    ready: impl AsyncFnOnce(&Concentrator) -> Result<(), Failure>,
) -> Outcome {
    if let Err(error) = concentrator::forbid_core_dumps() {
        tracing::warn!(%error, "core dumps of this process may hold keys");
    }
    let inherited = service::inherited()?;
    let doors = doors::open(&config, inherited.control)?;
    let path = doors.socket.path().to_owned();
    let head = builder.config(config).inherited(inherited.listeners).start().await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = tokio::spawn(serve_with(doors, head.handle(), async {
        // The sender is dropped if we fail: a stop as well.
        let _ = stopped.await;
    }));
    let result = ready(&head).await;
    let mut failure = None;
    if result.is_ok() {
        tracing::info!(control_socket = %path.display(), "serving");
        service::ready();
        let stopped = async {
            while matches!(signals.next().await, Asked::Reload) {
                service::reloading();
                reload(&head).await;
                service::ready();
            }
        };
        tokio::select! {
            () = stopped => tracing::info!("stopping; a second signal stops at once"),
            reason = service::watch(&head) => {
                tracing::error!(reason, "the process ends, so that a new one can take over");
                failure = Some(reason);
            }
        }
        service::stopping();
    }
    let end = async {
        let _ = stop.send(());
        if let Ok(Err(error)) = control.await {
            tracing::error!(%error, "the control socket failed");
        }
        head.shutdown().await;
    };
    if let Some(reason) = failure {
        // A thread that hangs would let us wait for ever.
        let _ = tokio::time::timeout(LAST_WORDS, end).await;
        return Err(Failure(reason));
    }
    tokio::select! {
        () = end => {}
        () = signals.stop() => return Err(Failure("stopped at once by a second signal".into())),
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// What SIGHUP asks for. How it went stands in the log and in the status: nobody waits for it.
async fn reload(head: &Concentrator) {
    tracing::info!("reloading");
    let result = head.reload().await;
    let mut action = Action { what: "reload".to_owned(), ..Action::default() };
    action.status = Some(result.as_ref().map_or_else(|error| error.code.status(), |_| 200));
    action.code = result.err().map(|error| error.code.name());
    // Nobody knows who sent a signal.
    let who = Who { actor: Some("signal".to_owned()), ..Who::default() };
    head.handle().note_audit(who, action);
}

/// The addresses of this host, for the checks of the configuration.
pub(super) fn local_addresses() -> Result<Vec<LocalAddress>, Failure> {
    concentrator::local_addresses()
        .map_err(|error| Failure(format!("cannot read the addresses of this host: {error}")))
}
