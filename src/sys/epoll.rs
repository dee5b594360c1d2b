//! A readiness set. Source: epoll(7).
#![expect(unsafe_code, reason = "epoll has no safe wrapper in the standard library")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::check;

/// What to wait for on one descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Bytes (or a connection) can be read, or the peer has closed its half.
    pub read: bool,
    /// Bytes can be written.
    pub write: bool,
    /// Report changes only, instead of a lasting state.
    pub edge: bool,
    /// Wake only some of the sets that hold this descriptor (`EPOLLEXCLUSIVE`); such an entry can
    /// be removed but not modified.
    pub exclusive: bool,
}

impl Interest {
    /// Neither: only errors and hang-ups are reported.
    pub const NONE: Self = Self { read: false, write: false, edge: false, exclusive: false };
    /// Reading.
    pub const READ: Self = Self { read: true, ..Self::NONE };
    /// Writing.
    pub const WRITE: Self = Self { write: true, ..Self::NONE };
    /// Both.
    pub const READ_WRITE: Self = Self { read: true, write: true, ..Self::NONE };

    fn bits(self) -> u32 {
        let flag = |on: bool, bit: libc::c_int| if on { bit.cast_unsigned() } else { 0 };
        // EPOLLRDHUP only together with reading: level-triggered, it would otherwise be reported
        // again and again to someone who has stopped reading on purpose.
        flag(self.read, libc::EPOLLIN)
            | flag(self.read && !self.exclusive, libc::EPOLLRDHUP)
            | flag(self.write, libc::EPOLLOUT)
            | flag(self.edge, libc::EPOLLET)
            | flag(self.exclusive, libc::EPOLLEXCLUSIVE)
    }
}

/// One report of [`Epoll::wait`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// An empty slot to be filled by [`Epoll::wait`].
    pub const EMPTY: Self = Self(libc::epoll_event { events: 0, u64: 0 });

    /// The token given at [`Epoll::add`].
    pub fn token(&self) -> u64 {
        self.0.u64
    }

    /// A read will not block (it may return an error or the end of the stream).
    pub fn readable(&self) -> bool {
        self.has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// A write will not block (it may return an error).
    pub fn writable(&self) -> bool {
        self.has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// Both halves are closed, or the socket is in error.
    pub fn closed(&self) -> bool {
        self.has(libc::EPOLLHUP | libc::EPOLLERR)
    }

    fn has(&self, bits: libc::c_int) -> bool {
        self.0.events & bits.cast_unsigned() != 0
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (events, token) = (self.0.events, self.0.u64);
        f.debug_struct("Event").field("token", &token).field("events", &events).finish()
    }
}

/// A set of descriptors whose readiness is waited for together. It is itself readable (through
/// [`AsFd`]) while a report is waiting, so it can sit in another set or an `AsyncFd`.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// No descriptor or memory is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was just made by the kernel and nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Adds `fd`; its reports carry `token`. The entry goes when the file behind `fd` is closed.
    ///
    /// # Errors
    /// `AlreadyExists` if it is in the set; the limit of `fs.epoll.max_user_watches` is reached.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Changes what is waited for on `fd`, and its token.
    ///
    /// # Errors
    /// `NotFound` if it is not in the set; an exclusive entry cannot be changed.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    /// Takes `fd` out of the set.
    ///
    /// # Errors
    /// `NotFound` if it is not in the set.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, Interest::NONE)
    }

    /// Waits for reports and fills `events` from its start; returns how many. 0 means that the
    /// time is over or that a signal came. `None` waits for ever; a part of a millisecond is
    /// rounded up, so a deadline is never missed by a busy loop in front of it.
    ///
    /// # Errors
    /// `events` is empty.
    pub fn wait(&self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        let millis = timeout.map_or(-1, |t| {
            let rounded = t.as_nanos().div_ceil(1_000_000);
            libc::c_int::try_from(rounded).unwrap_or(libc::c_int::MAX)
        });
        let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `Event` is a transparent `epoll_event`, and the kernel writes at most `room` of
        // them into the slice that we hold exclusively for the call.
        let count = check(unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr().cast(), room, millis)
        });
        match count {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.bits(), u64: token };
        // SAFETY: both descriptors are open for the call; `event` outlives it.
        check(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event)
        })?;
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;

    #[test]
    fn reports_a_signalled_descriptor_with_its_token_until_it_is_drained() {
        let (epoll, wake) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        epoll.add(wake.as_fd(), 7, Interest::READ).unwrap();
        let mut events = [Event::EMPTY; 4];
        assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
        wake.signal();
        for _ in 0..2 {
            assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
            assert!(events[0].token() == 7 && events[0].readable() && !events[0].writable());
            assert!(!events[0].closed());
        }
        wake.drain();
        assert_eq!(epoll.wait(&mut events, Some(Duration::from_micros(1))).unwrap(), 0);
    }

    #[test]
    fn modify_changes_interest_and_remove_ends_the_reports() {
        let (epoll, wake) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        let mut events = [Event::EMPTY; 4];
        epoll.add(wake.as_fd(), 1, Interest::READ).unwrap();
        epoll.modify(wake.as_fd(), 2, Interest::READ_WRITE).unwrap();
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
        assert!(events[0].token() == 2 && events[0].writable() && !events[0].readable());
        epoll.remove(wake.as_fd()).unwrap();
        assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    }

    #[test]
    fn refuses_a_double_add_an_unknown_remove_and_a_change_of_an_exclusive_entry() {
        let (epoll, wake) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        assert_eq!(epoll.remove(wake.as_fd()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let exclusive = Interest { exclusive: true, ..Interest::READ };
        epoll.add(wake.as_fd(), 1, exclusive).unwrap();
        let again = epoll.add(wake.as_fd(), 1, Interest::READ).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert!(epoll.modify(wake.as_fd(), 1, Interest::READ).is_err());
        assert!(epoll.wait(&mut [], None).is_err());
    }

    #[test]
    fn a_closed_peer_is_readable_and_a_dead_socket_is_closed() {
        let (epoll, mut events) = (Epoll::new().unwrap(), [Event::EMPTY; 1]);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        epoll.add(ours.as_fd(), 9, Interest::READ).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
        assert!(events[0].readable() && !events[0].closed());
        drop(theirs);
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
        assert!(events[0].closed());
    }
}
