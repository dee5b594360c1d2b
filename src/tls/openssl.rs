//! The TLS engine over OpenSSL.

use std::sync::OnceLock;

use ::openssl::error::ErrorStack;
use ::openssl::ex_data::Index;
use ::openssl::ssl::{Error, ErrorCode, Ssl, SslContext, SslRef, SslStream};
use ::openssl::x509::X509VerifyResult;
use tunnelhead_crypto::{EXPORTER_DATA_KEYS, EXPORTER_DYNAMIC_TLS_CRYPT, KeyBlock, SecretBytes};
use zeroize::Zeroizing;

use crate::proto::session::{CertificateId, ClientCertificate, TlsFacts, TlsOp};
use crate::tls::certificate::{self, CertificateFacts, CertificateRefusal};
use crate::tls::context::{self, ClientTlsConfig, ServerTlsConfig};
use crate::tls::engine::{EngineAnswer, TlsContext, TlsEngine, TlsError, reasons};
use crate::tls::revocation::id_of;
use crate::tls::wire::{Limits, Wire};

/// Makes OpenSSL engines of one role. Cheap to clone: the clones share keys and certificates.
#[derive(Clone)]
pub struct OpensslContext {
    context: SslContext,
    role: Role,
    limits: Limits,
}

impl OpensslContext {
    /// A context for the engines of a listener.
    ///
    /// # Errors
    ///
    /// If certificates, keys or the CA are unusable; the sentence says which.
    pub fn server(config: &ServerTlsConfig) -> Result<Self, TlsError> {
        Ok(Self { context: context::server(config)?, role: Role::Server, limits: Limits::DEFAULT })
    }

    /// A context for the engines of a client.
    ///
    /// # Errors
    ///
    /// As for [`Self::server`].
    pub fn client(config: &ClientTlsConfig) -> Result<Self, TlsError> {
        Ok(Self { context: context::client(config)?, role: Role::Client, limits: Limits::DEFAULT })
    }

    /// Makes one engine, not yet started.
    ///
    /// # Errors
    ///
    /// Only if the library refuses, which means that memory is short.
    pub fn engine(&self) -> Result<OpensslEngine, TlsError> {
        let mut ssl = Ssl::new(&self.context).map_err(TlsError::library("a new connection"))?;
        match self.role {
            Role::Server => ssl.set_accept_state(),
            Role::Client => ssl.set_connect_state(),
        }
        if let Some(index) = refusal_index() {
            ssl.set_ex_data(index, OnceLock::new());
        }
        let stream = SslStream::new(ssl, Wire::new(self.limits))
            .map_err(TlsError::library("a new connection"))?;
        Ok(OpensslEngine { stream: Some(stream), role: self.role, established: false })
    }
}

impl TlsContext for OpensslContext {
    fn open(&self) -> Result<Box<dyn TlsEngine>, TlsError> {
        Ok(Box::new(self.engine()?))
    }
}

impl std::fmt::Debug for OpensslContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpensslContext").field("role", &self.role).finish_non_exhaustive()
    }
}

impl OpensslEngine {
    /// The certificate that the peer has shown, verified or not.
    pub fn peer_certificate(&self) -> Option<CertificateFacts> {
        let certificate = self.stream.as_ref()?.ssl().peer_certificate()?;
        certificate::facts_of(&certificate)
    }
}

/// One TLS connection of OpenSSL over memory buffers.
pub struct OpensslEngine {
    /// Absent once the engine has failed or was closed: nothing of the library stays behind.
    stream: Option<SslStream<Wire>>,
    role: Role,
    established: bool,
}

impl TlsEngine for OpensslEngine {
    fn handle(&mut self, op: TlsOp) -> EngineAnswer {
        let Some(stream) = &mut self.stream else {
            return EngineAnswer::failed("the TLS engine has already ended");
        };
        // What another connection left in this thread's queue would be taken for ours.
        drop(ErrorStack::get());
        let mut answer = EngineAnswer::nothing();
        let result = match op {
            TlsOp::Open => advance(stream, self.role, &mut self.established, &mut answer),
            TlsOp::Input(bytes) => {
                stream.get_mut().feed(bytes);
                advance(stream, self.role, &mut self.established, &mut answer)
            }
            TlsOp::Write(message) if self.established => write(stream, &message),
            TlsOp::Write(_) => {
                Err("a message was written before the TLS handshake was complete".to_owned())
            }
            TlsOp::Close => {
                self.stream = None;
                return answer;
            }
        };
        answer.ciphertext = stream.get_mut().take_outgoing();
        if let Err(sentence) = result {
            answer.error = Some(sentence);
            self.stream = None;
        }
        answer
    }
}

impl std::fmt::Debug for OpensslEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpensslEngine")
            .field("role", &self.role)
            .field("established", &self.established)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// Goes as far as the bytes at hand allow.
fn advance(
    stream: &mut SslStream<Wire>,
    role: Role,
    established: &mut bool,
    answer: &mut EngineAnswer,
) -> Result<(), String> {
    if !*established {
        match stream.do_handshake() {
            Ok(()) => {}
            Err(error) if error.code() == ErrorCode::WANT_READ => return Ok(()),
            Err(error) => return Err(handshake_failure(stream, &error)),
        }
        stream.get_mut().set_established();
        *established = true;
        answer.established = Some(Box::new(facts(stream.ssl(), role)?));
    }
    let mut plaintext = Vec::new();
    let mut buffer = Zeroizing::new([0; READ_BUFFER]);
    let result = loop {
        match stream.ssl_read(buffer.as_mut_slice()) {
            Ok(count) => plaintext.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) => match error.code() {
                ErrorCode::WANT_READ => break Ok(()),
                ErrorCode::ZERO_RETURN => break Err("the peer closed its TLS session".to_owned()),
                _ => break Err(failure("the TLS session failed", stream, &error)),
            },
        }
    };
    answer.plaintext = SecretBytes::from(plaintext);
    result
}

fn write(stream: &mut SslStream<Wire>, message: &SecretBytes) -> Result<(), String> {
    match stream.ssl_write(message.expose()) {
        // The wire takes everything, so a short write cannot be.
        Ok(count) if count == message.len() => Ok(()),
        Ok(_) => Err("the TLS library took only a part of a message".to_owned()),
        Err(error) => Err(failure("the TLS session failed", stream, &error)),
    }
}

fn facts(ssl: &SslRef, role: Role) -> Result<TlsFacts, String> {
    let client_certificate = match role {
        Role::Client => None,
        Role::Server => ssl
            .peer_certificate()
            .map(|certificate| {
                let intermediates = intermediates(ssl)?;
                let identified = certificate::identify(&certificate)?;
                Ok(ClientCertificate { intermediates, ..identified })
            })
            .transpose()
            .map_err(|refusal: CertificateRefusal| refusal.to_string())?,
    };
    Ok(TlsFacts {
        version: ssl.version_str().to_owned(),
        suite: ssl.current_cipher().map_or("", |suite| suite.name()).to_owned(),
        client_certificate,
        data_keys: export(ssl, EXPORTER_DATA_KEYS)?,
        dynamic_wrap: export(ssl, EXPORTER_DYNAMIC_TLS_CRYPT)?,
    })
}

/// What stands between the client's certificate and the one that we trust.
fn intermediates(ssl: &SslRef) -> Result<Vec<CertificateId>, CertificateRefusal> {
    let chain = ssl.verified_chain().ok_or(CertificateRefusal::Unreadable)?;
    let between = chain.iter().take(chain.len().saturating_sub(1)).skip(1);
    between.map(|one| id_of(one).map_err(|_| CertificateRefusal::Unreadable)).collect()
}

/// Source: RFC 5705 and RFC 8446 7.5, without a context.
fn export(ssl: &SslRef, label: &str) -> Result<KeyBlock, String> {
    let mut block = Zeroizing::new([0; KEY_BLOCK_LEN]);
    ssl.export_keying_material(block.as_mut_slice(), label, None)
        .map_err(|stack| format!("no key material could be exported: {}", reasons(&stack)))?;
    Ok(KeyBlock::from_bytes(*block))
}

fn handshake_failure(stream: &SslStream<Wire>, error: &Error) -> String {
    let ssl = stream.ssl();
    if let Some(refusal) = refusal_index().and_then(|index| ssl.ex_data(index)?.get()) {
        return format!("the client certificate was refused: {refusal}");
    }
    let verdict = ssl.verify_result();
    if verdict != X509VerifyResult::OK {
        return format!("the peer's certificate was refused: {}", verdict.error_string());
    }
    failure("the TLS handshake failed", stream, error)
}

fn failure(what: &str, stream: &SslStream<Wire>, error: &Error) -> String {
    if let Some(violation) = stream.get_ref().violation() {
        return violation.sentence().to_owned();
    }
    let Some(stack) = error.ssl_error() else {
        return format!("{what}: the library gave no reason");
    };
    let last = stack.errors().last().and_then(|error| error.reason()).unwrap_or_default();
    match TRANSLATIONS.iter().find(|(reason, _)| *reason == last) {
        Some((_, sentence)) => (*sentence).to_owned(),
        None => format!("{what}: {}", reasons(stack)),
    }
}

/// Keeps the reason why a client certificate was refused until the handshake has failed.
pub(crate) fn refuse_certificate(ssl: &SslRef, refusal: &CertificateRefusal) {
    if let Some(slot) = refusal_index().and_then(|index| ssl.ex_data(index)) {
        slot.get_or_init(|| refusal.to_string());
    }
}

fn refusal_index() -> Option<Index<Ssl, OnceLock<String>>> {
    static INDEX: OnceLock<Option<Index<Ssl, OnceLock<String>>>> = OnceLock::new();
    *INDEX.get_or_init(|| Ssl::new_ex_index().ok())
}

/// The library's words for what an operator meets in the field, and ours.
const TRANSLATIONS: [(&str, &str); 9] = [
    ("no shared cipher", "the peer offers no TLS cipher suite that we allow"),
    ("unsupported protocol", OLD_VERSION),
    ("version too low", OLD_VERSION),
    ("no protocols available", OLD_VERSION),
    (
        "peer did not return a certificate",
        "the listener requires a client certificate and the peer sent none",
    ),
    ("tlsv1 alert unknown ca", "the peer does not know the CA of our certificate"),
    ("ssl/tls alert bad certificate", "the peer does not accept our certificate"),
    ("ssl/tls alert certificate unknown", "the peer does not accept our certificate"),
    (
        "ssl/tls alert certificate expired",
        "the peer takes our certificate for expired; is its clock right?",
    ),
];
const OLD_VERSION: &str = "the peer offers no TLS version that we allow";

/// Source: OpenVPN TLS_CHANNEL_BUF_SIZE; nearly every message fits.
const READ_BUFFER: usize = 2048;

/// Two slots of a cipher and an HMAC key each. Source: docs/PROTOCOL.md, key material.
const KEY_BLOCK_LEN: usize = 256;
