//! Work that is due every now and then: one background thread with a list of jobs.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::telemetry::clock;

/// Jobs to be done again and again. Each is short, or does a bounded part of its work a time.
#[derive(Default)]
pub(super) struct Housekeeping {
    jobs: Vec<Job>,
}

struct Job {
    name: &'static str,
    every: Duration,
    due: Instant,
    run: Box<dyn FnMut() + Send>,
}

impl Housekeeping {
    /// Adds a job; it is done for the first time after `every`.
    pub(super) fn every(
        &mut self,
        name: &'static str,
        every: Duration,
        run: impl FnMut() + Send + 'static,
    ) {
        debug_assert!(!every.is_zero(), "a job without a pause would never let the others run");
        self.jobs.push(Job { name, every, due: clock::now() + every, run: Box::new(run) });
    }

    /// Starts the thread; it ends when the handle is dropped.
    ///
    /// # Errors
    /// The thread can't be made.
    pub(super) fn start(mut self) -> io::Result<Housekeeper> {
        let (stop, stopped) = sync_channel::<()>(0);
        let thread =
            std::thread::Builder::new().name("housekeeping".to_owned()).spawn(move || {
                loop {
                    let wait = self.run_due(clock::now());
                    match stopped.recv_timeout(wait) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Housekeeper { stop: Some(stop), thread: Some(thread) })
    }

    /// Does what is due; the time until the next job is.
    fn run_due(&mut self, now: Instant) -> Duration {
        for job in &mut self.jobs {
            if job.due <= now {
                tracing::trace!(job = job.name, "housekeeping");
                (job.run)();
                // From now, not from when it was due: after a suspend each job runs once.
                job.due = now + job.every;
            }
        }
        let next = self.jobs.iter().map(|job| job.due).min();
        next.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(now))
    }
}

/// The running thread.
#[derive(Default)]
pub(super) struct Housekeeper {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        // Without a sender the thread ends after the job it is at.
        self.stop.take();
        super::join(self.thread.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn jobs_run_when_they_are_due_and_once_after_a_long_pause() {
        let mut keeping = Housekeeping::default();
        let counts: [Arc<AtomicU64>; 2] = Default::default();
        for (count, seconds) in counts.iter().zip([1, 10]) {
            let count = Arc::clone(count);
            keeping.every("count", Duration::from_secs(seconds), move || {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        let seen = || counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let start = clock::now();
        keeping.run_due(start);
        assert_eq!(seen(), [0, 0]);
        for second in 1..=5 {
            keeping.run_due(start + Duration::from_secs(second * 2));
        }
        assert_eq!(seen()[0], 5);
        keeping.run_due(start + Duration::from_secs(3600));
        assert_eq!(seen()[0], 6);
        assert!((1..=2).contains(&seen()[1]), "{:?}", seen());
    }

    #[test]
    fn the_thread_ends_when_nobody_holds_it() {
        let mut keeping = Housekeeping::default();
        keeping.every("never", Duration::from_secs(3600), || {});
        drop(keeping.start().unwrap());
    }
}
