//! What waits for one tunnel whose socket is full: plaintext packets, sparse flows before bulk.
//!
//! Flows share a few buckets by the hash of their addresses and ports; buckets take turns by bytes,
//! and one that has just become busy goes first, so a key stroke does not wait behind a download.
//! When there is no room, the fattest bucket loses its oldest packet. Source: RFC 8290 (FQ-CoDel)
//! without CoDel: the time a packet waits is bounded by the bytes.
//!
//! A queue takes memory only while something waits in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ipv4::{self, View};

/// Bytes that may wait for one tunnel by default.
pub const DEFAULT_LIMIT_BYTES: u32 = 128 * 1024;

/// Largest packet that can wait, bytes.
pub const MAX_PACKET: usize = 65_535;

const BUCKETS: usize = 16;
/// What a bucket may send in one turn, bytes: about one full packet.
const QUANTUM: i32 = 1514;
/// A packet's own cost beside its bytes: its length in front of it.
const OVERHEAD: usize = 2;
/// A queue may hold this part of what is left of the process's budget, so that thousands of stalled
/// tunnels never leave a healthy one without room (dynamic threshold, Choudhury and Hahne 1998).
const SHARE_OF_FREE: usize = 8;

/// The bytes that may wait in all queues of a process together.
#[derive(Debug)]
pub struct Budget {
    cap: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `cap` bytes.
    pub fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap, used: AtomicUsize::new(0) })
    }

    /// Bytes that wait now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may wait.
    pub fn cap(&self) -> usize {
        self.cap
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.cap)
        });
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The packet found no room and is gone; it has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tunnel's output queue is full")]
pub struct Dropped;

/// What a queue holds and has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowQueueStats {
    /// Packets lost, new and old, since the queue was made.
    pub dropped: u64,
    /// Bytes that wait, a packet's bookkeeping included.
    pub queued_bytes: usize,
    /// Packets that wait.
    pub packets: usize,
}

/// The queue of one tunnel.
#[derive(Debug)]
pub struct FlowQueue {
    backlog: Option<Box<Backlog>>,
    budget: Arc<Budget>,
    dropped: u64,
    limit_bytes: u32,
}

#[derive(Debug, Default)]
struct Backlog {
    buckets: [Bucket; BUCKETS],
    /// Buckets that have just become busy, then those that have had their first turn.
    fresh: VecDeque<u8>,
    seasoned: VecDeque<u8>,
    bytes: usize,
    packets: usize,
}

/// Packets of the flows that share one hash, each as its length (two bytes) and its bytes.
#[derive(Debug, Default)]
struct Bucket {
    bytes: VecDeque<u8>,
    credit: i32,
    listed: bool,
}

impl FlowQueue {
    /// An empty queue for at most `limit_bytes`, whose bytes also count against `budget`.
    pub fn new(limit_bytes: u32, budget: Arc<Budget>) -> Self {
        Self { backlog: None, budget, dropped: 0, limit_bytes }
    }

    /// Puts a packet at the end of its flow. Older packets of the fattest flow make room for it and
    /// are counted as dropped.
    ///
    /// # Errors
    /// [`Dropped`]: it is empty, larger than the queue may be, or the process has no room left.
    pub fn push(&mut self, packet: &[u8]) -> Result<(), Dropped> {
        let cost = packet.len() + OVERHEAD;
        let free = self.budget.cap.saturating_sub(self.budget.used());
        let limit =
            usize::try_from(self.limit_bytes).unwrap_or(usize::MAX).min(free / SHARE_OF_FREE);
        // What this queue holds is bounded by its share, but one packet may always wait.
        let limit = limit.max(cost.min(usize::try_from(self.limit_bytes).unwrap_or(usize::MAX)));
        let length = u16::try_from(packet.len()).ok().filter(|_| cost <= limit && cost > OVERHEAD);
        let Some(length) = length else {
            self.dropped += 1;
            return Err(Dropped);
        };
        while self.queued_bytes() + cost > limit {
            self.drop_fattest();
        }
        while !self.budget.take(cost) {
            if !self.drop_fattest() {
                self.dropped += 1;
                return Err(Dropped);
            }
        }
        let backlog = self.backlog.get_or_insert_default();
        backlog.push(bucket_of(packet), length, packet);
        Ok(())
    }

    /// Takes the next packet into `out` (cleared first); false if none waits.
    pub fn pop(&mut self, out: &mut Vec<u8>) -> bool {
        out.clear();
        let Some(backlog) = &mut self.backlog else { return false };
        let Some(index) = backlog.select() else { return false };
        let taken = backlog.take(index, Some(out));
        self.taken(taken);
        true
    }

    /// Length of the packet that [`Self::pop`] takes if nothing is pushed in between, bytes.
    pub fn peek_len(&mut self) -> Option<usize> {
        let backlog = self.backlog.as_mut()?;
        let index = backlog.select()?;
        backlog.buckets.get(index)?.first_len()
    }

    /// Throws away what waits; it counts as dropped.
    pub fn clear(&mut self) {
        while self.drop_fattest() {}
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.backlog.is_none()
    }

    /// Bytes that wait, bookkeeping included.
    pub fn queued_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Counters.
    pub fn stats(&self) -> FlowQueueStats {
        let packets = self.backlog.as_ref().map_or(0, |backlog| backlog.packets);
        FlowQueueStats { dropped: self.dropped, queued_bytes: self.queued_bytes(), packets }
    }

    fn drop_fattest(&mut self) -> bool {
        let Some(backlog) = &mut self.backlog else { return false };
        let fattest = backlog.buckets.iter().enumerate().max_by_key(|(_, b)| b.bytes.len());
        let Some((index, _)) = fattest else { return false };
        let taken = backlog.take(index, None);
        self.dropped += 1;
        self.taken(taken);
        true
    }

    fn taken(&mut self, bytes: usize) {
        self.budget.give_back(bytes);
        if self.backlog.as_ref().is_some_and(|backlog| backlog.packets == 0) {
            self.backlog = None;
        }
    }
}

impl Drop for FlowQueue {
    fn drop(&mut self) {
        self.budget.give_back(self.queued_bytes());
    }
}

impl Backlog {
    fn push(&mut self, index: usize, length: u16, packet: &[u8]) {
        let Some(bucket) = self.buckets.get_mut(index) else { return };
        bucket.bytes.extend(length.to_be_bytes());
        bucket.bytes.extend(packet);
        self.bytes += packet.len() + OVERHEAD;
        self.packets += 1;
        if !bucket.listed {
            (bucket.listed, bucket.credit) = (true, QUANTUM);
            self.fresh.push_back(u8::try_from(index).unwrap_or(0));
        }
    }

    /// The bucket whose turn it is. Asking again gives the same answer until a packet is taken or
    /// pushed. `None` only when nothing waits.
    fn select(&mut self) -> Option<usize> {
        loop {
            let from_fresh = !self.fresh.is_empty();
            let list = if from_fresh { &mut self.fresh } else { &mut self.seasoned };
            let index = *list.front()?;
            let bucket = self.buckets.get_mut(usize::from(index))?;
            if bucket.credit <= 0 {
                bucket.credit += QUANTUM;
                list.pop_front();
                self.seasoned.push_back(index);
            } else if bucket.bytes.is_empty() {
                list.pop_front();
                // Through the other list once, or a flow that sends one packet at a time would
                // always be fresh and starve the rest.
                if from_fresh {
                    self.seasoned.push_back(index);
                } else {
                    bucket.listed = false;
                }
            } else {
                return Some(usize::from(index));
            }
        }
    }

    /// Takes the first packet of a bucket and returns what it cost.
    fn take(&mut self, index: usize, out: Option<&mut Vec<u8>>) -> usize {
        let Some(bucket) = self.buckets.get_mut(index) else { return 0 };
        let Some(length) = bucket.first_len() else { return 0 };
        let is_sent = out.is_some();
        let cost = length + OVERHEAD;
        if let Some(out) = out {
            let (front, back) = bucket.bytes.as_slices();
            let from_front = front.get(OVERHEAD..).unwrap_or_default();
            let first = from_front.get(..length).unwrap_or(from_front);
            out.extend_from_slice(first);
            let skipped = OVERHEAD.saturating_sub(front.len());
            let rest = back.get(skipped..skipped + (length - first.len())).unwrap_or_default();
            out.extend_from_slice(rest);
        }
        bucket.bytes.drain(..cost);
        bucket.shrink();
        if is_sent {
            bucket.credit -= i32::try_from(cost).unwrap_or(i32::MAX);
        }
        self.bytes -= cost;
        self.packets -= 1;
        cost
    }
}

impl Bucket {
    fn first_len(&self) -> Option<usize> {
        let (high, low) = (self.bytes.front()?, self.bytes.get(1)?);
        Some(usize::from(u16::from_be_bytes([*high, *low])))
    }

    /// Memory follows the bytes that wait, within a factor of four.
    fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        } else if self.bytes.capacity() > 4096 && self.bytes.capacity() / 4 > self.bytes.len() {
            self.bytes.shrink_to(self.bytes.len() * 2);
        }
    }
}

/// FNV-1a over addresses, protocol and ports. Fragments leave the ports out, as only the first has
/// them; what is not IPv4 shares a bucket.
fn bucket_of(packet: &[u8]) -> usize {
    let Ok(view) = View::parse(packet) else { return 0 };
    let has_ports = matches!(view.protocol(), ipv4::TCP | ipv4::UDP) && !view.is_fragment();
    let ports = if has_ports { view.payload().get(..4).unwrap_or_default() } else { &[] };
    let addresses = [view.source().octets(), view.destination().octets()];
    let protocol = std::iter::once(view.protocol());
    let bytes = addresses.as_flattened().iter().copied().chain(protocol);
    let hash = bytes
        .chain(ports.iter().copied())
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The low bits of FNV-1a see little of the early bytes; fold the high ones in.
    usize::try_from((hash >> 16) ^ hash).unwrap_or(0) % BUCKETS
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::net::testing::{packet, udp};

    /// A packet of flow `port`, numbered, of `size` payload bytes.
    fn numbered(port: u16, number: u32, size: usize) -> Vec<u8> {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(size.max(4), 0);
        let (host, router) = (Ipv4Addr::new(100, 127, 255, 254), Ipv4Addr::new(100, 64, 1, 2));
        packet(host, router, ipv4::UDP, &udp(port, 9, &body))
    }

    fn flow_and_number(packet: &[u8]) -> (u16, u32) {
        let port = u16::from_be_bytes([packet[20], packet[21]]);
        (port, u32::from_be_bytes(packet[28..32].try_into().unwrap()))
    }

    fn queue(limit: u32) -> FlowQueue {
        FlowQueue::new(limit, Budget::new(1 << 30))
    }

    #[test]
    fn an_idle_queue_is_small_and_an_emptied_one_gives_everything_back() {
        assert!(size_of::<FlowQueue>() <= 40, "{}", size_of::<FlowQueue>());
        let mut queue = queue(DEFAULT_LIMIT_BYTES);
        let mut out = vec![1, 2, 3];
        assert!(!queue.pop(&mut out) && out.is_empty() && queue.peek_len().is_none());
        queue.push(&numbered(1, 0, 100)).unwrap();
        assert_eq!((queue.stats().packets, queue.budget.used()), (1, 130));
        assert_eq!(queue.peek_len(), Some(128));
        assert!(queue.pop(&mut out));
        assert_eq!(out, numbered(1, 0, 100));
        assert!(queue.is_empty() && queue.backlog.is_none());
        assert_eq!(queue.budget.used(), 0);
        assert_eq!(queue.stats(), FlowQueueStats::default());
    }

    #[test]
    fn a_sparse_packet_overtakes_every_bulk_flow() {
        let (mut queue, mut out) = (queue(DEFAULT_LIMIT_BYTES), Vec::new());
        let bulk_ports = 1..8;
        let bulk: Vec<_> = bulk_ports.clone().map(|p| bucket_of(&numbered(p, 0, 4))).collect();
        let sparse_port = (8..).find(|p| !bulk.contains(&bucket_of(&numbered(*p, 0, 4))));
        let sparse = numbered(sparse_port.unwrap(), 7, 40);
        for number in 0..10 {
            bulk_ports.clone().for_each(|p| queue.push(&numbered(p, number, 1400)).unwrap());
        }
        // Past the first turn of each flow, when all but the sparse one count as bulk.
        for _ in 0..20 {
            assert!(queue.pop(&mut out));
        }
        queue.push(&sparse).unwrap();
        assert!(queue.pop(&mut out));
        assert_eq!(out, sparse);
    }

    #[test]
    fn a_sparse_flow_that_goes_on_does_not_starve_bulk() {
        let (mut queue, mut out) = (queue(DEFAULT_LIMIT_BYTES), Vec::new());
        let sparse_port =
            (2..).find(|p| bucket_of(&numbered(*p, 0, 4)) != bucket_of(&numbered(1, 0, 4)));
        let sparse = numbered(sparse_port.unwrap(), 7, 40);
        for number in 0..60 {
            queue.push(&numbered(1, number, 1400)).unwrap();
        }
        let mut bulk = 0;
        for _ in 0..400 {
            queue.push(&sparse).unwrap();
            while queue.pop(&mut out) && out != sparse {
                bulk += 1;
            }
        }
        assert!((15..=25).contains(&bulk), "{bulk}");
    }

    #[test]
    fn two_bulk_flows_share_by_bytes_whatever_their_packet_sizes() {
        let (mut queue, mut out) = (queue(1 << 20), Vec::new());
        let small = (2..).find(|p| bucket_of(&numbered(*p, 0, 4)) != bucket_of(&numbered(1, 0, 4)));
        let small = small.unwrap();
        for number in 0..2000 {
            queue.push(&numbered(small, number, 72)).unwrap();
            if number < 200 {
                queue.push(&numbered(1, number, 1372)).unwrap();
            }
        }
        let mut bytes = [0usize; 2];
        for _ in 0..1000 {
            assert!(queue.pop(&mut out));
            bytes[usize::from(flow_and_number(&out).0 == 1)] += out.len();
        }
        let ratio = bytes[0] * 100 / bytes[1];
        assert!((85..=115).contains(&ratio), "{bytes:?}");
    }

    #[test]
    fn a_full_queue_drops_the_oldest_of_the_fattest_flow() {
        let (mut queue, mut out) = (queue(10_000), Vec::new());
        let thin = (2..).find(|p| bucket_of(&numbered(*p, 0, 4)) != bucket_of(&numbered(1, 0, 4)));
        let thin = numbered(thin.unwrap(), 0, 40);
        queue.push(&thin).unwrap();
        for number in 0..50 {
            queue.push(&numbered(1, number, 972)).unwrap();
            assert!(queue.queued_bytes() <= 10_000);
        }
        let stats = queue.stats();
        assert_eq!(u64::try_from(stats.packets).unwrap() + stats.dropped, 51);
        let mut numbers = Vec::new();
        let mut thin_came = false;
        while queue.pop(&mut out) {
            if out == thin { thin_came = true } else { numbers.push(flow_and_number(&out).1) }
        }
        assert!(thin_came);
        assert_eq!(numbers, (41..50).collect::<Vec<_>>());
    }

    #[test]
    fn refuses_what_can_never_wait() {
        let mut queue = queue(1000);
        assert_eq!(queue.push(&[]), Err(Dropped));
        assert_eq!(queue.push(&[0x45; 999]), Err(Dropped));
        queue.push(&[0x45; 998]).unwrap();
        queue.push(&[0x45; 998]).unwrap();
        assert_eq!((queue.stats().dropped, queue.stats().packets), (3, 1));
        assert_eq!(FlowQueue::new(u32::MAX, Budget::new(1 << 30)).push(&[0; 65_536]), Err(Dropped));
        queue.clear();
        assert_eq!((queue.stats().dropped, queue.budget.used()), (4, 0));
    }

    #[test]
    fn stalled_tunnels_never_use_up_what_a_healthy_one_needs() {
        let budget = Budget::new(1 << 20);
        let mut stalled: Vec<_> =
            (0..500).map(|_| FlowQueue::new(DEFAULT_LIMIT_BYTES, Arc::clone(&budget))).collect();
        for number in 0..200 {
            for queue in &mut stalled {
                let _ = queue.push(&numbered(1, number, 972));
            }
        }
        assert!(budget.used() <= budget.cap());
        let mut healthy = FlowQueue::new(DEFAULT_LIMIT_BYTES, Arc::clone(&budget));
        for number in 0..2 {
            healthy.push(&numbered(1, number, 972)).unwrap();
        }
        assert_eq!(healthy.stats(), FlowQueueStats { dropped: 0, queued_bytes: 2004, packets: 2 });
        drop(healthy);
        drop(stalled);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_process_cap_is_never_passed_even_by_single_packets() {
        let budget = Budget::new(2500);
        let mut queues: Vec<_> =
            (0..3).map(|_| FlowQueue::new(5000, Arc::clone(&budget))).collect();
        let big = numbered(1, 0, 972);
        let results: Vec<_> = queues.iter_mut().map(|queue| queue.push(&big)).collect();
        assert_eq!(results, [Ok(()), Ok(()), Err(Dropped)]);
        assert_eq!(queues[2].stats(), FlowQueueStats { dropped: 1, ..Default::default() });
        // A queue without room in the process makes it from its own.
        queues[0].push(&numbered(1, 1, 972)).unwrap();
        assert_eq!((queues[0].stats().packets, queues[0].stats().dropped), (1, 1));
    }

    #[test]
    fn memory_follows_the_bytes_that_wait() {
        let (mut queue, mut out) = (queue(DEFAULT_LIMIT_BYTES), Vec::new());
        for number in 0..90 {
            queue.push(&numbered(1, number, 1372)).unwrap();
        }
        for left in (1..90).rev() {
            assert!(queue.pop(&mut out));
            let backlog = queue.backlog.as_ref().unwrap();
            let held: usize = backlog.buckets.iter().map(|b| b.bytes.capacity()).sum();
            assert!(held <= 4 * backlog.bytes + 4096, "{held} for {left} packets");
        }
    }

    #[test]
    fn fragments_of_one_packet_stay_together() {
        let mut first = numbered(1, 0, 100);
        let mut later = numbered(2, 0, 100);
        first[6] = 0x20;
        later[7] = 16;
        assert_eq!(bucket_of(&first), bucket_of(&later));
        let buckets: std::collections::BTreeSet<_> =
            (0..200).map(|port| bucket_of(&numbered(port, 0, 4))).collect();
        assert_eq!(buckets.len(), BUCKETS);
    }

    proptest! {
        #[test]
        fn order_per_flow_is_kept_and_nothing_is_lost_but_counted_drops(
            limit in 500u32..20_000,
            cap in 2_000usize..60_000,
            steps in prop::collection::vec((0u16..6, 0usize..1400, 0u8..3, any::<bool>()), 1..400),
        ) {
            let budget = Budget::new(cap);
            let mut queue = FlowQueue::new(limit, Arc::clone(&budget));
            let (mut out, mut last) = (Vec::new(), [None; 6]);
            let (mut pushed, mut popped) = (0u64, 0u64);
            let mut check = |packet: &[u8]| {
                let (flow, number) = flow_and_number(packet);
                let before = last[usize::from(flow)].replace(number);
                before.is_none_or(|before| before < number)
            };
            for (number, (flow, size, pops, peek)) in steps.into_iter().enumerate() {
                let number = u32::try_from(number).unwrap();
                pushed += 1;
                let dropped = queue.stats().dropped;
                if queue.push(&numbered(flow, number, size)).is_err() {
                    prop_assert!(queue.stats().dropped > dropped);
                }
                let bytes = queue.queued_bytes();
                prop_assert!(bytes <= usize::try_from(limit).unwrap() && bytes <= cap);
                prop_assert_eq!(bytes, budget.used());
                for _ in 0..pops {
                    let expected = if peek { queue.peek_len() } else { None };
                    if queue.pop(&mut out) {
                        popped += 1;
                        prop_assert!(check(&out));
                        prop_assert!(!peek || expected == Some(out.len()));
                    }
                }
            }
            while queue.pop(&mut out) {
                popped += 1;
                prop_assert!(check(&out));
            }
            prop_assert_eq!(pushed, popped + queue.stats().dropped);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
