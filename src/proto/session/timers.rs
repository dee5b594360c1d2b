//! Who is alive, and what is due when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A timer that fires this much late means that we stood still, not the peer.
const STALL: Duration = Duration::from_secs(2);

/// Time that a peer has at least after a stall of ours.
const GRACE: Duration = Duration::from_secs(10);

/// Rekeys that a peer may begin within [`REKEY_FLOOD_WINDOW`].
const REKEY_FLOOD: usize = 30;
const REKEY_FLOOD_WINDOW: Duration = Duration::from_secs(60);

/// Silence on both sides of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    /// When we last sent something.
    pub(super) last_sent: Instant,
    /// When something authentic was last received.
    pub(super) last_heard: Instant,
    /// The client has sent a ping: from then on its silence counts.
    pub(super) pinged: bool,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self { last_sent: now, last_heard: now, pinged: false }
    }

    /// Something was sent. Had the ping been due for long, nothing ran here in the meantime.
    pub(super) fn sent(&mut self, now: Instant, ping: Duration, restart: Duration) {
        self.forgive(self.ping_at(ping), now, restart);
        self.last_sent = now;
    }

    pub(super) fn ping_at(&self, ping: Duration) -> Instant {
        self.last_sent + ping
    }

    /// When the client counts as dead; never, as long as it has not pinged.
    pub(super) fn dead_at(&self, restart: Duration) -> Option<Instant> {
        self.pinged.then(|| self.last_heard + restart)
    }

    /// Our own stall counts against nobody: the time by which a timer that was `due` comes late is
    /// given back, and what waits in the socket gets the time to be read.
    pub(super) fn forgive(&mut self, due: Instant, now: Instant, restart: Duration) {
        let late = now.saturating_duration_since(due);
        if late > STALL {
            let given_back = self.last_heard + late;
            let grace = now.checked_sub(restart.saturating_sub(GRACE));
            self.last_heard = grace.map_or(given_back, |grace| given_back.max(grace)).min(now);
        }
    }
}

/// Rekeys that the peer began of late.
#[derive(Debug, Default)]
pub(super) struct RekeyFlood {
    begun: VecDeque<Instant>,
}

impl RekeyFlood {
    /// Notes one more; false if that is one too many.
    pub(super) fn note(&mut self, now: Instant) -> bool {
        while self
            .begun
            .front()
            .is_some_and(|begun| now.saturating_duration_since(*begun) >= REKEY_FLOOD_WINDOW)
        {
            self.begun.pop_front();
        }
        self.begun.push_back(now);
        self.begun.len() <= REKEY_FLOOD
    }
}

/// The life of a TLS engine after its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linger {
    /// The push reply waits for its acknowledgement, until then at most.
    Unacked { give_up: Instant },
    /// The work is done.
    Until(Instant),
    /// There is no engine.
    Over,
}

impl Linger {
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Unacked { give_up } => Some(give_up),
            Self::Until(until) => Some(until),
            Self::Over => None,
        }
    }

    /// The push reply was acknowledged; later ones change nothing.
    pub(super) fn acked(&mut self, now: Instant, linger: Duration) {
        if let Self::Unacked { give_up } = *self {
            *self = Self::Until((now + linger).min(give_up));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_timer_gives_the_time_back() {
        let start = crate::proto::session::tests::epoch();
        let mut liveness = Liveness { pinged: true, ..Liveness::new(start) };
        let restart = Duration::from_secs(90);
        let after = |seconds| start + Duration::from_secs(seconds);
        liveness.forgive(after(20), after(21), restart);
        assert_eq!(liveness.dead_at(restart), Some(after(90)), "a second is the timer's own grain");
        liveness.forgive(after(20), after(60), restart);
        assert_eq!(liveness.dead_at(restart), Some(after(130)), "40 seconds are given back");
        liveness.forgive(after(130), after(150), restart);
        assert_eq!(liveness.dead_at(restart), Some(after(160)), "at least the grace");
    }

    #[test]
    fn the_31st_rekey_within_a_minute_is_too_many() {
        let start = crate::proto::session::tests::epoch();
        let mut flood = RekeyFlood::default();
        assert!((0..30).all(|second| flood.note(start + Duration::from_secs(second))));
        assert!(!flood.note(start + Duration::from_secs(59)));
        let mut slow = RekeyFlood::default();
        assert!((0..200).all(|step| slow.note(start + Duration::from_secs(step * 2))));
    }
}
