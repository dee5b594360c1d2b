//! The handle behind the control socket.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Mutex, oneshot};
use tunnelhead_crypto::{AuthDigest, DataCipher, SystemRandom};

use crate::control_api::types::{
    CertificateStatus, CreatedRouter, Degraded, ListenerStatus, Login, NewRouter, PoolStatus,
    RouterPatch, RouterView, SecretText, ShardStatus, Status, StoreStatus, Timestamp, TunStatus,
    TunnelView,
};
use crate::control_api::{Answer, ApiError, ErrorCode, Handle};
use crate::identity::{
    Account, DirectoryError, LoginMode, StoredSecret, default_username, generate_password,
};
use crate::lease::LeaseError;
use crate::net::isolation::DropReason;
use crate::proto::session::SessionStats;
use crate::shard::{Cut, ShardMessage, TunnelReport};
use crate::store::{Change, StoreError};
use crate::telemetry::clock;

use super::core::Core;
use super::provisioning::Provisioning;

/// The handle: [`Core`] plus what only the control socket needs.
pub(super) struct ApiHandle {
    pub(super) core: Arc<Core>,
    pub(super) facts: Facts,
    pub(super) provisioning: Provisioning,
    /// Connections accepted, by listener.
    pub(super) accepted: Vec<Arc<AtomicU64>>,
    /// Accounts change one at a time: check, commit, then show.
    pub(super) changing: Mutex<()>,
}

/// What doesn't change while the concentrator runs.
pub(super) struct Facts {
    pub(super) started: u64,
    pub(super) tun: TunStatus,
    pub(super) listeners: Vec<ListenerStatus>,
    pub(super) management_address: Ipv4Addr,
    pub(super) pool: String,
    pub(super) certificates: Vec<CertificateStatus>,
    /// What was found wanting at the start.
    pub(super) degraded: Vec<Degraded>,
}

impl ApiHandle {
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

    async fn tunnel_of(&self, name: &str) -> Result<TunnelReport, ApiError> {
        let address = self.core.live().get(name).map(|live| live.address);
        let Some(address) = address else { return Err(ApiError::tunnel_not_found(name)) };
        self.reports(Some(address))
            .await
            .into_iter()
            .find(|report| &*report.identity.0 == name && report.up)
            .ok_or_else(|| ApiError::tunnel_not_found(name))
    }

    fn account(&self, name: &str) -> Result<Arc<Account>, ApiError> {
        let directory = self.core.accounts.read();
        directory.get(name).cloned().ok_or_else(|| ApiError::router_not_found(name))
    }

    fn view(&self, account: &Account) -> RouterView {
        let leases = self.core.leases();
        let connected = self.core.live().contains_key(&account.name);
        let last_seen = if connected {
            Some(Timestamp(clock::unix_seconds()))
        } else {
            // A lease counts as used from the moment it is made; a router was seen only later.
            let lease = leases.record_of(&account.name).filter(|l| l.last_used > l.since);
            lease.map(|lease| Timestamp(lease.last_used))
        };
        RouterView {
            name: account.name.to_string(),
            username: account.username.clone(),
            login: match account.login {
                LoginMode::Password => Login::Password,
                LoginMode::Certificate => Login::Certificate,
                LoginMode::Both => Login::Both,
            },
            certificate_cn: account.certificate_cn.clone(),
            cipher: account.cipher.clone(),
            auth: account.auth.clone(),
            address: leases.address_of(&account.name),
            address_static: account.address.is_some(),
            disabled: account.disabled,
            connected,
            created: Timestamp(u64::try_from(account.created_at).unwrap_or(0)),
            last_seen,
        }
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), ApiError> {
        let (sender, receiver) = oneshot::channel();
        self.core.store.submit(
            changes,
            Some(Box::new(move |result: Result<(), StoreError>| {
                // The caller has gone away: the change stands all the same.
                let _ = sender.send(result);
            })),
        );
        match receiver.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ApiError::new(ErrorCode::StoreDegraded, error.to_string())),
            Err(_) => Err(ApiError::new(ErrorCode::Unavailable, "the concentrator is stopping")),
        }
    }

    async fn add(&self, new: NewRouter) -> Result<CreatedRouter, ApiError> {
        let new = new.check()?;
        let _changing = self.changing.lock().await;
        if self.core.accounts.read().get(&new.name).is_some() {
            let message = format!("a router \"{}\" exists already", new.name);
            return Err(ApiError::field(ErrorCode::RouterExists, "name", message));
        }
        let password = match &new.password {
            Some(password) => password.clone(),
            None => SecretText(generate_password(&mut SystemRandom).map_err(|_| no_randomness())?),
        };
        let account = self.make_account(&new, &password).await?;
        // Shown as disabled until it is on disk: the names are taken, nobody gets in.
        self.replace(Account { disabled: true, ..account.clone() })?;
        let recorded = self.record(&account).await;
        if let Err(error) = recorded {
            self.core.accounts.write().remove(&account.name);
            return Err(error);
        }
        self.replace(account.clone())?;
        tracing::info!(router = %account.name, "router added");
        self.provisioned(&account, password, new.verify_server)
    }

    /// The scripts of an account whose password is known to the caller.
    pub(super) fn provision(
        &self,
        name: &str,
        password: SecretText,
        verify_server: bool,
    ) -> Result<CreatedRouter, ApiError> {
        let account = self.account(name)?;
        self.provisioned(&account, password, verify_server)
    }

    fn provisioned(
        &self,
        account: &Account,
        password: SecretText,
        verify_server: bool,
    ) -> Result<CreatedRouter, ApiError> {
        let texts = self.provisioning.texts(account, &password, verify_server)?;
        Ok(CreatedRouter {
            router: self.view(account),
            password,
            script: SecretText(texts.script),
            script_v6: SecretText(texts.script_v6),
            ovpn: SecretText(texts.ovpn),
        })
    }

    /// Takes an address for a new account and commits both.
    async fn record(&self, account: &Account) -> Result<(), ApiError> {
        let unix = clock::unix_seconds();
        let lease = {
            let mut leases = self.core.leases();
            match account.address {
                Some(address) => leases.reserve_static(&account.name, address, unix),
                None => leases.acquire(&account.name, unix),
            }
            .map_err(lease_refusal)?;
            leases.record_of(&account.name).cloned()
        };
        let mut changes = vec![Change::PutRouter(account.clone())];
        changes.extend(lease.map(Change::PutLease));
        let committed = self.commit(changes).await;
        if committed.is_err() {
            self.core.leases().release(&account.name, unix);
        }
        committed
    }

    async fn make_account(
        &self,
        new: &NewRouter,
        password: &SecretText,
    ) -> Result<Account, ApiError> {
        let username = match &new.username {
            Some(username) => username.clone(),
            None => default_username(&new.name, &mut SystemRandom).map_err(|_| no_randomness())?,
        };
        let login = match new.login {
            Login::Password => LoginMode::Password,
            Login::Certificate => LoginMode::Certificate,
            Login::Both => LoginMode::Both,
        };
        let secret = if new.password.is_some() {
            let text = password.clone();
            tokio::task::spawn_blocking(move || {
                StoredSecret::argon2id(text.expose().as_bytes(), &mut SystemRandom)
            })
            .await
            .map_err(|_| ApiError::new(ErrorCode::Unavailable, "the concentrator is stopping"))?
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?
        } else {
            StoredSecret::machine(self.core.accounts.key(), &new.name, password.expose().as_bytes())
        };
        let certificate_cn = match (&new.certificate_cn, login.wants_certificate()) {
            (Some(common_name), _) => Some(common_name.clone()),
            (None, true) => Some(new.name.clone()),
            (None, false) => None,
        };
        let account = Account {
            name: new.name.as_str().into(),
            username,
            secret,
            login,
            certificate_cn,
            cipher: new.cipher.clone(),
            auth: new.auth.clone(),
            disabled: false,
            address: new.address,
            created_at: i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX),
        };
        Ok(account)
    }

    async fn patch(&self, name: &str, patch: RouterPatch) -> Result<RouterView, ApiError> {
        let _changing = self.changing.lock().await;
        let account = self.account(name)?;
        let Some(disabled) = patch.disabled else { return Ok(self.view(&account)) };
        let changed = Account { disabled, ..Account::clone(&account) };
        if disabled && !account.disabled {
            // Shut first: an operator who disables a router means now, whatever the disk says.
            self.replace(changed.clone())?;
            self.core.cut(name, Cut::Disabled);
            self.commit(vec![Change::PutRouter(changed.clone())]).await.map_err(|error| {
                let message = format!(
                    "{name} is cut and shut out until the concentrator restarts, but that could \
                     not be recorded: {}",
                    error.message
                );
                ApiError { message, ..error }
            })?;
        } else {
            self.commit(vec![Change::PutRouter(changed.clone())]).await?;
            self.replace(changed.clone())?;
        }
        tracing::info!(router = name, disabled, "router changed");
        Ok(self.view(&changed))
    }

    fn replace(&self, account: Account) -> Result<(), ApiError> {
        self.core.accounts.write().insert(account).map(|_| ()).map_err(directory_refusal)
    }

    async fn remove(&self, name: &str) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let account = self.account(name)?;
        let unix = clock::unix_seconds();
        let released = Change::ReleaseLease { identity: Arc::clone(&account.name), at: unix };
        self.commit(vec![Change::DeleteRouter { name: Arc::clone(&account.name) }, released])
            .await?;
        self.core.accounts.write().remove(name);
        self.core.cut(name, Cut::Removed);
        self.core.leases().release(name, unix);
        tracing::info!(router = name, "router removed");
        Ok(())
    }

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
                let dropped = totals.dropped(reason);
                if dropped > 0 {
                    *drops.entry(format!("drop_{}", reason.code())).or_insert(0) += dropped;
                }
            }
        }
        drops
    }

    fn listeners(&self) -> Vec<ListenerStatus> {
        let accepted = self.accepted.iter().map(|count| count.load(Ordering::Relaxed));
        self.facts
            .listeners
            .iter()
            .zip(accepted)
            .map(|(listener, accepted)| ListenerStatus { accepted, ..listener.clone() })
            .collect()
    }

    async fn status_now(&self) -> Status {
        let core = &self.core;
        let started = self.facts.started;
        let mut degraded = self.facts.degraded.clone();
        let store = core.store.health();
        if let Some(reason) = &store.degraded {
            degraded.push(Degraded { part: "store".to_owned(), reason: reason.clone() });
        }
        let tun_failed =
            core.shard_counters.iter().any(|shard| shard.tun_failed.load(Ordering::Relaxed));
        let tun = TunStatus { up: !tun_failed, ..self.facts.tun.clone() };
        if tun_failed {
            let reason = "the TUN device is gone; restart the concentrator".to_owned();
            degraded.push(Degraded { part: "tun".to_owned(), reason });
        }
        let ended = core.ended_threads();
        if ended > 0 {
            let reason = format!("{ended} of its threads failed; restart the concentrator");
            degraded.push(Degraded { part: "threads".to_owned(), reason });
        }
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
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: Timestamp(started),
            uptime_seconds: clock::unix_seconds().saturating_sub(started),
            ready: tun.up && ended == 0 && self.facts.listeners.iter().all(|listener| listener.up),
            tun,
            listeners: self.listeners(),
            management_address: self.facts.management_address,
            routers: core.accounts.read().len() as u64,
            tunnels: core.tunnel_count(),
            logins_in_progress: core.greeting.in_progress.load(Ordering::Relaxed) as u64,
            pool,
            shards: self.shard_status(),
            store: StoreStatus { ok: store.degraded.is_none(), reason: store.degraded },
            certificates: self.facts.certificates.clone(),
            degraded,
            counters,
        }
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

/// Runs a change to its end even if nobody waits for it any more: a caller that hangs up or is
/// answered `timeout` must not leave the disk and the running concentrator apart.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change)
        .await
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the change ended in the middle"))?
}

impl Handle for Arc<ApiHandle> {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async { Ok(self.status_now().await) })
    }

    fn add_router(&self, new: NewRouter) -> Answer<'_, CreatedRouter> {
        let handle = Self::clone(self);
        Box::pin(to_the_end(async move { handle.add(new).await }))
    }

    fn list_routers(&self) -> Answer<'_, Vec<RouterView>> {
        Box::pin(async {
            let accounts: Vec<Arc<Account>> =
                self.core.accounts.read().iter().map(Arc::clone).collect();
            let mut views: Vec<RouterView> =
                accounts.iter().map(|account| self.view(account)).collect();
            views.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(views)
        })
    }

    fn get_router(&self, name: &str) -> Answer<'_, RouterView> {
        let found = self.account(name).map(|account| self.view(&account));
        Box::pin(async { found })
    }

    fn patch_router(&self, name: &str, patch: RouterPatch) -> Answer<'_, RouterView> {
        let (handle, name) = (Self::clone(self), name.to_owned());
        Box::pin(to_the_end(async move { handle.patch(&name, patch).await }))
    }

    fn remove_router(&self, name: &str) -> Answer<'_, ()> {
        let (handle, name) = (Self::clone(self), name.to_owned());
        Box::pin(to_the_end(async move { handle.remove(&name).await }))
    }

    fn list_tunnels(&self) -> Answer<'_, Vec<TunnelView>> {
        Box::pin(async {
            let reports = self.reports(None).await;
            let mut views: Vec<TunnelView> =
                reports.iter().filter(|report| report.up).map(tunnel_view).collect();
            views.sort_by(|a, b| a.router.cmp(&b.router));
            Ok(views)
        })
    }

    fn get_tunnel(&self, name: &str) -> Answer<'_, TunnelView> {
        let name = name.to_owned();
        Box::pin(async move { self.tunnel_of(&name).await.map(|report| tunnel_view(&report)) })
    }

    fn disconnect(&self, name: &str) -> Answer<'_, ()> {
        let name = name.to_owned();
        Box::pin(async move {
            if self.core.cut(&name, Cut::Disconnected) {
                tracing::info!(router = name, "disconnected by an operator");
                return Ok(());
            }
            self.account(&name)?;
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

fn no_randomness() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the operating system gives no randomness")
}

fn lease_refusal(error: LeaseError) -> ApiError {
    let message = error.to_string();
    match error {
        LeaseError::PoolFull { .. } => ApiError::new(ErrorCode::PoolFull, message),
        LeaseError::Taken { .. } | LeaseError::Resting { .. } => {
            ApiError::field(ErrorCode::AddressTaken, "address", message)
        }
        _ => ApiError::invalid("address", message),
    }
}

fn directory_refusal(error: DirectoryError) -> ApiError {
    let message = error.to_string();
    match error {
        DirectoryError::UsernameTaken => {
            ApiError::field(ErrorCode::UsernameTaken, "username", message)
        }
        DirectoryError::CommonNameTaken => {
            ApiError::field(ErrorCode::CertificateTaken, "certificate_cn", message)
        }
        DirectoryError::AddressTaken => {
            ApiError::field(ErrorCode::AddressTaken, "address", message)
        }
        _ => ApiError::new(ErrorCode::Invalid, message),
    }
}
