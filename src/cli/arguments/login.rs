//! `why`, `logins` and `capture`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

/// The window of `why --fleet`, unless it is said otherwise.
const WINDOW: &str = "15m";

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true)))]
pub(in crate::cli) struct Why {
    /// Name of the router, or a user name that was tried
    #[arg(group = "whom")]
    pub(in crate::cli) name: Option<String>,
    /// What routers that are in trouble at once have in common
    #[arg(long, group = "whom")]
    pub(in crate::cli) fleet: bool,
    /// How far back: 90s, 15m, 2h, 1d
    #[arg(long, value_name = "TIME", default_value = WINDOW, value_parser = time, conflicts_with = "name")]
    pub(in crate::cli) since: Duration,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Logins {
    /// Of this router
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) router: Option<String>,
    /// With this user name
    #[arg(long, value_name = "U")]
    pub(in crate::cli) username: Option<String>,
    /// With this outcome (up, failed), reason or cause
    #[arg(long, value_name = "WORD")]
    pub(in crate::cli) outcome: Option<String>,
    /// From this address
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) source: Option<IpAddr>,
    /// Only those of nobody that is known
    #[arg(long)]
    pub(in crate::cli) unknown: bool,
    /// How many, the newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(in crate::cli) limit: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Capture {
    /// Name of the router, or a user name that was tried
    pub(in crate::cli) name: String,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}

/// `90s`, `15m`, `2h`, `1d`; at most seven days.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.char_indices().next_back().map_or(0, |(at, _)| at));
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    let seconds = number.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    seconds
        .filter(|seconds| (1..=7 * 86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "say 90s, 15m, 2h or 1d, and at most 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_bound() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in
            ["", "m", "15", "0s", "8d", "-1m", "1w", "1.5h", "99999999999999999999d", "1\u{e4}"]
        {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
