//! What the kernel says about clock and disk. Source: adjtimex(2), statvfs(3).
#![expect(unsafe_code, reason = "neither call has a safe wrapper in the standard library")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::check;

/// True if something keeps the kernel's clock right.
///
/// # Errors
/// The sandbox forbids the question.
pub fn clock_is_synchronised() -> io::Result<bool> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all zeroes is a valid `timex` that asks and changes nothing; the kernel writes to the
    // struct, which lives and is ours alone.
    let result = check(unsafe { libc::adjtimex(state.as_mut_ptr()) })?;
    // SAFETY: it was valid before the call, and the kernel has filled it.
    let state = unsafe { state.assume_init() };
    Ok(result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that the process may use.
    pub free_bytes: u64,
    /// Inodes that the process may use.
    pub free_inodes: u64,
    /// All inodes; zero if the file system doesn't count them.
    pub inodes: u64,
}

/// Room on the file system that holds `path`.
///
/// # Errors
/// There is no such path, or it can't be reached.
pub fn space(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path is a live text with its end, and the struct is live and ours alone.
    check(unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) })?;
    // SAFETY: all zeroes is a valid value, and the call has filled it.
    let found = unsafe { found.assume_init() };
    Ok(Space {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        free_inodes: found.f_favail,
        inodes: found.f_files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_room_and_nowhere_has_none() {
        let space = space(Path::new("/")).unwrap();
        assert!(space.inodes == 0 || space.free_inodes <= space.inodes);
        assert!(super::space(Path::new("/does/not/exist")).is_err());
        assert!(super::space(Path::new("/a\0b")).is_err());
    }

    #[test]
    fn the_clock_can_be_asked() {
        // What it says is this machine's affair.
        let _ = clock_is_synchronised();
    }
}
