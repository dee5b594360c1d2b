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
#[allow(dead_code, reason = "a bench uses more of it")]
mod binary;
mod crowd;
mod events;
mod head;
mod history;
mod hostile;
#[allow(dead_code, reason = "made for the tests with real clients; this uses a part of it")]
#[path = "../e2e/lab.rs"]
mod lab;
mod logins;
mod noise;
mod reload;
mod routeros;
mod routers;
#[path = "../support/mod.rs"]
mod support;
mod why;
