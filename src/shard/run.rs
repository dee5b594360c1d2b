//! The shard's event loop.

use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slab::Slab;
use tunnelhead_crypto::FastRandom;

use crate::net::flow_queue::FlowQueue;
use crate::net::icmp;
use crate::net::ipv4;
use crate::net::isolation::{Counters, DEFAULT_FLOWS, Inbound, UdpFlows};
use crate::net::route_table::RouteTable;
use crate::proto::ClientId;
use crate::proto::session::{CloseReason, Disposition, Event, SessionError, Shut};
use crate::sys::epoll::{self, Epoll, Interest};
use crate::sys::mailbox::Mailbox;
use crate::sys::socket;
use crate::telemetry::clock;
use crate::tun::Queue;

use super::message::{
    Arrival, Cut, PacketBatch, RekeyAsker, ShardMessage, ShardServices, ShardTotals,
};
use super::suspicion::{Suspicion, Turn};
use super::tunnel::{FlushBuffers, MAX_UNSENT_BYTES, Tunnel};
use super::wheel::Wheel;
use super::{ShardConfig, ShardCounters, owner_of};

const MAILBOX: u64 = u64::MAX;
const TUN: u64 = u64::MAX - 1;
/// Most events taken from one wait.
const EVENTS: usize = 256;
/// The host answers while we read: its queue is looked at after so many sockets, not only when all
/// that are ready have been read.
const SOCKETS_BETWEEN_TUN: usize = 32;
/// Packets taken from the TUN queue in one turn.
const TUN_PACKETS_A_TURN: usize = 128;
/// Bytes read from one socket in one turn.
const READ_BYTES: usize = 64 * 1024;
/// The longest wait; summaries are written in between.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Unsent bytes that the kernel may hold beside ours: the queue stays on our side.
const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;

/// Packets to routers of tunnels that have ended, by what became of them.
#[derive(Default)]
struct Lost {
    replies: u64,
    queue_full: u64,
    tunnel_ended: u64,
}

/// A shard thread's state.
pub(super) struct Shard {
    config: ShardConfig,
    tun: Box<dyn Queue>,
    mailbox: Arc<Mailbox<ShardMessage>>,
    peers: Vec<Arc<Mailbox<ShardMessage>>>,
    services: Arc<dyn ShardServices>,
    counters: Arc<ShardCounters>,
    epoll: Epoll,
    tunnels: Slab<Tunnel>,
    routes: RouteTable,
    wheel: Wheel,
    udp_flows: UdpFlows,
    /// Packets by outcome of the isolation rules.
    judged: Counters,
    /// Packets that were lost on the way to routers.
    lost: Lost,
    rng: FastRandom,
    buffers: FlushBuffers,
    scratch: Vec<u8>,
    dirty: Vec<usize>,
    /// Packets for other shards, by shard.
    forward: Vec<PacketBatch>,
    stopping: bool,
}

impl Shard {
    pub(super) fn new(
        config: ShardConfig,
        tun: Box<dyn Queue>,
        mailbox: Arc<Mailbox<ShardMessage>>,
        peers: Vec<Arc<Mailbox<ShardMessage>>>,
        services: Arc<dyn ShardServices>,
        counters: Arc<ShardCounters>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(mailbox.as_fd(), MAILBOX, Interest::READ)?;
        epoll.add(tun.as_fd(), TUN, Interest::READ)?;
        let now = clock::now();
        Ok(Self {
            routes: RouteTable::new(config.pool).map_err(io::Error::other)?,
            forward: (0..config.count).map(|_| PacketBatch::default()).collect(),
            config,
            tun,
            mailbox,
            peers,
            services,
            counters,
            epoll,
            tunnels: Slab::new(),
            wheel: Wheel::new(now),
            udp_flows: UdpFlows::new(DEFAULT_FLOWS),
            judged: Counters::default(),
            lost: Lost::default(),
            rng: FastRandom::from_os().map_err(|_| io::Error::other("no randomness"))?,
            buffers: FlushBuffers::default(),
            scratch: vec![0; READ_BYTES],
            dirty: Vec::new(),
            stopping: false,
        })
    }

    pub(super) fn run(&mut self) {
        let mut events = vec![epoll::Event::EMPTY; EVENTS];
        let mut messages = Vec::new();
        let mut fired = Vec::new();
        while !self.stopping {
            self.counters.turns.fetch_add(1, Ordering::Relaxed);
            let now = clock::now();
            let due = self.wheel.next().map(|at| at.saturating_duration_since(now));
            let wait = due.map_or(LONGEST_WAIT, |due| due.min(LONGEST_WAIT));
            let count = match self.epoll.wait(&mut events, Some(wait)) {
                Ok(count) => count,
                Err(error) => {
                    tracing::error!(%error, "the shard can't wait for events");
                    return;
                }
            };
            let now = clock::now();
            // Sockets before timers: after a stall of ours, what peers have sent is heard first.
            for (index, event) in events.iter().take(count).enumerate() {
                let look = index % SOCKETS_BETWEEN_TUN == SOCKETS_BETWEEN_TUN - 1;
                if look && !self.counters.tun_failed.load(Ordering::Relaxed) {
                    self.read_tun(now);
                }
                match event.token() {
                    MAILBOX => {}
                    TUN => self.read_tun(now),
                    token => {
                        let key = usize::try_from(token).unwrap_or(usize::MAX);
                        if event.readable() {
                            self.read_socket(now, key);
                        }
                        if event.writable() {
                            self.mark_dirty(key);
                        }
                    }
                }
            }
            self.mailbox.drain(&mut messages);
            for message in messages.drain(..) {
                self.on_message(now, message);
            }
            self.wheel.advance(now, &mut fired);
            for (key, generation) in fired.drain(..) {
                self.on_timer(now, key, generation);
            }
            self.flush_dirty(now);
            if let Some(summary) = self.counters.closed.summary(now) {
                tracing::debug!(shard = self.config.index, %summary, "tunnels closed");
            }
        }
    }

    // --- from the host -----------------------------------------------------------------------

    fn read_tun(&mut self, now: Instant) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..TUN_PACKETS_A_TURN {
            let n = match self.tun.recv(&mut scratch) {
                Ok(n) => n,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock) => break,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted) => continue,
                Err(error) => {
                    self.lose_tun(&error);
                    break;
                }
            };
            self.counters.host_packets.fetch_add(1, Ordering::Relaxed);
            self.counters.host_bytes.fetch_add(n as u64, Ordering::Relaxed);
            let packet = scratch.get(..n).unwrap_or_default();
            let owner = ipv4::View::parse(packet)
                .map_or(self.config.index, |view| owner_of(view.destination(), self.config.count));
            if owner == self.config.index {
                self.packet_for_router(now, packet);
            } else if let Some(batch) = self.forward.get_mut(owner) {
                batch.push(packet);
            }
        }
        self.scratch = scratch;
        for (peer, batch) in self.peers.iter().zip(&mut self.forward) {
            if batch.is_empty() {
                continue;
            }
            let count = batch.len() as u64;
            let sent = peer.offer(ShardMessage::Packets(std::mem::take(batch)));
            let counter = match sent {
                Ok(()) => &self.counters.forwarded,
                Err(_) => &self.counters.forward_drops,
            };
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The device is gone: tunnels stay, packets of the host don't come any more.
    fn lose_tun(&self, error: &io::Error) {
        tracing::error!(shard = self.config.index, %error, "the TUN queue failed; restart to mend");
        self.counters.tun_failed.store(true, Ordering::Relaxed);
        let _ = self.epoll.remove(self.tun.as_fd());
    }

    fn packet_for_router(&mut self, now: Instant, packet: &[u8]) {
        let outcome = self.config.settings.policy.outbound(packet, now, &mut self.udp_flows);
        self.judged.note_outbound(outcome);
        let Ok(router) = outcome else { return };
        let Some(key) = self.key_of(router) else {
            self.counters.no_tunnel.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        // A full queue drops and counts.
        let _ = tunnel.queue.push(packet);
        self.mark_dirty(key);
    }

    // --- from a router -----------------------------------------------------------------------

    fn read_socket(&mut self, now: Instant, key: usize) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        // A router that was told to go hangs up: then that is why the tunnel has ended.
        let told = tunnel.session.close_reason().map(CloseReason::code);
        let n = match tunnel.socket.read(&mut self.scratch) {
            Ok(0) => return self.close(key, told.unwrap_or("peer_closed")),
            Ok(n) => n,
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
            {
                return;
            }
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return self.close(key, "tcp_timeout"),
            Err(_) => return self.close(key, told.unwrap_or("connection_reset")),
        };
        let bytes = self.scratch.get_mut(..n).unwrap_or_default();
        let router = tunnel.assignment.address;
        let gateway = tunnel.assignment.gateway;
        let Tunnel { session, queue, judged, .. } = tunnel;
        let (policy, flows, counters, tun) =
            (&self.config.settings.policy, &self.udp_flows, &self.counters, &self.tun);
        let in_all = &mut self.judged;
        let replies = &mut self.lost.replies;
        let result = session.handle_link(now, bytes, &mut |packet| {
            let outcome = policy.inbound(router, gateway, packet, now, flows);
            judged.note_inbound(outcome);
            in_all.note_inbound(outcome);
            match outcome {
                Inbound::ToHost { length } => {
                    if tun.send(packet.get(..length).unwrap_or_default()).is_ok() {
                        counters.router_packets.fetch_add(1, Ordering::Relaxed);
                        counters.router_bytes.fetch_add(length as u64, Ordering::Relaxed);
                    } else {
                        counters.tun_drops.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Inbound::EchoReply { length } => {
                    let packet = packet.get_mut(..length).unwrap_or_default();
                    if icmp::echo_reply_in_place(packet) {
                        *replies += 1;
                        // A full queue drops and counts.
                        let _ = queue.push(packet);
                    }
                }
                Inbound::Drop(_) => {}
            }
        });
        match result {
            Ok(()) => self.settle(key),
            Err(error) => return self.fail(key, &error),
        }
        if let Some(tunnel) = self.tunnels.get_mut(key) {
            tunnel.suspicion.heard(now);
        }
    }

    /// The session has ended with an error: what it has said last goes out if the socket takes it.
    fn fail(&mut self, key: usize, error: &SessionError) {
        let reason = error.reason();
        if let Some(tunnel) = self.tunnels.get_mut(key)
            && reason.disposition() == Disposition::Drain
        {
            let _ = tunnel.flush(clock::now(), &mut self.rng, &mut self.buffers);
        }
        self.close(key, reason.code());
    }

    /// Acts on the session's events and lists the tunnel for the flush at the end of the turn.
    fn settle(&mut self, key: usize) {
        loop {
            let Some(tunnel) = self.tunnels.get_mut(key) else { return };
            let Some(event) = tunnel.session.poll_event() else { break };
            match event {
                Event::Tls(task) => self.services.tls_task(tunnel.greeter, tunnel.client, task),
                Event::Up => {
                    if !std::mem::replace(&mut tunnel.up, true) {
                        self.services.up(tunnel.report(clock::now()));
                    }
                }
                Event::Close(reason) => {
                    let code = reason.code();
                    let _ = tunnel.flush(clock::now(), &mut self.rng, &mut self.buffers);
                    return self.close(key, code);
                }
                Event::RekeyPresented { request } => {
                    let asker = RekeyAsker {
                        client: tunnel.client,
                        identity: tunnel.identity.clone(),
                        address: tunnel.assignment.address,
                        source: tunnel.real_address,
                    };
                    self.services.judge_rekey(asker, request);
                }
                Event::KeysChanged { .. } => {
                    self.counters.rekeys.fetch_add(1, Ordering::Relaxed);
                    self.services.rekeyed(&tunnel.identity, tunnel.assignment.address);
                }
                // Questions of a login: a session on a shard has its answers.
                Event::Established | Event::AuthNeeded { .. } | Event::AssignmentNeeded { .. } => {}
            }
        }
        self.mark_dirty(key);
    }

    fn key_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.routes.get(address).and_then(|key| usize::try_from(key).ok())
    }

    // --- messages ----------------------------------------------------------------------------

    fn on_message(&mut self, now: Instant, message: ShardMessage) {
        match message {
            ShardMessage::Packets(batch) => {
                for packet in batch.iter() {
                    self.packet_for_router(now, packet);
                }
            }
            ShardMessage::Arrival(arrival) => self.arrive(now, *arrival),
            ShardMessage::TlsAnswer(client, address, answer) => {
                let Some(key) = self.find(client, address) else { return };
                let Some(tunnel) = self.tunnels.get_mut(key) else { return };
                match tunnel.session.handle_tls_answer(now, answer, &mut self.rng) {
                    Ok(()) => self.settle(key),
                    Err(error) => self.fail(key, &error),
                }
            }
            ShardMessage::Cut(address, cut, done) => {
                self.cut(now, address, cut);
                if let Some(done) = done {
                    done();
                }
            }
            ShardMessage::Report(addresses, reply) => {
                let keys = addresses.iter().filter_map(|address| self.key_of(*address));
                let tunnels = keys.filter_map(|key| self.tunnels.get(key));
                reply(tunnels.map(|tunnel| tunnel.report(now)).collect());
            }
            ShardMessage::Settings(settings) => self.config.settings = *settings,
            ShardMessage::Totals(reply) => reply(self.totals()),
            ShardMessage::Stop => {
                let keys: Vec<usize> = self.tunnels.iter().map(|(key, _)| key).collect();
                for key in keys {
                    self.close(key, Cut::Stopping.code());
                }
                self.stopping = true;
            }
        }
    }

    fn find(&self, client: ClientId, address: Ipv4Addr) -> Option<usize> {
        let key = self.key_of(address)?;
        (self.tunnels.get(key)?.client == client).then_some(key)
    }

    /// A tunnel moves in. Whoever holds its address leaves in the same step.
    fn arrive(&mut self, now: Instant, arrival: Arrival) {
        let address = arrival.assignment.address;
        debug_assert_eq!(owner_of(address, self.config.count), self.config.index);
        if let Some(old) = self.key_of(address) {
            self.close(old, "replaced_by_new_login");
        }
        let fd = arrival.socket.as_fd();
        // Without these the tunnel works, with more delay.
        let _ = socket::set_notsent_lowat(fd, NOTSENT_LOWAT_BYTES);
        let _ = socket::set_user_timeout(fd, self.config.settings.user_timeout);
        let patience = self.config.settings.suspect_after;
        let _ = socket::set_keepalive(fd, patience * 2 / 3, patience / 6);
        let entry = self.tunnels.vacant_entry();
        let key = entry.key();
        let watched = self.epoll.add(fd, key as u64, Interest::READ);
        entry.insert(Tunnel {
            client: arrival.client,
            identity: arrival.identity,
            assignment: arrival.assignment,
            real_address: arrival.real_address,
            since: arrival.since,
            greeter: arrival.greeter,
            socket: arrival.socket,
            session: arrival.session,
            queue: FlowQueue::new(
                self.config.settings.queue_bytes,
                Arc::clone(&self.config.budget),
            ),
            unsent: arrival.unsent,
            congested: false,
            wants_write: false,
            up: false,
            cut: None,
            dirty: false,
            suspicion: Suspicion::new(now, patience),
            written_at: now,
            timer_at: None,
            timer_generation: 0,
            judged: Counters::default(),
            seal_refusals: 0,
        });
        let slot = u32::try_from(key).unwrap_or(u32::MAX);
        if let Err(error) = self.routes.insert(address, slot) {
            tracing::error!(%error, %address, "a tunnel's address can't be routed");
        }
        self.counters.tunnels.fetch_add(1, Ordering::Relaxed);
        match watched {
            Ok(()) => self.settle(key),
            Err(error) => {
                tracing::error!(%error, "a tunnel can't be watched");
                self.close(key, "not_watchable");
            }
        }
    }

    fn cut(&mut self, now: Instant, address: Ipv4Addr, cut: Cut) {
        let Some(key) = self.key_of(address) else { return };
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if matches!(cut, Cut::Disconnected | Cut::Banned) {
            tunnel.cut.get_or_insert(cut);
            // RESTART reaches the router only while a TLS engine lives; then the session closes.
            tunnel.session.shut(now, Shut::Restart);
            self.settle(key);
        } else {
            self.close(key, cut.code());
        }
    }

    // --- time and output ---------------------------------------------------------------------

    fn on_timer(&mut self, now: Instant, key: usize, generation: u32) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if tunnel.timer_generation != generation {
            return;
        }
        tunnel.timer_at = None;
        if tunnel.suspicion.look_at() <= now {
            self.look(now, key);
        }
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let result = if tunnel.session.poll_timeout().is_some_and(|at| at <= now) {
            tunnel.session.handle_timeout(now, &mut self.rng)
        } else {
            Ok(())
        };
        match result {
            Ok(()) => self.settle(key),
            Err(error) => self.fail(key, &error),
        }
    }

    /// Asks the kernel whether the router still acknowledges.
    fn look(&mut self, now: Instant, key: usize) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        // A socket that can't be asked is about to report why.
        let Ok(tcp) = socket::tcp_info(tunnel.socket.as_fd()) else {
            tunnel.suspicion.postpone(now);
            return;
        };
        match tunnel.suspicion.look(now, &tcp, tunnel.written_at) {
            None => {}
            Some(Turn::Suspect) => {
                self.counters.suspect.fetch_add(1, Ordering::Relaxed);
                if tunnel.up {
                    self.services.suspect(tunnel.report(now));
                }
            }
            Some(Turn::Recovered) => {
                self.counters.suspect.fetch_sub(1, Ordering::Relaxed);
                if tunnel.up {
                    self.services.recovered(tunnel.report(now));
                }
            }
        }
    }

    fn mark_dirty(&mut self, key: usize) {
        if let Some(tunnel) = self.tunnels.get_mut(key).filter(|tunnel| !tunnel.dirty) {
            tunnel.dirty = true;
            self.dirty.push(key);
        }
    }

    fn flush_dirty(&mut self, now: Instant) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(tunnel) = self.tunnels.get_mut(key) else { continue };
            tunnel.dirty = false;
            if tunnel.flush(now, &mut self.rng, &mut self.buffers).is_err() {
                self.close(key, "connection_reset");
                continue;
            }
            if tunnel.unsent.len() > MAX_UNSENT_BYTES {
                self.close(key, "not_reading");
                continue;
            }
            let wants_write = !tunnel.unsent.is_empty();
            if wants_write != tunnel.wants_write {
                tunnel.wants_write = wants_write;
                let interest = Interest { write: wants_write, ..Interest::READ };
                let fd = tunnel.socket.as_fd();
                if let Err(error) = self.epoll.modify(fd, key as u64, interest) {
                    tracing::error!(%error, "a tunnel can't be watched");
                }
            }
            self.schedule(key);
        }
        self.dirty = dirty;
    }

    /// Puts the next deadline of session or watch on the wheel, unless an earlier look is planned anyway.
    fn schedule(&mut self, key: usize) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let look = tunnel.suspicion.look_at();
        let at = tunnel.session.poll_timeout().map_or(look, |at| at.min(look));
        if tunnel.timer_at.is_none_or(|planned| at < planned) {
            tunnel.timer_generation = tunnel.timer_generation.wrapping_add(1);
            tunnel.timer_at = Some(at);
            self.wheel.insert(at, key, tunnel.timer_generation);
        }
    }

    fn totals(&self) -> ShardTotals {
        let mut totals = ShardTotals {
            judged: self.judged.clone(),
            replies: self.lost.replies,
            sent_packets: self.buffers.sent_packets,
            sent_bytes: self.buffers.sent_bytes,
            seal_refused: self.buffers.refused,
            queue_full: self.lost.queue_full,
            tunnel_ended: self.lost.tunnel_ended,
            queued_packets: 0,
            queued_bytes: 0,
        };
        for (_, tunnel) in &self.tunnels {
            let queue = tunnel.queue.stats();
            totals.queue_full += queue.dropped;
            totals.queued_packets += queue.packets as u64;
            totals.queued_bytes += queue.queued_bytes as u64;
        }
        totals
    }

    fn close(&mut self, key: usize, reason: &'static str) {
        let Some(tunnel) = self.tunnels.try_remove(key) else { return };
        let reason = tunnel.cut.map_or(reason, Cut::code);
        let _ = self.epoll.remove(tunnel.socket.as_fd());
        self.routes.remove_if(tunnel.assignment.address, u32::try_from(key).unwrap_or(u32::MAX));
        self.counters.tunnels.fetch_sub(1, Ordering::Relaxed);
        if tunnel.suspicion.is_suspect() {
            self.counters.suspect.fetch_sub(1, Ordering::Relaxed);
        }
        let left = tunnel.queue.stats();
        self.lost.queue_full += left.dropped;
        self.lost.tunnel_ended += left.packets as u64;
        self.counters.closed.note(reason);
        self.services.forget(tunnel.greeter, tunnel.client);
        self.services.down(tunnel.report(clock::now()), reason);
    }
}
