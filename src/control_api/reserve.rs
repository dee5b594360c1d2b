//! Descriptors kept for the moment in which the process has none left: tunnels may use up every
//! other one, and still somebody must be able to ask why.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{UnixListener, UnixStream};

/// Connections that are served beyond the limit; one more is told to ask again.
const KEPT: usize = 8;

/// Open files that stand for descriptors.
#[derive(Clone)]
pub(super) struct Reserve(Arc<Mutex<Vec<File>>>);

/// A descriptor of the reserve is in use; it is replaced when this is dropped.
pub(super) struct Borrowed(Reserve);

impl Reserve {
    pub(super) fn new() -> Self {
        let reserve = Self(Arc::default());
        reserve.refill();
        reserve
    }

    /// True if no descriptor is left, in the process or in the system.
    pub(super) fn is_needed(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
    }

    /// Gives a descriptor up and accepts with it. Whoever gets the last one is told `busy` and let
    /// go at once, so that it is there for the next one. None: nobody waits, others were quicker,
    /// or somebody was told.
    pub(super) fn accept(
        &self,
        listener: &UnixListener,
        busy: &[u8],
    ) -> Option<(UnixStream, Borrowed)> {
        self.refill();
        let last = {
            let mut kept = self.lock();
            kept.pop()?;
            kept.is_empty()
        };
        // Replaced when it is dropped, whatever happens on the way.
        let borrowed = Borrowed(self.clone());
        let (stream, _) = socket2::SockRef::from(&listener.as_fd()).accept().ok()?;
        let mut stream = std::os::unix::net::UnixStream::from(stream);
        stream.set_nonblocking(true).ok()?;
        if last {
            // A fresh socket has room for it.
            let _ = stream.write_all(busy);
            drop(stream);
            return None;
        }
        Some((UnixStream::from_std(stream).ok()?, borrowed))
    }

    /// Takes descriptors that have become free before anybody else does.
    pub(super) fn refill(&self) {
        let mut kept = self.lock();
        while kept.len() < KEPT {
            let Ok(file) = File::open("/dev/null") else { break };
            kept.push(file);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.0.refill();
    }
}
