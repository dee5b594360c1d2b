//! One listener: a place in the log and what it wants of it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Event, EventFilter, EventGap, EventHub, gap_document};

/// Decides about an event beyond what an [`EventFilter`] can tell.
pub(in crate::concentrator) type Judge = Box<dyn Fn(&Event) -> bool + Send>;

/// What happens, from one moment on. Holds up nobody, however slowly it is read.
pub struct EventStream {
    events: Arc<EventHub>,
    changed: watch::Receiver<()>,
    /// Everything up to here was taken from the log.
    cursor: u64,
    /// Taken, wanted, not given out yet; bounded by what is read at once.
    ready: VecDeque<Arc<Event>>,
    /// Everything up to here was given out or is not wanted.
    position: u64,
    filter: EventFilter,
    /// The only router whose events are looked at in the log.
    owner: Option<String>,
    judge: Option<Judge>,
}

/// Why there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEvent {
    /// The listener was too slow; the next call goes on after the gap. Read the state again.
    #[error("{0}")]
    Lost(EventGap),
    /// The concentrator has stopped.
    #[error("the concentrator has stopped")]
    Closed,
}

impl EventStream {
    pub(in crate::concentrator) fn new(events: &Arc<EventHub>, after: Option<u64>) -> Self {
        let after = after.unwrap_or_else(|| events.last_id());
        Self {
            changed: events.changed.subscribe(),
            events: Arc::clone(events),
            cursor: after,
            ready: VecDeque::new(),
            position: after,
            filter: EventFilter::default(),
            owner: None,
            judge: None,
        }
    }

    /// Only these from now on. Tags are not looked at here.
    #[must_use]
    pub fn only(mut self, filter: EventFilter) -> Self {
        self.owner.clone_from(&filter.router);
        self.filter = filter;
        self
    }

    pub(in crate::concentrator) fn judged(mut self, owner: Option<String>, judge: Judge) -> Self {
        self.owner = owner;
        self.judge = Some(judge);
        self
    }

    /// The next event; waits for it. Nothing is lost if the call is dropped.
    ///
    /// # Errors
    /// [`NoEvent`]; after [`NoEvent::Lost`] the stream goes on.
    pub async fn recv(&mut self) -> Result<Arc<Event>, NoEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.position = if self.ready.is_empty() { self.cursor } else { event.id };
                return Ok(event);
            }
            // Before the look, so that what comes after it wakes us.
            self.changed.borrow_and_update();
            let (batch, closed) = self.events.read(self.cursor, self.owner.as_deref());
            self.cursor = batch.cursor;
            if let Some(gap) = batch.gap {
                self.position = self.cursor;
                return Err(NoEvent::Lost(gap_document(gap)));
            }
            let Self { filter, judge, .. } = self;
            let wanted =
                |event: &Arc<Event>| filter.wants(event) && judge.as_ref().is_none_or(|j| j(event));
            self.ready.extend(batch.events.into_iter().map(|(_, event)| event).filter(wanted));
            if !self.ready.is_empty() {
                continue;
            }
            self.position = self.cursor;
            if batch.more {
                // Much that is not wanted: others want to run too.
                tokio::task::yield_now().await;
            } else if closed || self.changed.changed().await.is_err() {
                return Err(NoEvent::Closed);
            }
        }
    }

    /// Where a later stream can go on: everything up to this id was given out, or not wanted.
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("position", &self.position).finish_non_exhaustive()
    }
}
