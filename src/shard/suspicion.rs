//! Whether a router is still at the other end, long before its connection breaks.
//!
//! The kernel does the asking: a connection that is idle is probed (TCP keep-alive), one that is
//! not has its segments sent again. It also does the listening, so a stall of this process makes
//! nobody suspect. All that is left is to look at what it knows, about once every
//! [`Suspicion::patience`] a tunnel.
//!
//! ```text
//!            silent for `patience`            still so at the next look
//!   Trusted ----------------------> Doubted --------------------------> Suspect
//!      ^        an acknowledgement     |                                   |
//!      +-------------------------------+-----------------------------------+
//! ```

use std::time::{Duration, Instant};

use crate::sys::socket::TcpInfo;

/// Between the look that doubts and the one that decides: a router whose window is closed is
/// asked rarely, and may be looked at just while its answer is on the way.
const CONFIRM: Duration = Duration::from_secs(1);

/// Between two looks, at least.
const SHORTEST: Duration = Duration::from_millis(100);

/// What is thought of one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opinion {
    Trusted,
    Doubted { since: Instant },
    Suspect,
}

/// The opinion of a router has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It acknowledges nothing any more.
    Suspect,
    /// It does again.
    Recovered,
}

/// The watch over one outer connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    patience: Duration,
    opinion: Opinion,
    look_at: Instant,
}

impl Suspicion {
    pub(super) fn new(now: Instant, patience: Duration) -> Self {
        Self { patience, opinion: Opinion::Trusted, look_at: now + patience }
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.opinion == Opinion::Suspect
    }

    /// When to look next.
    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// There was nothing to be seen.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.look_at = now + self.patience;
    }

    /// Something was read from the router: no need to wait for the next look.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.is_suspect() {
            self.look_at = now;
        }
    }

    /// Judges what the kernel knows. `written_at` is when the socket last took bytes from us.
    pub(super) fn look(
        &mut self,
        now: Instant,
        tcp: &TcpInfo,
        written_at: Instant,
    ) -> Option<Turn> {
        let silent = Duration::from_millis(u64::from(tcp.silent_ms));
        let waiting = tcp.unacked > 0;
        // Bytes on the way since our last write, and so for as long as that at least. A router
        // that is heard but hears nothing sends its own again and again, and is not silent.
        let unacked =
            if waiting { now.saturating_duration_since(written_at) } else { Duration::ZERO };
        let asked = waiting || tcp.probes > 0;
        if unacked < self.patience && (silent < self.patience || !asked) {
            let rest = self.patience.saturating_sub(silent.max(unacked));
            // Not at once again: a silence that nobody has asked about may go on for long.
            let pause = if rest.is_zero() { CONFIRM } else { rest.max(SHORTEST) };
            self.look_at = now + pause;
            if silent >= self.patience {
                // Nobody has asked since: neither better nor worse than before.
                return None;
            }
            let before = std::mem::replace(&mut self.opinion, Opinion::Trusted);
            return (before == Opinion::Suspect).then_some(Turn::Recovered);
        }
        self.look_at = now + CONFIRM;
        match self.opinion {
            Opinion::Trusted => self.opinion = Opinion::Doubted { since: now },
            Opinion::Doubted { since } if now.saturating_duration_since(since) >= CONFIRM => {
                self.opinion = Opinion::Suspect;
                return Some(Turn::Suspect);
            }
            Opinion::Doubted { .. } | Opinion::Suspect => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::clock;

    /// The default.
    const PATIENCE: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn tcp(silent: Duration, probes: u8, unacked: u32) -> TcpInfo {
        let silent_ms = u32::try_from(silent.as_millis()).unwrap();
        TcpInfo { silent_ms, probes, unacked, ..TcpInfo::default() }
    }

    /// A router that answers every probe until `gone`, as the kernel would show it: asked after 6
    /// seconds of silence, then every second.
    fn idle(now: Instant, start: Instant, gone: Option<Instant>) -> TcpInfo {
        let heard_until = gone.map_or(now, |gone| gone.min(now));
        let age = heard_until.saturating_duration_since(start).as_millis();
        let rounds = u32::try_from(age / 6000).unwrap();
        let last = start + Duration::from_secs(6) * rounds;
        let silent = now.saturating_duration_since(last);
        let unanswered = silent.saturating_sub(Duration::from_secs(6)).as_secs();
        let asked = if silent >= Duration::from_secs(6) { unanswered + 1 } else { 0 };
        tcp(silent, u8::try_from(asked).unwrap(), 0)
    }

    proptest! {
        #[test]
        fn a_router_that_is_gone_is_suspect_within_fifteen_seconds(
            gone_ms in 0u64..120_000, late_ms in 0u64..500,
        ) {
            let start = clock::now();
            let gone = start + Duration::from_millis(gone_ms);
            let mut suspicion = Suspicion::new(start, PATIENCE);
            let (mut looks, mut now) = (0, start);
            let turn = loop {
                now = suspicion.look_at().max(now) + Duration::from_millis(late_ms);
                looks += 1;
                if let Some(turn) = suspicion.look(now, &idle(now, start, Some(gone)), start) {
                    break turn;
                }
                prop_assert!(now < gone + Duration::from_secs(16), "never suspected");
            };
            prop_assert_eq!(turn, Turn::Suspect);
            prop_assert!(suspicion.is_suspect());
            prop_assert!(now >= gone + Duration::from_secs(2), "suspected too soon");
            prop_assert!(now <= gone + Duration::from_millis(12_200), "{:?}", now - gone);
            prop_assert!(looks <= gone_ms / 4000 + 6, "{} looks", looks);
        }

        #[test]
        fn a_router_that_answers_is_never_suspect(late_ms in 0u64..3000) {
            let start = clock::now();
            let mut suspicion = Suspicion::new(start, PATIENCE);
            for _ in 0..100 {
                let now = suspicion.look_at() + Duration::from_millis(late_ms);
                prop_assert_eq!(suspicion.look(now, &idle(now, start, None), start), None);
                prop_assert!(!suspicion.is_suspect());
            }
        }
    }

    #[test]
    fn a_suspect_router_recovers_with_its_next_acknowledgement() {
        let start = clock::now();
        let mut suspicion = Suspicion::new(start, PATIENCE);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(suspicion.look(at(10), &tcp(PATIENCE, 3, 0), start), None);
        assert_eq!(suspicion.look(at(11), &tcp(SECOND * 11, 3, 0), start), Some(Turn::Suspect));
        assert_eq!(suspicion.look(at(12), &tcp(SECOND * 12, 4, 0), start), None);
        suspicion.heard(at(13));
        assert_eq!(suspicion.look_at(), at(13));
        assert_eq!(suspicion.look(at(13), &tcp(SECOND, 0, 0), start), Some(Turn::Recovered));
        assert_eq!(suspicion.look_at(), at(22));
    }

    #[test]
    fn two_looks_at_one_moment_decide_nothing() {
        let start = clock::now();
        let mut suspicion = Suspicion::new(start, PATIENCE);
        for _ in 0..5 {
            assert_eq!(suspicion.look(start + PATIENCE, &tcp(PATIENCE, 1, 0), start), None);
        }
    }

    #[test]
    fn a_closed_window_is_not_suspicious() {
        let start = clock::now();
        let mut suspicion = Suspicion::new(start, PATIENCE);
        // Asked rarely and answering: at one look its answer is just on the way.
        for (second, silent, probes) in [(30, 30, 1), (31, 1, 0), (60, 30, 0), (61, 31, 0)] {
            let now = start + Duration::from_secs(second);
            let tcp = tcp(SECOND * silent, probes, 0);
            assert_eq!(suspicion.look(now, &tcp, start), None, "at {second}");
        }
        assert!(!suspicion.is_suspect());
    }

    #[test]
    fn a_router_that_is_heard_but_hears_nothing_is_suspect() {
        let start = clock::now();
        let mut suspicion = Suspicion::new(start, PATIENCE);
        let written = start + SECOND;
        let heard = tcp(SECOND, 0, 1);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(suspicion.look(at(10), &heard, written), None);
        assert_eq!(suspicion.look_at(), at(11));
        assert_eq!(suspicion.look(at(11), &heard, written), None);
        assert_eq!(suspicion.look(at(12), &heard, written), Some(Turn::Suspect));
    }
}
