//! The formats through the public interface: against OpenSSL, against damage, across processes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod control;
mod data;
mod handover;
mod openssl_peer;
mod secrets;
mod support;
