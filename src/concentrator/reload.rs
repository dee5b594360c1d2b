//! Reading configuration, certificates and revocation lists again, without dropping a tunnel.
//!
//! Everything is read, checked and built first; only then anything is changed, in steps that can't
//! fail. What is bad changes nothing. A connection that is logging in goes on under the settings it
//! began with, and every TLS engine belongs to one set of certificates and lists for its whole life;
//! but whoever presents a certificate that a new list revokes is stopped wherever it is: before its
//! handshake is over by the engine, on its way to its shard by [`super::core`], and as a tunnel here.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Config, ConfigError, Problem};
use crate::control_api::types::{ReloadReport, Timestamp};
use crate::control_api::{ApiError, ErrorCode};
use crate::greeter::GreeterMessage;
use crate::shard::{Cut, ShardMessage};
use crate::telemetry::clock;

use super::core::Core;
use super::events::TunnelEvent;
use super::host;
use super::listening::Places;
use super::material::{Material, Prints};
use super::settings::{Current, router_host};
use super::start;

/// Where a reload gets the configuration from.
pub(super) type ConfigSource = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Reloads one at a time.
pub(super) struct Reloader {
    core: Arc<Core>,
    source: Option<ConfigSource>,
    greeters: usize,
    state: Mutex<State>,
}

struct State {
    places: Places,
    prints: Prints,
}

impl Reloader {
    /// Without a `source` only certificates and lists are read again.
    pub(super) fn new(
        core: Arc<Core>,
        source: Option<ConfigSource>,
        greeters: usize,
        places: Places,
        prints: Prints,
    ) -> Self {
        Self { core, source, greeters, state: Mutex::new(State { places, prints }) }
    }

    /// Reads everything again and changes over to it. Blocks for as long as reading takes; a
    /// second one waits for the first.
    ///
    /// # Errors
    /// Everything that is wrong with what was read; nothing has changed.
    pub(super) fn reload(&self) -> Result<ReloadReport, ApiError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.read_and_change(&mut state);
        match &result {
            Ok(report) => {
                let (applied, needs_restart) =
                    (report.applied.join(", "), report.needs_restart.join(", "));
                tracing::info!(
                    applied,
                    needs_restart,
                    tunnels_cut = report.tunnels_cut,
                    "reloaded"
                );
                self.core.tell(TunnelEvent::Reloaded);
            }
            Err(error) => {
                tracing::error!(reason = %error, "the reload changed nothing");
                self.core.settings.note_refusal(error.to_string());
            }
        }
        result
    }

    fn read_and_change(&self, state: &mut State) -> Result<ReloadReport, ApiError> {
        let core = &self.core;
        let running = core.settings.current();
        let local = host::local_addresses().unwrap_or_default();
        let newer = match &self.source {
            Some(source) => source().map_err(unusable)?,
            None => running.config.clone(),
        };
        let changes = running.config.take_over(newer);
        let config = changes.merged;
        // The new file was checked as a whole; what stays from the old one may not go with it.
        config.check(&local).map_err(unusable)?;
        let (host, _) = router_host(&config);
        let material = Material::read(&config, host.as_deref()).map_err(refused)?;
        let plan = state.places.plan(&config, &material).map_err(refused)?;

        // Nothing can fail from here on.
        let mut applied = changes.applied;
        for key in material.changed_since(&state.prints) {
            if !applied.contains(&key) {
                applied.push(key);
            }
        }
        if applied.contains(&"tls.certificates") {
            core.greeting.certificates.fetch_add(1, Ordering::Relaxed);
            core.recorder().certificates_changed(clock::unix_millis());
        }
        let warnings = config.warnings(&local);
        let degraded = plan.degraded.clone();
        state.places.carry_out(plan, &config);
        state.prints = material.prints();
        let listeners = state.places.listeners(&config);
        core.greeting.set_limits(start::admission_limits(&config, self.greeters));
        for greeter in &core.greeters {
            let limits = start::greeter_limits(&config);
            greeter.post(GreeterMessage::Settings(listeners.clone(), limits));
        }
        for shard in &core.shards {
            shard.post(ShardMessage::Settings(Box::new(start::shard_settings(&config))));
        }
        core.settings.replace(Current::new(config, &material, &state.places, degraded));
        let tunnels_cut = core.cut_revoked(Cut::CertificateRevoked);
        let texts = |keys: Vec<&'static str>| keys.into_iter().map(str::to_owned).collect();
        Ok(ReloadReport {
            at: Timestamp(clock::unix_seconds()),
            applied: texts(applied),
            needs_restart: texts(changes.needs_restart),
            tunnels_cut,
            warnings: warnings.iter().map(Problem::to_string).collect(),
        })
    }
}

fn unusable(error: ConfigError) -> ApiError {
    match error {
        ConfigError::Invalid(problems) => refused(problems),
        other => ApiError::new(ErrorCode::ReloadRefused, other.to_string()),
    }
}

/// All problems in one answer; the field is set if there is only one.
fn refused(problems: Vec<Problem>) -> ApiError {
    if let [one] = problems.as_slice() {
        return ApiError::field(ErrorCode::ReloadRefused, &one.key, &one.message);
    }
    let all: Vec<String> = problems.iter().map(Problem::to_string).collect();
    ApiError::new(ErrorCode::ReloadRefused, all.join("; "))
}
