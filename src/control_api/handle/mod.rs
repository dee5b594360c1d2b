//! What a concentrator offers to whoever steers it: one trait a resource.

mod audit;
mod events;
mod history;
mod logins;
mod observation;
mod operations;
mod routers;
mod store;
mod tunnels;

use std::future::Future;
use std::pin::Pin;

use super::error::ApiError;

pub use audit::Audit;
pub use events::{EventSource, Events, NextEvent};
pub use history::History;
pub use logins::Logins;
pub use observation::Observation;
pub use operations::Operations;
pub use routers::{Expected, Routers, Rows};
pub use store::StoreKeeping;
pub use tunnels::{Connection, Dialled, Traffic, Tunnels};

/// A boxed answer, so that the traits can be used as `dyn Handle`.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// The running concentrator as the control socket sees it.
///
/// Implementations never block the calling thread; every answer comes within seconds or the server
/// answers `timeout` for them (the operation itself is then not undone). Names that do not have the
/// form of a router name never reach an implementation through the socket. A router outside the
/// caller's scope answers exactly like one that does not exist.
pub trait Handle:
    Operations + Observation + Routers + Tunnels + History + Events + Logins + Audit + StoreKeeping
{
}

impl<T> Handle for T where
    T: Operations
        + Observation
        + Routers
        + Tunnels
        + History
        + Events
        + Logins
        + Audit
        + StoreKeeping
{
}
