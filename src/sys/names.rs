//! Users and groups by name, as the system's name service has them. Source: getpwnam(3),
//! getgrnam(3).
#![expect(unsafe_code, reason = "the C library's look-ups have no safe wrapper")]

use std::ffi::CString;
use std::io;
use std::ptr;

/// Longest entry that is read: a group with tens of thousands of members.
const MAX_ENTRY_BYTES: usize = 4 << 20;

/// The id of a user; None: there is no such user.
///
/// # Errors
/// The name service fails. Blocks for as long as it takes: for the start.
pub fn user_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, |name, buffer| {
        // SAFETY: `passwd` is a plain C struct of integers and pointers, for which zeros are valid.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = ptr::null_mut();
        // SAFETY: the name ends with NUL, the buffer has the stated length and is held exclusively,
        // and both results are live; the strings that `entry` points to are not looked at.
        let status = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        (status, (!found.is_null()).then_some(entry.pw_uid))
    })
}

/// The id of a group; None: there is no such group.
///
/// # Errors
/// The name service fails. Blocks for as long as it takes: for the start.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, |name, buffer| {
        // SAFETY: `group` is a plain C struct of integers and pointers, for which zeros are valid.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::group = ptr::null_mut();
        // SAFETY: as in `user_id`.
        let status = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        (status, (!found.is_null()).then_some(entry.gr_gid))
    })
}

fn look_up(
    name: &str,
    ask: impl Fn(&CString, &mut Vec<u8>) -> (libc::c_int, Option<u32>),
) -> io::Result<Option<u32>> {
    // A name with a NUL in it is nobody's.
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut buffer = vec![0; 4096];
    loop {
        match ask(&name, &mut buffer) {
            (0, id) => return Ok(id),
            (libc::ERANGE, _) if buffer.len() < MAX_ENTRY_BYTES => {
                buffer.resize(buffer.len().saturating_mul(4), 0);
            }
            // "not found" of some name services. Source: getpwnam(3), ERRORS.
            (libc::ENOENT | libc::ESRCH, _) => return Ok(None),
            (error, _) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_zero_and_nobody_else_is_made_up() {
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert_eq!(group_id("root").unwrap(), Some(0));
        for absent in ["", "no-such-name-7Q2", "ro\0ot", &"x".repeat(10_000)] {
            assert_eq!(user_id(absent).unwrap_or(None), None, "{absent:?}");
            assert_eq!(group_id(absent).unwrap_or(None), None, "{absent:?}");
        }
    }
}
