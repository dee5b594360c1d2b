//! `router sessions` and `directory`.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use super::Remote;
use crate::cli::Outcome;
use crate::cli::arguments::Sessions;
use crate::cli::output::{bytes, duration, facts, or_dash, print, print_json, table};
use crate::control_api::types::{DirectoryEntry, MAX_PAGE, SessionFilter, SessionView, Timestamp};
use crate::telemetry::clock;

impl Remote {
    pub(in crate::cli) async fn sessions(&self, asked: Sessions) -> Outcome {
        let Sessions { name, from, to, limit } = asked;
        let mut all: Vec<SessionView> = Vec::new();
        let mut before = None;
        while all.len() < limit {
            let page = limit.saturating_sub(all.len()).min(MAX_PAGE);
            let filter = SessionFilter { from, to, before, limit: page };
            let list = self.client.sessions(&name, &filter).await?;
            all.extend(list.items);
            before = list.next.as_deref().and_then(|next| next.parse().ok());
            if before.is_none() {
                break;
            }
        }
        if self.json {
            print_json(&all)?
        } else {
            print(&sessions(&all))?
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(in crate::cli) async fn directory(
        &self,
        address: Ipv4Addr,
        at: Option<Timestamp>,
    ) -> Outcome {
        let entry = self.client.directory(address, at).await?;
        if self.json {
            print_json(&entry)?
        } else {
            print(&directory(&entry))?
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn sessions(all: &[SessionView]) -> String {
    let now = clock::unix_seconds();
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            let until = one.until.map_or(now, |until| until.0);
            vec![
                one.since.to_string(),
                one.until.map_or_else(|| "up".to_owned(), |until| until.to_string()),
                duration(until.saturating_sub(one.since.0)),
                one.address.to_string(),
                one.real_address.to_string(),
                bytes(one.rx_bytes),
                bytes(one.tx_bytes),
                or_dash(one.reason.as_deref()),
            ]
        })
        .collect();
    table(&["SINCE", "UNTIL", "FOR", "ADDRESS", "REAL ADDRESS", "RX", "TX", "REASON"], &rows)
}

fn directory(entry: &DirectoryEntry) -> String {
    facts(&[
        ("address", entry.address.to_string()),
        ("router", entry.router.clone()),
        ("since", entry.since.to_string()),
        ("until", entry.until.map_or_else(|| "now".to_owned(), |until| until.to_string())),
        ("connected", if entry.connected { "yes" } else { "no" }.to_owned()),
        ("real address", or_dash(entry.real_address)),
    ])
}
