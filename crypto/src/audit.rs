//! A record of every packet id sealed in this process, in test builds only (feature `testing`).
//!
//! A second seal with the same key, direction and id is the end of confidentiality with GCM; here
//! it is a panic, whatever path led to it: a copied state, a hand-over, a mix-up after a rekey.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{LazyLock, Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// Highest packet id by hash of key and direction.
type Records = HashMap<[u8; 32], u32>;

static PROCESS: LazyLock<Mutex<Records>> = LazyLock::new(Mutex::default);

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::Process) };
}

/// Where a thread's seals are recorded.
#[derive(Debug)]
enum Scope {
    Process,
    Isolated(Records),
    Suspended,
}

/// The recorder of (key, packet id); see the module.
#[derive(Debug)]
pub struct NonceAuditor;

impl NonceAuditor {
    /// Until the guard is dropped, this thread's seals are recorded apart, from nothing: for runs
    /// that repeat the same keys on purpose (fixed vectors, a simulation replayed from its seed).
    #[must_use = "the records are apart only as long as the guard lives"]
    pub fn isolate() -> IsolatedAudit {
        IsolatedAudit::enter(Scope::Isolated(Records::new()))
    }

    /// Until the guard is dropped, this thread's seals are not recorded: for measurements only.
    #[must_use = "recording is suspended only as long as the guard lives"]
    pub fn suspend() -> IsolatedAudit {
        IsolatedAudit::enter(Scope::Suspended)
    }

    /// Number of keys (each direction counts) that sealed something, where this thread records.
    pub fn keys_recorded() -> usize {
        SCOPE.with_borrow(|scope| match scope {
            Scope::Isolated(records) => records.len(),
            Scope::Process => PROCESS.lock().unwrap_or_else(PoisonError::into_inner).len(),
            Scope::Suspended => 0,
        })
    }

    /// Records a seal.
    ///
    /// # Panics
    /// If `id` is not above every id recorded for `key`: that is what this is for.
    pub(crate) fn record(key: AuditKey, id: u32) {
        let before = SCOPE.with_borrow_mut(|scope| match scope {
            Scope::Isolated(records) => raise(records, key, id),
            Scope::Process => {
                raise(&mut PROCESS.lock().unwrap_or_else(PoisonError::into_inner), key, id)
            }
            Scope::Suspended => 0,
        });
        assert!(id > before, "packet id {id} sealed after {before} with the same key");
    }
}

fn raise(records: &mut Records, key: AuditKey, id: u32) -> u32 {
    let highest = records.entry(key.0).or_insert(0);
    let before = *highest;
    *highest = before.max(id);
    before
}

/// See [`NonceAuditor::isolate`] and [`NonceAuditor::suspend`].
#[derive(Debug)]
pub struct IsolatedAudit {
    outer: Scope,
    /// Bound to the thread whose records it keeps apart.
    not_send: PhantomData<*const ()>,
}

impl IsolatedAudit {
    fn enter(scope: Scope) -> Self {
        Self { outer: SCOPE.replace(scope), not_send: PhantomData }
    }
}

impl Drop for IsolatedAudit {
    fn drop(&mut self) {
        SCOPE.set(std::mem::replace(&mut self.outer, Scope::Process));
    }
}

/// Names a key and direction without revealing it.
#[derive(Clone, Copy)]
pub(crate) struct AuditKey([u8; 32]);

impl AuditKey {
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rising_ids_pass_and_keys_are_apart() {
        let _audit = NonceAuditor::isolate();
        let (a, b) = (AuditKey::new(&[b"a"]), AuditKey::new(&[b"b"]));
        NonceAuditor::record(a, 1);
        NonceAuditor::record(a, 2);
        NonceAuditor::record(b, 1);
        NonceAuditor::record(a, 9);
        assert_eq!(NonceAuditor::keys_recorded(), 2);
    }

    #[test]
    #[should_panic(expected = "packet id 2 sealed after 2 with the same key")]
    fn a_repeat_panics() {
        let key = AuditKey::new(&[b"a_repeat_panics"]);
        NonceAuditor::record(key, 2);
        NonceAuditor::record(key, 2);
    }

    #[test]
    #[should_panic(expected = "packet id 1 sealed after 2 with the same key")]
    fn a_step_back_panics() {
        let _audit = NonceAuditor::isolate();
        let key = AuditKey::new(&[b"k"]);
        NonceAuditor::record(key, 2);
        NonceAuditor::record(key, 1);
    }

    #[test]
    fn a_suspended_thread_records_nothing() {
        let _outer = NonceAuditor::isolate();
        let key = AuditKey::new(&[b"k"]);
        NonceAuditor::record(key, 2);
        {
            let _suspended = NonceAuditor::suspend();
            NonceAuditor::record(key, 2);
            assert_eq!(NonceAuditor::keys_recorded(), 0);
        }
        assert_eq!(NonceAuditor::keys_recorded(), 1);
    }

    #[test]
    fn isolation_ends_with_the_guard() {
        let key = AuditKey::new(&[b"isolation_ends_with_the_guard"]);
        {
            let _outer = NonceAuditor::isolate();
            NonceAuditor::record(key, 5);
            {
                let _inner = NonceAuditor::isolate();
                NonceAuditor::record(key, 5);
            }
            NonceAuditor::record(key, 6);
        }
        NonceAuditor::record(key, 5);
    }
}
