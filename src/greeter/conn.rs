//! One connection between accept and hand-over.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use crate::proto::ClientId;
use crate::proto::session::{Assignment, Identity, Session, SessionConfig};
use crate::telemetry::flight::Flight;
use crate::tls::TlsContext;

use super::engines::Engines;

/// A connection that is not yet a tunnel.
pub(super) struct Conn {
    pub(super) client: ClientId,
    pub(super) socket: TcpStream,
    /// The router's real address; after a PROXY header the one it names.
    pub(super) source: SocketAddr,
    /// What the admission table counted this connection under.
    pub(super) admitted_as: IpAddr,
    /// Where its listener listens.
    pub(super) dialled: Option<SocketAddr>,
    /// The settings of its listener when it came.
    pub(super) settings: Arc<SessionConfig>,
    /// Makes its TLS engines.
    pub(super) tls: Arc<dyn TlsContext>,
    pub(super) stage: Stage,
    pub(super) accepted_at: Instant,
    /// Absolute: progress doesn't move it.
    pub(super) deadline: Instant,
    /// The earliest entry of the timer heap.
    pub(super) next_timer: Option<Instant>,
    /// Sealed and framed bytes that wait for the socket.
    pub(super) out: Vec<u8>,
    /// True while this connection counts as a handshake in progress.
    pub(super) in_handshake: bool,
    /// When the peer last sent something.
    pub(super) last_heard: Instant,
    /// Bytes counted against the budget of the process.
    pub(super) buffered: usize,
    /// The user name of the attempt, for the log.
    pub(super) username: Option<Vec<u8>>,
    /// What was seen of the attempt.
    pub(super) flight: Flight,
    /// Waits for EPOLLOUT.
    pub(super) wants_write: bool,
    /// Reads are off until a handshake slot is free.
    pub(super) paused: bool,
    /// Since when, while `paused`.
    pub(super) paused_at: Instant,
}

/// How far a connection has come.
pub(super) enum Stage {
    /// A PROXY header has to come first; holds what has arrived of it.
    ProxyHeader(Vec<u8>),
    /// The session runs.
    Session(Box<Login>),
}

/// A session that is logging in.
pub(super) struct Login {
    pub(super) session: Session,
    pub(super) engines: Engines,
    pub(super) identity: Option<Identity>,
    pub(super) assignment: Option<Assignment>,
}

impl Conn {
    /// Bytes that the session holds back.
    pub(super) fn session_buffered(&self) -> usize {
        match &self.stage {
            Stage::ProxyHeader(held) => held.len(),
            Stage::Session(login) => login.session.buffered_bytes(),
        }
    }

    /// One read. `Ok(None)` if nothing is there.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        match self.socket.read(scratch) {
            Ok(n) => Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes what the socket takes; the rest stays in `out`.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = self.out.get(written..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.drain(..written);
        Ok(())
    }
}
