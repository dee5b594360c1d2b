//! What happens.

/// What happens.
pub trait Events: Send + Sync + 'static {}
