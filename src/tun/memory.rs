//! A device without a kernel: for tests, simulations and embedders that speak IP themselves.
//!
//! Like the kernel's, it is bounded and spreads packets over the queues by a hash of the flow.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Queue;
use crate::sys::eventfd::EventFd;

/// Packets that one queue of [`pair`] holds in each direction.
pub const DEFAULT_CAPACITY: usize = 4096;

/// A device with `queues` queues (at least one) and the host that uses it, each queue holding
/// [`DEFAULT_CAPACITY`] packets.
///
/// # Errors
/// No descriptor is left.
pub fn pair(queues: usize) -> io::Result<(Vec<MemoryQueue>, MemoryHost)> {
    pair_with_capacity(queues, DEFAULT_CAPACITY)
}

/// As [`pair`], each direction of each queue holding `capacity` packets.
///
/// # Errors
/// No descriptor is left.
pub fn pair_with_capacity(
    queues: usize,
    capacity: usize,
) -> io::Result<(Vec<MemoryQueue>, MemoryHost)> {
    let count = queues.max(1);
    let to_host = Arc::new(Lane::new(capacity.saturating_mul(count))?);
    let lanes: io::Result<Vec<_>> = (0..count).map(|_| Lane::new(capacity).map(Arc::new)).collect();
    let lanes = lanes?;
    let ends = lanes
        .iter()
        .map(|lane| MemoryQueue { from_host: Arc::clone(lane), to_host: Arc::clone(&to_host) })
        .collect();
    Ok((ends, MemoryHost { lanes: lanes.into(), from_device: to_host }))
}

/// The concentrator's side of one queue.
#[derive(Debug)]
pub struct MemoryQueue {
    from_host: Arc<Lane>,
    to_host: Arc<Lane>,
}

impl Queue for MemoryQueue {
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let packet = self.from_host.pop().ok_or(io::ErrorKind::WouldBlock)?;
        let length = packet.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..length), packet.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.to_host.push(packet)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from_host.ready.as_fd()
    }
}

/// The host's side of all queues; clones share them.
#[derive(Clone, Debug)]
pub struct MemoryHost {
    lanes: Arc<[Arc<Lane>]>,
    from_device: Arc<Lane>,
}

impl MemoryHost {
    /// Sends a packet into the tunnels, through the queue that the hash of its flow names.
    ///
    /// # Errors
    /// `WouldBlock` when that queue is full; the packet is dropped and counted.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let hash = flow_hash(packet);
        let index = usize::try_from(hash).unwrap_or(0) % self.lanes.len().max(1);
        self.send_through(index, packet)
    }

    /// Sends a packet through a queue of the caller's choice.
    ///
    /// # Errors
    /// As [`MemoryHost::send`]; `NotFound` for a queue that does not exist.
    pub fn send_through(&self, queue: usize, packet: &[u8]) -> io::Result<()> {
        self.lanes.get(queue).ok_or(io::ErrorKind::NotFound)?.push(packet)
    }

    /// The next packet from any tunnel; waits for it at most `patience`.
    pub fn recv(&self, patience: Duration) -> Option<Vec<u8>> {
        self.from_device.wait(patience)
    }

    /// The next packet from any tunnel, if there is one now.
    pub fn try_recv(&self) -> Option<Vec<u8>> {
        self.from_device.pop()
    }

    /// Packets dropped because a queue was full, both directions together.
    pub fn dropped(&self) -> u64 {
        let lanes = self.lanes.iter().map(|lane| lane.dropped.load(Ordering::Relaxed));
        lanes.sum::<u64>() + self.from_device.dropped.load(Ordering::Relaxed)
    }
}

impl AsFd for MemoryHost {
    /// Readable whenever [`MemoryHost::try_recv`] would return a packet.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from_device.ready.as_fd()
    }
}

/// One bounded direction. `ready` is signalled exactly while `packets` is not empty; both change
/// only under the lock.
#[derive(Debug)]
struct Lane {
    packets: Mutex<VecDeque<Vec<u8>>>,
    arrived: Condvar,
    ready: EventFd,
    capacity: usize,
    dropped: AtomicU64,
}

impl Lane {
    fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self {
            packets: Mutex::default(),
            arrived: Condvar::new(),
            ready: EventFd::new()?,
            capacity,
            dropped: AtomicU64::new(0),
        })
    }

    fn push(&self, packet: &[u8]) -> io::Result<()> {
        let mut packets = self.lock();
        if packets.len() >= self.capacity {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        packets.push_back(packet.to_vec());
        if packets.len() == 1 {
            self.ready.signal();
        }
        self.arrived.notify_one();
        Ok(())
    }

    fn pop(&self) -> Option<Vec<u8>> {
        self.pop_locked(&mut self.lock())
    }

    fn wait(&self, patience: Duration) -> Option<Vec<u8>> {
        let waiting = self.arrived.wait_timeout_while(self.lock(), patience, |p| p.is_empty());
        let (mut packets, _timed_out) = waiting.unwrap_or_else(PoisonError::into_inner);
        self.pop_locked(&mut packets)
    }

    fn pop_locked(&self, packets: &mut VecDeque<Vec<u8>>) -> Option<Vec<u8>> {
        let packet = packets.pop_front()?;
        if packets.is_empty() {
            self.ready.drain();
        }
        Some(packet)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        // A panic elsewhere can't leave a half-made queue of packets behind.
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// FNV-1a over addresses and ports, so that one flow stays on one queue.
fn flow_hash(packet: &[u8]) -> u32 {
    let addresses = packet.get(12..20).unwrap_or_default();
    let ports = packet.get(20..24).unwrap_or_default();
    addresses
        .iter()
        .chain(ports)
        .fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::epoll::{Epoll, Event, Interest};

    fn readable(fd: BorrowedFd<'_>) -> bool {
        let (epoll, mut events) = (Epoll::new().unwrap(), [Event::EMPTY; 1]);
        epoll.add(fd, 0, Interest::READ).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap() == 1
    }

    fn packet(port: u8) -> Vec<u8> {
        let mut packet = vec![0x45; 28];
        packet[21] = port;
        packet
    }

    #[test]
    fn readiness_follows_the_contents_exactly() {
        let (queues, host) = pair(1).unwrap();
        let mut buf = [0; 2000];
        assert!(!readable(queues[0].as_fd()));
        let nothing = queues[0].recv(&mut buf).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        host.send(&packet(1)).unwrap();
        host.send(&packet(2)).unwrap();
        assert!(readable(queues[0].as_fd()));
        assert_eq!(queues[0].recv(&mut buf).unwrap(), 28);
        assert_eq!(buf[..28], packet(1));
        assert!(readable(queues[0].as_fd()));
        assert_eq!(queues[0].recv(&mut buf[..5]).unwrap(), 5);
        assert!(!readable(queues[0].as_fd()));
    }

    #[test]
    fn flows_spread_over_queues_and_one_flow_stays_on_one() {
        let (queues, host) = pair(4).unwrap();
        for _ in 0..2 {
            (0..64).for_each(|port| host.send(&packet(port)).unwrap());
        }
        let mut buf = [0; 64];
        for queue in &queues {
            let mut ports = Vec::new();
            while queue.recv(&mut buf).is_ok() {
                ports.push(buf[21]);
            }
            let (first, second) = ports.split_at(ports.len() / 2);
            assert!(!first.is_empty() && first == second, "{ports:?}");
        }
        assert!(host.send_through(4, &packet(0)).is_err());
        host.send_through(3, b"x").unwrap();
        assert_eq!(queues[3].recv(&mut buf).unwrap(), 1);
    }

    #[test]
    fn a_full_queue_refuses_and_counts() {
        let (queues, host) = pair_with_capacity(1, 2).unwrap();
        for _ in 0..2 {
            host.send(&packet(1)).unwrap();
            queues[0].send(&packet(1)).unwrap();
        }
        assert_eq!(host.send(&packet(1)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(queues[0].send(&packet(1)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(host.dropped(), 2);
    }

    #[test]
    fn the_host_waits_for_a_packet_and_gives_up_in_time() {
        let (mut queues, host) = pair(2).unwrap();
        assert_eq!(host.recv(Duration::from_millis(1)), None);
        let queue = queues.pop().unwrap();
        let sender = std::thread::spawn(move || queue.send(b"hello").unwrap());
        assert_eq!(host.recv(Duration::from_secs(30)).unwrap(), b"hello");
        assert!(!readable(host.as_fd()));
        sender.join().unwrap();
        assert_eq!(host.try_recv(), None);
    }
}
