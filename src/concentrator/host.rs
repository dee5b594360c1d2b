//! What a process asks about its host before it starts a concentrator.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use crate::config::LocalAddress;
use crate::sys::inherited;
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

/// Sockets that the service manager has opened for this process.
#[derive(Debug, Default)]
pub struct Inherited {
    /// What routers dial, non-blocking.
    pub listeners: Vec<TcpListener>,
    /// The control socket, named "control".
    pub control: Option<UnixListener>,
}

/// Takes the sockets that stand from descriptor 3 on, by their names. To be called first thing in a
/// process, and once.
///
/// # Errors
/// A descriptor is not open or not what its name says.
pub fn inherited_sockets(names: &[String]) -> io::Result<Inherited> {
    let mut sockets = Inherited::default();
    for (fd, name) in inherited::take(names.len())?.into_iter().zip(names) {
        if name == "control" {
            let control = UnixListener::from(fd);
            control.local_addr()?;
            control.set_nonblocking(true)?;
            sockets.control = Some(control);
        } else {
            let listener = TcpListener::from(fd);
            listener.local_addr()?;
            listener.set_nonblocking(true)?;
            sockets.listeners.push(listener);
        }
    }
    Ok(sockets)
}
