//! What Prometheus scrapes: every number that is counted anyway, read once. Names and units are
//! those of docs/METRICS.md; no label names a router unless the configuration asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::control_api::types::{Degraded, Health, LogLevel};
use crate::control_api::{Answer, ApiError, ErrorCode, Observation, Scope};
use crate::net::isolation::DropReason;
use crate::shard::{self, ShardCounters, ShardMessage, ShardTotals, TunnelReport};
use crate::telemetry::exposition::{Exposition, Kind};

use super::ApiHandle;

/// A shard that doesn't answer within this time is left out of what only it knows.
const PATIENCE: Duration = Duration::from_secs(2);

impl ApiHandle {
    /// The whole exposition.
    async fn metrics_now(&self, per_router: bool) -> String {
        let totals = self.totals().await;
        let mut out = Exposition::default();
        self.process(&mut out);
        self.logins(&mut out);
        self.tunnels(&mut out);
        self.packets(&mut out, &totals);
        self.addresses(&mut out);
        self.store_metrics(&mut out);
        self.others(&mut out);
        if per_router {
            self.per_router(&mut out).await;
        }
        out.finish()
    }

    /// What each shard has counted for itself, with its index.
    async fn totals(&self) -> Vec<(String, ShardTotals)> {
        let mut asked = Vec::new();
        for (index, mailbox) in self.core.shards.iter().enumerate() {
            let (sender, receiver) = oneshot::channel();
            mailbox.post(ShardMessage::Totals(Box::new(move |totals| {
                // The asker has given up.
                let _ = sender.send(totals);
            })));
            asked.push((index.to_string(), receiver));
        }
        let mut totals = Vec::new();
        for (index, receiver) in asked {
            if let Ok(Ok(one)) = tokio::time::timeout(PATIENCE, receiver).await {
                totals.push((index, one));
            }
        }
        totals
    }

    fn process(&self, out: &mut Exposition) {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.family("tunnelhead_build_info", Kind::Gauge, "The running version; always 1.")
            .sample(&version, 1);
        let help = "When the concentrator was started, in seconds since 1970-01-01 UTC.";
        out.single("tunnelhead_start_time_seconds", Kind::Gauge, help, self.facts.started);
        let mut parts = out.family(
            "tunnelhead_degraded",
            Kind::Gauge,
            "Troubles at present, by the part that has them; a part that is well has no sample.",
        );
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for one in self.degraded_now() {
            *counts.entry(one.part).or_default() += 1;
        }
        for (part, count) in &counts {
            parts.sample(&[("part", part)], *count);
        }
        let ended = self.core.ended_threads() as u64;
        let help = "Packet and login threads that have ended although the process runs.";
        out.single("tunnelhead_threads_ended", Kind::Gauge, help, ended);
    }

    fn logins(&self, out: &mut Exposition) {
        let core = &self.core;
        let mut listeners = out.family(
            "tunnelhead_connections_accepted_total",
            Kind::Counter,
            "Connections accepted, by listener.",
        );
        for one in self.core.settings.current().listeners() {
            listeners.sample(&[("listener", &one.address.to_string())], one.accepted);
        }
        let mut logins = out.family(
            "tunnelhead_logins_total",
            Kind::Counter,
            "Login attempts by result; reason says why one failed.",
        );
        let accepted = core.counts.logins.load(Ordering::Relaxed);
        logins.sample(&[("result", "accepted"), ("reason", "")], accepted);
        for (reason, count) in core.greeting.closed.totals() {
            logins.sample(&[("result", "failed"), ("reason", reason)], count);
        }
        out.family(
            "tunnelhead_login_duration_seconds",
            Kind::Histogram,
            "From the accepted connection to the move to a packet thread, of successful logins.",
        )
        .histogram(&[], &core.observed.login_times.read());
        let gauges = |out: &mut Exposition, name, help, value: usize| {
            out.single(name, Kind::Gauge, help, value as u64);
        };
        let (open, handshakes) = {
            let admission =
                core.greeting.admission.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (admission.open(), admission.handshakes())
        };
        let in_progress = core.greeting.in_progress.load(Ordering::Relaxed);
        let help = "Connections that have not logged in yet.";
        gauges(out, "tunnelhead_logins_in_progress", help, in_progress);
        let help = "Connections without login that the admission table holds.";
        gauges(out, "tunnelhead_admission_connections", help, open);
        let help = "Handshakes in progress, of those that the limit counts.";
        gauges(out, "tunnelhead_handshakes_in_progress", help, handshakes);
        let help = "Connections that wait for a place among the handshakes.";
        gauges(out, "tunnelhead_handshakes_waiting", help, in_progress.saturating_sub(handshakes));
        let help = "Bytes buffered for connections without login.";
        let buffered = core.greeting.buffered.load(Ordering::Relaxed);
        gauges(out, "tunnelhead_login_buffered_bytes", help, buffered);
        for (name, help, count) in [
            (
                "tunnelhead_takeovers_total",
                "Logins that replaced a tunnel of the same router.",
                &core.counts.takeovers,
            ),
            (
                "tunnelhead_clones_refused_total",
                "Logins refused because two routers fight for one identity.",
                &core.counts.clones_refused,
            ),
        ] {
            out.single(name, Kind::Counter, help, count.load(Ordering::Relaxed));
        }
        let Some(outside) = &core.outside else { return };
        let mut outcomes = out.family(
            "tunnelhead_authenticator_questions_total",
            Kind::Counter,
            "Questions to the authenticator from outside, by outcome.",
        );
        for (outcome, count) in outside.outcomes.totals() {
            outcomes.sample(&[("outcome", outcome)], count);
        }
        let help = "Questions to the authenticator that are open.";
        gauges(out, "tunnelhead_authenticator_open", help, outside.open.load(Ordering::Relaxed));
    }

    fn tunnels(&self, out: &mut Exposition) {
        let shards = &self.core.shard_counters;
        let mut each = |name, kind, help: &str, value: &dyn Fn(&ShardCounters) -> u64| {
            let mut family = out.family(name, kind, help);
            for (index, counters) in shards.iter().enumerate() {
                family.sample(&[("shard", &index.to_string())], value(counters));
            }
        };
        each("tunnelhead_tunnels", Kind::Gauge, "Tunnels.", &|c| {
            c.tunnels.load(Ordering::Relaxed) as u64
        });
        let help = "Tunnels whose router doesn't acknowledge what it is sent.";
        each("tunnelhead_tunnels_suspect", Kind::Gauge, help, &|c| {
            c.suspect.load(Ordering::Relaxed) as u64
        });
        each("tunnelhead_rekeys_total", Kind::Counter, "Keys renewed.", &|c| {
            c.rekeys.load(Ordering::Relaxed)
        });
        let help = "Packets of the host that the kernel gave to another packet thread's queue.";
        each("tunnelhead_forwarded_packets_total", Kind::Counter, help, &|c| {
            c.forwarded.load(Ordering::Relaxed)
        });
        let mut closed = out.family(
            "tunnelhead_tunnels_closed_total",
            Kind::Counter,
            "Tunnels that have ended, by reason.",
        );
        let mut reasons = std::collections::BTreeMap::<&'static str, u64>::new();
        for (reason, count) in shards.iter().flat_map(|shard| shard.closed.totals()) {
            *reasons.entry(reason).or_default() += count;
        }
        for (reason, count) in reasons {
            closed.sample(&[("reason", reason)], count);
        }
    }

    /// Received equals sent, dropped and queued together, shard by shard, whenever no packet is
    /// between two of the counters.
    fn packets(&self, out: &mut Exposition, totals: &[(String, ShardTotals)]) {
        let counters = &self.core.shard_counters;
        let both = || {
            totals.iter().filter_map(|(index, totals)| {
                let place: usize = index.parse().ok()?;
                Some((index.as_str(), totals, &**counters.get(place)?))
            })
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut received = out.family(
            "tunnelhead_received_packets_total",
            Kind::Counter,
            "Packets that came from routers, from the host, and as replies of gateways.",
        );
        for (shard, one, c) in both() {
            let host = one.judged.from_host + load(&c.forward_drops);
            for (from, count) in
                [("router", one.judged.from_routers), ("host", host), ("gateway", one.replies)]
            {
                received.sample(&[("shard", shard), ("from", from)], count);
            }
        }
        let mut sent = out.family(
            "tunnelhead_sent_packets_total",
            Kind::Counter,
            "Packets given to the host, to routers, and answered for gateways.",
        );
        for (shard, one, c) in both() {
            for (to, count) in [
                ("host", load(&c.router_packets)),
                ("router", one.sent_packets),
                ("gateway", one.judged.to_gateway),
            ] {
                sent.sample(&[("shard", shard), ("to", to)], count);
            }
        }
        let mut dropped = out.family(
            "tunnelhead_dropped_packets_total",
            Kind::Counter,
            "Packets dropped, by reason.",
        );
        for (shard, one, c) in both() {
            let ours = [
                ("tun_full", load(&c.tun_drops)),
                ("mailbox_full", load(&c.forward_drops)),
                ("no_tunnel", load(&c.no_tunnel)),
                ("queue_full", one.queue_full),
                ("seal_refused", one.seal_refused),
                ("tunnel_ended", one.tunnel_ended),
            ];
            let judged = DropReason::ALL.iter().map(|r| (r.code(), one.judged.dropped(*r)));
            for (reason, count) in judged.chain(ours) {
                dropped.sample(&[("shard", shard), ("reason", reason)], count);
            }
        }
        let mut bytes = out.family(
            "tunnelhead_sent_bytes_total",
            Kind::Counter,
            "Bytes of inner packets given to the host and to routers.",
        );
        for (shard, one, c) in both() {
            bytes.sample(&[("shard", shard), ("to", "host")], load(&c.router_bytes));
            bytes.sample(&[("shard", shard), ("to", "router")], one.sent_bytes);
        }
        let mut read = out.family(
            "tunnelhead_tun_read_bytes_total",
            Kind::Counter,
            "Bytes of packets read from the TUN device.",
        );
        for (shard, _, c) in both() {
            read.sample(&[("shard", shard)], load(&c.host_bytes));
        }
        let mut waiting = out.family(
            "tunnelhead_queued_packets",
            Kind::Gauge,
            "Packets that wait for slow routers.",
        );
        for (shard, one, _) in both() {
            waiting.sample(&[("shard", shard)], one.queued_packets);
        }
        let mut waiting = out.family("tunnelhead_queued_bytes", Kind::Gauge, "Bytes of those.");
        for (shard, one, _) in both() {
            waiting.sample(&[("shard", shard)], one.queued_bytes);
        }
        if let Some(lost) = crate::tun::ring_drops(&self.facts.tun.name) {
            let help =
                "Packets of the host that the kernel dropped because the TUN queue was full.";
            out.single("tunnelhead_tun_ring_drops_total", Kind::Counter, help, lost);
        }
        let refused = self.core.shards.iter().map(|mailbox| mailbox.refused()).sum();
        let help = "Batches of packets that a packet thread's mailbox refused.";
        out.single("tunnelhead_mailbox_refused_total", Kind::Counter, help, refused);
    }

    fn addresses(&self, out: &mut Exposition) {
        let (capacity, held, resting) = {
            let leases = self.core.leases();
            (leases.capacity(), leases.in_use(), leases.quarantined())
        };
        let help = "Addresses that routers may have.";
        out.single("tunnelhead_pool_capacity", Kind::Gauge, help, capacity);
        out.family("tunnelhead_pool_addresses", Kind::Gauge, "Addresses of the pool, by state.")
            .sample(&[("state", "held")], held)
            .sample(&[("state", "resting")], resting)
            .sample(&[("state", "free")], capacity.saturating_sub(held).saturating_sub(resting));
        let routers = self.core.accounts.read().len() as u64;
        out.single("tunnelhead_routers", Kind::Gauge, "Router accounts.", routers);
    }

    fn store_metrics(&self, out: &mut Exposition) {
        let health = self.core.store.health();
        let up = u64::from(health.degraded.is_none());
        out.single("tunnelhead_store_up", Kind::Gauge, "1 while changes can be recorded.", up);
        let help = "Changes that wait to be recorded.";
        out.single("tunnelhead_store_queue", Kind::Gauge, help, health.queued as u64);
        let help = "Changes refused because too many waited.";
        out.single("tunnelhead_store_refused_total", Kind::Counter, help, health.refused);
        let help = "Changes that could not be recorded.";
        out.single("tunnelhead_store_failed_total", Kind::Counter, help, health.failed);
        out.family(
            "tunnelhead_store_commit_duration_seconds",
            Kind::Histogram,
            "From the hand-over of a change until it was on disk.",
        )
        .histogram(&[], &self.core.observed.store_times.read());
    }

    fn others(&self, out: &mut Exposition) {
        let mut ends = out.family(
            "tunnelhead_certificate_end_timestamp_seconds",
            Kind::Gauge,
            "When a certificate of the server ends, in seconds since 1970-01-01 UTC.",
        );
        for one in &self.core.settings.current().certificates {
            ends.sample(&[("subject", &one.subject), ("key", &one.key)], one.not_after.0);
        }
        let counters = self.core.counters();
        let of = |name: &str| counters.get(name).copied().unwrap_or(0);
        let help = "Events that slow listeners were told they have lost.";
        out.single("tunnelhead_events_lost_total", Kind::Counter, help, of("events_lost"));
        let help = "Connections to routers that were asked for.";
        out.single("tunnelhead_dials_total", Kind::Counter, help, of("dials"));
        let help = "Connections to routers that are open.";
        out.single("tunnelhead_dials_open", Kind::Gauge, help, of("dials_open"));
        out.family(
            "tunnelhead_dials_ended_total",
            Kind::Counter,
            "Connections to routers that were refused or ended from our side, by reason.",
        )
        .sample(&[("reason", "failed")], of("dials_failed"))
        .sample(&[("reason", "over_limit")], of("dials_over_limit"))
        .sample(&[("reason", "cut")], of("dials_cut"));
        out.family("tunnelhead_dial_bytes_total", Kind::Counter, "Bytes of dials.")
            .sample(&[("direction", "from_router")], of("dial_rx_bytes"))
            .sample(&[("direction", "to_router")], of("dial_tx_bytes"));
    }

    /// Every tunnel, as its shard sees it.
    async fn all_reports(&self) -> Vec<TunnelReport> {
        let mut by_shard = vec![Vec::new(); self.core.shards.len()];
        for live in self.core.live().values() {
            if let Some(addresses) =
                by_shard.get_mut(shard::owner_of(live.address, self.core.shards.len()))
            {
                addresses.push(live.address);
            }
        }
        let mut asked = Vec::new();
        for (mailbox, addresses) in self.core.shards.iter().zip(by_shard) {
            let (sender, receiver) = oneshot::channel();
            let reply = Box::new(move |reports| {
                // The asker has given up.
                let _ = sender.send(reports);
            });
            mailbox.post(ShardMessage::Report(addresses.into(), reply));
            asked.push(receiver);
        }
        let mut reports = Vec::new();
        for receiver in asked {
            if let Ok(Ok(mut some)) = tokio::time::timeout(PATIENCE, receiver).await {
                reports.append(&mut some);
            }
        }
        reports
    }

    /// Bytes and packets of each tunnel; its label makes a series a router.
    async fn per_router(&self, out: &mut Exposition) {
        let reports = self.all_reports().await;
        let mut bytes = out.family(
            "tunnelhead_router_bytes_total",
            Kind::Counter,
            "Bytes of inner packets of a router's present tunnel; begins anew with each login.",
        );
        for report in &reports {
            let stats = &report.info.stats;
            let router = &*report.identity.0;
            bytes.sample(&[("router", router), ("direction", "from")], stats.rx_bytes);
            bytes.sample(&[("router", router), ("direction", "to")], stats.tx_bytes);
        }
    }
}

impl Observation for Arc<ApiHandle> {
    fn metrics(&self, scope: &Scope) -> Answer<'_, String> {
        let per_router = self.core.observed.per_router && *scope == Scope::All;
        Box::pin(async move { Ok(self.metrics_now(per_router).await) })
    }

    fn health(&self) -> Answer<'_, Health> {
        let reasons = self
            .core
            .dead_or_hanging()
            .map(|reason| Degraded { part: "threads".to_owned(), reason });
        Box::pin(async { Ok(Health::of(reasons.into_iter().collect())) })
    }

    fn log_level(&self) -> Answer<'_, LogLevel> {
        let filter = self.core.observed.log_filter.as_ref().map(|log| log.filter());
        let level = filter.map(|filter| LogLevel { filter });
        Box::pin(async { level.ok_or_else(ApiError::not_offered) })
    }

    fn set_log_level(&self, level: LogLevel) -> Answer<'_, LogLevel> {
        let Some(log) = &self.core.observed.log_filter else {
            return Box::pin(async { Err(ApiError::not_offered()) });
        };
        let set = log.set_filter(&level.filter).map(|()| LogLevel { filter: log.filter() });
        if let Ok(level) = &set {
            tracing::info!(filter = level.filter, "the log level was changed");
        }
        Box::pin(async {
            set.map_err(|reason| ApiError {
                code: ErrorCode::BadRequest,
                message: reason,
                field: Some("filter".to_owned()),
            })
        })
    }
}
