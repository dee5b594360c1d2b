//! Reference client, hostile client, simulator and fuzz bodies.

pub mod fuzz;
mod skip;

pub use skip::skip;
