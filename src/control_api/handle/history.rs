//! Who had which address when.

/// Who had which address when.
pub trait History: Send + Sync + 'static {}
