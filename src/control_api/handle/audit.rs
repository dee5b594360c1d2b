//! The audit trail.

/// The audit trail.
pub trait Audit: Send + Sync + 'static {}
