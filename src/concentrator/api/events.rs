//! What happens, for the control socket.

use std::sync::Arc;

use crate::concentrator::events::{Event, EventFilter, EventGap, EventStream, NoEvent};
use crate::control_api::handle::{EventSource, NextEvent};
use crate::control_api::{Events, Scope};

use super::ApiHandle;

impl Events for Arc<ApiHandle> {
    fn event_id(&self) -> u64 {
        self.core.events.last_id()
    }

    fn follow(
        &self,
        scope: &Scope,
        filter: EventFilter,
        after: Option<u64>,
    ) -> Result<Box<dyn EventSource>, EventGap> {
        // How long its events are held is told only to those who may know that there is a router.
        let known = |name: &&String| *scope == Scope::All || self.account(scope, name).is_ok();
        let owner = filter.router.as_ref().filter(known).cloned();
        let counted = *scope == Scope::All;
        if let Some(gap) = after.and_then(|id| self.core.events.gap(id, owner.as_deref())) {
            return Err(shown(gap, counted));
        }
        let (core, scope, tag) = (Arc::clone(&self.core), scope.clone(), filter.tag.clone());
        let judge = move |event: &Event| {
            scope.covers(event.tenant.as_deref())
                && tag.as_ref().is_none_or(|tag| {
                    let accounts = core.accounts.read();
                    let account = event.what.router().and_then(|name| accounts.get(name));
                    account.is_some_and(|account| account.tags.contains(tag))
                })
        };
        let stream = EventStream::new(&self.core.events, after).only(filter);
        Ok(Box::new(Followed { stream: stream.judged(owner, Box::new(judge)), counted }))
    }
}

/// A stream for a caller.
struct Followed {
    stream: EventStream,
    /// The caller may know how many events there are of all tenants.
    counted: bool,
}

impl EventSource for Followed {
    fn next(&mut self) -> NextEvent<'_> {
        Box::pin(async {
            match self.stream.recv().await {
                Ok(event) => Some(Ok(event)),
                Err(NoEvent::Lost(gap)) => Some(Err(shown(gap, self.counted))),
                Err(NoEvent::Closed) => None,
            }
        })
    }

    fn position(&self) -> u64 {
        self.stream.position()
    }
}

fn shown(gap: EventGap, counted: bool) -> EventGap {
    EventGap { lost: gap.lost.filter(|_| counted), ..gap }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
