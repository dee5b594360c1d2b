//! A bounded pool for work that takes milliseconds of CPU: human-set passwords.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// Threads that take jobs from one bounded queue.
pub(super) struct SlowPool {
    queue: SyncSender<Job>,
}

impl SlowPool {
    /// `threads` threads and a queue of `bound` jobs. The threads end when the pool is dropped.
    pub(super) fn new(threads: usize, bound: usize) -> io::Result<Self> {
        let (queue, jobs) = sync_channel::<Job>(bound);
        let jobs = Arc::new(Mutex::new(jobs));
        for index in 0..threads {
            let jobs = Arc::clone(&jobs);
            std::thread::Builder::new().name(format!("password-{index}")).spawn(move || {
                while let Some(job) = next(&jobs) {
                    job();
                }
            })?;
        }
        Ok(Self { queue })
    }

    /// Runs `job` on the pool.
    ///
    /// # Errors
    /// Drops the job if the queue is full.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        match self.queue.try_send(Box::new(job)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Full),
        }
    }
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses() {
        let pool = SlowPool::new(1, 1).unwrap();
        let (started, has_started) = sync_channel(0);
        let (release, released) = sync_channel::<()>(0);
        pool.run(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
        })
        .unwrap();
        has_started.recv().unwrap();
        let (done, is_done) = sync_channel(1);
        pool.run(move || done.send(()).unwrap()).unwrap();
        assert_eq!(pool.run(|| {}), Err(Full));
        release.send(()).unwrap();
        is_done.recv().unwrap();
    }
}
