//! How the concentrator is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::control_api::types::{
    Degraded, Finding, PoolStatus, ReloadReport, ShardStatus, Status, StoreStatus, Timestamp,
    TunStatus,
};
use crate::control_api::{Answer, ApiError, ErrorCode, Operations};
use crate::net::isolation::DropReason;
use crate::shard::ShardMessage;
use crate::telemetry::clock;

use super::ApiHandle;
use crate::concentrator::doctor;

/// The part without which no packet reaches the host.
const TUN: &str = "tun";

impl ApiHandle {
    /// Packets by outcome of the isolation rules, all shards together.
    async fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
        for mailbox in &self.core.shards {
            let (sender, receiver) = oneshot::channel();
            mailbox.post(ShardMessage::Totals(Box::new(move |totals| {
                // The asker has gone away.
                let _ = sender.send(totals);
            })));
            let Ok(totals) = receiver.await else { continue };
            for &reason in DropReason::ALL {
                let dropped = totals.judged.dropped(reason);
                if dropped > 0 {
                    *drops.entry(format!("drop_{}", reason.code())).or_insert(0) += dropped;
                }
            }
        }
        drops
    }

    /// Every part that is not as it should be. Asks the kernel, not the disk.
    pub(in crate::concentrator) fn degraded_now(&self) -> Vec<Degraded> {
        let core = &self.core;
        let mut degraded = core.settings.degraded(clock::unix_seconds());
        let mut add = |part: &str, reason: String| {
            degraded.push(Degraded { part: part.to_owned(), reason });
        };
        if let Some(reason) = core.store.health().degraded {
            add("store", reason);
        }
        if let Some(reason) = core.audit.degraded() {
            add("audit", reason);
        }
        for Degraded { part, reason } in self.keeping.degraded(clock::unix_seconds()) {
            add(&part, reason);
        }
        if core.shard_counters.iter().any(|shard| shard.tun_failed.load(Ordering::Relaxed)) {
            add(TUN, "the TUN device is gone; restart the concentrator".to_owned());
        } else if let Some(pool) = self.facts.routed {
            let name = &self.facts.tun.name;
            let management = self.facts.management_address;
            if let Some(reason) = crate::tun::link_trouble(name) {
                add(TUN, reason);
            } else if let Some(reason) = crate::tun::route_trouble(name, management, pool) {
                add("route", reason);
            }
        }
        let ended = core.ended_threads();
        if ended > 0 {
            add("threads", format!("{ended} of its threads failed; restart the concentrator"));
        }
        degraded
    }

    async fn status_now(&self) -> Status {
        let core = &self.core;
        let started = self.facts.started;
        let current = core.settings.current();
        let degraded = self.degraded_now();
        let store = core.store.health();
        let tun_down = degraded.iter().any(|one| one.part == TUN);
        let tun = TunStatus { up: !tun_down, ..self.facts.tun.clone() };
        let ended = core.ended_threads();
        let mut counters = core.counters();
        counters.extend(self.drops().await);
        if let Some(lost) = crate::tun::ring_drops(&self.facts.tun.name) {
            counters.insert("drop_tun_ring".to_owned(), lost);
        }
        let pool = {
            let leases = core.leases();
            PoolStatus {
                network: self.facts.pool.clone(),
                capacity: leases.capacity(),
                in_use: leases.in_use(),
                quarantined: leases.quarantined(),
            }
        };
        let listeners = current.listeners();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: Timestamp(started),
            uptime_seconds: clock::unix_seconds().saturating_sub(started),
            ready: tun.up && ended == 0 && listeners.iter().all(|listener| listener.up),
            tun,
            listeners,
            management_address: self.facts.management_address,
            routers: core.accounts.read().len() as u64,
            tunnels: core.tunnel_count(),
            logins_in_progress: core.greeting.in_progress.load(Ordering::Relaxed) as u64,
            pool,
            shards: self.shard_status(),
            store: StoreStatus { ok: store.degraded.is_none(), reason: store.degraded },
            certificates: current.certificates.clone(),
            crls: current.crls.clone(),
            degraded,
            counters,
        }
    }

    /// Reloads on a thread that may wait for files.
    pub(in crate::concentrator) async fn reload_now(
        self: &Arc<Self>,
    ) -> Result<ReloadReport, ApiError> {
        let handle = Arc::clone(self);
        tokio::task::spawn_blocking(move || handle.reloader.reload())
            .await
            .map_err(|_| ApiError::new(ErrorCode::Internal, "the reload ended in the middle"))?
    }

    /// Looks at everything that could keep the concentrator from working.
    async fn examine(self: &Arc<Self>) -> Result<Vec<Finding>, ApiError> {
        let _alone = self.examining.lock().await;
        let logins: Vec<_> = (self.core.settings.current().places.clone())
            .into_iter()
            .map(|(address, listener)| {
                let username = self.core.probe_username.clone();
                let login = move || doctor::probe::log_in(address, &listener, &username);
                (address, tokio::task::spawn_blocking(login))
            })
            .collect();
        let mut listeners = Vec::new();
        for (address, login) in logins {
            let outcome = login.await.unwrap_or_else(|_| Err("it ended in the middle".to_owned()));
            listeners.push(doctor::Listened { address, outcome });
        }
        let tun = &self.facts.tun;
        let known = doctor::Known {
            tun: tun.name.clone(),
            kernel: self.facts.routed.is_some(),
            mtu: u64::from(tun.mtu),
            queues: u64::from(tun.queues),
            degraded: self.degraded_now(),
            listeners,
        };
        let core = Arc::clone(&self.core);
        tokio::task::spawn_blocking(move || doctor::diagnose(&doctor::gather(&core, known)))
            .await
            .map_err(|_| ApiError::new(ErrorCode::Internal, "the doctor ended in the middle"))
    }

    fn shard_status(&self) -> Vec<ShardStatus> {
        (0..)
            .zip(&self.core.shard_counters)
            .map(|(shard, counters)| ShardStatus {
                shard,
                tunnels: counters.tunnels.load(Ordering::Relaxed) as u64,
                rx_bytes: counters.router_bytes.load(Ordering::Relaxed),
                tx_bytes: counters.host_bytes.load(Ordering::Relaxed),
            })
            .collect()
    }
}

impl Operations for Arc<ApiHandle> {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async { Ok(self.status_now().await) })
    }

    fn reload(&self) -> Answer<'_, ReloadReport> {
        Box::pin(self.reload_now())
    }

    fn doctor(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(self.examine())
    }
}
