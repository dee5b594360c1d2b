//! Every raw system call and ioctl; the only place where `unsafe` is allowed, each block with its
//! proof. Nothing here knows what it is used for: descriptors, numbers and `io::Error` only.

pub mod cred;
pub mod epoll;
pub mod eventfd;
pub mod inherited;
pub mod machine;
pub mod mailbox;
pub mod names;
pub mod netns;
pub mod nftables;
pub mod rlimit;
pub mod sched;
pub mod socket;
pub mod tun;

use std::io;

/// Turns the -1 of a system call into the error it left in `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
