//! Where log lines go, in which form, and which of them.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::telemetry::log_filter::LogFilter;

/// Names what is logged, as in "info,tunnelhead::shard=debug".
const LOG_VARIABLE: &str = "TUNNELHEAD_LOG";
const DEFAULT_FILTER: &str = "info";

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// Log lines go to standard error; colours only on a terminal. What comes back changes which.
pub(super) fn start(format: LogFormat) -> Arc<dyn LogFilter> {
    let wanted = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let (filter, wrong) = match parse(&wanted) {
        Ok(filter) => (filter, None),
        Err(_) if wanted.is_empty() => (EnvFilter::new(DEFAULT_FILTER), None),
        Err(reason) => (EnvFilter::new(DEFAULT_FILTER), Some(reason)),
    };
    let current = Mutex::new(filter.to_string());
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Fails only if somebody has set one up before.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    if let Some(reason) = wrong {
        tracing::warn!("{LOG_VARIABLE}: {reason}; logging \"{DEFAULT_FILTER}\" instead");
    }
    Arc::new(Reloadable { handle, current })
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    let wrong = |reason: String| {
        format!(
            "not a filter ({reason}); write a level such as \"info\" or \"info,tunnelhead::shard=debug\""
        )
    };
    if text.trim().is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(wrong("it has blanks or other strange characters".to_owned()));
    }
    // A bare word that is no level would be taken for a module, and mute everything else.
    let bare = |part: &&str| {
        let level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        !part.contains(['=', '[']) && !level
    };
    if let Some(word) = text.split(',').find(bare) {
        return Err(wrong(format!("\"{word}\" is no level")));
    }
    EnvFilter::try_new(text).map_err(|error| wrong(error.to_string()))
}

struct Reloadable {
    handle: reload::Handle<EnvFilter, Registry>,
    current: Mutex<String>,
}

impl LogFilter for Reloadable {
    fn filter(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_filter(&self, filter: &str) -> Result<(), String> {
        let filter = parse(filter)?;
        // One at a time, so that what is told is what holds.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let text = filter.to_string();
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        *current = text;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_filters_are_filters() {
        for text in ["info", "debug,hyper=warn", "info,tunnelhead::shard=trace", "off"] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            " ",
            "info debug",
            "a=b=c=d",
            "info,tunnelhead=loud",
            "loud",
            "info,",
            "\u{1b}[31m",
        ] {
            let reason = parse(text).unwrap_err();
            assert_eq!(reason.lines().count(), 1, "{reason}");
        }
    }
}
