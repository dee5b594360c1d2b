//! The certificates that a fresh installation makes for itself.
//!
//! One RSA-2048 CA signs, with SHA-256, a server certificate with an RSA key and one with a P-256
//! key: old and new routers need to import one CA only. Everything is valid from 1970-01-01 to
//! 2049-12-31, for routers that lose their clock with the power; a certificate's end is brought
//! about by replacing it.
//!
//! A file is written whole or not at all (temporary file, sync, rename); keys are readable by the
//! owner alone. What exists is kept. Only server certificates are made anew, when the names of
//! the server have changed or certificate and key do not belong together.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameRef, X509Ref};
use zeroize::Zeroizing;

use crate::tls::engine::reasons;

/// What a server needs to be called.
#[derive(Clone, Debug, Default)]
pub struct PkiRequest {
    /// DNS names and IP addresses that routers dial; the first one becomes the common name.
    /// Without any, the certificate is made out to "tunnelhead".
    pub server_names: Vec<String>,
}

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PkiFiles {
    /// The CA's certificate: what routers import to verify the server, and what client
    /// certificates are checked against.
    pub ca_certificate: PathBuf,
    /// The server's certificates: RSA, then ECDSA.
    pub servers: [PairFiles; 2],
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file or folder of the state folder.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// "read", "write", "create".
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file that is there does not hold what it should.
    #[error("{} is not a usable {what}: restore it from a backup, or move it away to get a new one", path.display())]
    Unusable {
        /// "certificate" or "private key".
        what: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// The CA's key is gone while its certificate is in use on routers.
    #[error("{} is missing, although its certificate {} exists: restore the key from a backup, or move the certificate away to start with a new CA (every router must then import it)", key.display(), certificate.display())]
    CaKeyMissing {
        /// Where the key should be.
        key: PathBuf,
        /// The certificate that is there.
        certificate: PathBuf,
    },
    /// The CA's key belongs to another certificate.
    #[error("{} does not belong to {}: restore the pair from one backup", key.display(), certificate.display())]
    CaMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// A server name that can stand in no certificate.
    #[error("\"{0}\" is neither a DNS name nor an IP address")]
    BadServerName(String),
    /// A common name that no account could be bound to.
    #[error("a common name must have 1 to 64 bytes and no control character")]
    BadCommonName,
    /// The library refused.
    #[error("the TLS library could not make a certificate: {0}")]
    Library(String),
}

impl From<ErrorStack> for PkiError {
    fn from(stack: ErrorStack) -> Self {
        Self::Library(reasons(&stack))
    }
}

/// Makes what is missing in `dir`, which is created if need be, and says where everything is.
///
/// # Errors
///
/// See [`PkiError`]. Nothing that exists is ever overwritten, but for server certificates whose
/// names have changed.
pub fn ensure(dir: &Path, request: &PkiRequest) -> Result<PkiFiles, PkiError> {
    let names = parse_names(&request.server_names)?;
    create_dir(dir)?;
    let authority = Authority::ensure(dir)?;
    Ok(PkiFiles {
        servers: [
            ensure_server(dir, "server-rsa", KeyKind::Rsa, &authority, &names)?,
            ensure_server(dir, "server-ecdsa", KeyKind::Ecdsa, &authority, &names)?,
        ],
        ca_certificate: dir.join(CA_CERTIFICATE),
    })
}

/// Issues a certificate for a client, with an RSA key that any router can import. It is not kept:
/// the answer, certificate and key as PEM, is all there is. The CA is made if need be.
///
/// # Errors
///
/// See [`PkiError`].
pub fn issue_client(
    dir: &Path,
    common_name: &str,
) -> Result<(String, Zeroizing<String>), PkiError> {
    if common_name.is_empty()
        || common_name.len() > MAX_COMMON_NAME
        || common_name.bytes().any(|byte| byte.is_ascii_control())
    {
        return Err(PkiError::BadCommonName);
    }
    create_dir(dir)?;
    let authority = Authority::ensure(dir)?;
    let key = KeyKind::Rsa.generate()?;
    let certificate = authority.issue(&key, KeyKind::Rsa, &Purpose::Client(common_name))?;
    Ok((pem_text(certificate.to_pem()?), Zeroizing::new(pem_text(key.private_key_to_pem_pkcs8()?))))
}

struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    fn ensure(dir: &Path) -> Result<Self, PkiError> {
        let certificate_path = dir.join(CA_CERTIFICATE);
        let key_path = dir.join(CA_KEY);
        let certificate = read_certificate(&certificate_path)?;
        let key = read_key(&key_path)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                if !certificate.public_key()?.public_eq(&key) {
                    return Err(PkiError::CaMismatch {
                        key: key_path,
                        certificate: certificate_path,
                    });
                }
                Ok(Self { certificate, key })
            }
            (Some(_), None) => {
                Err(PkiError::CaKeyMissing { key: key_path, certificate: certificate_path })
            }
            (None, key) => {
                // The key is written first: a key alone is an installation that was interrupted.
                let key = match key {
                    Some(key) => key,
                    None => {
                        let key = KeyKind::Rsa.generate()?;
                        write_key(&key_path, &key)?;
                        key
                    }
                };
                let certificate = self_sign(&key)?;
                write_file(&certificate_path, &certificate.to_pem()?, CERTIFICATE_MODE)?;
                Ok(Self { certificate, key })
            }
        }
    }

    fn issue(
        &self,
        key: &PKey<Private>,
        kind: KeyKind,
        purpose: &Purpose<'_>,
    ) -> Result<X509, PkiError> {
        let subject = name(purpose.common_name())?;
        let mut builder = start(&subject, self.certificate.subject_name(), key)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        let mut usage = KeyUsage::new();
        usage.critical().digital_signature();
        if kind == KeyKind::Rsa {
            // RSA key exchange, which the oldest stacks need.
            usage.key_encipherment();
        }
        builder.append_extension(usage.build()?)?;
        let mut extended = ExtendedKeyUsage::new();
        match purpose {
            Purpose::Server(names) => {
                builder.append_extension(extended.server_auth().build()?)?;
                let mut alternative = SubjectAlternativeName::new();
                for name in *names {
                    match name {
                        ServerName::Dns(dns) => alternative.dns(dns),
                        ServerName::Ip(ip) => alternative.ip(&ip.to_string()),
                    };
                }
                let extension = alternative.build(&builder.x509v3_context(None, None))?;
                builder.append_extension(extension)?;
            }
            Purpose::Client(_) => builder.append_extension(extended.client_auth().build()?)?,
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let own_id = SubjectKeyIdentifier::new().build(&context)?;
        let authority_id = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        builder.append_extension(own_id)?;
        builder.append_extension(authority_id)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

enum Purpose<'a> {
    Server(&'a [ServerName]),
    Client(&'a str),
}

impl Purpose<'_> {
    fn common_name(&self) -> String {
        match self {
            Self::Client(name) => (*name).to_owned(),
            Self::Server(names) => names
                .first()
                .map(ServerName::to_string)
                .filter(|name| name.len() <= MAX_COMMON_NAME)
                .unwrap_or_else(|| DEFAULT_SERVER_NAME.to_owned()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ServerName {
    Dns(String),
    Ip(IpAddr),
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => write!(f, "{ip}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    Ecdsa,
}

impl KeyKind {
    fn generate(self) -> Result<PKey<Private>, ErrorStack> {
        match self {
            Self::Rsa => PKey::from_rsa(Rsa::generate(RSA_BITS)?),
            Self::Ecdsa => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
                PKey::from_ec_key(EcKey::generate(&group)?)
            }
        }
    }
}

fn ensure_server(
    dir: &Path,
    stem: &str,
    kind: KeyKind,
    authority: &Authority,
    names: &[ServerName],
) -> Result<PairFiles, PkiError> {
    let files = PairFiles {
        certificate: dir.join(format!("{stem}.crt")),
        key: dir.join(format!("{stem}.key")),
    };
    let key = match read_key(&files.key)? {
        Some(key) => key,
        None => {
            let key = kind.generate()?;
            write_key(&files.key, &key)?;
            key
        }
    };
    if let Some(certificate) = read_certificate(&files.certificate)?
        && certificate.public_key()?.public_eq(&key)
        && certificate.verify(&authority.key)?
        && certified_names(&certificate) == sorted(names.to_vec())
    {
        return Ok(files);
    }
    let certificate = authority.issue(&key, kind, &Purpose::Server(names))?;
    write_file(&files.certificate, &certificate.to_pem()?, CERTIFICATE_MODE)?;
    Ok(files)
}

fn certified_names(certificate: &X509Ref) -> Vec<ServerName> {
    let mut names = Vec::new();
    for name in certificate.subject_alt_names().into_iter().flatten() {
        if let Some(dns) = name.dnsname() {
            names.push(ServerName::Dns(dns.to_owned()));
        } else if let Some(bytes) = name.ipaddress() {
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            if let Ok(ip) = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)) {
                names.push(ServerName::Ip(ip));
            }
        }
    }
    sorted(names)
}

fn sorted(mut names: Vec<ServerName>) -> Vec<ServerName> {
    names.sort();
    names
}

fn parse_names(names: &[String]) -> Result<Vec<ServerName>, PkiError> {
    let mut parsed = Vec::new();
    for name in names {
        let name = match name.parse::<IpAddr>() {
            Ok(ip) => ServerName::Ip(ip),
            Err(_) if is_dns_name(name) => ServerName::Dns(name.to_ascii_lowercase()),
            Err(_) => return Err(PkiError::BadServerName(name.clone())),
        };
        if !parsed.contains(&name) {
            parsed.push(name);
        }
    }
    if parsed.is_empty() {
        parsed.push(ServerName::Dns(DEFAULT_SERVER_NAME.to_owned()));
    }
    Ok(parsed)
}

/// Source: RFC 1123 2.1; a single label is fine, a wildcard is not.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn self_sign(key: &PKey<Private>) -> Result<X509, PkiError> {
    // Two installations must not have CAs of one name: clients would pick the wrong one.
    let mut mark = BigNum::new()?;
    mark.rand(32, MsbOption::ONE, false)?;
    let subject = name(format!("tunnelhead CA {}", mark.to_hex_str()?.to_ascii_lowercase()))?;
    let mut builder = start(&subject, &subject, key)?;
    builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    let own_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(own_id)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(builder.build())
}

fn start(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKey<Private>,
) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::ONE, false)?;
    let mut builder = X509Builder::new()?;
    builder.set_version(X509_VERSION_3)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_not_before(&*Asn1Time::from_unix(NOT_BEFORE)?)?;
    builder.set_not_after(&*Asn1Time::from_unix(NOT_AFTER)?)?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

fn name(common_name: impl AsRef<str>) -> Result<X509Name, ErrorStack> {
    let mut builder = X509Name::builder()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, common_name.as_ref())?;
    Ok(builder.build())
}

fn read_certificate(path: &Path) -> Result<Option<X509>, PkiError> {
    let Some(pem) = read(path)? else { return Ok(None) };
    let unusable = |_| PkiError::Unusable { what: "certificate", path: path.into() };
    X509::from_pem(&pem).map(Some).map_err(unusable)
}

fn read_key(path: &Path) -> Result<Option<PKey<Private>>, PkiError> {
    let Some(pem) = read(path)? else { return Ok(None) };
    let unusable = |_| PkiError::Unusable { what: "private key", path: path.into() };
    PKey::private_key_from_pem_callback(&pem, |_| Ok(0)).map(Some).map_err(unusable)
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, PkiError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { what: "read", path: path.into(), source }),
    }
}

fn write_key(path: &Path, key: &PKey<Private>) -> Result<(), PkiError> {
    write_file(path, &Zeroizing::new(key.private_key_to_pem_pkcs8()?), KEY_MODE)
}

/// Writes a file whole or not at all.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let temporary = path.with_extension("new");
    let write = || {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| PkiError::File { what: "write", path: path.into(), source })
}

fn create_dir(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(dir)
        .map_err(|source| PkiError::File { what: "create", path: dir.into(), source })
}

fn pem_text(pem: Vec<u8>) -> String {
    // PEM is ASCII; nothing is lost.
    String::from_utf8(pem).unwrap_or_default()
}

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const DEFAULT_SERVER_NAME: &str = "tunnelhead";
/// Source: X.520 ub-common-name.
const MAX_COMMON_NAME: usize = 64;
const RSA_BITS: u32 = 2048;
const SERIAL_BITS: i32 = 127;
const X509_VERSION_3: i32 = 2;
/// 1970-01-01T00:00:00Z.
const NOT_BEFORE: i64 = 0;
/// 2049-12-31T23:59:59Z: the last second that the short form of a certificate's time can say.
const NOT_AFTER: i64 = 2_524_607_999;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o700;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn request(names: &[&str]) -> PkiRequest {
        PkiRequest { server_names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn makes_everything_once_and_keeps_it() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("state/pki");
        let names = request(&["VPN.example.net", "192.0.2.7", "2001:db8::7"]);
        let files = ensure(&dir, &names).unwrap();
        let before = contents(&dir);
        assert_eq!(before.len(), 6);
        for (path, _) in &before {
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            let key = path.extension().is_some_and(|end| end == "key");
            assert_eq!(mode & 0o077, if key { 0 } else { mode & 0o077 }, "{}", path.display());
        }
        let authority = X509::from_pem(&fs::read(&files.ca_certificate).unwrap()).unwrap();
        for pair in &files.servers {
            let certificate = X509::from_pem(&fs::read(&pair.certificate).unwrap()).unwrap();
            assert!(certificate.verify(&authority.public_key().unwrap()).unwrap());
            assert_eq!(certificate.not_before().to_string(), "Jan  1 00:00:00 1970 GMT");
            assert_eq!(certificate.not_after().to_string(), "Dec 31 23:59:59 2049 GMT");
            let expected: Vec<ServerName> = parse_names(&names.server_names).unwrap();
            assert_eq!(certified_names(&certificate), sorted(expected));
            let common_name = certificate.subject_name().entries().next().unwrap();
            assert_eq!(common_name.data().as_slice(), b"vpn.example.net");
        }
        assert_eq!(ensure(&dir, &names).unwrap(), files);
        assert_eq!(contents(&dir), before, "a second call changes nothing");
    }

    #[test]
    fn new_names_renew_the_server_certificates_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        ensure(temporary.path(), &request(&["a.example"])).unwrap();
        let before = contents(temporary.path());
        ensure(temporary.path(), &request(&["b.example"])).unwrap();
        let changed: Vec<_> = contents(temporary.path())
            .into_iter()
            .zip(before)
            .filter(|(now, then)| now != then)
            .map(|((path, _), _)| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(changed, ["server-ecdsa.crt", "server-rsa.crt"]);
    }

    #[test]
    fn an_interrupted_first_start_is_finished() {
        let temporary = tempfile::tempdir().unwrap();
        let files = ensure(temporary.path(), &request(&[])).unwrap();
        let key = fs::read(temporary.path().join(CA_KEY)).unwrap();
        fs::remove_file(&files.ca_certificate).unwrap();
        fs::write(temporary.path().join("ca.new"), b"half a fi").unwrap();
        ensure(temporary.path(), &request(&[])).unwrap();
        assert_eq!(fs::read(temporary.path().join(CA_KEY)).unwrap(), key, "the key is kept");
        assert!(files.ca_certificate.exists());
    }

    #[test]
    fn a_lost_or_foreign_ca_key_is_an_error_that_says_what_to_do() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let files = ensure(dir, &request(&[])).unwrap();
        let key = fs::read(dir.join(CA_KEY)).unwrap();
        fs::remove_file(dir.join(CA_KEY)).unwrap();
        let error = ensure(dir, &request(&[])).unwrap_err().to_string();
        assert!(error.contains("restore the key from a backup"), "{error}");
        fs::copy(&files.servers[0].key, dir.join(CA_KEY)).unwrap();
        assert!(matches!(ensure(dir, &request(&[])), Err(PkiError::CaMismatch { .. })));
        fs::write(dir.join(CA_KEY), b"rubbish").unwrap();
        assert!(matches!(ensure(dir, &request(&[])), Err(PkiError::Unusable { .. })));
        fs::write(dir.join(CA_KEY), key).unwrap();
        ensure(dir, &request(&[])).unwrap();
        let blocked = dir.join("ca.crt/below");
        assert!(matches!(ensure(&blocked, &request(&[])), Err(PkiError::File { .. })));
    }

    #[test]
    fn refuses_names_that_no_certificate_can_carry() {
        for bad in ["", "a b", "*.example", "-a.example", "a..b", "vpn.example.net:8443", "a\0b"] {
            let refused = ensure(Path::new("/nonexistent/x"), &request(&[bad]));
            assert!(matches!(refused, Err(PkiError::BadServerName(_))), "{bad:?}");
        }
        for bad in ["", "a\0b", "a\nb", &"x".repeat(65)] {
            let refused = issue_client(Path::new("/nonexistent/x"), bad);
            assert!(matches!(refused, Err(PkiError::BadCommonName)), "{bad:?}");
        }
    }

    #[test]
    fn a_client_certificate_names_its_client() {
        let temporary = tempfile::tempdir().unwrap();
        let (certificate, key) = issue_client(temporary.path(), "branch-42").unwrap();
        let certificate = X509::from_pem(certificate.as_bytes()).unwrap();
        let key = PKey::private_key_from_pem(key.as_bytes()).unwrap();
        assert!(certificate.public_key().unwrap().public_eq(&key));
        let identity = crate::tls::certificate::identify(&certificate).unwrap();
        assert_eq!(identity.common_name, b"branch-42");
    }
}
