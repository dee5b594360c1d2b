//! Established tunnels: one thread, one TUN queue, one epoll, one timer wheel a shard.
//!
//! A shard owns the tunnels whose address is its index modulo the number of shards: sockets,
//! sessions, keys and timers live here and nowhere else, so nothing on the packet path is locked,
//! awaited or allocated. What comes from other threads comes through the [`Mailbox`].
//!
//! It does **not** do TLS, authentication or disk: those leave through [`ShardServices`].

mod message;
mod run;
mod suspicion;
mod tunnel;
mod wheel;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use ipnet::Ipv4Net;

use crate::net::flow_queue::Budget;
use crate::sys::mailbox::Mailbox;
use crate::telemetry::tally::Tally;
use crate::tun::Queue;

pub use message::{
    Arrival, Cut, PacketBatch, RekeyAsker, ShardMessage, ShardServices, ShardSettings, ShardTotals,
    TunnelReport,
};

/// Messages that wait for a shard before packet batches are dropped.
pub const MAILBOX_BOUND: usize = 1024;

/// What a shard is made of.
pub struct ShardConfig {
    /// Its index.
    pub index: usize,
    /// Number of shards, a power of two.
    pub count: usize,
    /// The pool; addresses outside it are nobody's.
    pub pool: Ipv4Net,
    /// What can change later.
    pub settings: ShardSettings,
    /// Plaintext bytes that may wait in all tunnels of the process.
    pub budget: Arc<Budget>,
}

/// Counters of a shard that others may read at any time.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Tunnels.
    pub tunnels: AtomicUsize,
    /// Tunnels whose router doesn't acknowledge.
    pub suspect: AtomicUsize,
    /// Packets read from the TUN queue.
    pub host_packets: AtomicU64,
    /// Bytes of those.
    pub host_bytes: AtomicU64,
    /// Packets written to the TUN queue.
    pub router_packets: AtomicU64,
    /// Bytes of those.
    pub router_bytes: AtomicU64,
    /// Packets handed to another shard because the kernel chose the wrong queue.
    pub forwarded: AtomicU64,
    /// Packets lost because another shard's mailbox was full.
    pub forward_drops: AtomicU64,
    /// Packets the TUN queue refused.
    pub tun_drops: AtomicU64,
    /// The TUN queue has failed for good.
    pub tun_failed: AtomicBool,
    /// The thread has ended, in whatever way.
    pub ended: AtomicBool,
    /// Turns of the loop; at least one a second while the thread is well.
    pub turns: AtomicU64,
    /// Packets of the host for addresses without a tunnel.
    pub no_tunnel: AtomicU64,
    /// Keys renewed.
    pub rekeys: AtomicU64,
    /// Closed tunnels, by reason.
    pub closed: Tally,
}

/// A running shard.
pub struct ShardHandle {
    /// Where to send it messages.
    pub mailbox: Arc<Mailbox<ShardMessage>>,
    /// Its thread.
    pub thread: Option<JoinHandle<()>>,
}

/// The shard that owns an address.
pub fn owner_of(address: Ipv4Addr, shards: usize) -> usize {
    debug_assert!(shards.is_power_of_two(), "the number of shards is a power of two");
    address.to_bits() as usize & (shards - 1)
}

/// Starts a shard on its own thread. `peers` are the mailboxes of all shards, by index.
///
/// # Errors
/// If the thread, its epoll or its random generator can't be made.
pub fn spawn(
    config: ShardConfig,
    queue: Box<dyn Queue>,
    peers: Vec<Arc<Mailbox<ShardMessage>>>,
    services: Arc<dyn ShardServices>,
    counters: Arc<ShardCounters>,
) -> io::Result<ShardHandle> {
    let mailbox = peers.get(config.index).cloned().ok_or(io::ErrorKind::InvalidInput)?;
    let name = format!("shard-{}", config.index);
    let ended = Ended(Arc::clone(&counters), Arc::clone(&mailbox));
    let mut shard =
        run::Shard::new(config, queue, Arc::clone(&mailbox), peers, services, counters)?;
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let _ended = ended;
        shard.run();
    })?;
    Ok(ShardHandle { mailbox, thread: Some(thread) })
}

/// Notes the end of the thread, a panic included.
struct Ended(Arc<ShardCounters>, Arc<Mailbox<ShardMessage>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
        self.1.close();
    }
}
