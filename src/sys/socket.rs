//! TCP socket options that the standard library lacks. Source: tcp(7).
#![expect(unsafe_code, reason = "setsockopt and getsockopt take raw pointers")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::check;

/// Keeps at most about `bytes` unsent bytes in the kernel: above it the socket is not writable.
///
/// # Errors
/// `fd` is not a TCP socket.
pub fn set_notsent_lowat(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &bytes)
}

/// Ends the connection when sent bytes stay unacknowledged for `time` (whole milliseconds; zero
/// gives the kernel's default back).
///
/// # Errors
/// `fd` is not a TCP socket.
pub fn set_user_timeout(fd: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &millis)
}

/// Sends small writes at once (`TCP_NODELAY`).
///
/// # Errors
/// `fd` is not a TCP socket.
pub fn set_nodelay(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &libc::c_int::from(on))
}

/// The kernel's view of one TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Its mean deviation, microseconds.
    pub rtt_var_us: u32,
    /// Segments that were sent again since the connection began.
    pub retransmits: u32,
    /// Segments sent and not yet acknowledged.
    pub unacked: u32,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// The path's maximum transmission unit as the kernel knows it, bytes.
    pub path_mtu: u32,
}

/// Reads [`TcpInfo`] of a connected socket.
///
/// # Errors
/// `fd` is not a TCP socket.
pub fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    // SAFETY: `tcp_info` is a plain C struct of integers, valid with all bytes zero; the kernel
    // fills as much of it as it knows.
    let info: libc::tcp_info = unsafe { get(fd, libc::IPPROTO_TCP, libc::TCP_INFO) }?;
    Ok(TcpInfo {
        rtt_us: info.tcpi_rtt,
        rtt_var_us: info.tcpi_rttvar,
        retransmits: info.tcpi_total_retrans,
        unacked: info.tcpi_unacked,
        congestion_window: info.tcpi_snd_cwnd,
        path_mtu: info.tcpi_pmtu,
    })
}

fn set<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: `value` is a live `T` of exactly `length` bytes that the kernel only reads; `fd` is
    // open for the call.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    })?;
    Ok(())
}

/// Reads one option.
///
/// # Safety
/// `T` must be a plain C struct for which every byte pattern, all zero included, is valid.
pub(super) unsafe fn get<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<T> {
    // SAFETY: the caller vouches that zero bytes are a valid `T`.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` = size of `T` bytes into `value`, which we hold
    // exclusively, and any bytes are a valid `T`.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn read_u32(fd: BorrowedFd<'_>, name: libc::c_int) -> u32 {
        // SAFETY: any four bytes are a `u32`.
        unsafe { get(fd, libc::IPPROTO_TCP, name) }.unwrap()
    }

    #[test]
    fn options_arrive_in_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let fd = stream.as_fd();
        set_notsent_lowat(fd, 16_384).unwrap();
        set_user_timeout(fd, Duration::from_secs(90)).unwrap();
        set_nodelay(fd, true).unwrap();
        assert_eq!(read_u32(fd, libc::TCP_NOTSENT_LOWAT), 16_384);
        assert_eq!(read_u32(fd, libc::TCP_USER_TIMEOUT), 90_000);
        assert!(stream.nodelay().unwrap());
        let info = tcp_info(fd).unwrap();
        assert!(info.congestion_window > 0 && info.path_mtu > 0, "{info:?}");
    }

    #[test]
    fn refuses_a_descriptor_that_is_no_tcp_socket() {
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(set_notsent_lowat(unix.as_fd(), 1).is_err());
        assert!(set_user_timeout(unix.as_fd(), Duration::ZERO).is_err());
        assert!(set_nodelay(unix.as_fd(), true).is_err());
        assert!(tcp_info(unix.as_fd()).is_err());
    }
}
