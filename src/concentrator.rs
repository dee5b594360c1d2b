//! The embeddable handle and the only composition root.
