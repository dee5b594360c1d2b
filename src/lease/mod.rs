//! Tunnel addresses: the pool and who holds which address. Pure.
//!
//! [`AddressBook`] is the one owner of the question "whose address is this". An address belongs to
//! an identity from its first login until [`AddressBook::release`], also while the router is away,
//! and rests in quarantine after that, so that an operator's old note of an address never leads to
//! another router. The book does no input or output: its caller records what it hands out.

mod book;
mod order;
mod pool;

pub use book::{Acquired, AddressBook, LeaseError, LeaseRecord, Planned, Wish};
pub use pool::{PREFIX_LEN, PoolConfig, PoolError, gateway_of};
