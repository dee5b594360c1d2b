//! Accepting: when to, and when to leave newcomers in the kernel's backlog.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Listener;

/// How long accepting pauses when the process has no descriptor left.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(200);

/// What came of one attempt to accept.
pub(super) enum Accepted {
    /// A connection.
    Connection(TcpStream, SocketAddr),
    /// Nobody waits, or another greeter was quicker.
    Nobody,
    /// No descriptor left: pause until then.
    PauseUntil(Instant),
}

/// Accepts one connection, ready for the event loop.
pub(super) fn accept(listener: &Listener, now: Instant) -> Accepted {
    match listener.socket.accept() {
        Ok((socket, address)) => {
            if socket.set_nonblocking(true).is_err() {
                return Accepted::Nobody;
            }
            // Only latency is lost without it.
            let _ = socket.set_nodelay(true);
            Accepted::Connection(socket, super::canonical(address))
        }
        Err(e) if out_of_descriptors(&e) => Accepted::PauseUntil(now + DESCRIPTOR_PAUSE),
        Err(_) => Accepted::Nobody,
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
