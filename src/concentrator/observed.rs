//! What is observed about the concentrator besides the plain counters.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::telemetry::clock;
use crate::telemetry::histogram::{Histogram, LOGIN_SECONDS};
use crate::telemetry::log_filter::LogFilter;

use super::core::Core;
use super::pulse::Pulse;

/// Observations, and what may be changed about observing.
pub(super) struct Observed {
    /// From accept to the move to a shard.
    pub(super) login_times: Histogram,
    /// From the hand-over of a change until it is on disk.
    pub(super) store_times: Arc<Histogram>,
    /// Whether the threads turn.
    pub(super) pulse: Pulse,
    /// The metrics name routers.
    pub(super) per_router: bool,
    /// What is logged, if whoever set up logging has handed it in.
    pub(super) log_filter: Option<Arc<dyn LogFilter>>,
}

impl Observed {
    pub(super) fn new(
        store_times: Arc<Histogram>,
        per_router: bool,
        log_filter: Option<Arc<dyn LogFilter>>,
    ) -> Self {
        let login_times = Histogram::new(LOGIN_SECONDS);
        Self { login_times, store_times, pulse: Pulse::default(), per_router, log_filter }
    }
}

impl Core {
    /// Looks at the counters of all threads; every second.
    pub(super) fn look_at_threads(&self) {
        let shards = self.shard_counters.iter().map(|shard| &shard.turns);
        let turns = shards.chain(&self.greeting.turns).map(|turns| turns.load(Ordering::Relaxed));
        self.observed.pulse.look(clock::now(), turns);
    }

    /// Which packet or login thread has ended or hangs, in one sentence. Nothing mends that but a
    /// new process.
    pub(super) fn dead_or_hanging(&self) -> Option<String> {
        let ended = self.ended_threads();
        if ended > 0 {
            return Some(format!("{ended} of the packet and login threads ended"));
        }
        let index = self.observed.pulse.hanging()?;
        let shards = self.shard_counters.len();
        Some(match index.checked_sub(shards) {
            None => format!("the packet thread shard-{index} hangs"),
            Some(index) => format!("the login thread greeter-{index} hangs"),
        })
    }
}
