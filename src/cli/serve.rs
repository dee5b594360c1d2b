//! `serve` and `check-config`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::logging::{self, LogFormat};
use super::output::{print, print_json};
use super::running::{self, Signals};
use super::{Failure, Outcome};
use crate::concentrator::{self, Concentrator};
use crate::config::{Config, ConfigError, LocalAddress, Problem};

pub(super) async fn serve(
    file: Option<&Path>,
    recover: bool,
    socket: Option<PathBuf>,
    format: LogFormat,
) -> Outcome {
    let signals = Signals::take()?;
    let log_filter = logging::start(format);
    let local = running::local_addresses()?;
    let file = file.map(std::path::absolute).transpose()?;
    let config = load(file.as_deref(), socket.as_deref(), &local)?;
    for Problem { key, message } in config.warnings(&local) {
        tracing::warn!("{key} {message}");
    }
    let mut builder = Concentrator::builder().recover(recover).log_filter(log_filter);
    if let Some(file) = file {
        builder = builder.reload_from(move || {
            // The host's addresses may be others by then.
            let local = concentrator::local_addresses().unwrap_or_default();
            load(Some(&file), socket.as_deref(), &local)
        });
    }
    running::run(builder, config, signals, async |head| {
        for address in head.local_addresses() {
            tracing::info!(%address, "listening");
        }
        Ok(())
    })
    .await
}

/// What the file says, but for what the command line says.
fn load(
    file: Option<&Path>,
    socket: Option<&Path>,
    local: &[LocalAddress],
) -> Result<Config, ConfigError> {
    let mut config = match file {
        Some(file) => Config::load(file, local)?,
        None => {
            let config = Config::default();
            config.check(local)?;
            config
        }
    };
    if let Some(socket) = socket {
        config.control_socket = socket.to_owned();
    }
    Ok(config)
}

pub(super) fn check_config(file: &Path, as_json: bool) -> Outcome {
    let local = running::local_addresses()?;
    let list = |problems: &[Problem]| -> Vec<_> {
        problems.iter().map(|one| json!({"key": one.key, "message": one.message})).collect()
    };
    let checked = Config::load(file, &local).and_then(|config| {
        concentrator::check_files(&config).map_err(ConfigError::Invalid)?;
        Ok(config)
    });
    match checked {
        Ok(config) => {
            let warnings = config.warnings(&local);
            if as_json {
                print_json(&json!({"ok": true, "errors": [], "warnings": list(&warnings)}))?;
            } else {
                let mut text = String::new();
                for warning in warnings {
                    text.push_str(&format!("warning: {warning}\n"));
                }
                print(&format!("{text}{} is good\n", file.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            if as_json {
                let errors = match &error {
                    ConfigError::Invalid(problems) => list(problems),
                    other => vec![json!({"key": null, "message": other.to_string()})],
                };
                print_json(&json!({"ok": false, "errors": errors, "warnings": []}))?;
            }
            Err(Failure::from(error))
        }
    }
}
