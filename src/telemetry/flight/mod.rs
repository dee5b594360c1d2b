//! The flight recorder: what was seen of each login, why it failed, and what a fleet has in common
//! that fails at once.
//!
//! ```text
//! greeter ── Flight (one a connection, owned by its thread) ── end ──▶ Record
//! Record ──▶ Recorder (bounded, keyed by router, by known address, by stranger)
//!        ──▶ Fleet    (one compact entry a router)  ──▶ incidents::find
//! Record + Setting ──▶ explain ──▶ one sentence and the command that mends it
//! ```
//!
//! Pure: the time comes in, nothing is written or sent. Nothing here ever sees a password, a key,
//! TLS plaintext or the randoms of a key exchange, so nothing here can give them away.

pub mod capture;
pub mod explain;
mod fault;
mod frames;
pub mod hello;
pub mod incidents;
mod record;
mod recorder;
mod recording;

pub use fault::TlsFault;
pub use frames::{Direction, Frame};
pub use record::{Mark, Outcome, Record, Step};
pub use recorder::{Attempt, Limits, Owner, Recorder, STRANGERS_EACH};
pub use recording::{Certificate, Flight, KeyExchange};
