//! Tunnels that are up, and connections through them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};

use super::Answer;
use crate::control_api::types::{BanView, DialTo, List, Page, TunnelFilter, TunnelView};
use crate::control_api::{ApiError, Scope};

/// Tunnels that are up.
pub trait Tunnels: Send + Sync + 'static {
    /// The tunnels in scope that fit the filter, sorted by router name.
    fn list_tunnels(&self, scope: &Scope, filter: TunnelFilter) -> Answer<'_, List<TunnelView>>;

    /// The tunnel of one router.
    ///
    /// # Errors
    /// `tunnel_not_found`.
    fn get_tunnel(&self, scope: &Scope, name: &str) -> Answer<'_, TunnelView>;

    /// Cuts the tunnel of one router, and keeps the router out for `ban_seconds`; without them it
    /// may come back at once. Once this answers, no packet passes any more. A ban holds for a
    /// router that has no tunnel at the moment, too.
    ///
    /// # Errors
    /// `tunnel_not_found`, `busy` when there are as many bans as there may be.
    fn disconnect(&self, scope: &Scope, name: &str, ban_seconds: Option<u64>) -> Answer<'_, ()>;

    /// Connects to a port of a router, bound to the session that it has now.
    ///
    /// # Errors
    /// `tunnel_not_found`, `generation_changed`, `dial_refused`, `dial_unreachable`,
    /// `dial_timeout`, `busy`, `not_offered` without a TUN device of the kernel.
    fn dial(&self, _: &Scope, _: &str, _: DialTo) -> Answer<'_, Dialled> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// The routers in scope that are kept out, sorted by name.
    fn list_bans(&self, _: &Scope, _: Page) -> Answer<'_, List<BanView>> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Keeps a router out for so many seconds and cuts its tunnel, if it has one.
    ///
    /// # Errors
    /// `router_not_found`, `busy`.
    fn ban(&self, _: &Scope, _: &str, _: u64) -> Answer<'_, BanView> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Lets a router in again.
    ///
    /// # Errors
    /// `ban_not_found`.
    fn lift_ban(&self, _: &Scope, _: &str) -> Answer<'_, ()> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }
}

/// Both directions of a connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// An open connection to a router.
pub struct Dialled {
    /// Its bytes.
    pub connection: Box<dyn Connection>,
    /// The session that it is bound to.
    pub generation: u64,
    /// Resolves with the reason when that session ends.
    pub session_end: Pin<Box<dyn Future<Output = &'static str> + Send>>,
    /// What it has carried so far.
    pub traffic: Arc<Traffic>,
}

/// Bytes that connections to routers have carried.
#[derive(Debug, Default)]
pub struct Traffic {
    from_router: AtomicU64,
    to_router: AtomicU64,
}

impl Traffic {
    /// Bytes from the router.
    pub fn from_router(&self) -> u64 {
        self.from_router.load(Ordering::Relaxed)
    }

    /// Bytes to the router.
    pub fn to_router(&self) -> u64 {
        self.to_router.load(Ordering::Relaxed)
    }

    /// Counts bytes.
    pub fn note(&self, from_router: usize, to_router: usize) {
        self.from_router.fetch_add(from_router as u64, Ordering::Relaxed);
        self.to_router.fetch_add(to_router as u64, Ordering::Relaxed);
    }
}
