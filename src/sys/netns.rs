//! Network namespaces, for tests that need interfaces of their own. Source: network_namespaces(7).
#![expect(unsafe_code, reason = "unshare and setns have no safe wrapper in the standard library")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::check;

/// Moves the calling thread into a new, empty network namespace (`lo` is down). Other threads stay
/// where they are; descriptors keep the namespace they were opened in.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_ADMIN.
pub fn unshare() -> io::Result<()> {
    // SAFETY: no pointers are passed; CLONE_NEWNET affects only the calling thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Moves the calling thread into the network namespace at `path`, e.g. `/run/netns/NAME` or
/// `/proc/PID/ns/net`.
///
/// # Errors
/// `path` can't be opened or is no network namespace; `PermissionDenied` without CAP_SYS_ADMIN.
pub fn enter(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: `file` is open for the call; CLONE_NEWNET makes the kernel check its kind.
    check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Runs `work` on a thread of its own inside a new network namespace, which ends with it.
///
/// # Errors
/// As [`unshare`]; `Other` if `work` panicked.
pub fn isolated<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let thread = std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || unshare().map(|()| work()))?;
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Whether a network interface of this name exists in the calling thread's namespace.
pub fn interface_exists(name: &str) -> bool {
    interface_index(name).is_some()
}

/// The index of an interface in the calling thread's namespace.
pub fn interface_index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: `name` is a live C string that is only read.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The name of an interface in the calling thread's namespace.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the kernel's library writes at most IF_NAMESIZE bytes, its NUL included, into `name`.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    let text = std::ffi::CStr::from_bytes_until_nul(&name).ok()?;
    Some(text.to_string_lossy().into_owned())
}

/// Whether an interface of the calling thread's namespace is administratively up.
///
/// # Errors
/// ENODEV if there is none of this name; no descriptor is left. Source: netdevice(7).
pub fn interface_is_up(name: &str) -> io::Result<bool> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: `ifreq` is a C struct of integers and character arrays, valid with all bytes zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of one `ifreq`, which we hold
    // exclusively; `socket` is open for the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: the call above has written the flags, which any bytes are valid for.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(i32::from(flags) & libc::IFF_UP != 0)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::io::Write;

    use super::*;

    /// Runs a test that needs root inside a namespace of its own, or says loudly that it did not.
    pub(crate) fn root_test(name: &str, work: impl FnOnce() + Send + 'static) {
        match isolated(work) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                // Past the test harness, which hides what passing tests print.
                let line = format!("SKIPPED (needs root): {name}\n");
                io::stderr().write_all(line.as_bytes()).unwrap();
            }
            other => other.unwrap(),
        }
    }

    /// Takes CAP_NET_ADMIN from the calling thread only. Source: capset(2).
    pub(crate) fn drop_net_admin() {
        const VERSION_3: u32 = 0x2008_0522;
        const CAP_NET_ADMIN: u32 = 12;
        #[repr(C)]
        struct Header(u32, i32);
        let (mut header, mut sets) = (Header(VERSION_3, 0), [[0u32; 3]; 2]);
        // SAFETY: header and the two sets have the layout of version 3 and outlive the calls; raw
        // calls with id 0 change only the calling thread.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()), 0);
            sets[0][0] &= !(1 << CAP_NET_ADMIN);
            assert_eq!(libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()), 0);
        }
    }

    /// Makes the calling thread, and no other, an ordinary user. Source: setresuid(2), raw call.
    pub(crate) fn become_nobody() {
        // SAFETY: no pointers are passed; the raw call changes only the calling thread.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::testing::root_test;
    use super::*;

    #[test]
    fn a_namespace_has_its_own_loopback_and_nothing_else_and_panics_come_through() {
        root_test("a_namespace_has_its_own_loopback_and_nothing_else", || {
            assert!(interface_exists("lo"));
            assert!(!interface_exists("eth0"));
            assert_eq!(interface_index("lo"), Some(1));
            assert!(!interface_is_up("lo").unwrap());
            let absent = interface_is_up("absent").unwrap_err();
            assert_eq!(absent.raw_os_error(), Some(libc::ENODEV));
            assert!(interface_is_up("sixteen-bytes-xx").is_err());
            assert!(std::panic::catch_unwind(|| isolated(|| panic!("seen"))).is_err());
        });
    }

    #[test]
    fn enter_follows_a_path_and_refuses_what_is_no_namespace() {
        root_test("enter_follows_a_path_and_refuses_what_is_no_namespace", || {
            enter(Path::new("/proc/self/ns/net")).unwrap();
            assert!(enter(Path::new("/proc/self/ns/mnt")).is_err());
            assert!(enter(Path::new("/nonexistent")).is_err());
        });
    }
}
