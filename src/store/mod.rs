//! Durable state behind a trait.
