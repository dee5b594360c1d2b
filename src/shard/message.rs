//! What a shard is told and what it tells: plain values that cross threads.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::net::isolation::{Counters, DropReason, Policy};
use crate::proto::ClientId;
use crate::proto::session::{
    Assignment, AuthRequest, Identity, Session, SessionInfo, TlsAnswer, TlsTask,
};
use crate::sys::socket::TcpInfo;

/// An authenticated session with its socket, on its one move from a greeter to its shard.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub client: ClientId,
    /// The router.
    pub identity: Identity,
    /// Its address.
    pub assignment: Assignment,
    /// The connected socket, non-blocking.
    pub socket: TcpStream,
    /// The router's real address.
    pub real_address: SocketAddr,
    /// Unix time of the login, seconds.
    pub since: u64,
    /// The session; the partial frame is inside.
    pub session: Session,
    /// The unsent tail of what the greeter has written.
    pub unsent: Vec<u8>,
    /// The greeter that owns the TLS engines of this client.
    pub greeter: usize,
}

/// Whole IP packets of the host, read by a queue whose shard doesn't own their destination.
#[derive(Debug, Default)]
pub struct PacketBatch {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl PacketBatch {
    /// Adds one packet.
    pub fn push(&mut self, packet: &[u8]) {
        self.data.extend_from_slice(packet);
        self.ends.push(self.data.len());
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without packets.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The packets in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, &end)| self.data.get(start..end))
    }
}

/// Why a tunnel is cut from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// An operator disconnected it; the router may come back.
    Disconnected,
    /// An operator disconnected it and keeps it out for a while.
    Banned,
    /// The account was disabled.
    Disabled,
    /// The account was removed.
    Removed,
    /// The client's certificate, or a CA of its chain, is on a revocation list.
    CertificateRevoked,
    /// The authenticator gave the router another address.
    Moved,
    /// The authenticator refused the credential at a rekey.
    Refused,
    /// The account has another address now.
    Readdressed,
    /// The password that it logged in with no longer counts.
    Rotated,
    /// The concentrator stops.
    Stopping,
}

impl Cut {
    /// Stable name for metrics and the API.
    pub fn code(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected_by_operator",
            Self::Banned => "banned",
            Self::Disabled => "account_disabled",
            Self::Removed => "account_removed",
            Self::CertificateRevoked => "certificate_revoked",
            Self::Moved => "address_changed",
            Self::Refused => "refused_at_rekey",
            Self::Readdressed => "address_changed",
            Self::Rotated => "password_rotated",
            Self::Stopping => "stopping",
        }
    }
}

/// What can change while a shard runs.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// What may pass between a router and the host, for every tunnel.
    pub policy: Policy,
    /// Plaintext bytes that may wait for the socket of a tunnel that comes from now on.
    pub queue_bytes: u32,
    /// `TCP_USER_TIMEOUT` of tunnels that come from now on.
    pub user_timeout: Duration,
    /// A router that has acknowledged nothing for so long is suspect; for newcomers.
    pub suspect_after: Duration,
}

/// Whose rekey it is.
#[derive(Clone, Debug)]
pub struct RekeyAsker {
    /// The connection.
    pub client: ClientId,
    /// The router.
    pub identity: Identity,
    /// Its tunnel address.
    pub address: Ipv4Addr,
    /// Its real address.
    pub source: SocketAddr,
}

/// What a shard can be told.
pub enum ShardMessage {
    /// A tunnel to carry from now on.
    Arrival(Box<Arrival>),
    /// Packets of the host for tunnels of this shard.
    Packets(PacketBatch),
    /// The answer of a TLS engine, for the client that holds this address.
    TlsAnswer(ClientId, Ipv4Addr, TlsAnswer),
    /// End the tunnel that holds this address, then say so: no packet passes any more.
    Cut(Ipv4Addr, Cut, Option<Box<dyn FnOnce() + Send>>),
    /// Work with these settings from now on.
    Settings(Box<ShardSettings>),
    /// Describe the tunnels that hold these addresses.
    Report(Box<[Ipv4Addr]>, Box<dyn FnOnce(Vec<TunnelReport>) + Send>),
    /// Say how many packets had which outcome.
    Totals(Box<dyn FnOnce(ShardTotals) + Send>),
    /// End every tunnel and the thread.
    Stop,
}

/// What became of the packets of a shard. Every packet that came in is in exactly one of: handed
/// to the host, answered for a gateway, sent to a router, dropped, waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardTotals {
    /// By outcome of the isolation rules.
    pub judged: Counters,
    /// Echo replies made for gateways.
    pub replies: u64,
    /// Sealed for routers.
    pub sent_packets: u64,
    /// Bytes of those, before they were sealed.
    pub sent_bytes: u64,
    /// The session refused to seal.
    pub seal_refused: u64,
    /// The queue of a slow router was full.
    pub queue_full: u64,
    /// They waited for a router when its tunnel ended.
    pub tunnel_ended: u64,
    /// They wait for routers now.
    pub queued_packets: u64,
    /// Bytes of those.
    pub queued_bytes: u64,
}

/// One tunnel as its shard sees it.
#[derive(Clone, Debug)]
pub struct TunnelReport {
    /// The connection.
    pub client: ClientId,
    /// The router.
    pub identity: Identity,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its real address.
    pub real_address: SocketAddr,
    /// Unix time of the login, seconds.
    pub since: u64,
    /// True once packets can flow both ways.
    pub up: bool,
    /// True while the router doesn't acknowledge what its outer connection is sent.
    pub suspect: bool,
    /// What the session knows.
    pub info: SessionInfo,
    /// Plaintext bytes that wait for the socket.
    pub queued_bytes: usize,
    /// Packets dropped because the queue was full.
    pub queue_drops: u64,
    /// Packets that the session refused to seal.
    pub seal_refusals: u64,
    /// Packets of the router dropped by the isolation rules, by reason.
    pub isolation_drops: Vec<(DropReason, u64)>,
    /// When this was true; the times in `info` are of the same clock.
    pub as_of: Instant,
    /// What the kernel knows of the outer connection.
    pub tcp: Option<TcpInfo>,
}

/// What a shard asks of the rest of the process. Calls return at once and never wait for a disk.
pub trait ShardServices: Send + Sync {
    /// Hands TLS work to the greeter that owns the client's engines.
    fn tls_task(&self, greeter: usize, client: ClientId, task: TlsTask);
    /// Drops all engines of a client.
    fn forget(&self, greeter: usize, client: ClientId);
    /// Shows the credential of a rekey to the authenticator. Nothing waits for the outcome; a
    /// refusal comes back as [`Cut::Refused`].
    fn judge_rekey(&self, asker: RekeyAsker, request: Box<AuthRequest>);
    /// Packets can flow both ways.
    fn up(&self, report: TunnelReport);
    /// The keys of a tunnel that is up were renewed.
    fn rekeyed(&self, identity: &Identity, address: Ipv4Addr);
    /// The tunnel has ended; `reason` is a stable name.
    fn down(&self, report: TunnelReport, reason: &'static str);
    /// The router acknowledges nothing any more; the tunnel is still there.
    fn suspect(&self, report: TunnelReport);
    /// A suspect router has been heard again.
    fn recovered(&self, report: TunnelReport);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_batch_gives_back_what_was_added(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)
        ) {
            let mut batch = PacketBatch::default();
            prop_assert!(batch.is_empty());
            for packet in &packets {
                batch.push(packet);
            }
            prop_assert_eq!(batch.len(), packets.len());
            prop_assert_eq!(batch.is_empty(), packets.is_empty());
            prop_assert!(batch.iter().eq(packets.iter().map(Vec::as_slice)));
        }
    }
}
