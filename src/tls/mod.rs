//! TLS engines over memory buffers.
//!
//! An engine is one TLS connection without a socket: ciphertext goes in and comes out, plaintext
//! comes out, and once the handshake is done the facts of it ([`TlsFacts`]). A session of the core
//! asks for TLS work with [`TlsOp`]; whoever owns the engines (a greeter, the reference client)
//! carries the operations here and the answers back. Nothing here opens a socket or reads a clock
//! of its own; OpenSSL looks at the system clock for the validity of certificates.
//!
//! - [`engine`]: the border, independent of any library;
//! - [`openssl`]: the real engine, its contexts and limits;
//! - [`certificate`]: which client certificates count, and what they say;
//! - [`revocation`], [`pem`]: the lists of those that count no longer, and files that are whole;
//! - [`Reloadable`]: a context that can be exchanged while engines are made from it;
//! - [`null`]: a deterministic stand-in for simulations and fuzzing;
//! - [`pki`]: the certificates that a fresh installation makes for itself.
//!
//! [`TlsFacts`]: crate::proto::session::TlsFacts
//! [`TlsOp`]: crate::proto::session::TlsOp

pub mod certificate;
pub mod context;
pub mod engine;
pub mod null;
pub mod openssl;
pub mod pem;
pub mod pki;
mod reloadable;
pub mod revocation;
mod wire;

#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

pub use self::openssl::{OpensslContext, OpensslEngine};
pub use context::{
    CertAndKey, ClientCertificatePolicy, ClientTlsConfig, ServerTlsConfig, TlsVersion,
};
pub use engine::{EngineAnswer, TlsContext, TlsEngine, TlsError};
pub use reloadable::Reloadable;
pub use revocation::Revocations;
