//! Connections to the control socket: accepted, counted, bounded, and ended.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::error::{ApiError, ErrorCode};
use super::handle::Handle;
use super::permission::Peer;
use super::routes;
use super::socket::ControlSocket;
use super::stall::Stall;

/// Bytes of a request's head that are read at most.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long open connections may finish when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long accepting rests after an error such as "too many open files".
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What clients may use up.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at once; one user gets half of them.
    pub connections: usize,
    /// Longest body of a request.
    pub body_bytes: usize,
    /// For the head of a request, and between two requests.
    pub head: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// For the concentrator's answer.
    pub answer: Duration,
    /// Without progress while an answer is written.
    pub write: Duration,
}

impl ServerLimits {
    /// The time limits, with these sizes of the configuration.
    pub const fn new(connections: usize, body_bytes: usize) -> Self {
        Self {
            connections,
            body_bytes,
            head: Duration::from_secs(30),
            body: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            write: Duration::from_secs(15),
        }
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self::new(256, 64 * 1024)
    }
}

/// Serves until `shutdown` is done, then lets open requests finish for two seconds; the path is
/// gone afterwards.
///
/// # Errors
/// The socket cannot be handed to the runtime.
pub async fn serve(
    socket: ControlSocket,
    handle: Arc<dyn Handle>,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(socket.listener()?)?;
    let socket = Arc::new(socket);
    let (stop, stopped) = watch::channel(false);
    let shared =
        routes::Shared { handle, socket: Arc::clone(&socket), limits, stopped: stopped.clone() };
    let app = routes::router(shared);
    let users = Users::default();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(peer) = Peer::of(stream.as_fd()) else { continue };
                    let Some(place) = users.enter(peer.uid, limits.connections) else {
                        refuse(stream);
                        continue;
                    };
                    let app = app.clone().layer(Extension(peer)).layer(Extension(place.clone()));
                    let service = TowerToHyperService::new(app);
                    let stopped = stopped.clone();
                    connections.spawn(async move {
                        connection(stream, service, limits, stopped).await;
                        place.leave();
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket accepts nothing");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    drop(listener);
    // No receiver is left if no connection is open.
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, all).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(
    stream: UnixStream,
    service: TowerToHyperService<axum::Router>,
    limits: ServerLimits,
    mut stopped: watch::Receiver<bool>,
) {
    let io = TokioIo::new(Stall::new(stream, limits.write));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(connection);
    let stop = async {
        // An error means that the server is gone, which is a stop too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a control connection ended early");
    }
}

/// One answer without a request, as far as it can be sent at once.
fn refuse(stream: UnixStream) {
    let error =
        ApiError::new(ErrorCode::Busy, "too many connections to the control socket; close some");
    let body = serde_json::to_string(&error).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    // A fresh socket has room for it; if not, the connection is just closed.
    let _ = stream.try_write(answer.as_bytes());
    tokio::spawn(async move {
        let mut stream = stream;
        // The peer learns it either way.
        let _ = stream.shutdown().await;
    });
}

/// Open connections by user.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<u32, usize>>>);

/// The place of a connection; clones share it. It is given back once: when the connection ends, or
/// when it becomes something else that is counted elsewhere.
#[derive(Clone)]
pub(super) struct Place(Arc<Held>);

struct Held {
    users: Users,
    uid: u32,
    left: AtomicBool,
}

impl Place {
    /// Gives the place back.
    pub(super) fn leave(&self) {
        self.0.leave();
    }
}

impl Held {
    fn leave(&self) {
        if self.left.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut open = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Users {
    fn enter(&self, uid: u32, most: usize) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&uid).copied().unwrap_or(0);
        if all >= most || own >= (most / 2).max(1) {
            return None;
        }
        open.insert(uid, own.saturating_add(1));
        Some(Place(Arc::new(Held { users: self.clone(), uid, left: AtomicBool::new(false) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_gets_half_of_the_connections() {
        let users = Users::default();
        let mut places = vec![users.enter(1, 4).unwrap(), users.enter(1, 4).unwrap()];
        assert!(users.enter(1, 4).is_none());
        places.push(users.enter(2, 4).unwrap());
        places.push(users.enter(3, 4).unwrap());
        assert!(users.enter(4, 4).is_none());
        places.remove(0);
        let other = users.enter(4, 4).unwrap();
        assert!(users.enter(5, 4).is_none());
        let clone = other.clone();
        clone.leave();
        places.push(users.enter(5, 4).unwrap());
        drop((clone, other));
        assert!(users.enter(6, 4).is_none(), "a place was given back twice");
        drop(places);
        assert!(users.0.lock().unwrap().is_empty());
    }
}
