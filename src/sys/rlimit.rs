//! Limits of the process: open descriptors, core dumps. Source: getrlimit(2).
#![expect(unsafe_code, reason = "resource limits have no safe wrapper in the standard library")]

use std::io;

use super::check;

/// Raises the number of descriptors this process may open to `want`, or as near as it may; never
/// lowers it. Returns the limit that now holds: the caller compares.
///
/// # Errors
/// The limit can't be read.
pub fn raise_nofile(want: u64) -> io::Result<u64> {
    let mut limit = read()?;
    if limit.rlim_cur >= want {
        return Ok(limit.rlim_cur);
    }
    // Above the hard limit needs CAP_SYS_RESOURCE; without it the hard limit is the best we get.
    // Nobody gets more than the kernel's own limit.
    let ceiling = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    let ceiling = ceiling.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    let best = want.min(ceiling).max(limit.rlim_cur);
    let beyond = libc::rlimit { rlim_cur: best, rlim_max: limit.rlim_max.max(best) };
    if write(beyond).is_err() {
        limit.rlim_cur = limit.rlim_max.min(want);
        write(limit)?;
    }
    Ok(read()?.rlim_cur)
}

/// The number of descriptors this process may open.
///
/// # Errors
/// The limit can't be read.
pub fn nofile() -> io::Result<u64> {
    Ok(read()?.rlim_cur)
}

/// Keeps this process's memory, which is full of keys, out of core dumps and away from debuggers of
/// the same user. Source: prctl(2) PR_SET_DUMPABLE.
///
/// # Errors
/// The sandbox forbids the calls.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel only reads the live struct.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) })?;
    let off: libc::c_ulong = 0;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, off, off, off, off) })?;
    Ok(())
}

fn read() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the struct we hold exclusively.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit)
}

fn write(limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: the kernel only reads the live struct.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_what_it_may_and_never_lowers() {
        let before = read().unwrap().rlim_cur;
        assert_eq!(raise_nofile(1).unwrap(), before);
        let hard = read().unwrap().rlim_max;
        assert_eq!(raise_nofile(hard.min(before + 1)).unwrap(), hard.min(before + 1).max(before));
        // Nobody may open this many: the answer is the nearest, not an error.
        let most = raise_nofile(u64::MAX - 1).unwrap();
        assert!(most >= before && most < u64::MAX - 1);
    }
}
