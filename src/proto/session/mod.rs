//! session

mod event;

pub use event::*;
