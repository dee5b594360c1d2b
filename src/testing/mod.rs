//! Reference client, hostile client, simulator and fuzz bodies.

pub mod fuzz;
mod skip;
pub mod world;

pub use skip::skip;
