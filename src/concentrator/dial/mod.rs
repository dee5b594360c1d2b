//! TCP connections from the management address to a router, through its tunnel.
//!
//! A dial belongs to one session of one router, never to an address: whoever ends a session (or
//! replaces it) calls [`Session::cut`] in the same step, and from then on not a byte of these
//! connections reaches whoever has the address next. Source: threats T65, R09.

mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::control_api::handle::Traffic;
use crate::sys::socket;

pub(super) use session::Session;
pub use stream::DialStream;

/// For the router's answer to the first packet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a router that wait in the kernel for a slow reader. A window of this size gives
/// 40 Mbit/s at a round trip of 100 ms.
const RECEIVE_BYTES: usize = 512 * 1024;
/// Unsent bytes that the kernel takes from a fast writer.
const NOTSENT_BYTES: u32 = 128 * 1024;

/// Why there is no connection to a router.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The router has no tunnel now.
    #[error("the router has no tunnel now")]
    NoTunnel,
    /// The session is not the one that was asked for.
    #[error("the tunnel is of another session now (generation {now})")]
    GenerationChanged {
        /// The generation of the session that the router has now.
        now: u64,
    },
    /// A port must be 1 to 65535.
    #[error("a port is a number from 1 to 65535")]
    BadPort,
    /// The router answers that nothing listens there.
    #[error(
        "the router refuses the connection: nothing listens on port {port}, or its firewall rejects it"
    )]
    Refused {
        /// The port.
        port: u16,
    },
    /// The router doesn't answer.
    #[error(
        "the router did not answer on port {port} in time; its firewall may drop packets of the \
         management address"
    )]
    TimedOut {
        /// The port.
        port: u16,
    },
    /// The router, or a host on the way, says that it can't be reached.
    #[error("the router cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The session ended while the connection was made.
    #[error("the tunnel ended meanwhile: {0}")]
    Cut(&'static str),
    /// As many are open as `[limits] dials` allows.
    #[error("{0} dials are open, as many as [limits] dials allows; close some or raise it")]
    TooMany(usize),
    /// There is no network of the host to connect through.
    #[error(
        "this concentrator has no TUN device of the kernel (its packets go to queues that were \
         handed in), so the host can't open connections to routers"
    )]
    NeedsKernelDevice,
    /// The host can't make such a connection.
    #[error("this host cannot connect to a router: {0}")]
    Host(#[source] io::Error),
}

/// How the host reaches routers.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// Where every connection comes from.
    pub(super) management: Ipv4Addr,
    /// The device that it leaves through; nothing goes another way when the device is gone.
    pub(super) device: String,
}

/// Every dial of the process.
#[derive(Debug)]
pub(super) struct Dials {
    route: Option<Route>,
    most: usize,
    patience: Duration,
    open: AtomicUsize,
    total: AtomicU64,
    failed: AtomicU64,
    over_limit: AtomicU64,
    cut: AtomicU64,
    traffic: Traffic,
}

impl Dials {
    /// At most `most` at once; without a `route` there are none.
    pub(super) fn new(route: Option<Route>, most: usize) -> Self {
        Self {
            route,
            most,
            patience: CONNECT_PATIENCE,
            open: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            over_limit: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            traffic: Traffic::default(),
        }
    }

    /// Dials that are open or being opened.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counters since the start, by stable name; `dials_open` is what is open now.
    pub(super) fn counters(&self) -> [(&'static str, u64); 7] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("dials", load(&self.total)),
            ("dials_open", self.open() as u64),
            ("dials_failed", load(&self.failed)),
            ("dials_over_limit", load(&self.over_limit)),
            ("dials_cut", load(&self.cut)),
            ("dial_rx_bytes", self.traffic.from_router()),
            ("dial_tx_bytes", self.traffic.to_router()),
        ]
    }

    /// Connects to a port of the router whose session this is.
    pub(super) async fn connect(
        self: &Arc<Self>,
        session: &Arc<Session>,
        port: u16,
    ) -> Result<DialStream, DialError> {
        let Some(route) = &self.route else { return Err(DialError::NeedsKernelDevice) };
        if port == 0 {
            return Err(DialError::BadPort);
        }
        let place = self.enter()?;
        let to = SocketAddr::from((session.address(), port));
        let connecting = async {
            let socket = bound(route).map_err(DialError::Host)?;
            socket.connect(to).await.map_err(|error| refusal(error, port))
        };
        let connected = tokio::select! {
            biased;
            reason = session.ended() => Err(DialError::Cut(reason)),
            connected = tokio::time::timeout(self.patience, connecting) => {
                connected.unwrap_or(Err(DialError::TimedOut { port }))
            }
        };
        let opened = connected.and_then(|tcp| {
            // The session may have ended between the last packet and this line.
            DialStream::open(tcp, Arc::clone(session), place).map_err(DialError::Cut)
        });
        let counter = if opened.is_ok() { &self.total } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        opened
    }

    fn enter(self: &Arc<Self>) -> Result<Place, DialError> {
        let entered = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < self.most).then_some(open + 1)
        });
        if entered.is_err() {
            self.over_limit.fetch_add(1, Ordering::Relaxed);
            return Err(DialError::TooMany(self.most));
        }
        Ok(Place(Arc::clone(self)))
    }
}

/// One of the dials that may be open; given back when dropped.
#[derive(Debug)]
struct Place(Arc<Dials>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A socket that speaks from the management address and through the TUN device only.
fn bound(route: &Route) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    let options = SockRef::from(&socket);
    options.bind_device(Some(route.device.as_bytes()))?;
    options.set_tcp_nodelay(true)?;
    options.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket::set_notsent_lowat(socket.as_fd(), NOTSENT_BYTES)?;
    socket::set_bind_address_no_port(socket.as_fd())?;
    socket.bind(SocketAddr::from((route.management, 0)))?;
    Ok(socket)
}

fn refusal(error: io::Error, port: u16) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            DialError::Refused { port }
        }
        io::ErrorKind::TimedOut => DialError::TimedOut { port },
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            DialError::Unreachable(error)
        }
        _ => DialError::Host(error),
    }
}

/// Ends a connection without sending what waits.
fn abort(tcp: &TcpStream) {
    // It has ended already: that is what is wanted.
    let _ = socket::abort(tcp.as_fd());
}
