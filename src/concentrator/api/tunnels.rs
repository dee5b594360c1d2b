//! Tunnels that are up.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tunnelhead_crypto::{AuthDigest, DataCipher};

use crate::control_api::types::{List, Timestamp, TunnelView};
use crate::control_api::{Answer, ApiError, Scope, Tunnels};
use crate::proto::session::SessionStats;
use crate::shard::{Cut, ShardMessage, TunnelReport};
use crate::telemetry::clock;

use super::ApiHandle;

impl ApiHandle {
    /// Hides tunnels of other tenants; an embedder's own accounts belong to nobody.
    fn known(&self, scope: &Scope, name: &str) -> Result<(), ApiError> {
        let directory = self.core.accounts.read();
        let tenant = directory.get(name).and_then(|account| account.tenant.as_deref());
        if scope.covers(tenant) { Ok(()) } else { Err(ApiError::tunnel_not_found(name)) }
    }

    /// Asks the shards for one tunnel, or for all.
    async fn reports(&self, address: Option<Ipv4Addr>) -> Vec<TunnelReport> {
        let mut answers = Vec::new();
        match address {
            Some(address) => {
                let (message, answer) = report_request(Some(address));
                self.core.tell_shard(address, message);
                answers.push(answer);
            }
            None => {
                for mailbox in &self.core.shards {
                    let (message, answer) = report_request(None);
                    mailbox.post(message);
                    answers.push(answer);
                }
            }
        }
        let mut reports = Vec::new();
        for answer in answers {
            // A shard that has ended drops its replies.
            reports.extend(answer.await.unwrap_or_default());
        }
        reports
    }

    async fn tunnel_of(&self, scope: &Scope, name: &str) -> Result<TunnelReport, ApiError> {
        self.known(scope, name)?;
        let address = self.core.live().get(name).map(|live| live.address);
        let Some(address) = address else { return Err(ApiError::tunnel_not_found(name)) };
        self.reports(Some(address))
            .await
            .into_iter()
            .find(|report| &*report.identity.0 == name && report.up)
            .ok_or_else(|| ApiError::tunnel_not_found(name))
    }
}

impl Tunnels for Arc<ApiHandle> {
    fn list_tunnels(&self, scope: &Scope) -> Answer<'_, List<TunnelView>> {
        let scope = scope.clone();
        Box::pin(async move {
            let event_id = self.core.event_id();
            let mut reports = self.reports(None).await;
            reports.retain(|report| report.up);
            if scope != Scope::All {
                reports.retain(|report| self.known(&scope, &report.identity.0).is_ok());
            }
            let mut views: Vec<TunnelView> = reports.iter().map(tunnel_view).collect();
            views.sort_by(|a, b| a.router.cmp(&b.router));
            Ok(List::complete(event_id, views))
        })
    }

    fn get_tunnel(&self, scope: &Scope, name: &str) -> Answer<'_, TunnelView> {
        let (scope, name) = (scope.clone(), name.to_owned());
        Box::pin(
            async move { self.tunnel_of(&scope, &name).await.map(|report| tunnel_view(&report)) },
        )
    }

    fn disconnect(&self, scope: &Scope, name: &str) -> Answer<'_, ()> {
        let (scope, name) = (scope.clone(), name.to_owned());
        Box::pin(async move {
            self.known(&scope, &name)?;
            if self.core.cut(&name, Cut::Disconnected) {
                tracing::info!(router = name, "disconnected by an operator");
                return Ok(());
            }
            Err(ApiError::tunnel_not_found(&name))
        })
    }
}

fn report_request(
    address: Option<Ipv4Addr>,
) -> (ShardMessage, oneshot::Receiver<Vec<TunnelReport>>) {
    let (sender, receiver) = oneshot::channel();
    let reply = Box::new(move |reports| {
        // The asker has gone away.
        let _ = sender.send(reports);
    });
    (ShardMessage::Report(address, reply), receiver)
}

fn tunnel_view(report: &TunnelReport) -> TunnelView {
    let info = &report.info;
    let stats = &info.stats;
    let ago = |at: Instant| {
        let age = report.as_of.saturating_duration_since(at).as_secs();
        Timestamp(clock::unix_seconds().saturating_sub(age))
    };
    let mut drops: BTreeMap<String, u64> = report
        .isolation_drops
        .iter()
        .map(|(reason, count)| (reason.code().to_owned(), *count))
        .collect();
    let ours = [("queue_full", report.queue_drops), ("seal_refused", report.seal_refusals)];
    let of_session = SessionStats::NAMES.iter().copied().zip(stats.values());
    let drops_of_session = of_session.filter(|(name, _)| name.starts_with("drop_"));
    drops.extend(
        ours.into_iter()
            .chain(drops_of_session)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.to_owned(), count)),
    );
    TunnelView {
        router: report.identity.0.to_string(),
        address: report.address,
        real_address: report.real_address,
        state: "up".to_owned(),
        since: Timestamp(report.since),
        last_heard: info.last_heard.map(ago),
        cipher: info.cipher.map_or("", DataCipher::name).to_owned(),
        auth: info.digest.map_or("null", AuthDigest::name).to_owned(),
        tls_version: info.tls_version.clone(),
        tls_suite: info.tls_suite.clone(),
        key_age_seconds: info
            .established_at
            .map_or(0, |at| report.as_of.saturating_duration_since(at).as_secs()),
        rx_bytes: stats.rx_bytes,
        tx_bytes: stats.tx_bytes,
        rx_packets: stats.rx_packets,
        tx_packets: stats.tx_packets,
        drops,
        queued_bytes: report.queued_bytes as u64,
        rtt_us: report.tcp.map(|tcp| u64::from(tcp.rtt_us)),
        retransmits: report.tcp.map(|tcp| u64::from(tcp.retransmits)),
    }
}
