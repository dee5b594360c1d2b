//! The kernel's TUN device. It has no name in the file system and goes with its last queue.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use ipnet::Ipv4Net;

use super::{Configured, Queue, TunError, configure};
use crate::sys::tun::{self as sys, Attach};

/// The kernel's limit on queues of one device.
const MAX_QUEUES: usize = 256;

/// What the device shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Its name, 1 to 15 characters.
    pub name: String,
    /// Its queues, one a shard.
    pub queues: usize,
    /// Largest packet, bytes.
    pub mtu: u16,
}

/// A TUN device with all its queues, link down until [`Device::configure`].
#[derive(Debug)]
pub struct Device {
    name: String,
    mtu: u16,
    queues: Vec<DeviceQueue>,
}

impl Device {
    /// Makes the device and attaches every queue. The link stays down: the kernel must never see
    /// the device with fewer queues than it will have, or it would spread packets differently.
    ///
    /// # Errors
    /// [`TunError`]; nothing is left behind.
    pub fn create(config: &TunConfig) -> Result<Self, TunError> {
        let name = config.name.as_str();
        if !is_valid_name(name) {
            return Err(TunError::BadName { name: name.to_owned() });
        }
        if config.queues == 0 || config.queues > MAX_QUEUES {
            return Err(TunError::BadQueues { queues: config.queues });
        }
        let mut queues = Vec::with_capacity(config.queues);
        for index in 0..config.queues {
            let file = open(Path::new(sys::NODE))?;
            // Without `create_only` the kernel would let us join a device of another process.
            let how = Attach { multi_queue: true, create_only: index == 0 };
            sys::attach(&file, name, how).map_err(|error| refused(name, error))?;
            queues.push(DeviceQueue { file });
        }
        Ok(Self { name: name.to_owned(), mtu: config.mtu, queues })
    }

    /// Gives the device its MTU and the host's address, switches IPv6 off on it, brings it up, and
    /// routes `pool` to it with `management` as the host's own address. Doing it twice changes
    /// nothing. Blocks for a few round trips to the kernel; in the network namespace of the caller.
    ///
    /// # Errors
    /// [`TunError::RouteTaken`], [`TunError::Failed`], [`TunError::MayNotCreate`].
    pub fn configure(&self, management: Ipv4Addr, pool: Ipv4Net) -> Result<Configured, TunError> {
        configure::configure(&self.name, self.mtu, management, pool)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands out the queues, in the order of their numbers. The device lives as long as one of them.
    pub fn into_queues(self) -> Vec<DeviceQueue> {
        self.queues
    }
}

/// One queue of the kernel's device.
#[derive(Debug)]
pub struct DeviceQueue {
    file: File,
}

impl Queue for DeviceQueue {
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buf)
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        // One write is one packet: the kernel takes all of it or none.
        (&self.file).write(packet).map(|_| ())
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether this process could make a device now. Makes one under a name of the kernel's choice,
/// never up, and lets it go at once.
///
/// # Errors
/// The [`TunError`] that [`Device::create`] would give.
pub fn check_permission() -> Result<(), TunError> {
    check_permission_at(Path::new(sys::NODE))
}

fn check_permission_at(node: &Path) -> Result<(), TunError> {
    let file = open(node)?;
    let name = "thcheck%d";
    let how = Attach { multi_queue: true, create_only: true };
    sys::attach(&file, name, how).map_err(|error| refused(name, error))?;
    Ok(())
}

fn open(node: &Path) -> Result<File, TunError> {
    sys::open_node(node).map_err(|error| {
        let path = node.display().to_string();
        let no_driver = matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO));
        match error.kind() {
            io::ErrorKind::NotFound => TunError::NoDriver { node: path },
            io::ErrorKind::PermissionDenied => TunError::MayNotOpen { node: path },
            _ if no_driver => TunError::NoDriver { node: path },
            _ => TunError::Failed { name: path, step: "open the node", source: error },
        }
    })
}

fn refused(name: &str, error: io::Error) -> TunError {
    let name = name.to_owned();
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::MayNotCreate,
        Some(libc::EBUSY | libc::EEXIST) => TunError::NameTaken { name },
        _ => TunError::Failed { name, step: "attach a queue", source: error },
    }
}

/// A subset of what the kernel takes: without `%`, which it would expand, and without what is
/// special in a path or a shell.
fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=sys::MAX_NAME).contains(&name.len())
        && name.bytes().all(allowed)
        && !matches!(name, "." | ".." | "all" | "default")
}

#[cfg(test)]
mod tests;
