//! What the threads share: who may log in, who holds which address, where each tunnel lives.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tunnelhead_crypto::DataCipher;

use crate::greeter::{Asker, Departure, GreeterMessage, GreeterServices, GreeterShared, LoginEnd};
use crate::identity::{Takeover, Takeovers};
use crate::lease::{self, AddressBook};
use crate::proto::ClientId;
use crate::proto::session::{
    Assignment, AssignmentRefused, AuthRequest, Identity, TlsAnswer, TlsTask,
};
use crate::shard::{self, Arrival, Cut, ShardCounters, ShardMessage, ShardServices, TunnelReport};
use crate::store::{Change, Store};
use crate::sys::mailbox::Mailbox;
use crate::telemetry::clock;

use super::accounts::Accounts;
use super::authenticator::{Answer, Authenticator, LoginRequest};
use super::events::TunnelEvent;
use super::revoked::Revoked;

/// Shared by greeters, shards and the control socket. Nothing here is touched once a packet.
pub(super) struct Core {
    pub(super) accounts: Arc<Accounts>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) leases: Mutex<AddressBook>,
    pub(super) store: Arc<dyn Store>,
    pub(super) takeovers: Mutex<Takeovers>,
    pub(super) live: Mutex<HashMap<Arc<str>, Live>>,
    pub(super) revoked: Mutex<Revoked>,
    pub(super) greeters: Vec<Arc<Mailbox<GreeterMessage>>>,
    pub(super) shards: Vec<Arc<Mailbox<ShardMessage>>>,
    pub(super) shard_counters: Vec<Arc<ShardCounters>>,
    pub(super) greeting: Arc<GreeterShared>,
    pub(super) events: broadcast::Sender<TunnelEvent>,
    pub(super) counts: Counters,
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
}

impl Core {
    pub(super) fn leases(&self) -> MutexGuard<'_, AddressBook> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live(&self) -> MutexGuard<'_, HashMap<Arc<str>, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
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
        let live = self.live();
        if matches!(cut, Cut::Disabled | Cut::Removed) {
            self.revoked().note(clock::now(), name);
        }
        let Some(tunnel) = live.get(name) else { return false };
        self.tell_shard(tunnel.address, ShardMessage::Cut(tunnel.address, cut));
        true
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
        ]);
        for (reason, count) in self.greeting.closed.totals() {
            all.insert(format!("login_closed_{reason}"), count);
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
        0
    }

    pub(super) fn tell(&self, event: TunnelEvent) {
        // Nobody listens: nothing to do.
        let _ = self.events.send(event);
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
        let core = Arc::clone(&self.0);
        let answer = Answer::new(move |verdict| {
            let message = GreeterMessage::Verdict(asker.client, asker.ticket, verdict);
            core.tell_greeter(asker.greeter, message);
        });
        let login = LoginRequest { request, source: asker.source };
        self.0.authenticator.authenticate(login, answer);
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
                    Ok(()) => reply(Ok(address)),
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
        let revoked = core.revoked().covers(&departure.identity.0, departure.accepted_at);
        if revoked || !core.authenticator.still_allowed(&departure.identity) {
            drop(live);
            core.greeting.closed.note("revoked_meanwhile");
            core.tell_greeter(departure.greeter, GreeterMessage::Forget(departure.client));
            return;
        }
        core.counts.logins.fetch_add(1, Ordering::Relaxed);
        live.insert(
            Arc::clone(&departure.identity.0),
            Live { client: departure.client, address, real_address: departure.real_address },
        );
        let departure = *departure;
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
        let Some(username) = end.username else {
            tracing::trace!(client = end.client.0, reason = end.reason, "closed before a login");
            return;
        };
        let username = escape(&username);
        tracing::debug!(client = end.client.0, source = %end.source, %username,
            reason = end.reason, detail = %end.detail, "login failed");
        self.0.tell(TunnelEvent::LoginFailed {
            username,
            real_address: end.source,
            reason: end.reason,
        });
    }
}

impl ShardServices for Services {
    fn tls_task(&self, greeter: usize, client: ClientId, task: TlsTask) {
        self.0.tell_greeter(greeter, GreeterMessage::TlsTask(client, task));
    }

    fn forget(&self, greeter: usize, client: ClientId) {
        self.0.tell_greeter(greeter, GreeterMessage::Forget(client));
    }

    fn up(&self, report: TunnelReport) {
        let cipher = report.info.cipher.map_or("", DataCipher::name);
        tracing::info!(router = %report.identity.0, address = %report.address, cipher, "tunnel up");
        tracing::debug!(router = %report.identity.0, real_address = %report.real_address, "from");
        self.0.tell(TunnelEvent::Up {
            router: report.identity.0,
            address: report.address,
            real_address: report.real_address,
        });
    }

    fn down(&self, report: TunnelReport, reason: &'static str) {
        let core = &self.0;
        {
            let mut live = core.live();
            if live.get(&report.identity.0).is_some_and(|live| live.client == report.client) {
                live.remove(&report.identity.0);
            }
        }
        let unix = clock::unix_seconds();
        core.leases().touch(&report.identity.0, unix);
        core.store.submit(
            vec![Change::Touch {
                identity: Arc::clone(&report.identity.0),
                at: unix,
                real_address: Some(report.real_address.ip()),
            }],
            None,
        );
        tracing::info!(router = %report.identity.0, address = %report.address, reason, "tunnel down");
        core.tell(TunnelEvent::Down { router: report.identity.0, address: report.address, reason });
    }
}

/// Text of a peer, safe for logs and events: printable ASCII, at most 128 bytes shown.
fn escape(bytes: &[u8]) -> String {
    let shown = bytes.get(..128).unwrap_or(bytes);
    shown.escape_ascii().to_string()
}
