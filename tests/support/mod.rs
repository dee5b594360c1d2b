//! What the tests with real processes share: children with their logs, certificates, OpenVPN
//! configurations, the stock server. Every wait has a deadline and waits for the event itself.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a failed expectation is the report"
)]

pub(crate) mod client;
pub(crate) mod keys;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod stock;

use std::process::{Command, Stdio};
use std::time::Duration;

use tunnelhead::telemetry::clock;

/// Asks `probe` until it has an answer or `limit` has passed; for facts that nobody announces
/// (a kernel table, another process's socket). Whatever writes a log is waited for by its log.
pub(crate) fn eventually<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let end = clock::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(clock::now() < end, "no {what} within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(40));
    }
}

/// Runs a command to its end and returns its standard output; panics with both outputs if it
/// fails.
pub(crate) fn run(command: &mut Command) -> String {
    match try_run(command) {
        Ok(output) => output,
        Err(output) => panic!("{command:?} failed:\n{output}"),
    }
}

/// Runs a command to its end: its standard output, or both outputs if its status was not 0.
pub(crate) fn try_run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{text}{}{}", String::from_utf8_lossy(&output.stderr), output.status))
    }
}

/// Says which of `tools` are not installed.
pub(crate) fn missing_tools(tools: &[&str]) -> Vec<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(Into::into)); // a user's PATH often lacks them
    tools
        .iter()
        .filter(|tool| !folders.iter().any(|folder| folder.join(tool).is_file()))
        .map(|tool| (*tool).to_owned())
        .collect()
}

#[allow(unused_imports, reason = "not every test binary that uses this module can skip")]
pub(crate) use tunnelhead::testing::skip;

/// The message of a caught panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
