//! Says loudly that a test could not run.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Reports that the test `name` was not run and why, in the form that `tests/run` collects. With
/// `CI=true` that makes the whole run fail.
///
/// The line goes to standard error past the test harness, which would keep it with the output of
/// a passing test, and to the file that `TUNNELHEAD_SKIP_LOG` names, if it is set.
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED: {name}: {}\n", reason.replace('\n', " "));
    // There is nobody to tell if the report itself can't be written.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TUNNELHEAD_SKIP_LOG") {
        let log = OpenOptions::new().append(true).create(true).open(path);
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
    }
}
