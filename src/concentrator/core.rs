//! What the threads share: who may log in, who holds which address, where each tunnel lives.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tunnelhead_crypto::DataCipher;

use crate::control_api::types::{Timestamp, plain_address};
use crate::greeter::{Asker, Departure, GreeterMessage, GreeterServices, GreeterShared, LoginEnd};
use crate::identity::{Takeover, Takeovers};
use crate::lease::{self, AddressBook};
use crate::proto::ClientId;
use crate::proto::session::{
    Assignment, AssignmentRefused, AuthRequest, ClientCertificate, DenyReason, Identity, TlsAnswer,
    TlsTask, Verdict,
};
use crate::shard::{
    self, Arrival, Cut, RekeyAsker, ShardCounters, ShardMessage, ShardServices, TunnelReport,
};
use crate::store::{Change, Store};
use crate::sys::mailbox::Mailbox;
use crate::telemetry::clock;
use crate::telemetry::flight::Recorder;

use super::accounts::Accounts;
use super::audit::Trail;
use super::authenticator::{Answer, Guests, Judge, LoginKind, LoginRequest, OutsideCounters};
use super::bans::{Ban, Bans, Full};
use super::dial::{self, Dials};
use super::events::{EventHub, Moment, TunnelEvent};
use super::observed::Observed;
use super::revoked::Revoked;
use super::session_log::SessionLog;
use super::settings::Settings;

/// Shared by greeters, shards and the control socket. Nothing here is touched once a packet.
pub(super) struct Core {
    /// What counts now.
    pub(super) settings: Settings,
    /// The user name of the logins that `doctor` makes; nobody else knows it, and it never gets in.
    pub(super) probe_username: String,
    pub(super) accounts: Arc<Accounts>,
    pub(super) judge: Arc<dyn Judge>,
    pub(super) observed: Observed,
    /// What came of questions to an authenticator from outside; `None` without one.
    pub(super) outside: Option<Arc<OutsideCounters>>,
    /// What an authenticator from outside said about routers it accepted.
    pub(super) guests: Mutex<Guests>,
    pub(super) leases: Mutex<AddressBook>,
    pub(super) store: Arc<dyn Store>,
    pub(super) audit: Trail,
    pub(super) sessions: Arc<SessionLog>,
    pub(super) takeovers: Mutex<Takeovers>,
    /// By name: lists are read in pages.
    pub(super) live: Mutex<BTreeMap<Arc<str>, Live>>,
    pub(super) bans: Mutex<Bans>,
    pub(super) revoked: Mutex<Revoked>,
    pub(super) greeters: Vec<Arc<Mailbox<GreeterMessage>>>,
    pub(super) shards: Vec<Arc<Mailbox<ShardMessage>>>,
    pub(super) shard_counters: Vec<Arc<ShardCounters>>,
    pub(super) greeting: Arc<GreeterShared>,
    pub(super) events: Arc<EventHub>,
    pub(super) counts: Counters,
    pub(super) dials: Arc<Dials>,
    pub(super) recorder: Mutex<Recorder>,
}

/// Plain counters of the login path.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) logins: AtomicU64,
    pub(super) takeovers: AtomicU64,
    pub(super) clones_refused: AtomicU64,
}

/// Where a router's tunnel lives.
pub(super) struct Live {
    pub(super) client: ClientId,
    pub(super) address: Ipv4Addr,
    pub(super) real_address: SocketAddr,
    /// Packets can flow both ways.
    pub(super) up: bool,
    /// The connections to the router; they end with the session, in the step that ends or
    /// replaces it here.
    pub(super) dials: Arc<dial::Session>,
    /// What it presented in its TLS handshake.
    pub(super) certificate: Option<ClientCertificate>,
}

impl Core {
    pub(super) fn leases(&self) -> MutexGuard<'_, AddressBook> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bans(&self) -> MutexGuard<'_, Bans> {
        self.bans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revoked(&self) -> MutexGuard<'_, Revoked> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_greeter(&self, greeter: usize, message: GreeterMessage) {
        if let Some(mailbox) = self.greeters.get(greeter) {
            mailbox.post(message);
        }
    }

    pub(super) fn tell_shard(&self, address: Ipv4Addr, message: ShardMessage) {
        if let Some(mailbox) = self.shards.get(shard::owner_of(address, self.shards.len())) {
            mailbox.post(message);
        }
    }

    /// Ends the tunnel of a router, if it has one. Call it after the directory was changed: a
    /// login that was accepted before sees the change at [`GreeterServices::depart`].
    pub(super) fn cut(&self, name: &str, cut: Cut) -> bool {
        self.cut_if(name, cut, |_| true, None)
    }

    /// The same for a session that is `wanted`; `done` is told once no packet passes any more, and
    /// never if there is no such tunnel.
    pub(super) fn cut_if(
        &self,
        name: &str,
        cut: Cut,
        wanted: impl FnOnce(&dial::Session) -> bool,
        done: Option<Box<dyn FnOnce() + Send>>,
    ) -> bool {
        let mut live = self.live();
        if matches!(
            cut,
            Cut::Disabled | Cut::Removed | Cut::Banned | Cut::Readdressed | Cut::Rotated
        ) {
            self.revoked().note(clock::now(), name);
        }
        let tunnel = live.get_mut(name).filter(|tunnel| wanted(&tunnel.dials));
        let Some(tunnel) = tunnel else { return false };
        tunnel.up = false;
        tunnel.dials.cut(cut.code());
        self.tell_shard(tunnel.address, ShardMessage::Cut(tunnel.address, cut, done));
        true
    }

    /// Keeps a router out from now on. The caller cuts its tunnel.
    pub(super) fn ban(&self, router: &Arc<str>, time: Duration) -> Result<Ban, Full> {
        let ban = self.bans().set(clock::now(), clock::unix_seconds(), router, time)?;
        tracing::info!(%router, seconds = time.as_secs(), "banned");
        self.tell(TunnelEvent::Banned { router: Arc::clone(router), until: Timestamp(ban.until) });
        Ok(ban)
    }

    /// Ends a ban before its time.
    pub(super) fn lift_ban(&self, router: &str) -> Option<Ban> {
        let ban = self.bans().lift(clock::now(), router)?;
        tracing::info!(router, "the ban is lifted");
        self.tell(TunnelEvent::BanLifted { router: Arc::clone(&ban.router) });
        Some(ban)
    }

    /// Forgets bans that are over.
    pub(super) fn expire_bans(&self) {
        let over = self.bans().expire(clock::now());
        for Ban { router, .. } in over {
            self.tell(TunnelEvent::BanLifted { router });
        }
    }

    fn is_banned(&self, router: &str) -> bool {
        self.bans().current(clock::now(), router).is_some()
    }

    /// The router whose user name this is, if it is banned.
    fn is_banned_username(&self, username: &[u8]) -> bool {
        if self.bans().is_empty() {
            return false;
        }
        let name = {
            let directory = self.accounts.read();
            directory.by_username(username).map(|account| Arc::clone(&account.name))
        };
        name.is_some_and(|name| self.is_banned(&name))
    }

    /// Ends the tunnels of every client whose certificate is revoked; says how many. Call it after
    /// the settings were replaced: a login on its way sees them at [`GreeterServices::depart`].
    pub(super) fn cut_revoked(&self, cut: Cut) -> u64 {
        let revocations = Arc::clone(&self.settings.current().revocations);
        let mut count = 0;
        for (name, tunnel) in self.live().iter_mut() {
            if tunnel.certificate.as_ref().is_some_and(|one| revocations.covers(one)) {
                tracing::warn!(router = %name, "its certificate is revoked");
                tunnel.up = false;
                tunnel.dials.cut(cut.code());
                self.tell_shard(tunnel.address, ShardMessage::Cut(tunnel.address, cut, None));
                count += 1;
            }
        }
        count
    }

    /// The address of an identity: the one it holds, or a new one.
    fn assign_address(
        &self,
        asker: Asker,
        identity: &Identity,
    ) -> Option<Result<Ipv4Addr, AssignmentRefused>> {
        if !self.may_take_over(asker, identity) {
            return Some(Err(AssignmentRefused::Clone));
        }
        let unix = clock::unix_seconds();
        let Ok(acquired) = self.leases().acquire(&identity.0, unix) else {
            return Some(Err(AssignmentRefused::PoolFull));
        };
        if acquired.fresh {
            return None;
        }
        Some(Ok(acquired.address))
    }

    fn may_take_over(&self, asker: Asker, identity: &Identity) -> bool {
        let incumbent = self.live().get(&identity.0).map(|live| live.real_address);
        let decision = self.takeovers.lock().unwrap_or_else(PoisonError::into_inner).decide(
            clock::now(),
            &identity.0,
            incumbent.map(|at| at.ip()),
            asker.source.ip(),
        );
        match decision {
            Takeover::Free => true,
            Takeover::Replace => {
                self.counts.takeovers.fetch_add(1, Ordering::Relaxed);
                true
            }
            Takeover::Refuse { incumbent, newcomer, takeovers, retry_after } => {
                self.counts.clones_refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(router = %identity.0, %incumbent, %newcomer, takeovers, ?retry_after,
                    "two routers fight for one identity; the incumbent stays");
                self.tell(TunnelEvent::Clone {
                    router: Arc::clone(&identity.0),
                    incumbent,
                    refused: newcomer,
                });
                false
            }
        }
    }

    /// Plain counters since the start, by stable name.
    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ours = &self.counts;
        let mut all = BTreeMap::from([
            ("logins".to_owned(), load(&ours.logins)),
            ("takeovers".to_owned(), load(&ours.takeovers)),
            ("clones_refused".to_owned(), load(&ours.clones_refused)),
            ("sessions_unrecorded".to_owned(), self.sessions.lost()),
        ]);
        all.extend(self.dials.counters().map(|(name, count)| (name.to_owned(), count)));
        all.extend(self.events.counters().map(|(name, count)| (name.to_owned(), count)));
        for (reason, count) in self.greeting.closed.totals() {
            all.insert(format!("login_closed_{reason}"), count);
        }
        for (outcome, count) in self.outside.iter().flat_map(|o| o.outcomes.totals()) {
            all.insert(format!("authenticator_{outcome}"), count);
        }
        for shard in &self.shard_counters {
            for (reason, count) in shard.closed.totals() {
                *all.entry(format!("tunnel_closed_{reason}")).or_default() += count;
            }
            for (name, counter) in [
                ("host_packets", &shard.host_packets),
                ("router_packets", &shard.router_packets),
                ("forwarded_packets", &shard.forwarded),
                ("drop_mailbox_full", &shard.forward_drops),
                ("drop_tun_full", &shard.tun_drops),
                ("drop_no_tunnel", &shard.no_tunnel),
                ("rekeys", &shard.rekeys),
            ] {
                *all.entry(name.to_owned()).or_default() += load(counter);
            }
        }
        all
    }

    /// Packet and login threads that have ended although the concentrator runs.
    pub(super) fn ended_threads(&self) -> usize {
        let shards = self.shard_counters.iter().filter(|s| s.ended.load(Ordering::Relaxed)).count();
        shards + self.greeting.ended.load(Ordering::Relaxed)
    }

    /// Tunnels of all shards.
    pub(super) fn tunnel_count(&self) -> u64 {
        self.shard_counters.iter().map(|c| c.tunnels.load(Ordering::Relaxed) as u64).sum()
    }

    /// The id of the newest event.
    pub(super) fn event_id(&self) -> u64 {
        self.events.last_id()
    }

    /// Tells what happened, after it can be seen. Call it without a lock on accounts or leases.
    pub(super) fn tell(&self, event: TunnelEvent) {
        let counted = matches!(
            event,
            TunnelEvent::RouterAdded { .. }
                | TunnelEvent::RouterRemoved { .. }
                | TunnelEvent::AddressGiven { .. }
        );
        let tenant = self.tenant_of_event(&event);
        self.events.tell(Moment(clock::unix_millis()), tenant, event);
        if counted {
            self.make_room_for_events();
        }
    }

    /// Tells that a router has changed its tenant, after that can be seen.
    pub(super) fn tell_moved(&self, router: &Arc<str>, from: Option<Arc<str>>) {
        let to = self.accounts.read().get(router).and_then(|account| account.tenant.clone());
        self.events.moved(Moment(clock::unix_millis()), router, from, to);
    }

    /// Whose router an event is about.
    fn tenant_of_event(&self, event: &TunnelEvent) -> Option<Arc<str>> {
        if let TunnelEvent::RouterRemoved { tenant, .. } = event {
            return tenant.clone();
        }
        self.tenant_of(event.router()?)
    }

    /// An embedder's authenticator knows routers without accounts; those have addresses.
    pub(super) fn make_room_for_events(&self) {
        let accounts = self.accounts.read().len();
        let leases = usize::try_from(self.leases().in_use()).unwrap_or(usize::MAX);
        self.events.set_routers(accounts.max(leases));
    }
}

/// The assignment that goes with an address.
fn assignment_of(address: Ipv4Addr) -> Assignment {
    Assignment { address, prefix_len: lease::PREFIX_LEN, gateway: lease::gateway_of(address) }
}

/// What [`GreeterServices`] and [`ShardServices`] are implemented on.
#[derive(Clone)]
pub(super) struct Services(pub(super) Arc<Core>);

impl GreeterServices for Services {
    fn authenticate(&self, asker: Asker, request: Box<AuthRequest>) {
        if request.username == self.0.probe_username.as_bytes() {
            let refused = Verdict::Deny(DenyReason::UnknownUser);
            let message = GreeterMessage::Verdict(asker.client, asker.ticket, refused);
            return self.0.tell_greeter(asker.greeter, message);
        }
        let core = Arc::clone(&self.0);
        let banned = core.is_banned_username(&request.username);
        let answer = Answer::new(move |verdict, claims| {
            // Whose user name says nothing about the account is known only now.
            let verdict = match verdict {
                Verdict::Allow(allowed) if core.is_banned(&allowed.identity.0) => {
                    Verdict::Deny(DenyReason::Banned)
                }
                verdict => verdict,
            };
            let tell = Arc::clone(&core);
            core.admit(verdict, claims, move |verdict| {
                let message = GreeterMessage::Verdict(asker.client, asker.ticket, verdict);
                tell.tell_greeter(asker.greeter, message);
            });
        });
        if banned {
            return answer.give(Verdict::Deny(DenyReason::Banned));
        }
        let login = LoginRequest {
            kind: LoginKind::Login,
            request,
            source: asker.source,
            listener: asker.listener,
        };
        self.0.judge.judge(login, answer);
    }

    fn assign(&self, asker: Asker, identity: Identity) {
        let core = Arc::clone(&self.0);
        let reply = move |assigned: Result<Ipv4Addr, AssignmentRefused>| {
            let assignment = assigned.map(assignment_of);
            let message = GreeterMessage::Assignment(asker.client, asker.ticket, assignment);
            core.tell_greeter(asker.greeter, message);
        };
        match self.0.assign_address(asker, &identity) {
            Some(assigned) => reply(assigned),
            // A first lease counts once it is on disk; a known router never comes here.
            None => {
                let record = self.0.leases().record_of(&identity.0).cloned();
                let Some(record) = record else { return reply(Err(AssignmentRefused::PoolFull)) };
                let core = Arc::clone(&self.0);
                let address = record.address;
                let done = move |result: Result<(), _>| match result {
                    Ok(()) => {
                        core.tell(TunnelEvent::AddressGiven { router: identity.0, address });
                        reply(Ok(address));
                    }
                    Err(error) => {
                        tracing::error!(%error, "a first lease could not be recorded");
                        core.leases().release(&identity.0, clock::unix_seconds());
                        reply(Err(AssignmentRefused::StoreDegraded));
                    }
                };
                self.0.store.submit(vec![Change::PutLease(record)], Some(Box::new(done)));
            }
        }
    }

    fn depart(&self, departure: Box<Departure>) {
        let core = &self.0;
        let address = departure.assignment.address;
        // The lock is held over the check and the message: `cut` takes it after it has changed
        // the directory, so it either sees this tunnel or this check sees its change.
        let mut live = core.live();
        let certificate = departure.session.info().certificate;
        let revoked = core.revoked().covers(&departure.identity.0, departure.accepted_at)
            || certificate
                .as_ref()
                .is_some_and(|one| core.settings.current().revocations.covers(one));
        if revoked || !core.judge.still_allowed(&departure.identity) {
            drop(live);
            core.greeting.closed.note("revoked_meanwhile");
            core.tell_greeter(departure.greeter, GreeterMessage::Forget(departure.client));
            core.note_revoked(departure.record, departure.trace);
            return;
        }
        core.counts.logins.fetch_add(1, Ordering::Relaxed);
        let took = clock::now().saturating_duration_since(departure.accepted_at);
        core.observed.login_times.observe(took);
        let tunnel = Live {
            client: departure.client,
            address,
            real_address: departure.real_address,
            certificate,
            up: false,
            dials: Arc::new(dial::Session::new(departure.client.0, address)),
        };
        if let Some(replaced) = live.insert(Arc::clone(&departure.identity.0), tunnel) {
            replaced.dials.cut("replaced_by_new_login");
        }
        let departure = *departure;
        // Before its shard can say that it is up.
        core.note_logged_in(departure.record, departure.trace);
        core.tell_shard(
            address,
            ShardMessage::Arrival(Box::new(Arrival {
                client: departure.client,
                identity: departure.identity,
                assignment: departure.assignment,
                socket: departure.socket,
                real_address: departure.real_address,
                since: clock::unix_seconds(),
                session: departure.session,
                unsent: departure.unsent,
                greeter: departure.greeter,
            })),
        );
    }

    fn tls_answer(&self, client: ClientId, address: Ipv4Addr, answer: TlsAnswer) {
        self.0.tell_shard(address, ShardMessage::TlsAnswer(client, address, answer));
    }

    fn login_failed(&self, end: LoginEnd) {
        if end.username.as_deref() == Some(self.0.probe_username.as_bytes()) {
            return;
        }
        self.0.note_failed(end.record, end.trace);
        let Some(username) = end.username else {
            tracing::trace!(client = end.client.0, reason = end.reason, "closed before a login");
            return;
        };
        let account = self.0.accounts.read().by_username(&username).cloned();
        let username = escape(&username);
        tracing::debug!(client = end.client.0, source = %end.source, %username,
            reason = end.reason, detail = %end.detail, "login failed");
        self.0.tell(TunnelEvent::LoginFailed {
            router: account.map(|account| Arc::clone(&account.name)),
            username,
            real_address: plain_address(end.source),
            reason: end.reason,
        });
    }
}

impl ShardServices for Services {
    fn tls_task(&self, greeter: usize, client: ClientId, task: TlsTask) {
        self.0.tell_greeter(greeter, GreeterMessage::TlsTask(client, task));
    }

    fn judge_rekey(&self, asker: RekeyAsker, request: Box<AuthRequest>) {
        let core = Arc::clone(&self.0);
        let RekeyAsker { client, identity, address, source } = asker;
        let kind = LoginKind::Rekey { router: Arc::clone(&identity.0) };
        let answer = Answer::new(move |verdict, _| {
            if !verdict.ends_tunnel_of(&identity) {
                return;
            }
            tracing::info!(router = %identity.0, ?verdict, "refused at a rekey");
            // The verdict is about this login; a later one of the router was judged by itself.
            if core.live().get(&identity.0).is_some_and(|live| live.client == client) {
                core.tell_shard(address, ShardMessage::Cut(address, Cut::Refused, None));
            }
        });
        self.0.judge.judge(LoginRequest { kind, request, source, listener: None }, answer);
    }

    fn forget(&self, greeter: usize, client: ClientId) {
        self.0.tell_greeter(greeter, GreeterMessage::Forget(client));
    }

    fn up(&self, report: TunnelReport) {
        if let Some(live) = self.0.live().get_mut(&report.identity.0)
            && live.client == report.client
        {
            live.up = true;
        }
        self.0.note_up(&report.identity.0, report.client.0);
        let cipher = report.info.cipher.map_or("", DataCipher::name);
        tracing::info!(router = %report.identity.0, address = %report.address, cipher, "tunnel up");
        tracing::debug!(router = %report.identity.0, real_address = %report.real_address, "from");
        self.0.sessions.opened(&report);
        let up = TunnelEvent::Up {
            router: report.identity.0,
            address: report.address,
            real_address: plain_address(report.real_address),
            cipher,
        };
        let tenant = self.0.tenant_of_event(&up);
        self.0.events.up(Moment(clock::unix_millis()), tenant, report.client, up);
    }

    fn rekeyed(&self, identity: &Identity, address: Ipv4Addr) {
        let router = Arc::clone(&identity.0);
        self.0.tell(TunnelEvent::Rekeyed { router, address });
    }

    fn down(&self, report: TunnelReport, reason: &'static str) {
        let core = &self.0;
        {
            let mut live = core.live();
            let own = live.get(&report.identity.0).is_some_and(|live| live.client == report.client);
            if own && let Some(ended) = live.remove(&report.identity.0) {
                ended.dials.cut(reason);
            }
        }
        core.note_down(&report.identity.0, report.client.0, reason);
        let unix = clock::unix_seconds();
        core.leases().touch(&report.identity.0, unix);
        core.accounts.note_seen(&report.identity.0, unix);
        core.sessions.closed(&report, reason, unix);
        tracing::info!(router = %report.identity.0, address = %report.address, reason, "tunnel down");
        let router = report.identity.0;
        if report.up {
            let down = TunnelEvent::Down {
                router,
                address: report.address,
                reason,
                seconds: unix.saturating_sub(report.since),
                rx_bytes: Some(report.info.stats.rx_bytes),
                tx_bytes: Some(report.info.stats.tx_bytes),
            };
            core.events.down(Moment(clock::unix_millis()), report.client, down);
        } else if reason != Cut::Stopping.code() {
            let account = core.accounts.read().get(&router).cloned();
            core.tell(TunnelEvent::LoginFailed {
                username: account.map_or_else(
                    || escape(router.as_bytes()),
                    |account| escape(account.username.as_bytes()),
                ),
                router: Some(router),
                real_address: plain_address(report.real_address),
                reason,
            });
        }
    }

    fn suspect(&self, report: TunnelReport) {
        tracing::info!(router = %report.identity.0, address = %report.address, "tunnel suspect");
        self.0.tell(TunnelEvent::Suspect { router: report.identity.0, address: report.address });
    }

    fn recovered(&self, report: TunnelReport) {
        tracing::info!(router = %report.identity.0, address = %report.address, "tunnel recovered");
        self.0.tell(TunnelEvent::Recovered { router: report.identity.0, address: report.address });
    }
}

/// Text of a peer, safe for logs and events: printable ASCII, at most 128 bytes shown.
fn escape(bytes: &[u8]) -> String {
    let shown = bytes.get(..128).unwrap_or(bytes);
    shown.escape_ascii().to_string()
}
