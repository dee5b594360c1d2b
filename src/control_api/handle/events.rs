//! What happens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::control_api::Scope;
use crate::control_api::types::{Event, EventFilter, EventGap};

/// What happens.
pub trait Events: Send + Sync + 'static {
    /// The id of the newest event. Read it before a state: then the state and the events after this
    /// id are complete.
    fn event_id(&self) -> u64;

    /// Events in scope after the one of this id, without an id from now on.
    ///
    /// # Errors
    /// Not all of them are held; `after` the end of the gap is complete.
    fn follow(
        &self,
        scope: &Scope,
        filter: EventFilter,
        after: Option<u64>,
    ) -> Result<Box<dyn EventSource>, EventGap>;
}

/// The next event, a gap in front of it, or the end.
pub type NextEvent<'a> =
    Pin<Box<dyn Future<Output = Option<Result<Arc<Event>, EventGap>>> + Send + 'a>>;

/// Events as they happen. Holds up nobody, however slowly it is read.
pub trait EventSource: Send {
    /// Waits for the next event. Nothing is lost if the call is dropped.
    fn next(&mut self) -> NextEvent<'_>;

    /// Everything up to this id was given out, or is not wanted.
    fn position(&self) -> u64;
}
