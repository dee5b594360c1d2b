//! Tests of the session against a client that is driven by hand. Its TLS is null: the first input
//! completes the handshake, afterwards plaintext and ciphertext are the same bytes.

mod bench;
mod data;
mod export;
mod hostile;
mod lifetime;
mod login;
mod rekey;
mod table;
mod wrapping;

pub(super) use bench::epoch;
