//! The ioctls of `/dev/net/tun`. Source: kernel documentation, networking/tuntap.
#![expect(unsafe_code, reason = "ioctl takes raw pointers")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::check;

/// The device node behind every TUN device.
pub const NODE: &str = "/dev/net/tun";

/// Longest interface name, bytes (the kernel's 16 include a closing zero).
pub const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// Opens the node, non-blocking, attached to nothing.
///
/// # Errors
/// Of `open(2)`: `NotFound`, `PermissionDenied`, or ENODEV/ENXIO when the kernel has no TUN driver.
pub fn open_node(node: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(node)
}

/// How a queue is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// The device has several queues (all attach calls of one device must agree).
    pub multi_queue: bool,
    /// Fail with EBUSY if the device exists already: the first queue makes the device.
    pub create_only: bool,
}

/// Attaches an open node to the layer-3 device `name` without packet information headers, making
/// the device if there is none; a `%d` in the name is replaced by the first free number. Returns
/// the name. The device goes when its last queue is closed.
///
/// # Errors
/// `InvalidInput` for a name that is empty or too long; EBUSY if the name is taken (with
/// `create_only`) or held single-queue; `PermissionDenied` (EPERM) without CAP_NET_ADMIN; EINVAL if
/// the name belongs to another kind of device; E2BIG beyond 256 queues.
pub fn attach(node: &File, name: &str, how: Attach) -> io::Result<String> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
    if how.multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if how.create_only {
        flags |= libc::IFF_TUN_EXCL;
    }
    // SAFETY: `ifreq` is a C struct of integers and character arrays, valid with all bytes zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    // The field is a C short; IFF_TUN_EXCL is its top bit, so the wrap is meant.
    #[expect(clippy::cast_possible_truncation, reason = "flags are 16 bits wide")]
    let flags = flags as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which we hold exclusively; `node` is open.
    check(unsafe { libc::ioctl(node.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let bytes = request.ifr_name.iter().take_while(|c| **c != 0).flat_map(|c| c.to_ne_bytes());
    Ok(String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned())
}

/// Opens the node and attaches one queue to `name`; see [`attach`].
///
/// # Errors
/// As [`open_node`] and [`attach`].
pub fn open_queue(name: &str, multi_queue: bool) -> io::Result<OwnedFd> {
    let node = open_node(Path::new(NODE))?;
    attach(&node, name, Attach { multi_queue, create_only: false })?;
    Ok(node.into())
}

/// The name of the device that a queue is attached to.
///
/// # Errors
/// `fd` is no attached queue.
pub fn name_of(fd: BorrowedFd<'_>) -> io::Result<String> {
    // SAFETY: as in `attach`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one `ifreq`, which we hold exclusively; `fd` is open for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    let bytes = request.ifr_name.iter().take_while(|c| **c != 0).flat_map(|c| c.to_ne_bytes());
    Ok(String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::netns::interface_exists;
    use crate::sys::netns::testing::root_test;

    #[test]
    fn a_device_lives_as_long_as_its_queues() {
        root_test("a_device_lives_as_long_as_its_queues", || {
            let one = open_queue("thtest0", true).unwrap();
            let two = open_queue("thtest0", true).unwrap();
            assert_eq!(name_of(two.as_fd()).unwrap(), "thtest0");
            drop(one);
            assert!(interface_exists("thtest0"));
            drop(two);
            assert!(!interface_exists("thtest0"));
        });
    }

    #[test]
    fn refuses_taken_names_wrong_names_and_mixed_queue_modes() {
        root_test("refuses_taken_names_wrong_names_and_mixed_queue_modes", || {
            let _held = open_queue("thtest0", true).unwrap();
            let node = open_node(Path::new(NODE)).unwrap();
            let exclusive = Attach { multi_queue: true, create_only: true };
            let busy = attach(&node, "thtest0", exclusive).unwrap_err();
            assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
            assert!(open_queue("thtest0", false).is_err());
            assert!(open_queue("lo", true).is_err());
            assert!(open_queue("", true).is_err());
            assert!(open_queue("sixteen-bytes-xx", true).is_err());
            assert_eq!(attach(&node, "thp%d", exclusive).unwrap(), "thp0");
        });
    }

    #[test]
    fn refuses_a_file_that_is_no_tun_node() {
        let null = open_node(Path::new("/dev/null")).unwrap();
        assert!(attach(&null, "thtest0", Attach::default()).is_err());
        assert!(name_of(null.as_fd()).is_err());
        assert!(open_node(Path::new("/nonexistent")).is_err());
    }
}
