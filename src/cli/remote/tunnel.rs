//! `tunnel`.

use std::process::ExitCode;

use serde_json::json;

use super::Remote;
use crate::cli::Outcome;
use crate::cli::arguments::{BanCommand, Named, TunnelCommand, TunnelFilters};
use crate::cli::output::{bytes, duration, facts, or_dash, print, print_json, table};
use crate::control_api::types::{BanView, TunnelQuery, TunnelView};

impl Remote {
    pub(in crate::cli) async fn tunnel(&self, command: TunnelCommand) -> Outcome {
        match command {
            TunnelCommand::List(filters) => {
                let TunnelFilters { name, tag, tenant, state, cipher, address } = filters;
                let query = TunnelQuery {
                    name,
                    tag,
                    tenant,
                    state,
                    cipher,
                    address,
                    ..TunnelQuery::default()
                };
                let all = self.client.tunnels(&query).await?;
                if self.json { print_json(&all)? } else { print(&tunnels(&all))? }
            }
            TunnelCommand::Show(Named { name }) => {
                let one = self.client.tunnel(&name).await?;
                if self.json { print_json(&one)? } else { print(&tunnel(&one))? }
            }
            TunnelCommand::Disconnect { name, ban } => {
                self.client.disconnect(&name, ban).await?;
                let document = json!({"router": name, "disconnected": true, "ban_seconds": ban});
                let kept =
                    ban.map(|time| format!(", and {name} is kept out for {}", duration(time)));
                let kept = kept.unwrap_or_default();
                self.done(&document, &format!("the tunnel of {name} is cut{kept}"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(in crate::cli) async fn ban(&self, command: BanCommand) -> Outcome {
        match command {
            BanCommand::List => {
                let all = self.client.bans().await?;
                if self.json { print_json(&all)? } else { print(&bans(&all))? }
            }
            BanCommand::Set { name, time } => {
                let ban = self.client.ban(&name, time).await?;
                self.done(&ban, &format!("{name} is kept out until {}", ban.until))?;
            }
            BanCommand::Lift(Named { name }) => {
                self.client.lift_ban(&name).await?;
                self.done(&json!({"router": name, "lifted": true}), &format!("{name} may log in"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn bans(all: &[BanView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            let left = duration(one.remaining_seconds);
            vec![one.router.clone(), one.since.to_string(), one.until.to_string(), left]
        })
        .collect();
    table(&["ROUTER", "SINCE", "UNTIL", "LEFT"], &rows)
}

fn tunnels(all: &[TunnelView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            vec![
                one.router.clone(),
                one.state.clone(),
                one.address.to_string(),
                one.real_address.to_string(),
                one.since.to_string(),
                format!("{}/{}", one.cipher, one.auth),
                bytes(one.rx_bytes),
                bytes(one.tx_bytes),
            ]
        })
        .collect();
    table(&["ROUTER", "STATE", "ADDRESS", "REAL ADDRESS", "SINCE", "CIPHER", "RX", "TX"], &rows)
}

fn tunnel(one: &TunnelView) -> String {
    let mut pairs = vec![
        ("router", one.router.clone()),
        ("state", one.state.clone()),
        ("generation", one.generation.to_string()),
        ("tenant", or_dash(one.tenant.as_deref())),
        ("tags", if one.tags.is_empty() { "-".to_owned() } else { one.tags.join(" ") }),
        ("address", one.address.to_string()),
        ("real address", one.real_address.to_string()),
        ("since", one.since.to_string()),
        ("last heard", or_dash(one.last_heard)),
        ("cipher", format!("{}/{}", one.cipher, one.auth)),
        (
            "tls",
            format!(
                "{} {}",
                or_dash(one.tls_version.as_deref()),
                or_dash(one.tls_suite.as_deref())
            ),
        ),
        ("key age", duration(one.key_age_seconds)),
        ("received", format!("{} in {} packets", bytes(one.rx_bytes), one.rx_packets)),
        ("sent", format!("{} in {} packets", bytes(one.tx_bytes), one.tx_packets)),
        ("queued", bytes(one.queued_bytes)),
        ("round trip", or_dash(one.rtt_us.map(|us| format!("{}.{:03} ms", us / 1000, us % 1000)))),
        ("retransmits", or_dash(one.retransmits)),
        (
            "acknowledged",
            or_dash(one.silent_ms.map(|ms| format!("{}.{} s ago", ms / 1000, ms % 1000 / 100))),
        ),
        ("dials", format!("{} open, {} in all", one.dials_open, one.dials_total)),
        (
            "dialled bytes",
            format!("{} received, {} sent", bytes(one.dial_rx_bytes), bytes(one.dial_tx_bytes)),
        ),
    ];
    for (reason, count) in &one.drops {
        pairs.push(("dropped", format!("{count} {reason}")));
    }
    facts(&pairs)
}
