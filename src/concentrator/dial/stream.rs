//! An open connection to a router.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::session::Session;
use super::{Place, abort};
use crate::control_api::handle::Traffic;

/// A TCP connection to a router, from the management address through its tunnel.
///
/// Ends with an error of the kind `ConnectionAborted` as soon as the session that it was opened in
/// ends or is replaced. Shutting it down closes the half towards the router only. Dropping it
/// closes the connection.
#[derive(Debug)]
pub struct DialStream {
    tcp: Arc<TcpStream>,
    session: Arc<Session>,
    key: usize,
    own: Arc<Traffic>,
    place: Place,
}

impl DialStream {
    pub(super) fn open(
        tcp: TcpStream,
        session: Arc<Session>,
        place: Place,
    ) -> Result<Self, &'static str> {
        let tcp = Arc::new(tcp);
        let key = session.enter(&tcp)?;
        Ok(Self { tcp, session, key, own: Arc::default(), place })
    }

    /// The generation of the session that it is bound to.
    pub fn generation(&self) -> u64 {
        self.session.generation()
    }

    /// Our end: the management address and a port.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The router's end: its tunnel address and the port that was dialled.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.peer_addr()
    }

    /// What it has carried; stays readable after the stream is gone.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.own)
    }

    /// Waits until the session ends, whether the stream is still there or not; gives the stable
    /// name of the reason.
    pub fn session_end(&self) -> impl Future<Output = &'static str> + Send + 'static {
        let session = Arc::clone(&self.session);
        async move { session.ended().await }
    }

    /// Ends the connection with a reset instead of an orderly close.
    pub fn abort(self) {
        abort(&self.tcp);
    }

    fn note(&self, from_router: usize, to_router: usize) {
        for traffic in [&*self.own, self.session.traffic(), &self.place.0.traffic] {
            traffic.note(from_router, to_router);
        }
    }

    /// An error after the session's end is that end.
    fn judge<T>(&self, result: io::Result<T>) -> io::Result<T> {
        match (result, self.session.ended_by()) {
            (Err(_), Some(reason)) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason)),
            (result, _) => result,
        }
    }
}

impl AsyncRead for DialStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Err(error) = ready!(self.tcp.poll_read_ready(context)) {
                return Poll::Ready(self.judge(Err(error)));
            }
            match self.tcp.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) if buffer.remaining() > 0 && self.session.ended_by().is_some() => {
                    // A connection that was cut must not look like one that the router closed.
                    let cut = io::ErrorKind::ConnectionAborted;
                    return Poll::Ready(self.judge(Err(cut.into())));
                }
                Ok(n) => {
                    buffer.advance(n);
                    self.note(n, 0);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(self.judge(Err(error))),
            }
        }
    }
}

impl AsyncWrite for DialStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Err(error) = ready!(self.tcp.poll_write_ready(context)) {
                return Poll::Ready(self.judge(Err(error)));
            }
            match self.tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) => {
                    self.note(0, n);
                    return Poll::Ready(Ok(n));
                }
                Err(error) => return Poll::Ready(self.judge(Err(error))),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = SockRef::from(&*self.tcp).shutdown(std::net::Shutdown::Write);
        Poll::Ready(match self.judge(result) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

impl Drop for DialStream {
    fn drop(&mut self) {
        if self.session.ended_by().is_some() {
            self.place.0.cut.fetch_add(1, Ordering::Relaxed);
        }
        self.session.leave(self.key);
    }
}
