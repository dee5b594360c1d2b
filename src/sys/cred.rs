//! Who is at the other end of a unix socket. Source: unix(7), `SO_PEERCRED`.
#![expect(unsafe_code, reason = "reads a C struct through getsockopt")]

use std::io;
use std::os::fd::BorrowedFd;

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
    }
}
