//! Bytes between a client of the control socket and a router, each half closing on its own.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::sys::epoll::{Epoll, Interest};

/// Bytes on their way in each direction; a reader that is slower than its writer stops it here.
const BUFFER_BYTES: usize = 16 * 1024;

/// How a relay has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have closed their half.
    Closed,
    /// The client has gone; nobody would read what the router says.
    ClientGone,
    /// The router has broken the connection.
    RouterReset,
    /// The session of the router has ended, for this reason.
    Cut(&'static str),
}

impl End {
    /// Stable name for the audit trail.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientGone => "client_gone",
            Self::RouterReset => "router_reset",
            Self::Cut(reason) => reason,
        }
    }
}

/// Which side has failed.
enum Broken {
    Reading,
    Writing,
}

/// Carries bytes until one of the ends of [`End`]. `early` was read from the client before.
pub(super) async fn relay(
    client: UnixStream,
    early: &[u8],
    router: impl AsyncRead + AsyncWrite,
    cut: impl Future<Output = &'static str>,
) -> End {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_router, mut to_router) = tokio::io::split(router);
    let mut up = pin!(async {
        to_router.write_all(early).await.map_err(|_| Broken::Writing)?;
        pump(&mut from_client, &mut to_router).await?;
        Ok(from_client)
    });
    let mut down = pin!(pump(&mut from_router, &mut to_client));
    let mut cut = pin!(cut);
    let mut listening = None;
    let mut answering = true;
    // First while the client may still speak, then while it only listens.
    while listening.is_none() {
        tokio::select! {
            biased;
            reason = &mut cut => return End::Cut(reason),
            ended = &mut up => match ended {
                Ok(half) => listening = Some(half),
                Err(Broken::Reading) => return End::ClientGone,
                Err(Broken::Writing) => return cut_or(&mut cut, End::RouterReset).await,
            },
            ended = &mut down, if answering => match ended {
                Ok(()) => answering = false,
                Err(Broken::Reading) => return cut_or(&mut cut, End::RouterReset).await,
                Err(Broken::Writing) => return End::ClientGone,
            },
        }
    }
    let gone = async {
        let waited = match &listening {
            Some(half) => hung_up(half.as_ref()).await,
            None => Ok(()),
        };
        if waited.is_err() {
            // It can't be watched: a write will tell.
            std::future::pending::<()>().await;
        }
    };
    if !answering {
        return End::Closed;
    }
    tokio::select! {
        biased;
        reason = &mut cut => End::Cut(reason),
        ended = &mut down => match ended {
            Ok(()) => End::Closed,
            Err(Broken::Reading) => cut_or(&mut cut, End::RouterReset).await,
            Err(Broken::Writing) => End::ClientGone,
        },
        () = gone => End::ClientGone,
    }
}

/// A connection that was cut breaks a moment before its session is known to have ended.
async fn cut_or(cut: impl Future<Output = &'static str>, end: End) -> End {
    tokio::select! {
        biased;
        reason = cut => End::Cut(reason),
        () = std::future::ready(()) => end,
    }
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n = from.read(&mut buffer).await.map_err(|_| Broken::Reading)?;
        if n == 0 {
            // Whoever can't be told that nothing more comes has closed already.
            let _ = to.shutdown().await;
            return Ok(());
        }
        let bytes = buffer.get(..n).unwrap_or_default();
        to.write_all(bytes).await.map_err(|_| Broken::Writing)?;
    }
}

#[expect(deprecated, reason = "the set owns its descriptor, which is what the new form asks for")]
/// Waits until the peer of a socket has closed both halves: reading tells only about one of them.
async fn hung_up(socket: impl AsFd) -> io::Result<()> {
    let watch = Epoll::new()?;
    watch.add(socket.as_fd(), 0, Interest::NONE)?;
    AsyncFd::new(watch)?.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;

    use super::*;

    const SOON: Duration = Duration::from_millis(100);

    fn start(
        cut: impl Future<Output = &'static str> + Send + 'static,
    ) -> (UnixStream, DuplexStream, JoinHandle<End>) {
        let (client, ours) = UnixStream::pair().unwrap();
        let (router, theirs) = tokio::io::duplex(1024);
        let relay = tokio::spawn(async move { relay(ours, b"early ", theirs, cut).await });
        (client, router, relay)
    }

    async fn heard(from: &mut (impl AsyncRead + Unpin)) -> String {
        let mut text = String::new();
        from.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn each_half_closes_on_its_own_and_what_came_early_goes_first() {
        let (mut client, mut router, relay) = start(std::future::pending());
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(heard(&mut router).await, "early question");
        router.write_all(b"answer").await.unwrap();
        router.shutdown().await.unwrap();
        assert_eq!(heard(&mut client).await, "answer");
        assert_eq!(relay.await.unwrap(), End::Closed);
    }

    #[tokio::test]
    async fn the_router_may_close_first() {
        let (mut client, mut router, relay) = start(std::future::pending());
        router.write_all(b"220 ready").await.unwrap();
        router.shutdown().await.unwrap();
        assert_eq!(heard(&mut client).await, "220 ready");
        client.write_all(b"still here").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(heard(&mut router).await, "early still here");
        assert_eq!(relay.await.unwrap(), End::Closed);
    }

    #[tokio::test]
    async fn what_a_client_said_before_it_went_is_delivered_and_then_it_ends() {
        let (mut client, mut router, relay) = start(std::future::pending());
        client.write_all(b"last words").await.unwrap();
        drop(client);
        assert_eq!(heard(&mut router).await, "early last words");
        // The router says nothing and never would: no write tells that nobody listens.
        assert_eq!(relay.await.unwrap(), End::ClientGone);
    }

    #[tokio::test]
    async fn a_client_that_only_listens_is_not_gone() {
        let (mut client, mut router, relay) = start(std::future::pending());
        client.shutdown().await.unwrap();
        assert_eq!(heard(&mut router).await, "early ");
        assert!(
            tokio::time::timeout(SOON, async {
                while !relay.is_finished() {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .is_err()
        );
        router.write_all(b"late answer").await.unwrap();
        drop(router);
        assert_eq!(heard(&mut client).await, "late answer");
        assert_eq!(relay.await.unwrap(), End::Closed);
    }

    #[tokio::test]
    async fn a_cut_ends_it_although_nobody_reads_or_writes() {
        let (cut, is_cut) = tokio::sync::oneshot::channel();
        let (mut client, mut router, relay) = start(async move { is_cut.await.unwrap() });
        // The client doesn't read: the way to it is full.
        let full = tokio::time::timeout(SOON * 3, router.write_all(&vec![7; 4 << 20])).await;
        assert!(full.is_err(), "a slow reader does not stop its writer");
        cut.send("banned").unwrap();
        assert_eq!(relay.await.unwrap(), End::Cut("banned"));
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() < 2 << 20, "{} bytes were held", rest.len());
    }
}
