//! The audit trail of a running concentrator: one thread ties records together and keeps them.
//!
//! Whoever has something to record puts it into a bounded queue and goes on. The thread takes what
//! waits, makes rows of it, commits them, and then writes the head file. While nothing can be
//! written the queue fills; what does not fit is counted, and the count becomes a record itself.

mod head_file;
mod ledger;
mod limiter;
#[cfg(feature = "store-sqlite")]
mod offline;
mod segments;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::audit::{Action, AuditKey, Chain, Head, HeadFile, Record, Report, Row, Verifier, Who};
use crate::control_api::types::{
    AuditCheck, AuditEntry, AuditQuery, AuditSegment, List, Timestamp,
};
use crate::control_api::{ApiError, ErrorCode};
use crate::store::{Store, StoreError};
use crate::telemetry::clock;

use head_file::HeadKeeper;
use ledger::Ledger;
use limiter::Limiter;
use segments::Segments;

#[cfg(feature = "store-sqlite")]
pub use offline::{AuditError, verify_audit};

/// What the key is derived for.
pub(super) const KEY_PURPOSE: &str = "audit chain";
/// Records that may wait.
const MAX_WAITING: usize = 10_000;
/// Records of one transaction at most.
const MAX_BATCH: usize = 256;
/// Pause between attempts while nothing can be written, and longest pause of the thread.
const RETRY: Duration = Duration::from_secs(1);
/// How long a reader waits for what was recorded before he asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rows that are read at once.
const PAGE: usize = 1000;
/// Rows that one page with filters looks at, at most.
const MAX_SCANNED: usize = 100_000;

/// The trail.
pub(super) struct Trail {
    shared: Arc<Shared>,
    ledger: Ledger,
    key: AuditKey,
    state_dir: Option<PathBuf>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do.
    work: Condvar,
    /// Something was done.
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Record>,
    /// Records that did not fit.
    lost: u64,
    limiter: Limiter,
    orders: VecDeque<Order>,
    /// Records taken in, and records kept or given up, since the start.
    taken: u64,
    settled: u64,
    closing: bool,
    head: Head,
    /// Why nothing can be written.
    stuck: Option<String>,
}

/// Something for the thread to do beside the records.
struct Order {
    what: Task,
    reply: oneshot::Sender<Result<AuditSegment, ApiError>>,
}

#[derive(Clone, Copy)]
enum Task {
    Seal,
    Exported(u64),
    Prune(u64),
}

/// What a trail is started with.
pub(super) struct Setup<'a> {
    pub(super) store: Arc<dyn Store>,
    /// Where the head file goes; None: nowhere.
    pub(super) state_dir: Option<&'a Path>,
    /// The key, once for the thread and once for checks.
    pub(super) keys: [AuditKey; 2],
    /// Exported segments are pruned when they are this old.
    pub(super) retention: Option<Duration>,
}

impl Trail {
    /// Goes on where the trail ended; if that is not where it was left, says so in a record.
    pub(super) fn start(setup: Setup<'_>) -> Result<Self, super::StartError> {
        let [key, own_key] = setup.keys;
        let ledger = Ledger::new(setup.store);
        let keeper = HeadKeeper::new(setup.state_dir);
        let shared = Arc::new(Shared::default());
        let read = || {
            let mut segments = Segments::new(&ledger.seals()?, &key, setup.retention);
            let head = read_open(&ledger, &mut segments)?;
            let (next, notice) = judge_start(&ledger, &keeper, &key, head)?;
            Ok::<_, StoreError>((segments, head, next, notice))
        };
        let mut trail = Self {
            shared: Arc::clone(&shared),
            ledger: ledger.clone(),
            key: own_key,
            state_dir: setup.state_dir.map(Path::to_owned),
            thread: Mutex::default(),
        };
        let (segments, head, next, notice) = match read() {
            Ok(read) => read,
            Err(error) => {
                // Known routers log in all the same.
                tracing::error!(%error, "the audit trail can't be read; nothing is recorded");
                let mut queue = shared.lock();
                queue.closing = true;
                queue.stuck = Some(error.to_string());
                drop(queue);
                return Ok(trail);
            }
        };
        let worker =
            Worker { shared, ledger, keeper, chain: Chain::new(key, head), next, segments };
        if let Some(reason) = notice {
            tracing::error!(reason, "the audit trail is not as it was left");
            worker.notice(reason);
        } else if let Err(error) = worker.keeper.write(worker.chain.key(), head) {
            tracing::error!(%error, "the head of the audit trail can't be written");
        }
        worker.lock().head = head;
        tracing::info!(target: "audit", head = %head, "audit trail");
        let thread = std::thread::Builder::new().name("audit".to_owned());
        trail.thread = Mutex::new(Some(thread.spawn(move || worker.run())?));
        Ok(trail)
    }

    /// Records what somebody did; never waits.
    pub(super) fn note(&self, who: Who, mut action: Action) {
        let now = clock::unix_seconds();
        let mut queue = self.shared.lock();
        if action.status.is_some_and(|status| status >= 400) {
            match queue.limiter.admit(who.uid, now) {
                None => return,
                Some(0) => {}
                Some(skipped) => {
                    let skipped = format!("{skipped} before this one");
                    action.detail.insert("refusals_not_recorded".to_owned(), skipped);
                }
            }
        }
        queue.taken = queue.taken.saturating_add(1);
        if queue.waiting.len() >= MAX_WAITING || queue.closing {
            queue.lost = queue.lost.saturating_add(1);
            queue.settled = queue.settled.saturating_add(1);
            return;
        }
        queue.waiting.push_back(Record { seq: 0, at: now, who, action });
        self.shared.work.notify_one();
    }

    /// The last record.
    pub(super) fn head(&self) -> Head {
        self.shared.lock().head
    }

    /// Why nothing can be written at present.
    pub(super) fn degraded(&self) -> Option<String> {
        let queue = self.shared.lock();
        queue.stuck.clone().map(|reason| {
            format!("{} records of the audit trail wait: {reason}", queue.waiting.len())
        })
    }

    /// Waits until what was recorded before is kept, or for a while.
    pub(super) fn settle(&self) {
        let queue = self.shared.lock();
        let target = queue.taken;
        let kept = self.shared.done.wait_timeout_while(queue, PATIENCE, |queue| {
            queue.settled < target && queue.stuck.is_none()
        });
        drop(kept.unwrap_or_else(PoisonError::into_inner));
    }

    /// A page of records.
    pub(super) fn page(&self, query: &AuditQuery) -> Result<List<AuditEntry>, ApiError> {
        self.settle();
        let mut after = query.after;
        let mut items = Vec::new();
        let mut scanned = 0;
        loop {
            let rows = self.ledger.rows(after, PAGE).map_err(|error| degraded(&error))?;
            let end = rows.len() < PAGE;
            for row in rows {
                after = row.seq;
                scanned += 1;
                let Some(entry) = entry(&row) else { continue };
                let wanted =
                    query.router.as_ref().is_none_or(|name| entry.router.as_ref() == Some(name))
                        && query.uid.is_none_or(|uid| entry.uid == Some(uid));
                if wanted {
                    items.push(entry);
                }
                if items.len() == query.limit || scanned == MAX_SCANNED {
                    let more =
                        !self.ledger.rows(after, 1).map_err(|error| degraded(&error))?.is_empty();
                    let next = more.then(|| after.to_string());
                    return Ok(List { items, next, event_id: 0 });
                }
            }
            if end {
                return Ok(List { items, next: None, event_id: 0 });
            }
        }
    }

    /// Every sealed segment.
    pub(super) fn segments(&self) -> Result<Vec<AuditSegment>, ApiError> {
        let seals = self.ledger.seals().map_err(|error| degraded(&error))?;
        Ok(seals.iter().filter_map(|row| Some(segments::view(&row.open(&self.key)?))).collect())
    }

    /// The lines of a segment, its seal first.
    pub(super) fn lines(&self, segment: u64) -> Result<String, ApiError> {
        let seals = self.ledger.seals().map_err(|error| degraded(&error))?;
        let row = seals.iter().find(|row| row.segment == segment);
        let row = row.ok_or_else(|| segments::unknown(segment))?;
        let seal = row.open(&self.key).ok_or_else(|| {
            let message = format!("the seal of segment {segment} is not ours; see audit verify");
            ApiError::new(ErrorCode::SegmentNotReady, message)
        })?;
        if seal.pruned.is_some() {
            let message = format!("the records of segment {segment} are pruned");
            return Err(ApiError::new(ErrorCode::SegmentNotReady, message));
        }
        let mut text = row.export();
        text.push('\n');
        let mut after = seal.first.saturating_sub(1);
        while after < seal.head.seq {
            let rows = self.ledger.rows(after, PAGE).map_err(|error| degraded(&error))?;
            let Some(last) = rows.last() else { break };
            after = last.seq;
            for row in rows.iter().filter(|row| row.seq <= seal.head.seq) {
                text.push_str(&row.export());
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// Looks at the whole trail.
    pub(super) fn check(&self, heads: &[Head]) -> Result<AuditCheck, ApiError> {
        self.settle();
        let keeper = HeadKeeper::new(self.state_dir.as_deref());
        let report = verify(&self.ledger, &keeper, &self.key, heads);
        report.map(|report| check_view(&report)).map_err(|error| degraded(&error))
    }

    /// Has the thread do something.
    async fn order(&self, what: Task) -> Result<AuditSegment, ApiError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.shared.lock();
            if queue.orders.len() >= 100 {
                return Err(ApiError::new(
                    ErrorCode::Busy,
                    "the audit trail is at work; ask again",
                ));
            }
            queue.orders.push_back(Order { what, reply });
        }
        self.shared.work.notify_one();
        let gone = |_| ApiError::new(ErrorCode::Unavailable, "the concentrator is stopping");
        answer.await.map_err(gone)?
    }

    pub(super) async fn seal(&self) -> Result<AuditSegment, ApiError> {
        self.order(Task::Seal).await
    }

    pub(super) async fn exported(&self, segment: u64) -> Result<AuditSegment, ApiError> {
        self.order(Task::Exported(segment)).await
    }

    pub(super) async fn prune(&self, segment: u64) -> Result<AuditSegment, ApiError> {
        self.order(Task::Prune(segment)).await
    }

    /// Keeps what waits, if that is possible now, and ends the thread.
    pub(super) fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        super::join(self.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Plain values, each valid by itself.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread.
struct Worker {
    shared: Arc<Shared>,
    ledger: Ledger,
    keeper: HeadKeeper,
    chain: Chain,
    /// Number of the next record: behind the head, and behind what was known and is gone.
    next: u64,
    segments: Segments,
}

impl Worker {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.lock()
    }

    /// Puts a record of our own before everything else.
    fn notice(&self, reason: String) {
        let mut action = Action { what: Record::GAP.to_owned(), ..Action::default() };
        action.detail.insert("reason".to_owned(), reason);
        let record = Record { seq: 0, at: clock::unix_seconds(), who: Who::default(), action };
        let mut queue = self.lock();
        queue.taken = queue.taken.saturating_add(1);
        queue.waiting.push_front(record);
    }

    fn run(mut self) {
        loop {
            let (batch, order, closing) = self.next_work();
            let mut failed = false;
            if !batch.is_empty() {
                failed = !self.keep(batch);
            }
            if let Some(Order { what, reply }) = order {
                let result = self.obey(what);
                // The asker has gone away.
                let _ = reply.send(result);
            }
            if !failed && let Err(error) = self.seal_what_is_due() {
                tracing::warn!(%error, "a segment of the audit trail can't be sealed or pruned");
            }
            let left = self.lock().waiting.len();
            if closing && (failed || left == 0) {
                if left > 0 {
                    tracing::error!(lost = left, "records of the audit trail are lost");
                }
                return;
            }
            if failed {
                // Nothing but the end of the process is worth waking up for.
                let queue = self.lock();
                let waiting = self.shared.work.wait_timeout_while(queue, RETRY, |queue| {
                    !queue.closing && queue.orders.is_empty()
                });
                drop(waiting.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Waits for something to do. What is taken stays in the queue until it is kept.
    fn next_work(&self) -> (Vec<Record>, Option<Order>, bool) {
        let queue = self.lock();
        let idle = |queue: &mut Queue| {
            queue.waiting.is_empty() && queue.lost == 0 && queue.orders.is_empty() && !queue.closing
        };
        // Woken now and then all the same, to seal by the day.
        let waited = self.shared.work.wait_timeout_while(queue, RETRY * 60, idle);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut batch: Vec<Record> = queue.waiting.iter().take(MAX_BATCH).cloned().collect();
        if queue.lost > 0 {
            let mut action = Action { what: Record::LOST.to_owned(), ..Action::default() };
            action.detail.insert("records".to_owned(), queue.lost.to_string());
            let at = clock::unix_seconds();
            batch.push(Record { seq: 0, at, who: Who::default(), action });
        }
        let order = queue.orders.pop_front();
        (batch, order, queue.closing)
    }

    /// True if all of it is on disk.
    fn keep(&mut self, batch: Vec<Record>) -> bool {
        let mut rows = self.chain.rows_from(self.next, batch);
        let mut result = self.ledger.append(&rows);
        if let Err(StoreError::Conflict(_)) = result {
            result = self.reconcile(&mut rows);
        }
        match result {
            Ok(()) => {
                self.chain.advance(&rows);
                let head = self.chain.head();
                self.next = head.seq.saturating_add(1);
                self.segments.note(&rows);
                let written = self.keeper.write(self.chain.key(), head);
                let mut queue = self.lock();
                let lost = rows.iter().filter(|row| is_lost(row)).count();
                let kept = rows.len().saturating_sub(lost);
                queue.waiting.drain(..kept);
                if lost > 0 {
                    // More may have been lost since; the next batch tells.
                    let told = rows.iter().rev().find_map(lost_count).unwrap_or(0);
                    queue.lost = queue.lost.saturating_sub(told);
                }
                queue.settled = queue.settled.saturating_add(kept as u64);
                queue.head = head;
                queue.stuck = written.err().map(|error| format!("the head file: {error}"));
                drop(queue);
                self.shared.done.notify_all();
                true
            }
            // Behind what somebody else has written, right away.
            Err(StoreError::Conflict(_)) => true,
            Err(error) => {
                let mut queue = self.lock();
                if queue.stuck.is_none() {
                    tracing::error!(%error, "the audit trail can't be written; records wait");
                }
                queue.stuck = Some(error.to_string());
                drop(queue);
                self.shared.done.notify_all();
                false
            }
        }
    }

    /// The store has records with our numbers. If they are these very ones, an earlier attempt was
    /// kept although it was said to have failed; if not, somebody else has written them.
    fn reconcile(&mut self, rows: &mut Vec<Row>) -> Result<(), StoreError> {
        let found = self.ledger.rows(self.next.saturating_sub(1), PAGE)?;
        let same = found.iter().zip(rows.iter()).take_while(|(found, ours)| found == ours).count();
        if same > 0 && same == found.len() {
            rows.truncate(same);
            return Ok(());
        }
        let last = found.last().map_or(self.next, |row| row.seq);
        let reason = format!("records {} to {last} were written by somebody else", self.next);
        tracing::error!(reason, "the audit trail is not as it was left");
        self.next = last.saturating_add(1);
        self.notice(reason);
        Err(StoreError::Conflict("the trail goes on behind records of somebody else".to_owned()))
    }

    fn obey(&mut self, what: Task) -> Result<AuditSegment, ApiError> {
        let now = clock::unix_seconds();
        match what {
            Task::Seal => self.segments.seal(&self.ledger, &self.chain, now),
            Task::Exported(segment) => {
                self.segments.exported(&self.ledger, &self.chain, segment, now)
            }
            Task::Prune(segment) => self.segments.prune(&self.ledger, &self.chain, segment, now),
        }
    }

    fn seal_what_is_due(&mut self) -> Result<(), ApiError> {
        let now = clock::unix_seconds();
        if self.segments.is_due(now) {
            self.segments.seal(&self.ledger, &self.chain, now)?;
        }
        if let Some(segment) = self.segments.outlived(now) {
            self.segments.prune(&self.ledger, &self.chain, segment, now)?;
            let mut action = Action { what: "audit.prune".to_owned(), ..Action::default() };
            action.detail.insert("segment".to_owned(), segment.to_string());
            let record = Record { seq: 0, at: now, who: Who::default(), action };
            let mut queue = self.lock();
            queue.taken = queue.taken.saturating_add(1);
            queue.waiting.push_back(record);
        }
        Ok(())
    }
}

fn lost_count(row: &Row) -> Option<u64> {
    let record = crate::audit::read_line(&row.line)?;
    let lost = (record.action.what == Record::LOST).then_some(record)?;
    lost.action.detail.get("records")?.parse().ok()
}

fn is_lost(row: &Row) -> bool {
    lost_count(row).is_some()
}

/// Reads what is not sealed yet; the last record that is there, or that a seal knows.
fn read_open(ledger: &Ledger, segments: &mut Segments) -> Result<Head, StoreError> {
    let mut head = segments.last_head();
    loop {
        let rows = ledger.rows(head.seq, PAGE)?;
        match rows.last() {
            Some(last) => head = last.head(),
            None => return Ok(head),
        }
        segments.note(&rows);
    }
}

/// Number of the next record, and what is wrong with the end of the trail.
fn judge_start(
    ledger: &Ledger,
    keeper: &HeadKeeper,
    key: &AuditKey,
    head: Head,
) -> Result<(u64, Option<String>), StoreError> {
    let next = head.seq.saturating_add(1);
    Ok(match keeper.read(key) {
        None => (next, None),
        Some(HeadFile::Missing) if head == Head::START => (next, None),
        Some(HeadFile::Missing) => (next, Some("the head file was missing".to_owned())),
        Some(HeadFile::Damaged) => {
            (next, Some("the head file was not written by this concentrator".to_owned()))
        }
        Some(HeadFile::At(known)) if known.seq > head.seq => {
            let reason = format!(
                "the trail ended with record {}, the head file knew record {known}: records were \
                 cut off, or the database was replaced by an older copy",
                head.seq
            );
            (known.seq.saturating_add(1), Some(reason))
        }
        Some(HeadFile::At(known)) if known.seq > 0 => {
            let found = ledger.rows(known.seq.saturating_sub(1), 1)?;
            let found = found.first().filter(|row| row.seq == known.seq);
            match found {
                Some(row) if row.mac != known.mac => {
                    (next, Some(format!("record {known} of the head file is another one now")))
                }
                // It may be pruned; the seals say what its segment was.
                _ => (next, None),
            }
        }
        Some(HeadFile::At(_)) => (next, None),
    })
}

/// Looks at every row once.
fn verify(
    ledger: &Ledger,
    keeper: &HeadKeeper,
    key: &AuditKey,
    heads: &[Head],
) -> Result<Report, StoreError> {
    // The file before the rows: a running trail may grow in between, and never shrinks.
    let file = keeper.read(key).unwrap_or(HeadFile::At(Head::START));
    let mut verifier = Verifier::new(key, &ledger.seals()?, file, heads);
    let mut after = 0;
    loop {
        let rows = ledger.rows(after, PAGE)?;
        let Some(last) = rows.last() else { return Ok(verifier.finish()) };
        after = last.seq;
        for row in &rows {
            verifier.row(row);
        }
    }
}

/// A report as it is shown.
fn check_view(report: &Report) -> AuditCheck {
    AuditCheck {
        good: report.findings.is_empty(),
        records: report.records,
        first: report.first,
        head: report.head.to_string(),
        segments: report.segments,
        pruned: report.pruned,
        findings: report.findings.iter().map(ToString::to_string).collect(),
        more: report.more,
        unknown: report.unknown.iter().map(ToString::to_string).collect(),
    }
}

fn entry(row: &Row) -> Option<AuditEntry> {
    let record = crate::audit::read_line(&row.line)?;
    let (who, action) = (record.who, record.action);
    Some(AuditEntry {
        seq: row.seq,
        at: Timestamp(row.at),
        uid: who.uid,
        gid: who.gid,
        pid: who.pid,
        socket: who.socket,
        actor: who.actor,
        action: action.what,
        router: action.router,
        fields: action.fields,
        detail: action.detail,
        status: action.status,
        code: action.code,
        mac: row.mac.to_string(),
    })
}

fn degraded(error: &StoreError) -> ApiError {
    ApiError::new(ErrorCode::StoreDegraded, error.to_string())
}

#[cfg(test)]
mod tests;
