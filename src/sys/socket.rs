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

/// Lets the kernel ask an idle peer whether it is there: after `idle` without anything from it, and
/// then once every `interval` (whole seconds, at least one). What happens to a peer that never
/// answers is decided by [`set_user_timeout`].
///
/// # Errors
/// `fd` is not a TCP socket.
pub fn set_keepalive(fd: BorrowedFd<'_>, idle: Duration, interval: Duration) -> io::Result<()> {
    let seconds = |time: Duration| libc::c_int::try_from(time.as_secs().clamp(1, 32_767));
    let (idle, interval) = (seconds(idle).unwrap_or(1), seconds(interval).unwrap_or(1));
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &idle)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &interval)?;
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &libc::c_int::from(true))
}

/// Lets a bound socket take its port only when it connects, so that one address has as many
/// connections as there are pairs of ports. Source: ip(7) `IP_BIND_ADDRESS_NO_PORT`.
///
/// # Errors
/// `fd` is not an IPv4 socket.
pub fn set_bind_address_no_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &libc::c_int::from(true))
}

/// Ends a TCP connection now: what waits to be sent is thrown away, the peer gets a reset, and
/// readers and writers of the socket see an error. A connection attempt is given up. The descriptor
/// stays open. Source: connect(2), `AF_UNSPEC`.
///
/// # Errors
/// `fd` is not a TCP socket.
pub fn abort(fd: BorrowedFd<'_>) -> io::Result<()> {
    let nowhere = libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_UNSPEC).unwrap_or(0),
        sa_data: [0; 14],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap_or(0);
    // SAFETY: the kernel only reads `length` bytes of `nowhere`, which outlives the call; `fd` is
    // open for it.
    check(unsafe { libc::connect(fd.as_raw_fd(), &raw const nowhere, length) })?;
    Ok(())
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
    /// Questions of the kernel ("are you there?", "is there room?") without an answer so far.
    pub probes: u8,
    /// Milliseconds since anything came from the peer, a bare acknowledgement included.
    pub silent_ms: u32,
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
        probes: info.tcpi_probes,
        silent_ms: info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv),
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
        set_keepalive(fd, Duration::from_secs(8), Duration::ZERO).unwrap();
        set_bind_address_no_port(fd).unwrap();
        assert_eq!(read_u32(fd, libc::TCP_KEEPIDLE), 8);
        assert_eq!(read_u32(fd, libc::TCP_KEEPINTVL), 1);
        assert_eq!(read_u32(fd, libc::TCP_NOTSENT_LOWAT), 16_384);
        assert_eq!(read_u32(fd, libc::TCP_USER_TIMEOUT), 90_000);
        assert!(stream.nodelay().unwrap());
        let info = tcp_info(fd).unwrap();
        assert!(info.congestion_window > 0 && info.path_mtu > 0, "{info:?}");
        assert_eq!((info.unacked, info.probes), (0, 0));
        assert!(info.silent_ms < 60_000, "{info:?}");
    }

    #[test]
    fn an_aborted_connection_is_an_error_for_both_ends() {
        use std::io::{Read as _, Write as _};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        // More than the other end takes without reading: the rest waits on our side.
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[7; 65_536]).is_ok() {}
        abort(ours.as_fd()).unwrap();
        abort(ours.as_fd()).unwrap();
        assert!(ours.write(b"more").is_err());
        let mut sink = vec![0; 65_536];
        let error = loop {
            match theirs.read(&mut sink) {
                Ok(n) => assert_ne!(n, 0, "a reset must not look like an end"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn refuses_a_descriptor_that_is_no_tcp_socket() {
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(set_notsent_lowat(unix.as_fd(), 1).is_err());
        assert!(set_user_timeout(unix.as_fd(), Duration::ZERO).is_err());
        assert!(set_nodelay(unix.as_fd(), true).is_err());
        assert!(set_keepalive(unix.as_fd(), Duration::ZERO, Duration::ZERO).is_err());
        assert!(set_bind_address_no_port(unix.as_fd()).is_err());
        assert!(tcp_info(unix.as_fd()).is_err());
    }
}
