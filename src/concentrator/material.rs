//! Certificates, keys and revocation lists: read, checked against each other, and only then used.
//!
//! All files are read in one go, and if one of them changed meanwhile, again: a certificate of
//! yesterday never meets a key of today, and a file that somebody is writing is refused and not
//! half believed (threats R11, T22).

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tunnelhead_crypto::SecretBytes;
use zeroize::Zeroizing;

use crate::config::{self, CertificatePolicy, Config, Problem};
use crate::control_api::types::{CertificateStatus, CrlStatus, Degraded, Timestamp};
use crate::tls::pki::{self, PkiRequest};
use crate::tls::{
    CertAndKey, ClientCertificatePolicy, OpensslContext, Revocations, ServerTlsConfig, TlsContext,
    TlsError, certificate, pem,
};

/// What every listener's TLS is made of.
pub(super) struct Material {
    pairs: Vec<CertAndKey>,
    client_ca: Option<String>,
    /// Client certificates that count no longer.
    pub(super) revocations: Arc<Revocations>,
    /// The CA that routers verify the server with, if it is ours.
    pub(super) ca_pem: Option<String>,
    /// What the certificates are made out to, if they are ours.
    pub(super) server_name: Option<String>,
    /// What was read, to tell later whether it has changed.
    prints: [(&'static str, Vec<[u8; 32]>); 3],
}

impl Material {
    /// Reads what the configuration names, or makes what it doesn't. `host` is what routers dial.
    ///
    /// # Errors
    /// Everything that is wrong, each with its key.
    pub(super) fn read(config: &Config, host: Option<&str>) -> Result<Self, Vec<Problem>> {
        let mut made = None;
        if config.tls.certificates.is_empty() {
            let request =
                PkiRequest { server_names: host.map(str::to_owned).into_iter().collect() };
            let files = pki::ensure(&config.state_dir.join("pki"), &request);
            made = Some(files.map_err(|error| vec![problem("tls.certificates", error)])?);
        }
        for _ in 0..ATTEMPTS {
            let mut files = Files::default();
            let material = Self::read_once(config, host, made.as_ref(), &mut files);
            if files.unchanged() {
                return material;
            }
        }
        let message = "its files change all the time; reload again once they have been written";
        Err(vec![problem("tls", message)])
    }

    /// The checks of [`Self::read`] without making anything.
    pub(super) fn check(config: &Config) -> Result<(), Vec<Problem>> {
        if config.tls.certificates.is_empty() {
            return Ok(());
        }
        Self::read(config, None).map(|_| ())
    }

    fn read_once(
        config: &Config,
        host: Option<&str>,
        made: Option<&pki::PkiFiles>,
        files: &mut Files,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut named: Vec<(String, &Path, &Path)> = Vec::new();
        for (index, one) in config.tls.certificates.iter().enumerate() {
            named.push((format!("tls.certificates[{index}]"), &one.certificate, &one.key));
        }
        for one in made.iter().flat_map(|made| &made.servers) {
            named.push(("tls.certificates".to_owned(), &one.certificate, &one.key));
        }
        let mut pairs = Vec::new();
        for (key, certificate, private) in named {
            match pair(&key, certificate, private, files) {
                Ok(pair) => pairs.push(pair),
                Err(found) => problems.push(found),
            }
        }
        let mut ca_pem = None;
        if let Some(made) = made {
            match files.text(&made.ca_certificate) {
                Ok(text) => ca_pem = Some(text),
                Err(reason) => problems.push(problem("tls.certificates", reason)),
            }
        }
        let mut client_ca = ca_pem.clone();
        if let Some(path) = &config.tls.client_ca {
            let read = files.text(path).and_then(|text| {
                pem::blocks(&text, pem::CERTIFICATE).map_err(|what| at(path, &what))?;
                Ok(text)
            });
            match read {
                Ok(text) => client_ca = Some(text),
                Err(reason) => problems.push(problem("tls.client_ca", reason)),
            }
        }
        let mut lists = Vec::new();
        for (index, path) in config.tls.crl.iter().enumerate() {
            match files.text(path) {
                Ok(text) => lists.push((index, text)),
                Err(reason) => problems.push(problem(&crl_key(index), reason)),
            }
        }
        let texts: Vec<&str> = lists.iter().map(|(_, text)| text.as_str()).collect();
        let mut revocations = Revocations::default();
        // Without its CA every list would look wrong, and the CA has been reported.
        if problems.is_empty() {
            match Revocations::read(&texts, client_ca.as_deref().unwrap_or_default()) {
                Ok(read) => revocations = read,
                Err(found) => problems.extend(found.into_iter().map(|(at_list, what)| {
                    let index = lists.get(at_list).map_or(at_list, |(index, _)| *index);
                    let path =
                        config.tls.crl.get(index).map_or_else(|| Path::new(""), PathBuf::as_path);
                    problem(&crl_key(index), at(path, &what))
                })),
            }
        }
        let print = digest;
        let material = Self {
            prints: [
                (
                    "tls.certificates",
                    pairs
                        .iter()
                        .flat_map(|pair| {
                            [print(&pair.certificate_pem), print(pair.key_pem.expose())]
                        })
                        .collect(),
                ),
                ("tls.client_ca", client_ca.iter().map(|text| print(text.as_bytes())).collect()),
                ("tls.crl", texts.iter().map(|text| print(text.as_bytes())).collect()),
            ],
            pairs,
            client_ca,
            revocations: Arc::new(revocations),
            server_name: made.and(host).map(str::to_owned),
            ca_pem,
        };
        // What each file says is fine; now together.
        if problems.is_empty() {
            for listener in &config.listeners {
                if let Err(error) = material.context(listener) {
                    let key = match &error {
                        TlsError::NoClientCa => "tls.client_ca",
                        _ => "tls.certificates",
                    };
                    let found = problem(key, error);
                    if !problems.contains(&found) {
                        problems.push(found);
                    }
                }
            }
        }
        if problems.is_empty() { Ok(material) } else { Err(problems) }
    }

    /// The TLS of one listener.
    ///
    /// # Errors
    /// The library refuses; the sentence says what.
    pub(super) fn context(
        &self,
        listener: &config::Listener,
    ) -> Result<Arc<dyn TlsContext>, TlsError> {
        let context = OpensslContext::server(&ServerTlsConfig {
            certificates: self.pairs.iter().map(CertAndKey::duplicate).collect(),
            client_ca: self.client_ca.as_deref().map(|text| text.as_bytes().to_vec()),
            client_certificate: match listener.client_certificate {
                CertificatePolicy::No => ClientCertificatePolicy::No,
                CertificatePolicy::Optional => ClientCertificatePolicy::Optional,
                CertificatePolicy::Required => ClientCertificatePolicy::Required,
            },
            legacy: listener.legacy,
            revocations: Arc::clone(&self.revocations),
        })?;
        Ok(Arc::new(context))
    }

    /// The keys whose files say something else than those of `older` did.
    pub(super) fn changed_since(&self, older: &Prints) -> Vec<&'static str> {
        let pairs = self.prints.iter().zip(older);
        pairs.filter(|(new, old)| new.1 != old.1).map(|(new, _)| new.0).collect()
    }

    /// What [`Self::changed_since`] needs of this one.
    pub(super) fn prints(&self) -> Prints {
        self.prints.clone()
    }

    /// For the status.
    pub(super) fn certificates(&self) -> Vec<CertificateStatus> {
        let facts = self.pairs.iter().filter_map(|one| certificate::describe(&one.certificate_pem));
        facts
            .map(|facts| CertificateStatus {
                subject: facts.subject,
                key: facts.key,
                not_before: Timestamp(facts.not_before),
                not_after: Timestamp(facts.not_after),
            })
            .collect()
    }

    /// For the status.
    pub(super) fn crls(&self) -> Vec<CrlStatus> {
        let lists = self.revocations.lists().iter();
        lists
            .map(|facts| CrlStatus {
                issuer: facts.issuer.clone(),
                last_update: Timestamp(facts.last_update),
                next_update: facts.next_update.map(Timestamp),
                revoked: facts.revoked as u64,
            })
            .collect()
    }

    /// What is wanting although it can be used.
    pub(super) fn degraded(&self) -> Vec<Degraded> {
        if self.revocations.lists().is_empty() {
            return Vec::new();
        }
        let without = self.revocations.without_list(self.client_ca.as_deref().unwrap_or_default());
        without
            .into_iter()
            .map(|ca| Degraded {
                part: "crl".to_owned(),
                reason: format!(
                    "tls.crl has no list of the client CA {ca}; its certificates can not be revoked"
                ),
            })
            .collect()
    }
}

/// Digests of what was read, by key.
pub(super) type Prints = [(&'static str, Vec<[u8; 32]>); 3];

/// What is overdue at a moment: certificates and lists that have ended, or not begun.
pub(super) fn overdue(
    certificates: &[CertificateStatus],
    crls: &[CrlStatus],
    now: u64,
) -> Vec<Degraded> {
    let mut found = Vec::new();
    for one in certificates {
        let what = format!("the {} certificate \"{}\"", one.key, one.subject);
        if one.not_after.0 <= now {
            found.push(Degraded {
                part: "certificate".to_owned(),
                reason: format!(
                    "{what} has ended at {}; routers that verify it can not log in: put a new \
                     one in place and run \"tunnelhead reload\"",
                    one.not_after
                ),
            });
        } else if one.not_before.0 > now {
            found.push(Degraded {
                part: "certificate".to_owned(),
                reason: format!(
                    "{what} begins only at {}; routers that verify it can not log in. Is the \
                     clock of this host right?",
                    one.not_before
                ),
            });
        }
    }
    for one in crls {
        if let Some(due) = one.next_update.filter(|due| due.0 <= now) {
            found.push(Degraded {
                part: "crl".to_owned(),
                reason: format!(
                    "the revocation list of {} was due for renewal at {due}; what it revokes \
                     stays revoked: fetch a new one and run \"tunnelhead reload\"",
                    one.issuer
                ),
            });
        }
    }
    found
}

fn pair(
    key: &str,
    certificate: &Path,
    private: &Path,
    files: &mut Files,
) -> Result<CertAndKey, Problem> {
    let certificate_key = format!("{key}.certificate");
    let text = files.text(certificate).map_err(|reason| problem(&certificate_key, reason))?;
    pem::blocks(&text, pem::CERTIFICATE)
        .map_err(|what| problem(&certificate_key, at(certificate, &what)))?;
    let private_key = format!("{key}.key");
    let secret = files.text(private).map(Zeroizing::new);
    let secret = secret.map_err(|reason| problem(&private_key, reason))?;
    let kinds = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    let whole: Vec<_> = kinds.iter().map(|kind| pem::blocks(&secret, kind)).collect();
    if let Some(Err(what)) = whole.first().filter(|_| whole.iter().all(Result::is_err)) {
        return Err(problem(&private_key, at(private, what)));
    }
    let pair = CertAndKey {
        certificate_pem: text.into_bytes(),
        key_pem: SecretBytes::from(secret.as_bytes().to_vec()),
    };
    let alone = ServerTlsConfig { certificates: vec![pair.duplicate()], ..Default::default() };
    match OpensslContext::server(&alone) {
        Ok(_) => Ok(pair),
        Err(error @ TlsError::KeyMismatch { .. }) => Err(problem(
            &private_key,
            format!("{error} in {}; install both and try again", certificate.display()),
        )),
        Err(error) => Err(problem(key, error)),
    }
}

/// The files that were read, and how they were then.
#[derive(Default)]
struct Files(Vec<(PathBuf, Option<Stamp>)>);

/// Device, inode, size, and the moment of the last change.
type Stamp = (u64, u64, u64, i64, i64);

impl Files {
    fn text(&mut self, path: &Path) -> Result<String, String> {
        let read = || -> std::io::Result<(Stamp, Vec<u8>)> {
            let file = File::open(path)?;
            let stamp = stamp(&file.metadata()?);
            let mut bytes = Vec::new();
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
            Ok((stamp, bytes))
        };
        let found = read();
        let as_read = match &found {
            Ok((stamp, _)) => Some(*stamp),
            Err(_) => now(path),
        };
        self.0.push((path.to_owned(), as_read));
        let (_, bytes) =
            found.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(at(path, &format!("is longer than {MAX_FILE_BYTES} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| at(path, "is not a text"))
    }

    fn unchanged(&self) -> bool {
        self.0.iter().all(|(path, before)| now(path) == *before)
    }
}

fn now(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().map(|metadata| stamp(&metadata))
}

fn stamp(of: &std::fs::Metadata) -> Stamp {
    (of.dev(), of.ino(), of.size(), of.ctime(), of.ctime_nsec())
}

fn at(path: &Path, what: &str) -> String {
    format!("{} {what}", path.display())
}

fn problem(key: &str, message: impl std::fmt::Display) -> Problem {
    Problem { key: key.to_owned(), message: message.to_string() }
}

fn crl_key(index: usize) -> String {
    format!("tls.crl[{index}]")
}

fn digest(text: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(text).into()
}

/// Times that files which change under our hands are read.
const ATTEMPTS: usize = 3;
/// A list of a hundred thousand certificates has about 4 MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;
