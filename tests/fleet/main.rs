//! Fleets of the reference client against a concentrator: in this process with a memory device,
//! which needs no right, and against the real binary with a real TUN device in a network
//! namespace.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code: a failed expectation is the report"
)]

mod basics;
mod head;
mod logins;
mod noise;
mod routeros;
#[path = "../support/mod.rs"]
mod support;
