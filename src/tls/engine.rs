//! The border between sessions and TLS: a trait, its answer and its errors.

use std::path::PathBuf;

use tunnelhead_crypto::SecretBytes;

use crate::proto::session::{EngineId, TlsAnswer, TlsFacts, TlsOp};

/// One TLS connection over memory.
///
/// Operations are executed in the order given. After an answer with an error the engine is of no
/// use any more and says so to every further operation.
pub trait TlsEngine: Send {
    /// Executes one operation.
    ///
    /// [`TlsOp::Open`] starts the engine: a client answers with its first flight, a server with
    /// nothing. The first [`TlsOp::Input`] does the same, so a driver whose sessions expect no
    /// answer to `Open` need not pass it on. [`TlsOp::Close`] ends it without a word to the peer; dropping it does the same.
    fn handle(&mut self, op: TlsOp) -> EngineAnswer;
}

/// Makes engines that share keys, certificates and rules.
pub trait TlsContext: Send + Sync {
    /// Makes one engine, not yet started.
    ///
    /// # Errors
    ///
    /// Only if the library refuses, which means that memory is short.
    fn open(&self) -> Result<Box<dyn TlsEngine>, TlsError>;
}

/// What an engine says after one operation: a [`TlsAnswer`] that does not know its engine's id.
#[derive(Debug)]
pub struct EngineAnswer {
    /// Bytes of the TLS stream for the peer.
    pub ciphertext: Vec<u8>,
    /// Decrypted bytes from the peer.
    pub plaintext: SecretBytes,
    /// Given once, with the answer in which the handshake was completed.
    pub established: Option<Box<TlsFacts>>,
    /// The engine failed; one sentence. `ciphertext` may hold a last alert.
    pub error: Option<String>,
}

impl EngineAnswer {
    /// An answer that says nothing.
    pub fn nothing() -> Self {
        Self {
            ciphertext: Vec::new(),
            plaintext: SecretBytes::new(),
            established: None,
            error: None,
        }
    }

    /// An answer that says that the engine failed.
    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::nothing() }
    }

    /// True if there is nothing to carry to the session.
    pub fn is_nothing(&self) -> bool {
        self.ciphertext.is_empty()
            && self.plaintext.is_empty()
            && self.established.is_none()
            && self.error.is_none()
    }

    /// Addresses the answer to a session.
    pub fn for_engine(self, engine: EngineId) -> TlsAnswer {
        TlsAnswer {
            engine,
            ciphertext: self.ciphertext,
            plaintext: self.plaintext,
            established: self.established,
            error: self.error,
        }
    }
}

/// Why a context or an engine could not be made. Always our configuration or our machine, never
/// the peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The TLS library refused.
    #[error("the TLS library refused {what}: {detail}")]
    Library {
        /// What was asked of it.
        what: &'static str,
        /// Its own words.
        detail: String,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A server without a certificate.
    #[error("a TLS server needs at least one certificate with its key")]
    NoCertificate,
    /// Two certificates with the same kind of key: the library would use only the last.
    #[error(
        "two server certificates have a key of the same kind ({kind}); give one RSA and one ECDSA certificate"
    )]
    SameKind {
        /// "RSA" or "ECDSA".
        kind: &'static str,
    },
    /// A certificate or CA with a key outside the limits.
    #[error(
        "{whose} has {problem}; allowed are RSA with 2048 to 4096 bits, and ECDSA on P-256 or P-384"
    )]
    KeyNotAllowed {
        /// Which certificate.
        whose: String,
        /// What is wrong with its key.
        problem: String,
    },
    /// The key is not the one of the certificate.
    #[error("the private key does not belong to the certificate of {subject}")]
    KeyMismatch {
        /// The subject of the certificate.
        subject: String,
    },
    /// Client certificates are asked for, and no CA to check them against is given.
    #[error("client certificates are asked for, but no client CA is given")]
    NoClientCa,
}

impl TlsError {
    pub(crate) fn library(what: &'static str) -> impl FnOnce(openssl::error::ErrorStack) -> Self {
        move |stack| Self::Library { what, detail: reasons(&stack) }
    }
}

/// The library's reasons, first to last, without its numbers and file names.
pub(crate) fn reasons(stack: &openssl::error::ErrorStack) -> String {
    let mut text = String::new();
    for error in stack.errors() {
        let Some(reason) = error.reason() else { continue };
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(reason);
    }
    if text.is_empty() { "no reason given".to_owned() } else { text }
}
