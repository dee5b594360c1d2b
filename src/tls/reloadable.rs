//! A context that can be exchanged while engines are made from it.

use std::sync::{Arc, PoisonError, RwLock};

use crate::tls::engine::{TlsContext, TlsEngine, TlsError};

/// Stands before the context that counts now. Every engine belongs to one context for its whole
/// life: no handshake is judged by parts of two.
pub struct Reloadable {
    current: RwLock<Arc<dyn TlsContext>>,
}

impl Reloadable {
    /// Stands before this context.
    pub fn new(context: Arc<dyn TlsContext>) -> Self {
        Self { current: RwLock::new(context) }
    }

    /// From now on engines come from this context; those that exist stay as they are.
    pub fn replace(&self, context: Arc<dyn TlsContext>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = context;
    }
}

impl TlsContext for Reloadable {
    fn open(&self) -> Result<Box<dyn TlsEngine>, TlsError> {
        let context = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        context.open()
    }
}
