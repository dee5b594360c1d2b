//! The addresses of this host's interfaces. Source: getifaddrs(3).
#![expect(unsafe_code, reason = "walks the linked list that getifaddrs makes")]

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Frees the list however the walk ends.
struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made by getifaddrs, freed once.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// Every IPv4 and IPv6 address with the name of its interface.
///
/// # Errors
/// The kernel does not answer.
pub fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut list = List(std::ptr::null_mut());
    // SAFETY: getifaddrs writes one pointer into `list.0`.
    super::check(unsafe { libc::getifaddrs(&raw mut list.0) })?;
    let mut found = Vec::new();
    let mut at = list.0.cast_const();
    // SAFETY: `at` is null or points into the list, which lives until `list` is dropped.
    while let Some(entry) = unsafe { at.as_ref() } {
        at = entry.ifa_next.cast_const();
        let address = entry.ifa_addr.cast_const();
        if address.is_null() {
            continue;
        }
        // SAFETY: not null; every socket address begins with its family.
        let ip = match i32::from(unsafe { (*address).sa_family }) {
            libc::AF_INET => {
                // SAFETY: the family says which structure it is; it may be unaligned for it.
                let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
                IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
                IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr))
            }
            _ => continue,
        };
        // SAFETY: getifaddrs gives every entry a name that ends with NUL.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        found.push((name.to_string_lossy().into_owned(), ip));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_loopback_address() {
        let all = addresses().unwrap();
        assert!(all.contains(&("lo".to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST))), "{all:?}");
    }
}
