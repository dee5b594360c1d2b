//! One session of a router as its dials see it: they end together.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::abort;
use crate::control_api::handle::Traffic;

/// The dials of one session.
#[derive(Debug)]
pub(crate) struct Session {
    generation: u64,
    address: Ipv4Addr,
    /// Why the session has ended; changes once, under the lock of `sockets`.
    ended: watch::Sender<Option<&'static str>>,
    sockets: Mutex<Slab<Arc<TcpStream>>>,
    total: AtomicU64,
    traffic: Traffic,
}

impl Session {
    /// A session without dials. `generation` differs from that of every other session.
    pub(crate) fn new(generation: u64, address: Ipv4Addr) -> Self {
        Self {
            generation,
            address,
            ended: watch::Sender::new(None),
            sockets: Mutex::default(),
            total: AtomicU64::new(0),
            traffic: Traffic::default(),
        }
    }

    /// Its number.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The router's tunnel address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Dials that are open.
    pub(crate) fn open(&self) -> usize {
        self.lock().len()
    }

    /// Dials that were opened.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// What they have carried.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Why the session has ended, if it has.
    pub(crate) fn ended_by(&self) -> Option<&'static str> {
        *self.ended.borrow()
    }

    /// Waits for the end of the session.
    pub(crate) async fn ended(&self) -> &'static str {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or("ended"),
            // The sender is in `self`.
            Err(_) => "ended",
        }
    }

    /// Ends every dial before this returns, and lets no other begin. The first reason counts.
    pub(crate) fn cut(&self, reason: &'static str) {
        let mut sockets = self.lock();
        let first = self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(reason);
            first
        });
        if first {
            for socket in sockets.drain() {
                abort(&socket);
            }
        }
    }

    /// Notes an open connection; its place in the list.
    ///
    /// # Errors
    /// The session has ended.
    pub(super) fn enter(&self, tcp: &Arc<TcpStream>) -> Result<usize, &'static str> {
        let mut sockets = self.lock();
        if let Some(reason) = self.ended_by() {
            abort(tcp);
            return Err(reason);
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        Ok(sockets.insert(Arc::clone(tcp)))
    }

    /// The connection in this place is closed.
    pub(super) fn leave(&self, key: usize) {
        let socket = self.lock().try_remove(key);
        drop(socket);
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<TcpStream>>> {
        // A list of sockets is never half-changed.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
