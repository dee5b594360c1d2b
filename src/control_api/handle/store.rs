//! Keeping the store: checks, backups.

/// Keeping the store: checks, backups.
pub trait StoreKeeping: Send + Sync + 'static {}
