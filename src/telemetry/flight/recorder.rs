//! Keeps the last attempts: of each router, of addresses that routers are known by, of strangers.
//!
//! Bounds: `attempts_each` a router or address, of which the newest always stays; `record_bytes`
//! for all others of them together (the oldest go first); `strangers` attempts of strangers, at
//! most [`STRANGERS_EACH`] from one address; `trace_bytes` and `stranger_trace_bytes` for traces,
//! one a router. So strangers displace only strangers. An attempt that repeats the one before it
//! (same source, same reason, same name) replaces it and is counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::capture::Trace;
use super::explain;
use super::incidents::Fleet;
use super::record::{Mark, Outcome, Record, Step};
use super::recording::source_of;

/// Attempts of strangers from one address that are kept.
pub const STRANGERS_EACH: usize = 32;
/// Different texts of clients that are shared between records.
const MAX_TEXTS: usize = 4096;

/// Bounds of a [`Recorder`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts kept of one router or known address.
    pub attempts_each: usize,
    /// Bytes of all attempts of routers beyond the newest of each.
    pub record_bytes: usize,
    /// Attempts kept of strangers.
    pub strangers: usize,
    /// Bytes of traces of routers.
    pub trace_bytes: usize,
    /// Bytes of traces of strangers.
    pub stranger_trace_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts_each: 8,
            record_bytes: 32 << 20,
            strangers: 1024,
            trace_bytes: 32 << 20,
            stranger_trace_bytes: 1 << 20,
        }
    }
}

/// Whose attempt it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A router, by its own word (the user name) or the authenticator's.
    Router(Arc<str>),
    /// Nobody by name, from an address that a router is known by.
    Source(IpAddr),
    /// Nobody that we know, from this address.
    Stranger(IpAddr),
}

/// An attempt that is kept, and how often it was repeated.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Rises with each attempt; newer ones are higher.
    pub seq: u64,
    /// Whose it was.
    pub owner: Owner,
    /// The last of its kind.
    pub record: Arc<Record>,
    /// How often the same thing happened in a row, this one included.
    pub times: u64,
    /// When the first of them began: milliseconds since 1970-01-01 UTC.
    pub first_ms: u64,
    /// What crossed the wire, while it is kept.
    pub trace: Option<Arc<Trace>>,
    /// Bytes that it is counted with.
    cost: usize,
}

/// Which attempts have a trace, and the bytes of them all.
#[derive(Debug, Default)]
struct Traces {
    order: BTreeSet<u64>,
    bytes: usize,
}

/// The store of attempts. Touched once or twice a login, never by packets.
#[derive(Debug)]
pub struct Recorder {
    limits: Limits,
    next_seq: u64,
    attempts: BTreeMap<u64, Attempt>,
    /// Attempts of each owner, the oldest first.
    owners: HashMap<Owner, VecDeque<u64>>,
    /// Attempts of routers and known addresses that are not the newest of their owner.
    spare: BTreeSet<u64>,
    spare_bytes: usize,
    strangers: BTreeSet<u64>,
    router_traces: Traces,
    stranger_traces: Traces,
    texts: HashSet<Arc<str>>,
    certificates_changed_ms: Option<u64>,
    /// What incidents are found in.
    pub fleet: Fleet,
}

impl Recorder {
    /// An empty recorder.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            next_seq: 1,
            attempts: BTreeMap::new(),
            owners: HashMap::new(),
            spare: BTreeSet::new(),
            spare_bytes: 0,
            strangers: BTreeSet::new(),
            router_traces: Traces::default(),
            stranger_traces: Traces::default(),
            texts: HashSet::new(),
            certificates_changed_ms: None,
            fleet: Fleet::default(),
        }
    }

    /// A login that has left for its shard.
    pub fn logged_in(&mut self, record: Record, trace: Trace) {
        let Some(router) = record.router.clone() else { return };
        self.store(Owner::Router(router), record, trace);
    }

    /// The tunnel of that login carries packets. `id` is the connection's number.
    pub fn up(&mut self, router: &str, id: u64, now_ms: u64) {
        let Some(attempt) = self.find_mut(router, id) else { return };
        let record = Arc::make_mut(&mut attempt.record);
        let passed = now_ms.saturating_sub(record.started_ms);
        record
            .marks
            .push(Mark { step: Step::Up, at_ms: u32::try_from(passed).unwrap_or(u32::MAX) });
        record.outcome = Outcome::Up;
        let record = Arc::clone(&attempt.record);
        self.fleet.up(&record, now_ms);
    }

    /// The tunnel has ended.
    pub fn down(&mut self, router: &str, id: u64, now_ms: u64, reason: &'static str) {
        let Some(attempt) = self.find_mut(router, id) else {
            return self.fleet.fell(router, id, now_ms, reason);
        };
        if attempt.record.outcome == Outcome::LoggedIn {
            let record = Arc::make_mut(&mut attempt.record);
            let passed = now_ms.saturating_sub(record.started_ms);
            let at_ms = u32::try_from(passed).unwrap_or(u32::MAX);
            record.marks.push(Mark { step: Step::End, at_ms });
            record.outcome = Outcome::Failed {
                reason,
                detail: "The connection ended after the push reply, before a packet came.".into(),
            };
            let record = Arc::clone(&attempt.record);
            let cause = explain::cause(&record);
            self.fleet.failed(Some(router), &record, cause, now_ms);
        } else {
            self.fleet.fell(router, id, now_ms, reason);
        }
    }

    /// A login that has failed. `router` is whom it belongs to by its user name, if anybody.
    pub fn failed(&mut self, router: Option<Arc<str>>, record: Record, trace: Trace) {
        let now_ms = record.ended_ms();
        let source = source_of(&record);
        let router = record.router.clone().or(router);
        self.fleet.failed(router.as_deref(), &record, explain::cause(&record), now_ms);
        let owner = match router {
            Some(router) => Owner::Router(router),
            None if record.username.is_none() && self.fleet.is_known(source) => {
                Owner::Source(source)
            }
            None => Owner::Stranger(source),
        };
        self.store(owner, record, trace);
    }

    /// The server has other certificates from now on.
    pub fn certificates_changed(&mut self, now_ms: u64) {
        self.certificates_changed_ms = Some(now_ms);
    }

    /// When the server's certificates were last changed: milliseconds since 1970-01-01 UTC.
    pub fn certificates_changed_ms(&self) -> Option<u64> {
        self.certificates_changed_ms
    }

    /// A router that was deleted.
    pub fn forget(&mut self, router: &str) {
        let owner = Owner::Router(router.into());
        for seq in self.owners.get(&owner).cloned().unwrap_or_default() {
            self.remove(seq);
        }
        self.fleet.forget(router);
    }

    /// The attempts of one owner, the newest first.
    pub fn of(&self, owner: &Owner) -> Vec<Attempt> {
        let seqs = self.owners.get(owner).into_iter().flatten().rev();
        seqs.filter_map(|seq| self.attempts.get(seq)).cloned().collect()
    }

    /// The attempts of strangers that used this name, the newest first.
    pub fn of_stranger(&self, username: &[u8]) -> Vec<Attempt> {
        let strangers = self.strangers.iter().rev().filter_map(|seq| self.attempts.get(seq));
        let used = strangers.filter(|a| a.record.username.as_deref() == Some(username));
        used.cloned().collect()
    }

    /// Attempts below `before`, the newest first, and where a walk that looks at `most` attempts
    /// has ended; `None`: it saw all.
    pub fn walk(&self, before: u64, most: usize) -> (Vec<Attempt>, Option<u64>) {
        let mut below = self.attempts.range(..before).rev();
        let seen: Vec<Attempt> = below.by_ref().take(most).map(|(_, a)| a.clone()).collect();
        let next = below.next().and_then(|_| seen.last().map(|a| a.seq));
        (seen, next)
    }

    /// Number of attempts that are kept.
    pub fn len(&self) -> usize {
        self.attempts.len()
    }

    /// True if nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Bytes of records beyond the newest of each router, and of traces (routers, strangers).
    pub fn bytes(&self) -> (usize, usize, usize) {
        (self.spare_bytes, self.router_traces.bytes, self.stranger_traces.bytes)
    }

    fn find_mut(&mut self, router: &str, id: u64) -> Option<&mut Attempt> {
        let seqs = self.owners.get(&Owner::Router(router.into()))?;
        let seq = seqs
            .iter()
            .rev()
            .find(|seq| self.attempts.get(seq).is_some_and(|attempt| attempt.record.id == id));
        let seq = *seq?;
        self.attempts.get_mut(&seq)
    }

    fn store(&mut self, owner: Owner, mut record: Record, trace: Trace) {
        self.share(&mut record);
        let seq = self.next_seq;
        self.next_seq += 1;
        let (mut times, mut first_ms) = (1, record.started_ms);
        let ring = self.owners.get(&owner);
        let same = ring.into_iter().flatten().rev().copied().find(|seq| {
            self.attempts.get(seq).is_some_and(|attempt| repeats(&attempt.record, &record))
        });
        // Of a router only the one right before: in between, something else was true.
        let last = ring.and_then(|ring| ring.back().copied());
        let same = same.filter(|seq| matches!(owner, Owner::Stranger(_)) || Some(*seq) == last);
        if let Some(attempt) = same.and_then(|seq| self.remove(seq)) {
            times += attempt.times;
            first_ms = attempt.first_ms;
        }
        self.make_room(&owner);
        if !matches!(owner, Owner::Stranger(_))
            && let Some(previous) = self.owners.get(&owner).and_then(|ring| ring.back().copied())
        {
            self.drop_trace(previous);
            self.spare.insert(previous);
            self.spare_bytes += self.attempts.get(&previous).map_or(0, |a| a.cost);
        }
        let trace = (!trace.frames.is_empty() || !trace.hello.is_empty()).then(|| {
            let traces = self.traces_of(&owner);
            traces.bytes += trace.size();
            traces.order.insert(seq);
            Arc::new(trace)
        });
        if matches!(owner, Owner::Stranger(_)) {
            self.strangers.insert(seq);
        }
        self.owners.entry(owner.clone()).or_default().push_back(seq);
        let cost = size_of::<Attempt>() + record.size();
        let record = Arc::new(record);
        self.attempts.insert(seq, Attempt { seq, owner, record, times, first_ms, trace, cost });
        self.keep_bounds();
    }

    /// One place less in the ring of an owner that is full. A router's own attempts (let in, or
    /// from where it is known) go after those of whoever else uses its name.
    fn make_room(&mut self, owner: &Owner) {
        let Some(ring) = self.owners.get(owner) else { return };
        let most = match owner {
            Owner::Stranger(_) => STRANGERS_EACH,
            Owner::Router(_) | Owner::Source(_) => self.limits.attempts_each.max(1),
        };
        if ring.len() < most {
            return;
        }
        let foreign = |seq: &u64| {
            let Owner::Router(name) = owner else { return false };
            self.attempts.get(seq).is_some_and(|attempt| {
                attempt.record.router.is_none()
                    && self.fleet.home(name) != Some(source_of(&attempt.record))
            })
        };
        let victim = ring.iter().copied().find(foreign).or_else(|| ring.front().copied());
        if let Some(seq) = victim {
            self.remove(seq);
        }
    }

    fn keep_bounds(&mut self) {
        while self.spare_bytes > self.limits.record_bytes
            && let Some(seq) = self.spare.first().copied()
        {
            self.remove(seq);
        }
        while self.strangers.len() > self.limits.strangers
            && let Some(seq) = self.strangers.first().copied()
        {
            self.remove(seq);
        }
        while self.router_traces.bytes > self.limits.trace_bytes
            && let Some(seq) = self.router_traces.order.first().copied()
        {
            self.drop_trace(seq);
        }
        while self.stranger_traces.bytes > self.limits.stranger_trace_bytes
            && let Some(seq) = self.stranger_traces.order.first().copied()
        {
            self.drop_trace(seq);
        }
    }

    fn drop_trace(&mut self, seq: u64) {
        let Some(attempt) = self.attempts.get_mut(&seq) else { return };
        let Some(trace) = attempt.trace.take() else { return };
        let owner = attempt.owner.clone();
        let traces = self.traces_of(&owner);
        traces.bytes = traces.bytes.saturating_sub(trace.size());
        traces.order.remove(&seq);
    }

    fn traces_of(&mut self, owner: &Owner) -> &mut Traces {
        match owner {
            Owner::Router(_) | Owner::Source(_) => &mut self.router_traces,
            Owner::Stranger(_) => &mut self.stranger_traces,
        }
    }

    fn remove(&mut self, seq: u64) -> Option<Attempt> {
        self.drop_trace(seq);
        let attempt = self.attempts.remove(&seq)?;
        self.strangers.remove(&seq);
        if self.spare.remove(&seq) {
            self.spare_bytes = self.spare_bytes.saturating_sub(attempt.cost);
        }
        if let Some(ring) = self.owners.get_mut(&attempt.owner) {
            ring.retain(|other| *other != seq);
            if ring.is_empty() {
                self.owners.remove(&attempt.owner);
            } else if let Some(newest) = ring.back().copied()
                && self.spare.remove(&newest)
            {
                let bytes = self.attempts.get(&newest).map_or(0, |a| a.cost);
                self.spare_bytes = self.spare_bytes.saturating_sub(bytes);
            }
        }
        Some(attempt)
    }

    /// Lets a record share its texts with those before it.
    fn share(&mut self, record: &mut Record) {
        let texts = [record.options.as_mut(), record.peer_info.as_mut()];
        let tls = record.tls.as_mut().map(|(version, suite)| [version, suite]);
        for text in texts.into_iter().flatten().chain(tls.into_iter().flatten()) {
            if let Some(known) = self.texts.get(text) {
                *text = Arc::clone(known);
            } else {
                if self.texts.len() >= MAX_TEXTS {
                    // Somebody makes texts up. What is in use lives on in its records.
                    self.texts.clear();
                }
                self.texts.insert(Arc::clone(text));
            }
        }
    }
}

/// True if `new` tells nothing that `old` did not.
fn repeats(old: &Record, new: &Record) -> bool {
    let reason = old.outcome.reason();
    reason.is_some()
        && reason == new.outcome.reason()
        && source_of(old) == source_of(new)
        && old.username == new.username
        && old.listener == new.listener
        && old.tls_fault == new.tls_fault
        && old.looks_like == new.looks_like
        && old.options == new.options
        && old.furthest() == new.furthest()
}

#[cfg(test)]
mod tests;
