//! Thousands of reference clients over real TCP from one process, on one thread.
//!
//! Tunnels end in memory: no device, no right needed. Members ping, answer pings and move counted
//! bytes; whatever the server does against the rules of the protocol is kept as a violation.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use tunnelhead::testing::fleet::{Command, Fleet, Member};
//! use tunnelhead::testing::profiles;
//!
//! let fleet = Fleet::start()?;
//! let server = "127.0.0.1:8443".parse().expect("an address");
//! let router = fleet.add(Member::new(server, profiles::p3(), "branch-42", "secret"));
//! fleet.wait("the tunnel", Duration::from_secs(10), |views| views.iter().all(|v| v.up));
//! fleet.tell(router, Command::PingManagement);
//! # Ok(())
//! # }
//! ```

mod host;
pub mod inner;
mod member;
mod run;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sys::mailbox::Mailbox;
use crate::telemetry::clock;
use crate::tls::{CertAndKey, OpensslContext};

use super::profiles::Profile;

pub use crate::proto::client::ClientStats;
pub use crate::proto::control::Message;
pub use host::{Host, HostView};

/// Orders that may wait for the fleet's thread.
const MAILBOX_BOUND: usize = 1 << 20;

/// One client to be: where it dials, who it is, and how it behaves.
#[derive(Clone)]
pub struct Member {
    /// The concentrator.
    pub target: SocketAddr,
    /// The address that it dials from; `None`: what the system chooses.
    pub source: Option<IpAddr>,
    /// What kind of client it is.
    pub profile: Profile,
    /// User name.
    pub username: Vec<u8>,
    /// Password.
    pub password: Vec<u8>,
    /// Its TLS context; `None`: the profile's, shared by all members of that profile.
    pub tls: Option<OpensslContext>,
    /// Writes one byte at a time, each in a segment of its own.
    pub one_byte_segments: bool,
    /// Bytes that it sends before the first packet: a PROXY header.
    pub preamble: Vec<u8>,
    /// Dials again this long after a connection has ended.
    pub redial: Option<Duration>,
    /// Keeps its TLS engines after the login, to hear RESTART and to repeat push requests.
    pub keep_engines: bool,
    /// Ends this many connections right after the key exchange, before it is configured.
    pub die_after_key_exchange: u32,
    /// Ends its connection when it gets its push reply, without a word.
    pub dies_at_push_reply: bool,
    /// Never asks for its push reply.
    pub never_asks: bool,
    /// Size of its kernel receive buffer, bytes; small: it stalls its server soon.
    pub receive_buffer: Option<usize>,
    /// Waits for [`Command::Dial`] instead of dialling at once.
    pub idle: bool,
}

impl Member {
    /// A well-behaved client that dials once.
    pub fn new(target: SocketAddr, profile: Profile, username: &str, password: &str) -> Self {
        Self {
            target,
            source: None,
            profile,
            username: username.as_bytes().to_vec(),
            password: password.as_bytes().to_vec(),
            tls: None,
            one_byte_segments: false,
            preamble: Vec::new(),
            redial: None,
            keep_engines: false,
            die_after_key_exchange: 0,
            dies_at_push_reply: false,
            never_asks: false,
            receive_buffer: None,
            idle: false,
        }
    }

    /// The same client with a certificate.
    ///
    /// # Errors
    /// The certificate can't be used.
    pub fn with_certificate(mut self, pair: CertAndKey) -> Result<Self, crate::tls::TlsError> {
        self.tls = Some(self.profile.tls_context(Some(pair))?);
        Ok(self)
    }
}

/// The number of a member, from 0.
pub type MemberId = usize;

/// What a member can be told.
#[derive(Clone, Debug)]
pub enum Command {
    /// Dial now, if there is no connection.
    Dial,
    /// End the connection.
    HangUp,
    /// Forget the connection without ending it: the server sees a router that has gone silent.
    Abandon,
    /// Ping the gateway once.
    PingGateway,
    /// Ping the management address once.
    PingManagement,
    /// Ping both with one write.
    PingBoth,
    /// Ping the management address so often, until told otherwise.
    PingEvery(Option<Duration>),
    /// Send this many numbered datagrams with this many bytes of payload to a port of the
    /// management address.
    Datagrams {
        /// How many.
        count: u64,
        /// Bytes of payload, at least 8.
        payload: usize,
        /// The port.
        port: u16,
    },
    /// Send any packet.
    Packet(Vec<u8>),
    /// Start a renegotiation.
    Rekey,
    /// Use other credentials from the next key exchange on.
    Credentials(String, String),
    /// Send a control message; needs a member that keeps its engines.
    Message(Message),
    /// Send these bytes as they are.
    Raw(Vec<u8>),
    /// Read no more from the connection.
    StopReading,
    /// Read again.
    ResumeReading,
}

/// What has happened to a member, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It is configured: packets flow.
    Connected {
        /// Its address.
        address: Ipv4Addr,
        /// Name of the data cipher.
        cipher: &'static str,
    },
    /// AUTH_FAILED, with its text.
    AuthFailed(Option<String>),
    /// RESTART, with its text.
    Restart(Option<String>),
    /// New data keys.
    KeysChanged(u8),
    /// The connection has ended, and why.
    Closed(String),
}

/// How a member stands.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Packets flow.
    pub up: bool,
    /// A connection is open or being opened.
    pub connected: bool,
    /// Its tunnel address, of the last login.
    pub address: Option<Ipv4Addr>,
    /// The gateway of its block.
    pub gateway: Option<Ipv4Addr>,
    /// Connections dialled.
    pub dials: u64,
    /// Connections that have ended.
    pub closes: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Refusals by AUTH_FAILED.
    pub refusals: u64,
    /// Renegotiations that it has started.
    pub rekeys_started: u64,
    /// Renegotiations done, over all connections.
    pub rekeys: u64,
    /// Bytes of the stream received, over all connections.
    pub link_rx_bytes: u64,
    /// Inner packets received.
    pub rx_packets: u64,
    /// Bytes of those.
    pub rx_bytes: u64,
    /// Inner packets sent.
    pub tx_packets: u64,
    /// Bytes of those.
    pub tx_bytes: u64,
    /// Pings sent to the gateway and answered.
    pub gateway_pings: (u64, u64),
    /// Pings sent to the management address and answered.
    pub management_pings: (u64, u64),
    /// The host's pings that were answered.
    pub host_pings: u64,
    /// Numbered datagrams received.
    pub datagrams: u64,
    /// Bytes of their payloads.
    pub datagram_bytes: u64,
    /// Counters of the client's present or last connection.
    pub client: ClientStats,
    /// What has happened, oldest first.
    pub log: Vec<Happening>,
    /// What the server did and must not do.
    pub violations: Vec<String>,
}

impl View {
    /// The text of the last AUTH_FAILED.
    pub fn refusal(&self) -> Option<&str> {
        self.log.iter().rev().find_map(|happening| match happening {
            Happening::AuthFailed(text) => Some(text.as_deref().unwrap_or_default()),
            _ => None,
        })
    }

    /// Why the last connection ended.
    pub fn end(&self) -> Option<&str> {
        self.log.iter().rev().find_map(|happening| match happening {
            Happening::Closed(why) => Some(why.as_str()),
            _ => None,
        })
    }

    /// True if every ping was answered, and there was at least one of each kind.
    pub fn pings_answered(&self) -> bool {
        let all = |(sent, answered): (u64, u64)| sent > 0 && sent == answered;
        all(self.gateway_pings) && all(self.management_pings)
    }
}

/// What the fleet's thread and its handle share.
#[derive(Default)]
struct Shared {
    views: Mutex<Vec<View>>,
    changed: Condvar,
}

impl Shared {
    fn views(&self) -> MutexGuard<'_, Vec<View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Order {
    Add(Box<Member>),
    Tell(Option<MemberId>, Command),
    Stop,
}

/// A running fleet; it ends when this is dropped.
pub struct Fleet {
    shared: Arc<Shared>,
    orders: Arc<Mailbox<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Starts a fleet without members. Its sockets live in the network namespace of the caller.
    ///
    /// # Errors
    /// No thread or no descriptor is left.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let orders = Arc::new(Mailbox::new(MAILBOX_BOUND)?);
        let mut driver = run::Driver::new(Arc::clone(&shared), Arc::clone(&orders))?;
        let thread =
            std::thread::Builder::new().name("fleet".to_owned()).spawn(move || driver.run())?;
        Ok(Self { shared, orders, thread: Some(thread) })
    }

    /// Adds a client. It dials at once unless it is to be idle.
    pub fn add(&self, member: Member) -> MemberId {
        let mut views = self.shared.views();
        views.push(View::default());
        self.orders.post(Order::Add(Box::new(member)));
        views.len() - 1
    }

    /// Tells one member something.
    pub fn tell(&self, member: MemberId, command: Command) {
        self.orders.post(Order::Tell(Some(member), command));
    }

    /// Tells every member something.
    pub fn tell_all(&self, command: Command) {
        self.orders.post(Order::Tell(None, command));
    }

    /// Waits until the members are as wanted.
    ///
    /// # Panics
    /// If they are not within `limit`, with what they look like: it is the report of a test.
    #[track_caller]
    pub fn wait(&self, what: &str, limit: Duration, mut wanted: impl FnMut(&[View]) -> bool) {
        let end = clock::now() + limit;
        let mut views = self.shared.views();
        while !wanted(&views) {
            let left = end.saturating_duration_since(clock::now());
            assert!(!left.is_zero(), "no {what} within {limit:?}\n{}", describe(&views));
            let waited = self.shared.changed.wait_timeout(views, left);
            views = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until every member is up.
    ///
    /// # Panics
    /// As [`Self::wait`].
    #[track_caller]
    pub fn wait_all_up(&self, limit: Duration) {
        self.wait("tunnels", limit, |views| views.iter().all(|view| view.up));
    }

    /// Waits until one member is as wanted.
    ///
    /// # Panics
    /// As [`Self::wait`].
    #[track_caller]
    pub fn wait_for(
        &self,
        member: MemberId,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&View) -> bool,
    ) -> View {
        let mut found = View::default();
        self.wait(what, limit, |views| {
            let Some(view) = views.get(member) else { return false };
            found.clone_from(view);
            wanted(view)
        });
        found
    }

    /// One member as it stands.
    pub fn view(&self, member: MemberId) -> View {
        self.shared.views().get(member).cloned().unwrap_or_default()
    }

    /// Every member as it stands.
    pub fn views(&self) -> Vec<View> {
        self.shared.views().clone()
    }

    /// Fails if the server did anything that it must not do.
    ///
    /// # Panics
    /// With the violations, if there are any.
    #[track_caller]
    pub fn expect_no_violations(&self) {
        let views = self.shared.views();
        let found: Vec<(usize, &String)> = views
            .iter()
            .enumerate()
            .flat_map(|(id, view)| view.violations.iter().map(move |what| (id, what)))
            .take(20)
            .collect();
        assert!(found.is_empty(), "the server broke its protocol: {found:#?}");
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.orders.post(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by itself.
            let _ = thread.join();
        }
    }
}

/// A failure message: how many are up, and a few of those that are not.
fn describe(views: &[View]) -> String {
    let up = views.iter().filter(|view| view.up).count();
    let mut text = format!("{up} of {} members are up\n", views.len());
    let quiet = views.iter().enumerate().filter(|(_, view)| !view.up).take(4);
    for (id, view) in quiet.chain(views.iter().enumerate().take(4)) {
        let last = view.log.len().saturating_sub(6);
        let log = view.log.get(last..).unwrap_or_default();
        text.push_str(&format!("{id}: {:?}\n", View { log: log.to_vec(), ..view.clone() }));
    }
    text
}
