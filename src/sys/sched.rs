//! Scheduling of the calling thread. Source: sched(7), setpriority(2).
#![expect(unsafe_code, reason = "scheduling calls have no safe wrapper in the standard library")]

use std::io;

use super::check;

/// Makes the calling thread a batch thread with the given nice value (0..=19, higher yields more).
/// Needs no privilege. Linux applies both to the thread alone, not to the process.
///
/// # Errors
/// The sandbox forbids the calls.
pub fn set_batch_priority(nice: u8) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: id 0 is the calling thread; `param` outlives the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param) })?;
    // SAFETY: no pointers are passed; id 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, libc::c_int::from(nice.min(19))) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> (libc::c_int, libc::c_int) {
        // SAFETY: no pointers are passed.
        unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) }
    }

    #[test]
    fn lowers_the_calling_thread_and_no_other() {
        let before = priority();
        let lowered = std::thread::spawn(|| {
            set_batch_priority(200).unwrap();
            priority()
        });
        assert_eq!(lowered.join().unwrap(), (libc::SCHED_BATCH, 19));
        assert_eq!(priority(), before);
    }
}
