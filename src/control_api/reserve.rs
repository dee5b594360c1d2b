//! Descriptors kept for the moment in which the process has none left: tunnels may use up every
//! other one, and still somebody must be able to ask why.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use std::os::fd::AsFd;
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

    /// Gives a descriptor up and accepts with it. With the last one somebody can only be told;
    /// then there is no [`Borrowed`]. None: nobody waits, or others were quicker.
    pub(super) fn accept(&self, listener: &UnixListener) -> Option<(UnixStream, Option<Borrowed>)> {
        self.refill();
        let left = {
            let mut kept = self.lock();
            kept.pop()?;
            kept.len()
        };
        let accepted =
            socket2::SockRef::from(&listener.as_fd()).accept().ok().and_then(|(stream, _)| {
                let stream = std::os::unix::net::UnixStream::from(stream);
                stream.set_nonblocking(true).ok()?;
                UnixStream::from_std(stream).ok()
            });
        let borrowed = Borrowed(self.clone());
        Some((accepted?, (left > 0).then_some(borrowed)))
    }

    fn refill(&self) {
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
