//! The server role of the protocol core.

mod event;

pub use event::*;
