//! The sans-IO protocol core.

pub mod client;
pub mod control;
pub mod negotiate;
pub mod reliable;
pub mod session;
pub mod wire;
