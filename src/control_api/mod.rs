//! The control socket: HTTP/1.1 + JSON on a unix socket.
//!
//! [`types`] are the documents, [`handle`] is what a concentrator offers to whoever steers it; both
//! exist in every build. `socket` makes the path safely, `server` puts a handle behind it with one
//! permission check before everything else, `client` is what the command line speaks through.
//! Nothing here knows how a tunnel works.

pub mod caller;
#[cfg(feature = "cli")]
pub mod client;
pub mod error;
pub mod handle;
#[cfg(feature = "control-api")]
mod lines;
#[cfg(feature = "control-api")]
pub mod permission;
#[cfg(feature = "control-api")]
mod relay;
#[cfg(feature = "control-api")]
mod reserve;
#[cfg(feature = "control-api")]
mod routes;
#[cfg(feature = "control-api")]
mod seats;
#[cfg(feature = "control-api")]
pub mod server;
#[cfg(feature = "control-api")]
pub mod socket;
#[cfg(feature = "control-api")]
mod stall;
pub mod types;

pub use caller::{Caller, Role, Scope};
pub use error::{ApiError, ErrorCode};
pub use handle::{
    Answer, Audit, Events, Expected, Handle, History, Logins, Observation, Operations, Routers,
    Rows, StoreKeeping, Tunnels,
};

#[cfg(feature = "control-api")]
pub use routes::openapi;

#[cfg(test)]
#[cfg(feature = "cli")]
mod tests;
