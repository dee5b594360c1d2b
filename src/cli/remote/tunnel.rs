//! `tunnel`.

use std::process::ExitCode;

use serde_json::json;

use super::Remote;
use crate::cli::Outcome;
use crate::cli::arguments::{Named, TunnelCommand};
use crate::cli::output::{bytes, duration, facts, or_dash, print, print_json, table};
use crate::control_api::types::{TunnelQuery, TunnelView};

impl Remote {
    pub(in crate::cli) async fn tunnel(&self, command: TunnelCommand) -> Outcome {
        match command {
            TunnelCommand::List => {
                let all = self.client.tunnels(&TunnelQuery::default()).await?;
                if self.json { print_json(&all)? } else { print(&tunnels(&all))? }
            }
            TunnelCommand::Show(Named { name }) => {
                let one = self.client.tunnel(&name).await?;
                if self.json { print_json(&one)? } else { print(&tunnel(&one))? }
            }
            TunnelCommand::Disconnect(Named { name }) => {
                self.client.disconnect(&name, None).await?;
                let document = json!({"router": name, "disconnected": true});
                self.done(&document, &format!("the tunnel of {name} is cut"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tunnels(all: &[TunnelView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            vec![
                one.router.clone(),
                one.address.to_string(),
                one.real_address.to_string(),
                one.since.to_string(),
                format!("{}/{}", one.cipher, one.auth),
                bytes(one.rx_bytes),
                bytes(one.tx_bytes),
            ]
        })
        .collect();
    table(&["ROUTER", "ADDRESS", "REAL ADDRESS", "SINCE", "CIPHER", "RX", "TX"], &rows)
}

fn tunnel(one: &TunnelView) -> String {
    let mut pairs = vec![
        ("router", one.router.clone()),
        ("state", one.state.clone()),
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
    ];
    for (reason, count) in &one.drops {
        pairs.push(("dropped", format!("{count} {reason}")));
    }
    facts(&pairs)
}
