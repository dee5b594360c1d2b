//! One established tunnel: its socket, its session and what waits for the socket.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::Instant;

use tunnelhead_crypto::SecureRandom;

use crate::net::flow_queue::FlowQueue;
use crate::net::isolation::{Counters, DropReason};
use crate::proto::ClientId;
use crate::proto::session::{Assignment, Identity, Session};

use crate::sys::socket;

use super::message::{Cut, TunnelReport};
use super::suspicion::Suspicion;

/// Sealed ahead of the socket while it keeps up.
const SEAL_FAST_BYTES: usize = 64 * 1024;
/// Sealed ahead once the socket has been full, until it has drained.
const SEAL_CONGESTED_BYTES: usize = 16 * 1024;
/// What may wait for a socket that takes nothing: the sealed packets and, beside them, control
/// packets, which a router can provoke without ever reading them.
pub(super) const MAX_UNSENT_BYTES: usize = 4 * SEAL_FAST_BYTES;

/// An established tunnel.
pub(super) struct Tunnel {
    pub(super) client: ClientId,
    pub(super) identity: Identity,
    pub(super) assignment: Assignment,
    pub(super) real_address: std::net::SocketAddr,
    pub(super) since: u64,
    pub(super) greeter: usize,
    pub(super) socket: TcpStream,
    pub(super) session: Session,
    /// Plaintext packets that wait for the socket.
    pub(super) queue: FlowQueue,
    /// Whole frames, the first perhaps begun, that the socket hasn't taken.
    pub(super) unsent: Vec<u8>,
    /// The socket has been full and has not drained since.
    pub(super) congested: bool,
    /// EPOLLOUT is asked for.
    pub(super) wants_write: bool,
    pub(super) up: bool,
    /// Why we end it, once we do.
    pub(super) cut: Option<Cut>,
    /// Listed among the tunnels to flush at the end of this turn.
    pub(super) dirty: bool,
    /// Whether the router is still there.
    pub(super) suspicion: Suspicion,
    /// When the socket last took something.
    pub(super) written_at: Instant,
    /// Deadline of the live entry in the timer wheel.
    pub(super) timer_at: Option<Instant>,
    pub(super) timer_generation: u32,
    /// Packets of the router by outcome of the isolation rules.
    pub(super) judged: Counters,
    /// Packets that the session refused to seal.
    pub(super) seal_refusals: u64,
}

/// Buffers and counters of the shard that a flush borrows.
#[derive(Default)]
pub(super) struct FlushBuffers {
    pub(super) packet: Vec<u8>,
    pub(super) sealed: Vec<u8>,
    pub(super) sent_packets: u64,
    pub(super) sent_bytes: u64,
    pub(super) refused: u64,
}

impl Tunnel {
    /// Writes what the socket takes: first what was begun, then control packets, then as many
    /// plaintext packets as fit, sealed at this moment, so that packet ids are consecutive on the
    /// wire and a packet is dropped only before it has one.
    pub(super) fn flush(
        &mut self,
        now: Instant,
        rng: &mut dyn SecureRandom,
        buffers: &mut FlushBuffers,
    ) -> io::Result<()> {
        while self.session.poll_transmit(now, &mut self.unsent) {}
        loop {
            if !self.unsent.is_empty() {
                let written = write_some(&mut self.socket, &self.unsent)?;
                self.written_at = if written > 0 { now } else { self.written_at };
                if written < self.unsent.len() {
                    self.unsent.drain(..written);
                    self.congested = true;
                    return Ok(());
                }
                self.unsent = Vec::new();
            }
            let limit = if self.congested { SEAL_CONGESTED_BYTES } else { SEAL_FAST_BYTES };
            buffers.sealed.clear();
            while buffers.sealed.len() < limit && self.queue.pop(&mut buffers.packet) {
                let sealed = self.session.seal(now, &buffers.packet, rng, &mut buffers.sealed);
                if sealed.is_err() {
                    self.seal_refusals += 1;
                    buffers.refused += 1;
                } else {
                    buffers.sent_packets += 1;
                    buffers.sent_bytes += buffers.packet.len() as u64;
                }
            }
            if buffers.sealed.is_empty() {
                self.congested = false;
                return Ok(());
            }
            let written = write_some(&mut self.socket, &buffers.sealed)?;
            self.written_at = if written > 0 { now } else { self.written_at };
            if let Some(rest) = buffers.sealed.get(written..).filter(|rest| !rest.is_empty()) {
                self.unsent.extend_from_slice(rest);
                self.congested = true;
                return Ok(());
            }
        }
    }

    /// A description for the API.
    pub(super) fn report(&self, now: Instant) -> TunnelReport {
        let queue = self.queue.stats();
        let tcp = socket::tcp_info(self.socket.as_fd()).ok();
        TunnelReport {
            client: self.client,
            identity: self.identity.clone(),
            address: self.assignment.address,
            real_address: self.real_address,
            since: self.since,
            up: self.up,
            suspect: self.suspicion.is_suspect(),
            info: self.session.info(),
            as_of: now,
            queued_bytes: queue.queued_bytes,
            queue_drops: queue.dropped,
            seal_refusals: self.seal_refusals,
            isolation_drops: DropReason::ALL
                .iter()
                .map(|&reason| (reason, self.judged.dropped(reason)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            tcp,
        }
    }
}

/// Writes until the socket is full; the number of bytes taken.
fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match socket.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(written)
}
