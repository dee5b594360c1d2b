//! Login attempts and what they say about the fleet.

/// Login attempts and what they say about the fleet.
pub trait Logins: Send + Sync + 'static {}
