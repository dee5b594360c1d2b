//! What a process asks about its host before it starts a concentrator.

use std::io;

use crate::config::LocalAddress;
use crate::tun;

pub use crate::tun::check_permission as check_tun_permission;

/// The addresses of this host, for the checks of the configuration.
///
/// # Errors
/// The kernel doesn't answer.
pub fn local_addresses() -> io::Result<Vec<LocalAddress>> {
    let found = tun::host_addresses()?;
    Ok(found.into_iter().map(|(interface, address)| LocalAddress { interface, address }).collect())
}
