//! What the service manager is told: ready, reloading, stopping, and that it still works. Without
//! one (`NOTIFY_SOCKET` unset) nothing is told. Source: sd_notify(3).

use std::time::Duration;

use sd_notify::NotifyState;

use super::Failure;
use crate::concentrator::{self, Concentrator, Inherited};

/// Time between looks at the threads.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two lines of status.
const LOOKS_A_STATUS: u32 = 10;

/// Routers may dial, and the control socket answers.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The configuration is being read again; [`ready`] has to follow, whatever came of it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager is not told of the reload"),
    }
}

/// The sockets that it has opened for us (`LISTEN_FDS`).
pub(super) fn inherited() -> Result<Inherited, Failure> {
    let names: Vec<String> = match sd_notify::listen_fds_with_names() {
        Ok(names) => names.map(|(_, name)| name).collect(),
        Err(error) => return Err(Failure(format!("LISTEN_FDS can't be used: {error}"))),
    };
    concentrator::inherited_sockets(&names)
        .map_err(|error| Failure(format!("a socket of LISTEN_FDS can't be used: {error}")))
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ending every tunnel")]);
}

/// Pings the watchdog while every thread turns; ends with a sentence when one doesn't, for ever
/// otherwise.
pub(super) async fn watch(head: &Concentrator) -> String {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(LOOK_EVERY, |period| LOOK_EVERY.min(period / 3));
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    loop {
        ticks.tick().await;
        if let Some(reason) = head.failure() {
            return reason;
        }
        if watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        if looks.is_multiple_of(LOOKS_A_STATUS) {
            tell(&[NotifyState::Status(&format!("serving {} tunnels", head.tunnel_count()))]);
        }
        looks = looks.wrapping_add(1);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}
