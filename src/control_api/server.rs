//! Connections to the control sockets: accepted, counted, bounded, and ended.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::error::{ApiError, ErrorCode};
use super::handle::Handle;
use super::permission::{Door, Peer, Rules};
use super::reserve::{Borrowed, Reserve};
use super::routes;
use super::seats::{Places, Seat, Seats};
use super::socket::ControlSocket;
use super::stall::Stall;
use crate::telemetry::clock;

/// Bytes of a request's head that are read at most.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long open connections may finish when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long accepting rests after somebody was told to ask again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(1);
/// How long accepting rests after an error such as "too many open files".
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What clients may use up.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections for ordinary requests at once; one user gets half of them.
    pub connections: usize,
    /// Event streams at once, likewise.
    pub streams: usize,
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
            streams: 128,
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

/// Where clients come in, and what they may do.
#[derive(Debug)]
pub struct Setup {
    /// The control socket.
    pub socket: ControlSocket,
    /// A second one, behind which nobody is more than a reader.
    pub read_only: Option<ControlSocket>,
    /// Who may do what.
    pub rules: Rules,
    /// What clients may use up.
    pub limits: ServerLimits,
}

/// What the routes know of a connection.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) peer: Arc<Peer>,
    pub(super) door: Arc<Door>,
    pub(super) seat: Seat,
}

/// Serves one socket without rules; see [`serve_with`].
///
/// # Errors
/// The socket cannot be handed to the runtime.
pub async fn serve(
    socket: ControlSocket,
    handle: Arc<dyn Handle>,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let setup = Setup { socket, read_only: None, rules: Rules::default(), limits };
    serve_with(setup, handle, shutdown).await
}

/// Serves until `shutdown` is done, then lets open requests finish for two seconds; the paths are
/// gone afterwards.
///
/// # Errors
/// A socket cannot be handed to the runtime.
pub async fn serve_with(
    setup: Setup,
    handle: Arc<dyn Handle>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let Setup { socket, read_only, rules, limits } = setup;
    let listener = UnixListener::from_std(socket.listener()?)?;
    let second = match &read_only {
        Some(socket) => Some(UnixListener::from_std(socket.listener()?)?),
        None => None,
    };
    let places = Places { requests: limits.connections, streams: limits.streams };
    let (stop, stopped) = watch::channel(false);
    let shared =
        routes::Shared { handle, limits, rules: Arc::new(rules), stopped: stopped.clone() };
    let mut server = Server {
        app: routes::router(shared),
        seats: Seats::new(places, clock::now()),
        reserve: Reserve::new(),
        limits,
        connections: JoinSet::new(),
    };
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = server.connections.join_next(), if !server.connections.is_empty() => {
                server.reserve.refill();
            }
            accepted = listener.accept() => {
                server.accepted(accepted, &listener, &socket, false, &stopped).await;
            }
            accepted = accept(second.as_ref()) => {
                if let (Some(listener), Some(socket)) = (&second, &read_only) {
                    server.accepted(accepted, listener, socket, true, &stopped).await;
                }
            }
        }
    }
    drop((listener, second));
    // No receiver is left if no connection is open.
    let _ = stop.send(true);
    let mut connections = server.connections;
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, all).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

type Accepted = io::Result<(UnixStream, tokio::net::unix::SocketAddr)>;

/// Waits forever if there is no such socket.
async fn accept(listener: Option<&UnixListener>) -> Accepted {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

struct Server {
    app: axum::Router,
    seats: Seats,
    reserve: Reserve,
    limits: ServerLimits,
    connections: JoinSet<()>,
}

impl Server {
    async fn accepted(
        &mut self,
        accepted: Accepted,
        listener: &UnixListener,
        socket: &ControlSocket,
        read_only: bool,
        stopped: &watch::Receiver<bool>,
    ) {
        let (stream, borrowed) = match accepted {
            Ok((stream, _)) => (stream, None),
            Err(error) if Reserve::is_needed(&error) => {
                let busy = busy("the process has too many open files; ask again");
                match self.reserve.accept(listener, busy.as_bytes()) {
                    Some((stream, borrowed)) => (stream, Some(borrowed)),
                    None => {
                        // A rest for the others, too: nothing is gained by being quick here.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket accepts nothing");
                tokio::time::sleep(ACCEPT_REST).await;
                return;
            }
        };
        let Ok(peer) = Peer::of(stream.as_fd()) else { return };
        let Some(seat) = self.seats.enter(peer.uid, clock::now()) else {
            refuse(stream, "too many connections to the control socket; close some");
            return;
        };
        let door = Door {
            path: socket.path().to_string_lossy().into(),
            uid: socket.uid(),
            gid: socket.gid(),
            read_only,
        };
        let known = Connection { peer: Arc::new(peer), door: Arc::new(door), seat: seat.clone() };
        let service = TowerToHyperService::new(self.app.clone().layer(Extension(known)));
        let (limits, stopped) = (self.limits, stopped.clone());
        self.connections.spawn(async move {
            connection(stream, service, limits, seat, stopped).await;
            drop::<Option<Borrowed>>(borrowed);
        });
    }
}

async fn connection(
    stream: UnixStream,
    service: TowerToHyperService<axum::Router>,
    limits: ServerLimits,
    seat: Seat,
    mut stopped: watch::Receiver<bool>,
) {
    let io = TokioIo::new(Stall::new(stream, limits.write, seat.clone()));
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
        () = seat.evicted() => {
            tracing::debug!("a silent control connection makes room for another");
            return;
        }
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a control connection ended early");
    }
}

/// One answer without a request, as far as it can be sent.
fn refuse(mut stream: UnixStream, why: &str) {
    let answer = busy(why);
    tokio::spawn(async move {
        let told = async {
            // The peer learns it either way.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        };
        // A fresh socket has room for it, so this is not waited for.
        let _ = tokio::time::timeout(ACCEPT_REST, told).await;
    });
}

fn busy(why: &str) -> String {
    let error = ApiError::new(ErrorCode::Busy, why);
    let body = serde_json::to_string(&error).unwrap_or_default();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}
