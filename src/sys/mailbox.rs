//! Messages from many threads to one event loop: a bounded queue and a wake-up.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::eventfd::EventFd;

/// A bounded queue whose descriptor is readable while messages wait.
#[derive(Debug)]
pub struct Mailbox<T> {
    /// `None` once the receiver has ended.
    queue: Mutex<Option<VecDeque<T>>>,
    bound: usize,
    wake: EventFd,
    refused: AtomicU64,
}

impl<T> Mailbox<T> {
    /// An empty mailbox for at most `bound` optional messages.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(bound: usize) -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::new(Some(VecDeque::new())),
            bound,
            wake: EventFd::new()?,
            refused: AtomicU64::new(0),
        })
    }

    /// Adds a message unless `bound` messages wait.
    ///
    /// # Errors
    /// Gives the message back when the mailbox is full, and counts that.
    pub fn offer(&self, message: T) -> Result<(), T> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.as_mut() {
            Some(queue) if queue.len() < self.bound => {
                self.push(queue, message);
                Ok(())
            }
            _ => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(message)
            }
        }
    }

    /// Adds a message that must not be lost. For messages whose number is bounded by something
    /// else: one answer a question, one arrival a login, one request an API connection.
    pub fn post(&self, message: T) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_mut() {
            self.push(queue, message);
        }
    }

    /// The receiver has ended: what waits is dropped, and so is what comes later. Whoever waits
    /// for a reply sees its sender go.
    pub fn close(&self) {
        let waiting = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside the lock: dropping a message may run anything.
        drop(waiting);
    }

    fn push(&self, queue: &mut VecDeque<T>, message: T) {
        let wake = queue.is_empty();
        queue.push_back(message);
        if wake {
            self.wake.signal();
        }
    }

    /// Moves everything that waits to `into`, in order, and silences the descriptor.
    pub fn drain(&self, into: &mut Vec<T>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.drain();
        if let Some(queue) = queue.as_mut() {
            into.extend(queue.drain(..));
            queue.shrink_to(1024);
        }
    }

    /// Messages refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_beyond_its_bound_and_keeps_the_order() {
        let mailbox = Mailbox::new(2).unwrap();
        assert_eq!(mailbox.offer(1), Ok(()));
        assert_eq!(mailbox.offer(2), Ok(()));
        assert_eq!(mailbox.offer(3), Err(3));
        mailbox.post(4);
        assert_eq!(mailbox.refused(), 1);
        let mut got = Vec::new();
        mailbox.drain(&mut got);
        assert_eq!(got, [1, 2, 4]);
        assert_eq!(mailbox.offer(5), Ok(()));
    }

    #[test]
    fn a_closed_mailbox_drops_what_waits_and_what_comes() {
        let mailbox = Mailbox::new(2).unwrap();
        let reply = std::sync::Arc::new(());
        mailbox.post(std::sync::Arc::clone(&reply));
        mailbox.close();
        mailbox.post(std::sync::Arc::clone(&reply));
        assert!(mailbox.offer(std::sync::Arc::clone(&reply)).is_err());
        assert_eq!(std::sync::Arc::strong_count(&reply), 1);
    }
}
