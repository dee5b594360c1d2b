//! `status`, `reload`.

use std::process::ExitCode;

use super::Remote;
use crate::cli::output::{duration, facts, plain, print, print_json};
use crate::cli::{Failure, Outcome};
use crate::control_api::types::{Finding, FindingState, LogLevel, ReloadReport, Status};

impl Remote {
    pub(in crate::cli) async fn log_level(&self, filter: Option<String>) -> Outcome {
        let level = match filter {
            None => self.client.log_level().await?,
            Some(filter) => self.client.set_log_level(&LogLevel { filter }).await?,
        };
        self.done(&level, &plain(&level.filter))?;
        Ok(ExitCode::SUCCESS)
    }

    pub(in crate::cli) async fn status(&self) -> Outcome {
        let status = self.client.status().await?;
        if self.json {
            print_json(&status)?
        } else {
            print(&overview(&status))?
        }
        if ready(&status) {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure("the TUN device or a listener is down; see the log of the concentrator".into()))
    }
}

impl Remote {
    pub(in crate::cli) async fn reload(&self) -> Outcome {
        let report = self.client.reload().await?;
        self.done(&report, &reloaded(&report))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Remote {
    /// Exit code 0 only if nothing needs doing.
    pub(in crate::cli) async fn doctor(&self) -> Outcome {
        let findings = self.client.doctor().await?.items;
        if self.json {
            print_json(&findings)?;
        } else {
            print(&findings.iter().map(finding).collect::<String>())?;
        }
        let well = findings.iter().all(|one| one.state == FindingState::Ok);
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn finding(one: &Finding) -> String {
    let state = match one.state {
        FindingState::Ok => "ok  ",
        FindingState::Warn => "WARN",
        FindingState::Fail => "FAIL",
    };
    let advice = one.advice.as_ref().map(|advice| format!("; do: {advice}")).unwrap_or_default();
    format!("{state}  {:<12} {}{}\n", plain(&one.check), plain(&one.message), plain(&advice))
}

fn reloaded(report: &ReloadReport) -> String {
    let mut text = match report.applied.as_slice() {
        [] => "reloaded: nothing has changed".to_owned(),
        keys => format!("reloaded: {}", keys.join(", ")),
    };
    if report.tunnels_cut > 0 {
        text.push_str(&format!(
            "\ntunnels cut because their certificate is revoked: {}",
            report.tunnels_cut
        ));
    }
    if !report.needs_restart.is_empty() {
        text.push_str(&format!("\nneeds a restart: {}", report.needs_restart.join(", ")));
    }
    for warning in &report.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text
}

/// TUN and listeners are up; what the server says about itself is not enough if it has no listener.
fn ready(status: &Status) -> bool {
    status.ready
        && status.tun.up
        && !status.listeners.is_empty()
        && status.listeners.iter().all(|listener| listener.up)
}

fn overview(status: &Status) -> String {
    let up = |up: bool| if up { "up" } else { "DOWN" };
    let mut pairs = vec![
        ("version", status.version.clone()),
        ("running", format!("{}, since {}", duration(status.uptime_seconds), status.started)),
        (
            "tun",
            format!(
                "{} {}, mtu {}, {} queues",
                status.tun.name,
                up(status.tun.up),
                status.tun.mtu,
                status.tun.queues
            ),
        ),
    ];
    for one in &status.listeners {
        let wrap = if one.wrap == "none" { String::new() } else { format!(", {}", one.wrap) };
        pairs.push((
            "listener",
            format!("{} {}{wrap}, {} accepted", one.address, up(one.up), one.accepted),
        ));
    }
    pairs.extend([
        ("management", status.management_address.to_string()),
        ("routers", status.routers.to_string()),
        ("tunnels", status.tunnels.to_string()),
        ("logging in", status.logins_in_progress.to_string()),
        (
            "pool",
            format!(
                "{}: {} of {} in use, {} in quarantine",
                status.pool.network,
                status.pool.in_use,
                status.pool.capacity,
                status.pool.quarantined
            ),
        ),
        ("store", if status.store.ok { "ok".to_owned() } else { "takes no changes".to_owned() }),
    ]);
    for one in &status.certificates {
        pairs
            .push(("certificate", format!("{} {}, until {}", one.key, one.subject, one.not_after)));
    }
    for one in &status.crls {
        let due = one.next_update.map_or_else(|| "no date".to_owned(), |due| format!("due {due}"));
        pairs.push(("crl", format!("{}, {} revoked, {due}", one.issuer, one.revoked)));
    }
    for one in &status.degraded {
        pairs.push(("DEGRADED", format!("{}: {}", one.part, one.reason)));
    }
    let mut text = facts(&pairs);
    let counters: Vec<_> = status.counters.iter().filter(|(_, count)| **count != 0).collect();
    if !counters.is_empty() {
        text.push_str("\ncounters since the start\n");
        for (name, count) in counters {
            text.push_str(&format!("  {}  {count}\n", plain(name)));
        }
    }
    text
}
