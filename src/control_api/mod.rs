//! The control socket: HTTP/1.1 + JSON on a unix socket.
//!
//! [`types`] are the documents, [`handle`] is what a concentrator offers to whoever steers it; both
//! exist in every build. [`server`] puts a handle behind the socket, [`client`] is what the command
//! line speaks through. Nothing here knows how a tunnel works.

pub mod error;
pub mod handle;
pub mod types;

pub use error::{ApiError, ErrorCode};
pub use handle::{Answer, Handle};
