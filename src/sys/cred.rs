//! Who is at the other end of a unix socket. Source: unix(7), `SO_PEERCRED`.
#![expect(unsafe_code, reason = "reads a C struct through getsockopt")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The other end's identity as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// Process id; 0 if it lives in a process namespace we can't see.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Asks the kernel; the peer can't forge the answer.
///
/// # Errors
/// `fd` is not a connected unix socket.
pub fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<PeerCred> {
    // SAFETY: `ucred` is a plain C struct of three integers.
    let cred: libc::ucred = unsafe { super::socket::get(fd, libc::SOL_SOCKET, libc::SO_PEERCRED) }?;
    // A socket without a peer yields the ids -1, which nobody may be matched with.
    if cred.uid == u32::MAX {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok(PeerCred { pid: cred.pid, uid: cred.uid, gid: cred.gid })
}

/// From `asm-generic/socket.h`; the libc crate does not name it.
const SO_PEERGROUPS: libc::c_int = 59;

/// The other end's supplementary groups as they were when it connected. Linux 4.13.
///
/// # Errors
/// `fd` is not a connected unix socket.
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // The kernel's own bound, NGROUPS_MAX, is 65,536; it says how much it wants.
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let bytes = groups.len().saturating_mul(size_of::<libc::gid_t>());
        let mut length = libc::socklen_t::try_from(bytes).unwrap_or(0);
        // SAFETY: the kernel writes at most `length` bytes, which is the size of `groups`, held
        // exclusively; any bytes are valid group ids.
        let result = super::check(unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        });
        let wanted = usize::try_from(length).unwrap_or(0) / size_of::<libc::gid_t>();
        match result {
            Ok(_) => {
                groups.truncate(wanted);
                return Ok(groups);
            }
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && wanted > groups.len() => {
                groups.resize(wanted, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The effective user id of this process.
pub fn effective_uid() -> u32 {
    // SAFETY: takes and touches no memory, cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn names_this_process_on_a_socket_pair() {
        let (one, _two) = UnixStream::pair().unwrap();
        let cred = peer_cred(one.as_fd()).unwrap();
        assert_eq!(cred.pid.unsigned_abs(), std::process::id());
        assert_eq!(cred.uid, effective_uid());
    }

    #[test]
    fn refuses_a_socket_without_a_unix_peer() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(peer_cred(udp.as_fd()).is_err());
        assert!(peer_groups(udp.as_fd()).is_err());
    }

    #[test]
    fn lists_the_groups_of_this_process() {
        let (one, _two) = UnixStream::pair().unwrap();
        let mut found = peer_groups(one.as_fd()).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let mut expected: Vec<u32> =
            line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
