//! A wake-up that can sit in a readiness set. Source: eventfd(2).
#![expect(unsafe_code, reason = "eventfd has no safe wrapper in the standard library")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// A non-blocking wake-up; shared between threads through an `Arc`. Signals add up to one.
#[derive(Debug)]
pub struct EventFd {
    file: File,
}

impl EventFd {
    /// A wake-up that has not been signalled.
    ///
    /// # Errors
    /// No descriptor or memory is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: `fd` was just made by the kernel and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { file: File::from(fd) })
    }

    /// Makes the descriptor readable; never blocks.
    pub fn signal(&self) {
        // The only possible failure is a full counter, and then it is readable anyway.
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again; true if it had been signalled since the last drain.
    pub fn drain(&self) -> bool {
        (&self.file).read(&mut [0; 8]).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_signals_are_one_wake_up() {
        let wake = EventFd::new().unwrap();
        assert!(!wake.drain());
        wake.signal();
        wake.signal();
        assert!(wake.drain());
        assert!(!wake.drain());
    }
}
