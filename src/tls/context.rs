//! What a TLS context is made of: certificates, rules, versions and suites.

use std::path::Path;
use std::sync::Arc;

use ::openssl::pkey::{PKey, Private};
use ::openssl::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslVerifyMode, SslVersion,
};
use ::openssl::x509::store::X509StoreBuilder;
use ::openssl::x509::{X509, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult};
use tunnelhead_crypto::SecretBytes;

use crate::tls::certificate::{self, CertificateRefusal, KeyKind};
use crate::tls::engine::TlsError;
use crate::tls::openssl::refuse_certificate;
use crate::tls::revocation::{self, Revocations};

/// A certificate, the intermediate certificates after it, and its private key, all in PEM form.
#[derive(Debug)]
pub struct CertAndKey {
    /// The certificate first, then the chain above it; the root is not needed.
    pub certificate_pem: Vec<u8>,
    /// The private key, not encrypted.
    pub key_pem: SecretBytes,
}

impl CertAndKey {
    /// Reads both from files.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::File { path: path.into(), source })
        };
        Ok(Self { certificate_pem: read(certificate)?, key_pem: SecretBytes::from(read(key)?) })
    }

    /// A second copy of the private key in memory, for a second listener.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { certificate_pem: self.certificate_pem.clone(), key_pem: self.key_pem.duplicate() }
    }
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificatePolicy {
    /// Not asked for; what a client sends on its own is a protocol error.
    #[default]
    No,
    /// Asked for; a client without one gets through, a client with a bad one does not.
    Optional,
    /// Asked for; no certificate, no handshake.
    Required,
}

/// The rules of one listener.
#[derive(Debug, Default)]
pub struct ServerTlsConfig {
    /// One RSA and one ECDSA certificate side by side, or one of either.
    pub certificates: Vec<CertAndKey>,
    /// The CA certificates, in PEM form, that client certificates are checked against.
    pub client_ca: Option<Vec<u8>>,
    /// Whether clients are asked for a certificate.
    pub client_certificate: ClientCertificatePolicy,
    /// Client certificates that count no longer.
    pub revocations: Arc<Revocations>,
    /// Accepts TLS 1.0 and 1.1 and the weak signatures that come with them. Only for a listener
    /// of its own (threat T18).
    pub legacy: bool,
}

/// The rules of a client. The defaults are those of a current OpenVPN client that verifies nobody.
#[derive(Debug)]
pub struct ClientTlsConfig {
    /// Lowest version offered.
    pub min_version: TlsVersion,
    /// Highest version offered.
    pub max_version: TlsVersion,
    /// Suites for TLS 1.2 and below, in OpenSSL's spelling; the server's list if absent.
    pub cipher_list: Option<String>,
    /// The library's security level; 0 is needed for TLS 1.0 and 1.1.
    pub security_level: u32,
    /// A client certificate.
    pub certificate: Option<CertAndKey>,
    /// The CA, in PEM form, that the server's certificate is checked against; nobody checks it
    /// if absent.
    pub ca: Option<Vec<u8>>,
    /// The DNS name or IP address that the server's certificate must carry.
    pub server_name: Option<String>,
}

impl Default for ClientTlsConfig {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_list: None,
            security_level: MODERN_SECURITY_LEVEL,
            certificate: None,
            ca: None,
            server_name: None,
        }
    }
}

/// Protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0.
    Tls10,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl From<TlsVersion> for SslVersion {
    fn from(version: TlsVersion) -> Self {
        match version {
            TlsVersion::Tls10 => Self::TLS1,
            TlsVersion::Tls11 => Self::TLS1_1,
            TlsVersion::Tls12 => Self::TLS1_2,
            TlsVersion::Tls13 => Self::TLS1_3,
        }
    }
}

pub(crate) fn server(config: &ServerTlsConfig) -> Result<SslContext, TlsError> {
    if config.certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let (lowest, level) = if config.legacy {
        (TlsVersion::Tls10, 0)
    } else {
        (TlsVersion::Tls12, MODERN_SECURITY_LEVEL)
    };
    let mut builder = common(SslMethod::tls_server(), lowest, TlsVersion::Tls13, level, None)?;
    builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
    if config.legacy {
        // TLS 1.0 would send an empty record before each message; one message is one record.
        builder.set_options(SslOptions::DONT_INSERT_EMPTY_FRAGMENTS);
    }
    let mut kinds: Vec<KeyKind> = Vec::new();
    for pair in &config.certificates {
        let kind = add_certificate(&mut builder, pair)?;
        if kinds.contains(&kind) {
            return Err(TlsError::SameKind { kind: kind.name() });
        }
        kinds.push(kind);
    }
    let mode = match config.client_certificate {
        ClientCertificatePolicy::No => {
            builder.set_verify(SslVerifyMode::NONE);
            return Ok(builder.build());
        }
        ClientCertificatePolicy::Optional => SslVerifyMode::PEER,
        ClientCertificatePolicy::Required => {
            SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT
        }
    };
    let authorities = parse_ca(config.client_ca.as_deref().ok_or(TlsError::NoClientCa)?)?;
    for authority in &authorities {
        builder.add_client_ca(authority).map_err(TlsError::library("the client CA"))?;
    }
    trust(&mut builder, authorities)?;
    builder.set_verify_depth(MAX_CHAIN_DEPTH);
    let revocations = Arc::clone(&config.revocations);
    builder.set_verify_callback(mode, move |verified, context| {
        verify_client(verified, context, &revocations)
    });
    Ok(builder.build())
}

pub(crate) fn client(config: &ClientTlsConfig) -> Result<SslContext, TlsError> {
    let mut builder = common(
        SslMethod::tls_client(),
        config.min_version,
        config.max_version,
        config.security_level,
        config.cipher_list.as_deref(),
    )?;
    if let Some(pair) = &config.certificate {
        add_certificate(&mut builder, pair)?;
    }
    let Some(ca) = &config.ca else {
        builder.set_verify(SslVerifyMode::NONE);
        return Ok(builder.build());
    };
    let authorities = parse_ca(ca)?;
    trust(&mut builder, authorities)?;
    builder.set_verify_depth(MAX_CHAIN_DEPTH);
    if let Some(name) = &config.server_name {
        let param = builder.verify_param_mut();
        match name.parse() {
            Ok(ip) => param.set_ip(ip),
            Err(_) => param.set_host(name),
        }
        .map_err(TlsError::library("the server's name"))?;
    }
    builder.set_verify(SslVerifyMode::PEER);
    Ok(builder.build())
}

/// What both roles share: no state between connections, nothing after the handshake.
fn common(
    method: SslMethod,
    lowest: TlsVersion,
    highest: TlsVersion,
    security_level: u32,
    cipher_list: Option<&str>,
) -> Result<SslContextBuilder, TlsError> {
    let mut builder = SslContextBuilder::new(method).map_err(TlsError::library("a new context"))?;
    builder.set_security_level(security_level);
    builder
        .set_min_proto_version(Some(lowest.into()))
        .and_then(|()| builder.set_max_proto_version(Some(highest.into())))
        .map_err(TlsError::library("the protocol versions"))?;
    builder
        .set_cipher_list(cipher_list.unwrap_or(SUITES_TLS12))
        .and_then(|()| builder.set_ciphersuites(SUITES_TLS13))
        .map_err(TlsError::library("the cipher suites"))?;
    builder.set_groups_list(GROUPS).map_err(TlsError::library("the groups"))?;
    builder.set_options(
        SslOptions::NO_TICKET | SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION,
    );
    builder.set_num_tickets(0).map_err(TlsError::library("switching tickets off"))?;
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_mode(SslMode::RELEASE_BUFFERS | SslMode::NO_AUTO_CHAIN);
    builder.set_read_ahead(false);
    Ok(builder)
}

fn add_certificate(
    builder: &mut SslContextBuilder,
    pair: &CertAndKey,
) -> Result<KeyKind, TlsError> {
    let mut chain = X509::stack_from_pem(&pair.certificate_pem)
        .map_err(TlsError::library("a certificate"))?
        .into_iter();
    let certificate = chain.next().ok_or(TlsError::NoCertificate)?;
    let kind = check_own_key(&certificate, "the certificate")?;
    let key: PKey<Private> = PKey::private_key_from_pem_callback(pair.key_pem.expose(), |_| Ok(0))
        .map_err(TlsError::library("a private key (it must be PEM and not encrypted)"))?;
    let public = certificate.public_key().map_err(TlsError::library("a certificate's key"))?;
    if !key.public_eq(&public) {
        return Err(TlsError::KeyMismatch { subject: subject(&certificate) });
    }
    builder.set_certificate(&certificate).map_err(TlsError::library("a certificate"))?;
    builder.set_private_key(&key).map_err(TlsError::library("a private key"))?;
    // The library's safe interface keeps one chain for all certificates. Both of ours come from
    // one CA as a rule; where they do not, a client gets a certificate that it does not need.
    for intermediate in chain {
        builder
            .add_extra_chain_cert(intermediate)
            .map_err(TlsError::library("an intermediate certificate"))?;
    }
    Ok(kind)
}

fn parse_ca(pem: &[u8]) -> Result<Vec<X509>, TlsError> {
    let authorities = X509::stack_from_pem(pem).map_err(TlsError::library("the CA file"))?;
    if authorities.is_empty() {
        return Err(TlsError::NoClientCa);
    }
    for authority in &authorities {
        check_own_key(authority, "the CA certificate")?;
    }
    Ok(authorities)
}

fn check_own_key(certificate: &X509Ref, what: &str) -> Result<KeyKind, TlsError> {
    certificate::check_certificate_key(certificate).map_err(|problem| TlsError::KeyNotAllowed {
        whose: format!("{what} of {}", subject(certificate)),
        problem,
    })
}

fn trust(builder: &mut SslContextBuilder, authorities: Vec<X509>) -> Result<(), TlsError> {
    let mut store = X509StoreBuilder::new().map_err(TlsError::library("a certificate store"))?;
    for authority in authorities {
        store.add_cert(authority).map_err(TlsError::library("the CA"))?;
    }
    builder.set_cert_store(store.build());
    Ok(())
}

/// Called by the library for every certificate of a chain, from the CA down to the client's own.
fn verify_client(
    verified: bool,
    context: &mut X509StoreContextRef,
    revocations: &Revocations,
) -> bool {
    if !verified {
        return false;
    }
    let own = context.error_depth() == 0;
    let refusal = match context.current_cert() {
        None => Some(CertificateRefusal::Unreadable),
        Some(current) => judge(current, own, revocations).err(),
    };
    let Some(refusal) = refusal else { return true };
    if let Ok(index) = X509StoreContext::ssl_idx()
        && let Some(ssl) = context.ex_data(index)
    {
        refuse_certificate(ssl, &refusal);
    }
    context.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
    false
}

fn judge(
    current: &X509Ref,
    own: bool,
    revocations: &Revocations,
) -> Result<(), CertificateRefusal> {
    certificate::check_certificate_key(current).map_err(CertificateRefusal::Key)?;
    let id = revocation::id_of(current).map_err(|_| CertificateRefusal::Unreadable)?;
    if revocations.revokes(&id) {
        let which = if own { "it" } else { "a CA of its chain" };
        return Err(CertificateRefusal::Revoked(which));
    }
    if own { certificate::identify(current).map(|_| ()) } else { Ok(()) }
}

fn subject(certificate: &X509Ref) -> String {
    certificate
        .subject_name()
        .entries()
        .next()
        .and_then(|entry| entry.data().to_string().ok())
        .unwrap_or_else(|| "an unnamed subject".to_owned())
}

/// RSA from 2048 bits, no SHA-1 signatures. Source: OpenSSL SSL_CTX_set_security_level, level 2.
const MODERN_SECURITY_LEVEL: u32 = 2;

/// Certificates above the client's own: two intermediates and the CA.
const MAX_CHAIN_DEPTH: u32 = 3;

/// ECDHE before RSA key exchange, GCM before CBC, ECDSA (cheaper for us) before RSA. Old RouterOS
/// stacks offer only the lower half.
const SUITES_TLS12: &str = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
     ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
     ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:\
     ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:\
     ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA:\
     ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:\
     AES256-GCM-SHA384:AES128-GCM-SHA256:AES256-SHA256:AES128-SHA256:AES256-SHA:AES128-SHA";
const SUITES_TLS13: &str =
    "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";

/// No ML-KEM hybrids: they cost every login a kilobyte each way and old stacks know none.
const GROUPS: &str = "X25519:P-256:P-384";
