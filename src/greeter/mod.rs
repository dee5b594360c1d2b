//! Accepts connections and carries each session until it has an address; then socket and session
//! move **once** to their shard.
//!
//! All TLS work of the process happens on greeter threads, rekeys of established tunnels included:
//! the engines stay here, filed under their client, when the session has moved on. Greeters run
//! at a lower CPU priority than shards, so that a login storm costs newcomers time and nobody
//! packets.
//!
//! A greeter does **not** decide who may log in or which address a router gets: those questions go
//! through [`GreeterServices`] and come back as messages.

mod conn;
mod engines;
mod listener;
mod parked;
mod run;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::net::admission::{Admission, Limits};
use crate::proto::ClientId;
use crate::proto::session::{
    Assignment, AssignmentRefused, AuthRequest, Identity, Session, SessionConfig, Ticket,
    TlsAnswer, TlsTask, Verdict,
};
use crate::sys::mailbox::Mailbox;
use crate::telemetry::flight::Record;
use crate::telemetry::flight::capture::Trace;
use crate::telemetry::tally::Tally;
use crate::tls::TlsContext;

/// Messages that may wait for a greeter; the count of what can be outstanding is bounded by the
/// number of sessions, so the bound is a guard and not a policy.
pub const MAILBOX_BOUND: usize = 65_536;

/// A listening socket and how its connections are served.
#[derive(Clone)]
pub struct Listener {
    /// The socket, non-blocking, shared by all greeters.
    pub socket: Arc<TcpListener>,
    /// Protocol settings of its sessions.
    pub session: Arc<SessionConfig>,
    /// Makes TLS engines.
    pub tls: Arc<dyn TlsContext>,
    /// Peers that send a PROXY header, and have to.
    pub proxies: Vec<IpNet>,
    /// Connections accepted.
    pub accepted: Arc<AtomicU64>,
}

/// The budgets of a greeter.
#[derive(Clone, Debug)]
pub struct GreeterLimits {
    /// From accept to the push reply, absolute.
    pub login_deadline: Duration,
    /// Rekey handshakes in progress; further ones wait.
    pub rekeys: usize,
    /// Bytes that may wait for one unauthenticated session, in each direction.
    pub buffered_each: usize,
    /// Bytes buffered for unauthenticated sessions of the whole process.
    pub buffered_in_all: usize,
    /// `nice` value of the thread, 0..=19.
    pub nice: u8,
}

/// What all greeters share.
pub struct GreeterShared {
    /// Who may connect.
    pub admission: Mutex<Admission>,
    /// Bytes buffered for unauthenticated sessions.
    pub buffered: AtomicUsize,
    /// The next client's number.
    pub next_client: AtomicU64,
    /// Why connections were closed before they were tunnels, by reason.
    pub closed: Tally,
    /// Logins in progress.
    pub in_progress: AtomicUsize,
    /// Turns of each greeter's loop; at least one a second while the thread is well.
    pub turns: Box<[AtomicU64]>,
    /// Greeter threads that have ended, in whatever way.
    pub ended: AtomicUsize,
    /// The present set of server certificates; rises with each change of them.
    pub certificates: AtomicU32,
}

impl GreeterShared {
    /// From now on these budgets count.
    pub fn set_limits(&self, limits: Limits) {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner).set_limits(limits);
    }
}

/// Notes the end of a thread, a panic included.
struct Ended(Arc<GreeterShared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A session that has its address and leaves for its shard.
pub struct Departure {
    /// The connection.
    pub client: ClientId,
    /// The router.
    pub identity: Identity,
    /// Its address.
    pub assignment: Assignment,
    /// The socket.
    pub socket: TcpStream,
    /// The router's real address.
    pub real_address: SocketAddr,
    /// The session.
    pub session: Session,
    /// What the socket hasn't taken yet.
    pub unsent: Vec<u8>,
    /// The greeter that keeps the TLS engines.
    pub greeter: usize,
    /// When the connection was accepted.
    pub accepted_at: Instant,
    /// What was seen of the login.
    pub record: Record,
    /// What crossed the wire.
    pub trace: Trace,
}

/// Where to send an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The greeter.
    pub greeter: usize,
    /// The connection.
    pub client: ClientId,
    /// The question.
    pub ticket: Ticket,
    /// The router's real address.
    pub source: SocketAddr,
    /// Where the listener that it dialled listens.
    pub listener: Option<SocketAddr>,
}

/// How a login attempt ended, for the log and the counters.
#[derive(Clone, Debug)]
pub struct LoginEnd {
    /// The connection.
    pub client: ClientId,
    /// The router's real address.
    pub source: SocketAddr,
    /// The user name, if it got that far; raw bytes of the peer.
    pub username: Option<Vec<u8>>,
    /// Stable name of the reason.
    pub reason: &'static str,
    /// One sentence.
    pub detail: String,
    /// What was seen of the login.
    pub record: Record,
    /// What crossed the wire.
    pub trace: Trace,
}

/// What a greeter asks of the rest of the process. Calls return at once; answers come back as
/// [`GreeterMessage`]s.
pub trait GreeterServices: Send + Sync {
    /// Asks whether these credentials are let in.
    fn authenticate(&self, asker: Asker, request: Box<AuthRequest>);
    /// Asks for an address.
    fn assign(&self, asker: Asker, identity: Identity);
    /// Hands over a session that has its address.
    fn depart(&self, departure: Box<Departure>);
    /// Returns the answer of a TLS engine to the session's shard.
    fn tls_answer(&self, client: ClientId, shard_key: std::net::Ipv4Addr, answer: TlsAnswer);
    /// A login attempt ended without a tunnel.
    fn login_failed(&self, end: LoginEnd);
}

/// What a greeter can be told.
pub enum GreeterMessage {
    /// The authenticator's answer.
    Verdict(ClientId, Ticket, Verdict),
    /// The address, or why there is none.
    Assignment(ClientId, Ticket, Result<Assignment, AssignmentRefused>),
    /// TLS work for a tunnel that lives on a shard.
    TlsTask(ClientId, TlsTask),
    /// The tunnel is gone: drop its engines.
    Forget(ClientId),
    /// Accept from these listeners, and with these budgets, from now on. Whoever is logging in
    /// goes on under the settings it began with.
    Settings(Vec<Listener>, GreeterLimits),
    /// Close everything and end the thread.
    Stop,
}

/// A running greeter.
pub struct GreeterHandle {
    /// Where to send it messages.
    pub mailbox: Arc<Mailbox<GreeterMessage>>,
    /// Its thread.
    pub thread: Option<JoinHandle<()>>,
}

/// Starts a greeter on its own thread.
///
/// # Errors
/// If the thread, its epoll or its random generator can't be made.
pub fn spawn(
    index: usize,
    listeners: Vec<Listener>,
    limits: GreeterLimits,
    shared: Arc<GreeterShared>,
    mailbox: Arc<Mailbox<GreeterMessage>>,
    services: Arc<dyn GreeterServices>,
) -> io::Result<GreeterHandle> {
    let ended = Ended(Arc::clone(&shared));
    let mut greeter =
        run::Greeter::new(index, listeners, limits, shared, Arc::clone(&mailbox), services)?;
    let thread = std::thread::Builder::new().name(format!("greeter-{index}")).spawn(move || {
        let _ended = ended;
        greeter.run();
    })?;
    Ok(GreeterHandle { mailbox, thread: Some(thread) })
}

/// An address without the IPv4-in-IPv6 form that dual-stack sockets report.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::to_canonical(&address.ip()), address.port())
}
