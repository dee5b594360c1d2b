//! The client against a scripted peer: the peer says exactly what a test tells it to.

mod faults;
mod login;
mod rekey;
mod stage;
