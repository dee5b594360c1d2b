//! TLS engines over memory buffers.
