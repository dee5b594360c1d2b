//! Writes the history of tunnels: one record a tunnel, when it comes up and when it ends.
//!
//! Tunnels come and go by thousands in a second, and no thread of packets may wait for a disk: the
//! records wait here, go to the store many at a time, and are tried again while the disk is full.
//! The number that may wait is bounded; the oldest are lost then, and counted.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shard::TunnelReport;
use crate::store::{Change, Marks, PROCESS_ENDED, SessionEnd, SessionRecord, Store, StoreError};

pub(super) struct SessionLog {
    store: Arc<dyn Store>,
    /// The number of the first connection of this process.
    first: u64,
    queue: Mutex<Queue>,
    /// The tunnels that are up: session and real address.
    up: Mutex<HashMap<Ipv4Addr, (u64, SocketAddr)>>,
    /// Records that were never written.
    lost: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Change>,
    /// What the store is writing at present.
    sent: Vec<Change>,
    /// The store refused: only [`SessionLog::flush`] tries again.
    failing: bool,
}

impl SessionLog {
    /// A log whose numbers are higher than those of every process before. Sessions of a process
    /// that ended without telling are closed.
    pub(super) fn new(store: Arc<dyn Store>, marks: &Marks, now: u64) -> Arc<Self> {
        let first = (now << RUN_BITS).max(marks.last_session.saturating_add(1));
        let log = Arc::new(Self {
            store,
            first,
            queue: Mutex::default(),
            up: Mutex::default(),
            lost: AtomicU64::new(0),
        });
        log.push([Change::EndSessions { reason: PROCESS_ENDED.into() }, Change::Alive { at: now }]);
        log
    }

    /// The number of the first connection of this process; a session has that of its connection.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// True if the session is of a process before this one.
    pub(super) fn is_of_the_past(&self, session: u64) -> bool {
        session < self.first
    }

    /// Notes that a tunnel is up.
    pub(super) fn opened(self: &Arc<Self>, report: &TunnelReport) {
        self.up().insert(report.address, (report.client.0, report.real_address));
        self.push([Change::OpenSession(self.record(report))]);
    }

    /// Notes that a tunnel has ended, and when its router was seen last.
    pub(super) fn closed(self: &Arc<Self>, report: &TunnelReport, reason: &str, now: u64) {
        {
            // The newcomer of a takeover may be up already.
            let mut up = self.up();
            if up.get(&report.address).is_some_and(|(session, _)| *session == report.client.0) {
                up.remove(&report.address);
            }
        }
        let touch = Change::Touch {
            identity: Arc::clone(&report.identity.0),
            at: now,
            real_address: Some(report.real_address.ip()),
        };
        if !report.up {
            // It never was a tunnel.
            return self.push([touch]);
        }
        let record = SessionRecord {
            rx_bytes: report.info.stats.rx_bytes,
            tx_bytes: report.info.stats.tx_bytes,
            ended: Some(SessionEnd { at: now.max(report.since), reason: reason.into() }),
            ..self.record(report)
        };
        self.push([touch, Change::CloseSession(record)]);
    }

    /// Writes what waits, if the store takes it. Called every second or so.
    pub(super) fn flush(self: &Arc<Self>) {
        self.queue().failing = false;
        self.send();
    }

    /// Writes what waits and waits for it; for the end.
    pub(super) fn finish(&self) {
        self.store.flush();
        let rest: Vec<Change> = self.queue().waiting.drain(..).collect();
        for part in rest.chunks(BATCH) {
            self.store.submit(part.to_vec(), None);
        }
        self.store.flush();
    }

    /// From where the router of this address is connected; the same work however many there are.
    pub(super) fn connected_from(&self, address: Ipv4Addr) -> Option<SocketAddr> {
        self.up().get(&address).map(|(_, from)| *from)
    }

    /// Records that were never written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn record(&self, report: &TunnelReport) -> SessionRecord {
        SessionRecord {
            id: report.client.0,
            router: Arc::clone(&report.identity.0),
            address: report.address,
            real_address: report.real_address,
            since: report.since,
            rx_bytes: 0,
            tx_bytes: 0,
            ended: None,
        }
    }

    fn push<const N: usize>(self: &Arc<Self>, changes: [Change; N]) {
        {
            let mut queue = self.queue();
            queue.waiting.extend(changes);
            while queue.waiting.len() > MAX_WAITING {
                queue.waiting.pop_front();
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.send();
    }

    /// Hands the next records to the store, unless it has some already.
    fn send(self: &Arc<Self>) {
        let batch = {
            let mut queue = self.queue();
            if !queue.sent.is_empty() || queue.failing || queue.waiting.is_empty() {
                return;
            }
            let many = queue.waiting.len().min(BATCH);
            queue.sent = queue.waiting.drain(..many).collect();
            queue.sent.clone()
        };
        let log = Arc::clone(self);
        self.store.submit(batch, Some(Box::new(move |result| log.written(&result))));
    }

    fn written(&self, result: &Result<(), StoreError>) {
        let mut queue = self.queue();
        let sent = std::mem::take(&mut queue.sent);
        match result {
            Ok(()) => {}
            Err(StoreError::Degraded(_) | StoreError::QueueFull) => {
                queue.failing = true;
                for change in sent.into_iter().rev() {
                    queue.waiting.push_front(change);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the history of tunnels could not be written");
                self.lost.fetch_add(sent.len() as u64, Ordering::Relaxed);
            }
        }
    }

    fn up(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, (u64, SocketAddr)>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections of a process before its numbers could reach those of one that starts later: a
/// million a second. Numbers stay below 2^53, which every JSON reader can hold.
const RUN_BITS: u32 = 20;
/// Records in one transaction.
const BATCH: usize = 512;
/// Records that wait: the ups and downs of a fleet while the disk is full.
const MAX_WAITING: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, SessionQuery};

    fn query(router: &str) -> SessionQuery {
        SessionQuery { router: router.into(), from: None, to: None, before: None, limit: 100_000 }
    }

    fn session(log: &SessionLog, number: u64) -> Change {
        Change::OpenSession(SessionRecord {
            id: log.first() + number,
            router: "a".into(),
            address: [100, 64, 1, 2].into(),
            real_address: "192.0.2.1:4000".parse().unwrap(),
            since: 1000 + number,
            rx_bytes: 0,
            tx_bytes: 0,
            ended: None,
        })
    }

    #[test]
    fn records_wait_while_the_disk_is_full_and_the_oldest_are_lost_and_counted() {
        let store = Arc::new(MemoryStore::new());
        let log = SessionLog::new(Arc::clone(&store) as _, &Marks::default(), 1000);
        log.push([session(&log, 1)]);
        store.set_degraded(Some("full".into()));
        for number in 2..100 {
            log.push([session(&log, number)]);
        }
        assert_eq!(store.health().failed, 1, "it is not asked again for each");
        log.flush();
        assert_eq!(store.health().failed, 2);
        assert_eq!(store.sessions(&query("a")).unwrap().len(), 1);
        store.set_degraded(None);
        log.flush();
        log.finish();
        let ids: Vec<u64> = store.sessions(&query("a")).unwrap().iter().map(|s| s.id).collect();
        let expected: Vec<u64> = (1..100).rev().map(|n| log.first() + n).collect();
        assert_eq!(ids, expected);
        assert_eq!(log.lost(), 0);
        store.set_degraded(Some("full".into()));
        let most = MAX_WAITING as u64;
        for number in 0..most + 10 {
            log.push([session(&log, 1000 + number)]);
        }
        assert!(log.lost() >= 9 && log.lost() <= 10 + BATCH as u64, "{}", log.lost());
        assert!(log.queue().waiting.len() <= MAX_WAITING);
    }

    #[test]
    fn numbers_rise_over_restarts_whatever_the_clock_does() {
        let store = Arc::new(MemoryStore::new());
        let first = SessionLog::new(Arc::clone(&store) as _, &Marks::default(), 2_000_000_000);
        first.push([session(&first, 7)]);
        let marks = store.load().unwrap().marks;
        assert_eq!(marks.last_session, first.first() + 7);
        for now in [1000, 2_000_000_000, 2_000_000_100] {
            let next = SessionLog::new(Arc::clone(&store) as _, &marks, now);
            assert!(next.first() > marks.last_session, "clock at {now}");
            assert!(next.is_of_the_past(marks.last_session));
            assert!(next.first() + (1 << 20) < 1 << 53);
        }
        let ended = store.sessions(&query("a")).unwrap()[0].ended.clone().unwrap();
        assert_eq!(&*ended.reason, PROCESS_ENDED);
    }
}
