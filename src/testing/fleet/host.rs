//! The host behind a memory device: answers pings like a kernel, pings routers, counts packets.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::net::icmp;
use crate::telemetry::clock;
use crate::tun::memory::MemoryHost;

use super::inner::{self, Kind};

/// Identifier of the host's pings.
const HOST_PING: u16 = 3;
/// The longest wait for a packet, so that the thread notices its end.
const PATIENCE: Duration = Duration::from_millis(20);

/// What has come from one router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    /// Its packets and their bytes.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Its pings that were answered.
    pub pings: u64,
    /// Its answers to the host's pings.
    pub replies: u64,
    /// Its numbered datagrams.
    pub datagrams: u64,
    /// Packets of other kinds.
    pub others: u64,
}

#[derive(Default)]
struct Seen {
    // Read by key only, so its order has no influence.
    routers: HashMap<Ipv4Addr, HostView>,
    problems: Vec<String>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host; it ends when this is dropped.
pub struct Host {
    device: MemoryHost,
    management: Ipv4Addr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Starts a host with one address.
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(device: MemoryHost, management: Ipv4Addr) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (inside, ends) = (device.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("host".to_owned()).spawn(move || {
            while !ends.stop.load(Ordering::Relaxed) {
                let Some(mut packet) = inside.recv(PATIENCE) else { continue };
                take(&inside, management, &ends, &mut packet);
                ends.changed.notify_all();
            }
        })?;
        Ok(Self { device, management, shared, thread: Some(thread) })
    }

    /// Pings a router once; false if the device is full.
    pub fn ping(&self, router: Ipv4Addr, sequence: u16) -> bool {
        let packet = inner::echo_request(self.management, router, HOST_PING, sequence, 56);
        self.device.send(&packet).is_ok()
    }

    /// Sends a numbered datagram to a router; false if the device is full.
    pub fn datagram(&self, router: Ipv4Addr, number: u64, payload: usize) -> bool {
        let source = SocketAddrV4::new(self.management, 514);
        let packet = inner::udp(source, SocketAddrV4::new(router, 20_000), number, payload);
        self.device.send(&packet).is_ok()
    }

    /// Sends any packet; false if the device is full.
    pub fn send(&self, packet: &[u8]) -> bool {
        self.device.send(packet).is_ok()
    }

    /// What has come from a router.
    pub fn view(&self, router: Ipv4Addr) -> HostView {
        self.shared.seen().routers.get(&router).copied().unwrap_or_default()
    }

    /// Waits until what has come from a router is as wanted.
    ///
    /// # Panics
    /// If it is not within `limit`: it is the report of a test.
    #[track_caller]
    pub fn wait_for(
        &self,
        router: Ipv4Addr,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&HostView) -> bool,
    ) -> HostView {
        let end = clock::now() + limit;
        let mut seen = self.shared.seen();
        loop {
            let view = seen.routers.get(&router).copied().unwrap_or_default();
            if wanted(&view) {
                return view;
            }
            let left = end.saturating_duration_since(clock::now());
            assert!(!left.is_zero(), "no {what} from {router} within {limit:?}: {view:?}");
            let waited = self.shared.changed.wait_timeout(seen, left);
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What must not have come through a tunnel.
    pub fn problems(&self) -> Vec<String> {
        self.shared.seen().problems.clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by itself.
            let _ = thread.join();
        }
    }
}

fn take(device: &MemoryHost, management: Ipv4Addr, shared: &Shared, packet: &mut [u8]) {
    let read = inner::read(packet);
    let mut seen = shared.seen();
    let packet_seen = match read {
        Ok(packet_seen) if packet_seen.destination == management => packet_seen,
        Ok(other) => return seen.problems.push(format!("{other:?}")),
        Err(what) => return seen.problems.push(what),
    };
    let view = seen.routers.entry(packet_seen.source).or_default();
    view.packets += 1;
    view.bytes += packet.len() as u64;
    match packet_seen.kind {
        Kind::EchoRequest if icmp::echo_reply_in_place(packet) => {
            view.pings += 1;
            // A full device loses it, as a kernel would.
            let _ = device.send(packet);
        }
        Kind::EchoReply { id: HOST_PING, .. } => view.replies += 1,
        Kind::Datagram { .. } => view.datagrams += 1,
        Kind::EchoRequest | Kind::EchoReply { .. } | Kind::Other => view.others += 1,
    }
}
