//! `why`, `logins` and `capture`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Remote;
use crate::cli::Outcome;
use crate::cli::arguments::login::{Capture, Logins, Why};
use crate::cli::output::{or_dash, plain, print, print_json, table};
use crate::control_api::types::{
    IncidentView, LoginAnswer, LoginAttempt, LoginFilter, LoginReport,
};

impl Remote {
    pub(in crate::cli) async fn why(&self, command: Why) -> Outcome {
        if let Some(name) = &command.name {
            let report = self.client.why(name).await?;
            if self.json { print_json(&report)? } else { print(&explained(&report))? }
        } else {
            let all = self.client.incidents(command.since.as_secs()).await?;
            if self.json {
                print_json(&all)?;
            } else {
                print(&incidents(&all, command.since.as_secs()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(in crate::cli) async fn logins(&self, command: Logins) -> Outcome {
        let filter = LoginFilter {
            router: command.router,
            username: command.username,
            outcome: command.outcome,
            source: command.source,
            unknown: command.unknown,
        };
        let all = self.client.logins(&filter, command.limit).await?;
        if self.json {
            print_json(&all)?
        } else {
            print(&attempts(&all))?
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(in crate::cli) async fn capture(&self, command: Capture) -> Outcome {
        let Capture { name, output } = command;
        let lines = self.client.capture(&name).await?;
        match output {
            None => print(&String::from_utf8_lossy(&lines))?,
            Some(path) => {
                write_new(&path, &lines)?;
                let sentence = format!("the capture of {name} is in {}", path.display());
                let document = serde_json::json!({"name": name, "file": path});
                self.done(&document, &sentence)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes a file that only its owner may read: it names users and addresses.
fn write_new(path: &PathBuf, lines: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(lines)
}

fn explained(report: &LoginReport) -> String {
    let mut text = format!("{}\n", plain(&report.sentence));
    if let Some(answer) = &report.answer {
        text.push_str(&commands(answer));
    }
    let newest = report.attempts.iter().chain(&report.related).max_by_key(|one| one.id);
    if let Some(newest) = newest {
        text.push_str(&flight(newest));
    }
    let others: Vec<LoginAttempt> = report
        .attempts
        .iter()
        .chain(&report.related)
        .filter(|one| newest.is_none_or(|newest| newest.id != one.id))
        .cloned()
        .collect();
    if !others.is_empty() {
        text.push_str("\nbefore that\n");
        text.push_str(&attempts(&others));
    }
    text
}

fn commands(answer: &LoginAnswer) -> String {
    let mut text = String::new();
    for (place, command) in [
        ("on the router", &answer.routeros),
        ("on RouterOS 6", &answer.routeros_v6),
        ("on this host", &answer.shell),
    ] {
        if let Some(command) = command {
            text.push_str(&format!("  {place}:  {}\n", plain(command)));
        }
    }
    text
}

/// One attempt, step by step.
fn flight(one: &LoginAttempt) -> String {
    let mut text = format!(
        "\nlast attempt: {} from {} to {}\n",
        one.started,
        one.source,
        plain(&one.listener)
    );
    for step in &one.steps {
        let detail = match step.step.as_str() {
            "proxy_header" => one.proxy.map(|proxy| format!("through {proxy}")),
            "hard_reset" if one.offered.hard_resets > 1 => {
                Some(format!("{} of them", one.offered.hard_resets))
            }
            "client_hello" => one.offered.tls_version.as_ref().map(|version| {
                format!("up to {version}, {} suites", or_dash(one.offered.tls_suites))
            }),
            "tls_established" => one.tls.clone(),
            "key_exchange" => Some(format!("user {}", or_dash(one.username.as_deref()))),
            "verdict" => one.router.clone().filter(|_| one.address.is_some()),
            "address" => one.address.map(|address| address.to_string()),
            "push_reply" => one.cipher.as_ref().map(|cipher| match &one.auth {
                Some(auth) => format!("{cipher}/{auth}"),
                None => cipher.clone(),
            }),
            "end" => one.reason.clone(),
            _ => None,
        };
        let line = format!(
            "{:>8} ms  {:<16} {}",
            step.at_ms,
            step.step.replace('_', " "),
            plain(detail.as_deref().unwrap_or_default())
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if let Some(options) = &one.offered.options {
        let options = if options.is_empty() { "(empty)" } else { options };
        text.push_str(&format!("  options    {}\n", plain(options)));
    }
    if let Some(info) = &one.offered.peer_info {
        let info = info.trim_end().replace('\n', " ");
        let info = if info.is_empty() { "(none)".to_owned() } else { plain(&info) };
        text.push_str(&format!("  peer info  {info}\n"));
    }
    text
}

fn attempts(all: &[LoginAttempt]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            vec![
                one.started.to_string(),
                one.source.to_string(),
                or_dash(one.router.as_deref().or(one.username.as_deref())),
                one.times.to_string(),
                one.outcome.replace('_', " "),
                or_dash(one.answer.as_ref().map(|answer| answer.cause.as_str())),
            ]
        })
        .collect();
    table(&["STARTED", "SOURCE", "NAME", "TIMES", "OUTCOME", "CAUSE"], &rows)
}

fn incidents(all: &[IncidentView], since: u64) -> String {
    if all.is_empty() {
        let minutes = since.div_ceil(60);
        return format!("no trouble in the last {minutes} min\n");
    }
    let mut text = String::new();
    for one in all {
        text.push_str(&format!("{}\n", plain(&one.sentence)));
        if !one.examples.is_empty() {
            text.push_str(&format!("  such as:  {}\n", plain(&one.examples.join(", "))));
        }
        text.push_str(&format!("  next:     {}\n", plain(&one.command)));
    }
    text
}
