//! The sans-IO protocol core.

pub mod client;
pub mod control;
pub mod negotiate;
pub mod reliable;
pub mod session;
pub mod wire;

/// Names one connection for as long as the process runs; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);
