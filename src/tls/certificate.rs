//! Which client certificates count, and what they say.
//!
//! The rule (threats T20, T21), checked besides the library's own verification of signatures,
//! validity and purposes:
//!
//! - every key of the chain is RSA with 2048 to 4096 bits, or ECDSA on P-256 or P-384;
//! - the certificate lists "TLS client authentication" in its extended key usage. A certificate
//!   without that extension, or with only the server's usage, is refused;
//! - the subject holds exactly one common name: 1 to 128 bytes, none of them a control character.
//!   It is compared byte for byte from here on; nothing is trimmed, folded or decoded.

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKeyRef};
use openssl::x509::{X509, X509ExtendedKeyUsage, X509Ref};

use crate::proto::session::ClientCertificate;
use crate::tls::revocation;

/// Why a certificate is not accepted, although the library verified it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateRefusal {
    /// A key of the chain is outside the limits.
    #[error("a key of the certificate chain is not allowed: {0}")]
    Key(String),
    /// No extended key usage, or not the client's.
    #[error(
        "the certificate is not meant for TLS clients (extended key usage clientAuth is missing)"
    )]
    NotForClients,
    /// No common name.
    #[error("the certificate has no common name")]
    NoCommonName,
    /// More than one common name: which one counts is anybody's guess.
    #[error("the certificate has more than one common name")]
    ManyCommonNames,
    /// A NUL or another control character.
    #[error("the common name of the certificate holds a control character")]
    ControlCharacter,
    /// Longer than [`MAX_COMMON_NAME`], or empty.
    #[error("the common name of the certificate is empty or too long")]
    CommonNameLength,
    /// A revocation list names it.
    #[error("{0} is revoked")]
    Revoked(&'static str),
    /// The library could not read it.
    #[error("the certificate cannot be read")]
    Unreadable,
}

/// Longest accepted common name, in bytes. X.520 allows 64 characters.
pub const MAX_COMMON_NAME: usize = 128;

/// Reads who a verified client certificate names. The intermediates are the caller's to add.
///
/// # Errors
///
/// If the certificate breaks the rule above; the handshake must fail then.
pub fn identify(certificate: &X509Ref) -> Result<ClientCertificate, CertificateRefusal> {
    let usage = certificate.extended_key_usage().unwrap_or(X509ExtendedKeyUsage::empty());
    if !usage.contains(X509ExtendedKeyUsage::SSL_CLIENT) {
        return Err(CertificateRefusal::NotForClients);
    }
    let common_name = common_name(certificate)?;
    let unreadable = |_| CertificateRefusal::Unreadable;
    let digest = certificate.digest(MessageDigest::sha256()).map_err(unreadable)?;
    let id = revocation::id_of(certificate).map_err(unreadable)?;
    Ok(ClientCertificate {
        common_name,
        fingerprint: array(&digest)?,
        serial: id.serial,
        issuer_hash: id.issuer_hash,
        intermediates: Vec::new(),
    })
}

fn common_name(certificate: &X509Ref) -> Result<Vec<u8>, CertificateRefusal> {
    let mut names = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    let name = names.next().ok_or(CertificateRefusal::NoCommonName)?.data().as_slice();
    if names.next().is_some() {
        return Err(CertificateRefusal::ManyCommonNames);
    }
    if name.iter().any(u8::is_ascii_control) {
        return Err(CertificateRefusal::ControlCharacter);
    }
    if name.is_empty() || name.len() > MAX_COMMON_NAME {
        return Err(CertificateRefusal::CommonNameLength);
    }
    Ok(name.to_vec())
}

/// Checks one key of a chain against the limits; the error says what is wrong with it.
///
/// # Errors
///
/// If the key is of another kind or size.
pub fn check_key<T: HasPublic>(key: &PKeyRef<T>) -> Result<KeyKind, String> {
    match key.id() {
        Id::RSA | Id::RSA_PSS => {
            let bits = key.bits();
            if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                Ok(KeyKind::Rsa)
            } else {
                Err(format!("an RSA key of {bits} bits"))
            }
        }
        Id::EC => match key.ec_key().ok().and_then(|ec| ec.group().curve_name()) {
            Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1) => Ok(KeyKind::Ecdsa),
            Some(other) => {
                Err(format!("an ECDSA key on {}", other.short_name().unwrap_or("another curve")))
            }
            None => Err("an ECDSA key on an unnamed curve".to_owned()),
        },
        _ => Err("a key that is neither RSA nor ECDSA".to_owned()),
    }
}

/// Checks the key inside a certificate.
///
/// # Errors
///
/// As [`check_key`], or if the key cannot be read.
pub fn check_certificate_key(certificate: &X509Ref) -> Result<KeyKind, String> {
    let key = certificate.public_key().map_err(|_| "an unreadable key".to_owned())?;
    check_key(&key)
}

/// The kinds of key that certificates may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, 2048 to 4096 bits.
    Rsa,
    /// ECDSA on P-256 or P-384.
    Ecdsa,
}

impl KeyKind {
    /// For sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::Ecdsa => "ECDSA",
        }
    }
}

fn array(bytes: &[u8]) -> Result<[u8; 32], CertificateRefusal> {
    bytes.try_into().map_err(|_| CertificateRefusal::Unreadable)
}

const MIN_RSA_BITS: u32 = 2048;
const MAX_RSA_BITS: u32 = 4096;

/// What an operator wants to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its subject's common name; empty without one.
    pub subject: String,
    /// Kind and size of its key: "RSA 2048".
    pub key: String,
    /// Its beginning, unix seconds.
    pub not_before: u64,
    /// Its end, unix seconds.
    pub not_after: u64,
}

/// Reads the facts of the first certificate of a PEM text; `None` if there is none.
#[must_use]
pub fn describe(pem: &[u8]) -> Option<CertificateFacts> {
    facts_of(&*X509::from_pem(pem).ok()?)
}

/// Reads the facts of a certificate; `None` if it can't be read.
pub(crate) fn facts_of(certificate: &X509Ref) -> Option<CertificateFacts> {
    let subject = certificate
        .subject_name()
        .entries_by_nid(Nid::COMMONNAME)
        .next()
        .map(|entry| String::from_utf8_lossy(entry.data().as_slice()).into_owned())
        .unwrap_or_default();
    let key = certificate.public_key().ok()?;
    let kind = check_key(&key).map_or("unknown", KeyKind::name);
    Some(CertificateFacts {
        subject,
        key: format!("{kind} {}", key.bits()),
        not_before: revocation::unix(certificate.not_before()).ok()?,
        not_after: revocation::unix(certificate.not_after()).ok()?,
    })
}
