//! What happens, as a numbered log that any number of listeners read at their own pace.
//!
//! Every change of state is visible before its event is told, so whoever reads the id of the newest
//! event, then the state, then the events after that id, misses nothing and at most hears something
//! twice. The events of one router come in the order of its changes; up and down alternate.

mod ids;
mod stream;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::proto::ClientId;
use crate::telemetry::event_log::{Batch, EventLog, Gap, capacity_for};

pub use crate::control_api::types::{Event, EventFilter, EventGap, Moment, TunnelEvent};
use ids::Ids;
pub(super) use ids::before_first;
pub use stream::{EventStream, NoEvent};

/// The log and who waits for it.
pub(super) struct EventHub {
    inner: Mutex<Inner>,
    /// A new version with every event.
    changed: watch::Sender<()>,
    /// EventHub that listeners were told they have lost.
    lost: AtomicU64,
    /// How often.
    gaps: AtomicU64,
}

struct Inner {
    log: EventLog<Arc<Event>>,
    /// The capacity that was asked for; more routers need more.
    least: usize,
    /// Routers whose tunnel was told to be up, and which tunnel that is.
    up: HashMap<Arc<str>, Up>,
    ids: Ids,
    closed: bool,
}

struct Up {
    client: ClientId,
    /// Whose router it is; the account may be gone when the tunnel ends.
    tenant: Option<Arc<str>>,
    since: Moment,
    address: std::net::Ipv4Addr,
}

/// Makes an id durable before it is used; see [`Ids`].
pub(super) type Reserve = Box<dyn FnMut(u64) + Send>;

impl EventHub {
    /// An empty log whose ids follow `before`, with room for at least `least` events.
    pub(super) fn new(before: u64, least: usize, reserve: Reserve) -> Self {
        let inner = Inner {
            log: EventLog::new(before, least),
            least,
            up: HashMap::new(),
            ids: Ids::new(before, reserve),
            closed: false,
        };
        Self {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(()),
            lost: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what happened. Never waits; may be called from a packet thread.
    pub(super) fn tell(&self, at: Moment, tenant: Option<Arc<str>>, what: TunnelEvent) {
        self.lock().push(at, tenant, what);
        self.changed.send_replace(());
    }

    /// A tunnel is up. If the router's last one was not told to be down yet, it is now: the shard
    /// that ends it may be another one, and late.
    pub(super) fn up(
        &self,
        at: Moment,
        tenant: Option<Arc<str>>,
        client: ClientId,
        what: TunnelEvent,
    ) {
        let TunnelEvent::Up { router, address, .. } = &what else {
            return self.tell(at, tenant, what);
        };
        let mut inner = self.lock();
        let up = Up { client, tenant: tenant.clone(), since: at, address: *address };
        if let Some(old) = inner.up.insert(Arc::clone(router), up) {
            let down = TunnelEvent::Down {
                router: Arc::clone(router),
                address: old.address,
                reason: "replaced_by_new_login",
                seconds: at.0.saturating_sub(old.since.0) / 1000,
                rx_bytes: None,
                tx_bytes: None,
            };
            inner.push(at, old.tenant, down);
        }
        inner.push(at, tenant, what);
        drop(inner);
        self.changed.send_replace(());
    }

    /// A tunnel has ended; nothing is told if it was not told to be up, or is already told to be
    /// down.
    pub(super) fn down(&self, at: Moment, client: ClientId, what: TunnelEvent) {
        let Some(router) = what.router() else { return };
        let mut inner = self.lock();
        if inner.up.get(router).is_none_or(|up| up.client != client) {
            return;
        }
        let tenant = inner.up.remove(router).and_then(|up| up.tenant);
        inner.push(at, tenant, what);
        drop(inner);
        self.changed.send_replace(());
    }

    /// A router is another tenant's from now on: its former one is told that it is gone, the new
    /// one that it is there, and whoever sees both of them both. Its tunnel stays.
    pub(super) fn moved(
        &self,
        at: Moment,
        router: &Arc<str>,
        from: Option<Arc<str>>,
        to: Option<Arc<str>>,
    ) {
        let mut inner = self.lock();
        let removed =
            TunnelEvent::RouterRemoved { router: Arc::clone(router), tenant: from.clone() };
        inner.add(at, from, removed);
        if let Some(up) = inner.up.get_mut(router) {
            up.tenant.clone_from(&to);
        }
        inner.add(at, to, TunnelEvent::RouterAdded { router: Arc::clone(router) });
        drop(inner);
        self.changed.send_replace(());
    }

    /// True if the last that was told of the router's tunnel is that it is up.
    pub(super) fn is_up(&self, router: &str) -> bool {
        self.lock().up.contains_key(router)
    }

    /// Makes room for so many routers.
    pub(super) fn set_routers(&self, routers: usize) {
        let mut inner = self.lock();
        let capacity = inner.least.max(capacity_for(routers));
        inner.log.set_capacity(capacity);
    }

    /// The id of the newest event.
    pub(super) fn last_id(&self) -> u64 {
        self.lock().log.last_id()
    }

    /// What was lost for a reader that has seen everything up to this id.
    pub(super) fn gap(&self, after: u64, router: Option<&str>) -> Option<EventGap> {
        self.lock().log.gap(after, router).map(gap_document)
    }

    /// No event follows.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.send_replace(());
    }

    /// Plain counters by stable name.
    pub(super) fn counters(&self) -> [(&'static str, u64); 5] {
        let inner = self.lock();
        let held = u64::try_from(inner.log.len()).unwrap_or(u64::MAX);
        let dropped = inner.log.dropped();
        [
            ("events", held + dropped),
            ("events_dropped", dropped),
            ("events_lost", self.lost.load(Ordering::Relaxed)),
            ("event_gaps", self.gaps.load(Ordering::Relaxed)),
            ("event_streams", u64::try_from(self.changed.receiver_count()).unwrap_or(u64::MAX)),
        ]
    }

    /// The next events for a reader, or what it has lost; true: there will be no more.
    fn read(&self, cursor: u64, router: Option<&str>) -> (Batch<Arc<Event>>, bool) {
        let inner = self.lock();
        let batch = inner.log.read(cursor, router, READ_AT_ONCE, READ_AT_ONCE, |_| true);
        let closed = inner.closed;
        drop(inner);
        if let Some(gap) = batch.gap {
            self.gaps.fetch_add(1, Ordering::Relaxed);
            self.lost.fetch_add(gap.lost.unwrap_or(0), Ordering::Relaxed);
        }
        (batch, closed)
    }
}

impl Inner {
    fn push(&mut self, at: Moment, tenant: Option<Arc<str>>, what: TunnelEvent) {
        match &what {
            TunnelEvent::RouterAdded { router } => {
                self.log.restore(router);
                self.add(at, tenant, what);
            }
            TunnelEvent::RouterRemoved { router, .. } => {
                let router = Arc::clone(router);
                self.add(at, tenant, what);
                self.log.retire(&router);
            }
            _ => self.add(at, tenant, what),
        }
    }

    fn add(&mut self, at: Moment, tenant: Option<Arc<str>>, what: TunnelEvent) {
        let router = what.router().cloned();
        let id = self.log.last_id() + 1;
        self.ids.about_to_use(id);
        let told = self.log.push(router.as_ref(), Arc::new(Event { id, at, tenant, what }));
        debug_assert_eq!(told, id, "ids rise by one");
    }
}

fn gap_document(gap: Gap) -> EventGap {
    EventGap { from: gap.from, to: gap.to, lost: gap.lost }
}

/// EventHub that a reader takes under the lock.
const READ_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests;
