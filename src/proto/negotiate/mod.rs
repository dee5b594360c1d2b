//! What both sides agree on: the data cipher and what is pushed. Pure functions of what the client
//! said, what the server allows and what the account prescribes.
//!
//! Source: `docs/PROTOCOL.md`, "Cipher choice" and "Push".

mod cipher;
mod push;
mod push_parse;

pub use cipher::{Chosen, CipherInput, CipherRefusal, choose_cipher};
pub use push::{MAX_PUSH, PushInput, push_reply};
pub use push_parse::{ParsedPush, PushError, PushedRoute, push_parse};
