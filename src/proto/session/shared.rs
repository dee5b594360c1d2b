//! What every state of a session uses: settings, outgoing events, counters, the numbering of
//! tickets and engines.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::config::SessionConfig;
use super::event::{EngineId, Event, Ticket, TlsOp, TlsTask};
use super::stats::SessionStats;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Arc<SessionConfig>,
    pub(super) events: VecDeque<Event>,
    pub(super) stats: SessionStats,
    /// Something is due at once; `handle_timeout` does it.
    pub(super) urgent: Option<Instant>,
    next_engine: u32,
    next_ticket: u64,
}

impl Shared {
    pub(super) fn new(config: Arc<SessionConfig>, stats: SessionStats, next_engine: u32) -> Self {
        Self { config, events: VecDeque::new(), stats, urgent: None, next_engine, next_ticket: 0 }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn task(&mut self, engine: EngineId, op: TlsOp) {
        self.events.push_back(Event::Tls(TlsTask { engine, op }));
    }

    pub(super) fn new_engine(&mut self) -> EngineId {
        let id = EngineId(self.next_engine);
        self.next_engine = self.next_engine.wrapping_add(1);
        id
    }

    pub(super) fn next_engine(&self) -> u32 {
        self.next_engine
    }

    pub(super) fn new_ticket(&mut self) -> Ticket {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        Ticket(self.next_ticket)
    }
}
