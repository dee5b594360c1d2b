//! Descriptors that whoever started this process has left open for it.
//! Source: sd_listen_fds(3): `SD_LISTEN_FDS_START` and what follows.
#![expect(unsafe_code, reason = "a number of the environment becomes an owned descriptor")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::check;

/// The first one that is handed over.
const FIRST: RawFd = 3;
/// More than anybody hands over.
const MOST: usize = 256;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes `count` descriptors from number 3 on, once in the life of the process; they are not
/// handed to children. To be called before the process opens anything else that it keeps: the
/// numbers have to be those that its parent left open.
///
/// # Errors
/// They were taken before, or one of them is not open.
pub fn take(count: usize) -> io::Result<Vec<OwnedFd>> {
    if count > MOST {
        return Err(io::Error::other("more descriptors are announced than anybody hands over"));
    }
    if count > 0 && TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::other("the descriptors were taken before"));
    }
    let last = FIRST.saturating_add(i32::try_from(count).unwrap_or(i32::MAX));
    for fd in FIRST..last {
        // SAFETY: F_SETFD takes an integer and touches no memory; a closed descriptor is an error.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    }
    // SAFETY: each descriptor is open (the call above succeeded for all of them), was opened by the
    // parent for this process to own (the protocol of LISTEN_FDS), and is taken once: TAKEN.
    Ok((FIRST..last).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_where_nothing_is_announced() {
        assert!(take(0).unwrap().is_empty());
        assert!(take(0).unwrap().is_empty());
        assert!(take(MOST + 1).is_err());
    }
}
