//! Reference client, hostile client, simulator and fuzz bodies.

pub mod fleet;
pub mod fuzz;
pub mod profiles;
pub mod replay;
mod skip;
pub mod world;

pub use skip::skip;
