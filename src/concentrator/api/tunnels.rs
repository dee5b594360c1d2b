//! Tunnels that are up, who is kept out, and connections through tunnels.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tunnelhead_crypto::{AuthDigest, DataCipher};

use crate::control_api::handle::Dialled;
use crate::control_api::types::{
    BanView, DialTo, List, Page, Timestamp, TunnelFilter, TunnelView, check_ban, name_matches,
};
use crate::control_api::{Answer, ApiError, ErrorCode, Scope, Tunnels};
use crate::identity::Account;
use crate::proto::session::SessionStats;
use crate::shard::{self, Cut, ShardMessage, TunnelReport};
use crate::telemetry::clock;

use super::ApiHandle;
use crate::concentrator::bans::{self, Ban, Full};
use crate::concentrator::core::Live;
use crate::concentrator::dial::{DialError, DialStream, Session};

/// Tunnels that a shard describes in one go: its packets wait that long.
const REPORTS_AT_ONCE: usize = 256;

/// A tunnel of the page that is being made.
struct Found {
    router: Arc<str>,
    address: Ipv4Addr,
    account: Option<Arc<Account>>,
    session: Arc<Session>,
}

impl Found {
    fn new(router: &Arc<str>, live: &Live, account: Option<Arc<Account>>) -> Self {
        let (router, session) = (Arc::clone(router), Arc::clone(&live.dials));
        Self { router, address: live.address, account, session }
    }
}

impl ApiHandle {
    /// Hides tunnels of other tenants.
    fn in_scope(&self, scope: &Scope, name: &str) -> bool {
        scope.covers(self.core.tenant_of(name).as_deref())
    }

    /// The session of a router that is up and in scope.
    pub(in crate::concentrator) fn session(
        &self,
        scope: &Scope,
        name: &str,
    ) -> Option<Arc<Session>> {
        if !self.in_scope(scope, name) {
            return None;
        }
        let live = self.core.live();
        let tunnel = live.get(name).filter(|live| live.up)?;
        Some(Arc::clone(&tunnel.dials))
    }

    /// The next tunnels behind `after`, as far as they can be judged without asking a shard.
    fn ahead(
        &self,
        scope: &Scope,
        filter: &TunnelFilter,
        after: Option<&str>,
        most: usize,
    ) -> Vec<Found> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (live, directory) = (self.core.live(), self.core.accounts.read());
        let guests = self.core.guests();
        let account = |name: &str| directory.get(name).or_else(|| guests.get(name)).cloned();
        live.range::<str, _>((from, Bound::Unbounded))
            .filter(|(name, tunnel)| {
                tunnel.up
                    && filter.name.as_deref().is_none_or(|pattern| name_matches(pattern, name))
                    && filter.holds(tunnel.address, tunnel.real_address.ip())
            })
            .map(|(name, tunnel)| Found::new(name, tunnel, account(name)))
            .filter(|found| {
                let account = found.account.as_deref();
                let tenant = account.and_then(|account| account.tenant.as_deref());
                scope.covers(tenant)
                    && filter.tenant.as_deref().is_none_or(|wanted| tenant == Some(wanted))
                    && filter.tag.as_ref().is_none_or(|wanted| {
                        account.is_some_and(|account| account.tags.contains(wanted))
                    })
            })
            .take(most)
            .collect()
    }

    /// Asks the shards for these tunnels; those that have ended meanwhile are left out.
    async fn views(&self, found: Vec<Found>) -> Vec<TunnelView> {
        let count = self.core.shards.len();
        let mut by_shard = vec![Vec::new(); count];
        for tunnel in &found {
            if let Some(addresses) = by_shard.get_mut(shard::owner_of(tunnel.address, count)) {
                addresses.push(tunnel.address);
            }
        }
        let mut answers = Vec::new();
        for (mailbox, addresses) in self.core.shards.iter().zip(by_shard) {
            if addresses.is_empty() {
                continue;
            }
            let (sender, receiver) = oneshot::channel();
            let reply = Box::new(move |reports| {
                // The asker has gone away.
                let _ = sender.send(reports);
            });
            mailbox.post(ShardMessage::Report(addresses.into(), reply));
            answers.push(receiver);
        }
        let mut reports = BTreeMap::new();
        for answer in answers {
            // A shard that has ended drops its replies.
            for report in answer.await.unwrap_or_default() {
                reports.insert(report.address, report);
            }
        }
        let views = found.into_iter().filter_map(|tunnel| {
            let report = reports.remove(&tunnel.address)?;
            // A session that has moved in since is another tunnel.
            let same = report.client.0 == tunnel.session.generation() && report.up;
            same.then(|| tunnel_view(&report, &tunnel))
        });
        views.collect()
    }

    async fn list(&self, scope: &Scope, filter: &TunnelFilter) -> List<TunnelView> {
        let event_id = self.core.event_id();
        let wanted = filter.page.limit.saturating_add(1);
        let mut views = Vec::new();
        let mut after = filter.page.after.clone();
        while views.len() < wanted {
            let most = REPORTS_AT_ONCE.min(wanted - views.len());
            let found = self.ahead(scope, filter, after.as_deref(), most);
            let all = found.len() < most;
            after = found.last().map(|last| last.router.to_string()).or(after);
            let seen = self.views(found).await;
            views.extend(seen.into_iter().filter(|view| {
                let suspect = view.state == SUSPECT;
                filter.suspect.is_none_or(|wanted| wanted == suspect)
                    && filter.cipher.as_ref().is_none_or(|wanted| *wanted == view.cipher)
            }));
            if all {
                break;
            }
        }
        filter.page.cut(event_id, views, |view| &view.router)
    }

    async fn tunnel(&self, scope: &Scope, name: &str) -> Result<TunnelView, ApiError> {
        let found = self.in_scope(scope, name).then(|| {
            let live = self.core.live();
            let (name, tunnel) = live.get_key_value(name).filter(|(_, live)| live.up)?;
            Some(Found::new(name, tunnel, self.core.account_or_guest(name)))
        });
        let Some(found) = found.flatten() else { return Err(ApiError::tunnel_not_found(name)) };
        self.views(vec![found]).await.pop().ok_or_else(|| ApiError::tunnel_not_found(name))
    }

    /// Cuts a tunnel and waits until nothing passes any more; false if there is none.
    pub(in crate::concentrator) async fn cut(
        &self,
        name: &str,
        cut: Cut,
        wanted: impl FnOnce(&Session) -> bool,
    ) -> bool {
        let (sender, receiver) = oneshot::channel();
        // The asker has gone away: it is cut all the same.
        let done = Box::new(move || {
            let _ = sender.send(());
        });
        if !self.core.cut_if(name, cut, wanted, Some(done)) {
            return false;
        }
        // A shard that has ended drops its messages, and its tunnels with them.
        let _ = receiver.await;
        tracing::info!(router = name, reason = cut.code(), "cut by an operator");
        true
    }

    async fn disconnect_router(
        &self,
        scope: &Scope,
        name: &str,
        ban_seconds: Option<u64>,
    ) -> Result<(), ApiError> {
        if !self.in_scope(scope, name) {
            return Err(ApiError::tunnel_not_found(name));
        }
        let Some(seconds) = ban_seconds else {
            // One that is cut already is as good as gone, although it may still say goodbye.
            let alive = |session: &Session| session.ended_by().is_none();
            let cut = self.cut(name, Cut::Disconnected, alive).await;
            return if cut { Ok(()) } else { Err(ApiError::tunnel_not_found(name)) };
        };
        let seconds = check_ban("ban", seconds)?;
        let router = self.router_named(name).ok_or_else(|| ApiError::tunnel_not_found(name))?;
        self.shut_out(&router, seconds).await.map(drop)
    }

    async fn ban_router(
        &self,
        scope: &Scope,
        name: &str,
        seconds: u64,
    ) -> Result<BanView, ApiError> {
        let seconds = check_ban("seconds", seconds)?;
        let router = self.in_scope(scope, name).then(|| self.router_named(name)).flatten();
        let router = router.ok_or_else(|| ApiError::router_not_found(name))?;
        self.shut_out(&router, seconds).await
    }

    /// The name of an account, or of an embedder's router that has a tunnel.
    fn router_named(&self, name: &str) -> Option<Arc<str>> {
        let account = self.core.accounts.read().get(name).map(|account| Arc::clone(&account.name));
        account.or_else(|| self.core.live().get_key_value(name).map(|(name, _)| Arc::clone(name)))
    }

    async fn shut_out(&self, router: &Arc<str>, seconds: u64) -> Result<BanView, ApiError> {
        // First shut, then cut: nobody slips in between.
        let ban = self.core.ban(router, Duration::from_secs(seconds)).map_err(|Full| {
            let most = bans::MOST;
            let what = format!("{most} routers are banned, no more fit; lift a ban, or disable");
            ApiError::new(ErrorCode::Busy, what)
        })?;
        self.cut(router, Cut::Banned, |_| true).await;
        Ok(ban_view(&ban, clock::now()))
    }

    /// Connects to a router for whoever is allowed to see it.
    pub(in crate::concentrator) async fn dial(
        &self,
        scope: &Scope,
        name: &str,
        to: DialTo,
    ) -> Result<DialStream, DialError> {
        let session = self.session(scope, name).ok_or(DialError::NoTunnel)?;
        let now = session.generation();
        if to.generation.is_some_and(|wanted| wanted != now) {
            return Err(DialError::GenerationChanged { now });
        }
        self.core.dials.connect(&session, to.port).await
    }
}

impl Tunnels for Arc<ApiHandle> {
    fn list_tunnels(&self, scope: &Scope, filter: TunnelFilter) -> Answer<'_, List<TunnelView>> {
        let scope = scope.clone();
        Box::pin(async move { Ok(self.list(&scope, &filter).await) })
    }

    fn get_tunnel(&self, scope: &Scope, name: &str) -> Answer<'_, TunnelView> {
        let (scope, name) = (scope.clone(), name.to_owned());
        Box::pin(async move { self.tunnel(&scope, &name).await })
    }

    fn disconnect(&self, scope: &Scope, name: &str, ban_seconds: Option<u64>) -> Answer<'_, ()> {
        let (scope, name) = (scope.clone(), name.to_owned());
        Box::pin(async move { self.disconnect_router(&scope, &name, ban_seconds).await })
    }

    fn dial(&self, scope: &Scope, name: &str, to: DialTo) -> Answer<'_, Dialled> {
        let (scope, name) = (scope.clone(), name.to_owned());
        Box::pin(async move {
            let stream = ApiHandle::dial(self, &scope, &name, to).await;
            let stream = stream.map_err(|error| dial_refusal(&name, &error))?;
            Ok(Dialled {
                generation: stream.generation(),
                session_end: Box::pin(stream.session_end()),
                traffic: stream.traffic(),
                connection: Box::new(stream),
            })
        })
    }

    fn list_bans(&self, scope: &Scope, page: Page) -> Answer<'_, List<BanView>> {
        let event_id = self.core.event_id();
        let now = clock::now();
        let mut all = self.core.bans().list(now);
        all.retain(|ban| page.is_ahead(&ban.router) && self.in_scope(scope, &ban.router));
        let views = all.iter().map(|ban| ban_view(ban, now)).collect();
        let list = page.cut(event_id, views, |view: &BanView| &view.router);
        Box::pin(async { Ok(list) })
    }

    fn ban(&self, scope: &Scope, name: &str, seconds: u64) -> Answer<'_, BanView> {
        let (scope, name) = (scope.clone(), name.to_owned());
        Box::pin(async move { self.ban_router(&scope, &name, seconds).await })
    }

    fn lift_ban(&self, scope: &Scope, name: &str) -> Answer<'_, ()> {
        let lifted = self.in_scope(scope, name) && self.core.lift_ban(name).is_some();
        let answer = if lifted { Ok(()) } else { Err(ApiError::ban_not_found(name)) };
        Box::pin(async { answer })
    }
}

fn ban_view(ban: &Ban, now: Instant) -> BanView {
    BanView {
        router: ban.router.to_string(),
        since: Timestamp(ban.since),
        until: Timestamp(ban.until),
        remaining_seconds: ban.ends.saturating_duration_since(now).as_secs(),
    }
}

fn dial_refusal(name: &str, error: &DialError) -> ApiError {
    let code = match error {
        DialError::NoTunnel | DialError::Cut(_) => return ApiError::tunnel_not_found(name),
        DialError::GenerationChanged { .. } => ErrorCode::GenerationChanged,
        DialError::BadPort => return ApiError::invalid("port", error.to_string()),
        DialError::Refused { .. } => ErrorCode::DialRefused,
        DialError::TimedOut { .. } => ErrorCode::DialTimeout,
        DialError::Unreachable(_) => ErrorCode::DialUnreachable,
        DialError::TooMany(_) => ErrorCode::Busy,
        DialError::NeedsKernelDevice => ErrorCode::NotOffered,
        DialError::Host(_) => ErrorCode::Internal,
    };
    ApiError::new(code, error.to_string())
}

/// The state of a tunnel whose router doesn't acknowledge.
const SUSPECT: &str = "suspect";

fn tunnel_view(report: &TunnelReport, found: &Found) -> TunnelView {
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
    let (account, session) = (found.account.as_deref(), &found.session);
    TunnelView {
        router: report.identity.0.to_string(),
        generation: report.client.0,
        tenant: account.and_then(|account| account.tenant.as_deref()).map(str::to_owned),
        tags: account.map(|account| account.tags.clone()).unwrap_or_default(),
        address: report.address,
        real_address: report.real_address,
        state: if report.suspect { SUSPECT } else { "up" }.to_owned(),
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
        silent_ms: report.tcp.map(|tcp| u64::from(tcp.silent_ms)),
        dials_open: session.open() as u64,
        dials_total: session.total(),
        dial_rx_bytes: session.traffic().from_router(),
        dial_tx_bytes: session.traffic().to_router(),
    }
}
