//! The TUN device and its in-memory stand-in. Packets here are plain IP packets, without any
//! header in front; a queue belongs to one thread at a time and never blocks.

mod configure;
mod device;
mod error;
pub mod memory;

pub use configure::{
    Configured, host_addresses, index_and_mtu, link_trouble, ring_drops, route_trouble,
};
pub use device::{Device, DeviceQueue, TunConfig, check_permission};
pub use error::TunError;

use std::io;
use std::os::fd::BorrowedFd;

/// One queue of a device: packets from the host come out, packets for the host go in.
pub trait Queue: Send {
    /// Takes one packet from the host into `buf` and returns its length; what does not fit is cut.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Gives one packet to the host.
    ///
    /// # Errors
    /// `WouldBlock` when the host's side is full; the kernel refuses what is not an IP packet.
    fn send(&self, packet: &[u8]) -> io::Result<()>;

    /// Readable whenever [`Queue::recv`] would succeed.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl<Q: Queue + ?Sized> Queue for Box<Q> {
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        (**self).recv(buf)
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        (**self).send(packet)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}
