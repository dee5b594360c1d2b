//! What the fuzz targets do with their bytes.
//!
//! The targets under `fuzz/` are shims around these bodies, so that `cargo test` replays the
//! corpora and tries seeded mutations on the stable compiler. A body asserts what must hold for
//! any input; "does not panic" is the least of it. Bodies that need an authentic packet make one
//! from a part of the input and damage it with the rest.

mod crypto;
mod packets;
mod session;
mod text;
mod wire;

use std::time::Instant;

pub use crypto::{data_open, unwrap_none, unwrap_tls_auth, unwrap_tls_crypt, unwrap_tls_crypt_v2};
pub use packets::{inner_ip, proxy_protocol};
pub use session::{session_import, session_stream};
pub use text::{
    config, control_message, key_method2, options_string, peer_info, push_parse, static_key,
};
pub use wire::{control_packet, frames};

/// One body: takes any bytes, panics if a rule is broken.
pub type Body = fn(&[u8]);

/// Every body by the name of its target.
pub const BODIES: &[(&str, Body)] = &[
    ("config", config),
    ("control_message", control_message),
    ("control_packet", control_packet),
    ("data_open", data_open),
    ("frames", frames),
    ("inner_ip", inner_ip),
    ("key_method2", key_method2),
    ("options_string", options_string),
    ("peer_info", peer_info),
    ("proxy_protocol", proxy_protocol),
    ("push_parse", push_parse),
    ("session_import", session_import),
    ("session_stream", session_stream),
    ("static_key", static_key),
    ("unwrap_none", unwrap_none),
    ("unwrap_tls_auth", unwrap_tls_auth),
    ("unwrap_tls_crypt", unwrap_tls_crypt),
    ("unwrap_tls_crypt_v2", unwrap_tls_crypt_v2),
];

/// The input, taken piece by piece; zeros after its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// One of `all`, which must not be empty.
    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        let index = usize::from(self.u8()) % all.len();
        *all.get(index).unwrap_or_else(|| unreachable!("below the length"))
    }

    /// Up to `count` bytes.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Flips one bit; false if there is none to flip.
fn damage(bytes: &mut [u8], input: &mut Input<'_>) -> bool {
    let at = usize::from(input.u16()) % bytes.len().max(1);
    let bit = input.u8() % 8;
    match bytes.get_mut(at) {
        Some(byte) => {
            *byte ^= 1 << bit;
            true
        }
        None => false,
    }
}

/// A time; no body looks at what it is.
fn some_time() -> Instant {
    crate::telemetry::clock::now()
}
