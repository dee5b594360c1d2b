//! Certificate revocation lists: which certificates count no longer.
//!
//! The lists are read once, checked, and turned into an immutable value that every TLS engine of a
//! listener shares; a reload makes a new one. The library's own lookup is not used: it reads files
//! while handshakes run, and it locks a whole fleet out when a list has passed its end. The rules
//! here (threat T22; `docs/CONFIG.md`, `tls.crl`):
//!
//! - a list must be signed by one of the client CAs. Anything else is refused when it is read;
//! - of several lists of one issuer the one that was made last counts;
//! - a list that has passed its end still revokes what it names, and nobody else: an overdue list
//!   is an alarm, not an outage;
//! - a CA without a list revokes nobody;
//! - every certificate of a chain is looked up, so a revoked intermediate CA takes all its
//!   certificates along;
//! - lists that speak for a part of the certificates only, or for those of others (any critical
//!   extension that we don't know: deltas, distribution points, indirect lists), are refused.

use std::collections::{HashMap, HashSet};

use openssl::asn1::{Asn1IntegerRef, Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::sha::Sha256;
use openssl::x509::{X509, X509Crl, X509NameRef, X509Ref};

use crate::proto::session::{CertificateId, ClientCertificate};
use crate::tls::pem;

/// Every revoked certificate, by issuer. Empty by default.
#[derive(Debug, Default)]
pub struct Revocations {
    /// Never iterated to a visible order: `lists` has the order of the files.
    serials: HashMap<[u8; 32], HashSet<Box<str>>>,
    lists: Vec<CrlFacts>,
}

/// What an operator wants to know of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlFacts {
    /// The common name of its issuer, or its whole name.
    pub issuer: String,
    /// When it was made, unix seconds.
    pub last_update: u64,
    /// When the next one is due, unix seconds; none: it says nothing about that.
    pub next_update: Option<u64>,
    /// Certificates in it.
    pub revoked: usize,
    issuer_hash: [u8; 32],
    /// SHA-256 of the key that verifies it.
    signer: [u8; 32],
}

impl Revocations {
    /// Reads the texts of CRL files. `authorities` is the text of the client CA file.
    ///
    /// # Errors
    /// For each file that is unusable its index and what is wrong, as the end of a sentence.
    pub fn read(texts: &[&str], authorities: &str) -> Result<Self, Vec<(usize, String)>> {
        let authorities = X509::stack_from_pem(authorities.as_bytes()).unwrap_or_default();
        let mut problems = Vec::new();
        let mut newest: Vec<(X509Crl, CrlFacts)> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match read_file(text, &authorities) {
                Err(problem) => problems.push((index, problem)),
                Ok(lists) => {
                    for (crl, facts) in lists {
                        // A CA that changed its key has a list of each.
                        let same = |other: &&mut (X509Crl, CrlFacts)| {
                            other.1.issuer_hash == facts.issuer_hash
                                && other.1.signer == facts.signer
                        };
                        match newest.iter_mut().find(same) {
                            None => newest.push((crl, facts)),
                            Some(held) if held.1.last_update < facts.last_update => {
                                *held = (crl, facts);
                            }
                            Some(_) => {}
                        }
                    }
                }
            }
        }
        let mut all = Self::default();
        for (crl, facts) in newest {
            let revoked = crl.get_revoked().into_iter().flatten();
            let serials = revoked.filter_map(|entry| serial(entry.serial_number()).ok());
            let known = all.serials.entry(facts.issuer_hash).or_default();
            known.extend(serials.map(String::into_boxed_str));
            all.lists.push(facts);
        }
        if problems.is_empty() { Ok(all) } else { Err(problems) }
    }

    /// True if this certificate is revoked.
    pub fn revokes(&self, certificate: &CertificateId) -> bool {
        self.serials
            .get(&certificate.issuer_hash)
            .is_some_and(|serials| serials.contains(certificate.serial.as_str()))
    }

    /// True if a client's certificate, or a CA between it and the one we trust, is revoked.
    pub fn covers(&self, certificate: &ClientCertificate) -> bool {
        self.revokes(&certificate.id())
            || certificate.intermediates.iter().any(|id| self.revokes(id))
    }

    /// The lists that count, in the order of the files.
    pub fn lists(&self) -> &[CrlFacts] {
        &self.lists
    }

    /// The names of those CAs of a client CA file for which there is no list.
    pub fn without_list(&self, authorities: &str) -> Vec<String> {
        let authorities = X509::stack_from_pem(authorities.as_bytes()).unwrap_or_default();
        authorities
            .iter()
            .filter(|ca| {
                name_hash(ca.subject_name()).is_ok_and(|hash| !self.serials.contains_key(&hash))
            })
            .map(|ca| name(ca.subject_name()))
            .collect()
    }
}

fn read_file(text: &str, authorities: &[X509]) -> Result<Vec<(X509Crl, CrlFacts)>, String> {
    pem::blocks(text, pem::CRL)?
        .into_iter()
        .map(|block| {
            let crl = X509Crl::from_pem(block.as_bytes())
                .map_err(|_| "holds a CRL that cannot be read".to_owned())?;
            let facts = check(&crl, authorities)?;
            Ok((crl, facts))
        })
        .collect()
}

fn check(crl: &X509Crl, authorities: &[X509]) -> Result<CrlFacts, String> {
    let issuer = name(crl.issuer_name());
    let unreadable = |_| format!("holds a CRL of {issuer} that cannot be read");
    let issuer_hash = name_hash(crl.issuer_name()).map_err(unreadable)?;
    let named: Vec<&X509> = authorities
        .iter()
        .filter(|ca| name_hash(ca.subject_name()).is_ok_and(|hash| hash == issuer_hash))
        .collect();
    if named.is_empty() {
        return Err(format!(
            "holds a CRL of {issuer}, which is not among the CAs of tls.client_ca; add its \
             certificate there"
        ));
    }
    let signer = named.iter().find_map(|ca| {
        let key = ca.public_key().ok()?;
        let verified = crl.verify(&key).unwrap_or(false);
        verified.then(|| key.public_key_to_der().ok()).flatten()
    });
    // The library's reasons must not be taken for those of a connection.
    drop(ErrorStack::get());
    let Some(signer) = signer else {
        return Err(format!(
            "holds a CRL in the name of {issuer} that {issuer} has not signed; fetch it again"
        ));
    };
    let der = crl.to_der().map_err(unreadable)?;
    if unknown_critical_extension(&der).unwrap_or(true) {
        return Err(format!(
            "holds a CRL of {issuer} that does not speak for all certificates of {issuer} (a \
             delta, partitioned or indirect CRL); use the full one"
        ));
    }
    Ok(CrlFacts {
        last_update: unix(crl.last_update()).map_err(unreadable)?,
        next_update: crl.next_update().map(unix).transpose().map_err(unreadable)?,
        revoked: crl.get_revoked().map_or(0, |entries| entries.len()),
        issuer: issuer.clone(),
        issuer_hash,
        signer: openssl::sha::sha256(&signer),
    })
}

/// Who issued a certificate, and under which number.
pub(crate) fn id_of(certificate: &X509Ref) -> Result<CertificateId, ErrorStack> {
    Ok(CertificateId {
        issuer_hash: name_hash(certificate.issuer_name())?,
        serial: serial(certificate.serial_number())?,
    })
}

/// Lower-case hexadecimal.
fn serial(number: &Asn1IntegerRef) -> Result<String, ErrorStack> {
    Ok(number.to_bn()?.to_hex_str()?.to_ascii_lowercase())
}

/// SHA-256 of a name in a form in which names are equal that a verifier takes for equal: kinds of
/// text, case and white space make no difference. Source: RFC 5280 7.1 as OpenSSL's X509_NAME_cmp
/// does it.
pub(crate) fn name_hash(name: &X509NameRef) -> Result<[u8; 32], ErrorStack> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    for entry in name.entries() {
        part(entry.object().to_string().as_bytes());
        match entry.data().to_string() {
            Ok(text) => {
                let words: Vec<_> =
                    text.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
                part(words.join(" ").as_bytes());
            }
            // Not a text at all: as it is.
            Err(_) => part(entry.data().as_slice()),
        }
    }
    Ok(hash.finish())
}

fn name(of: &X509NameRef) -> String {
    let mut common = of.entries_by_nid(Nid::COMMONNAME);
    let text = common.next().and_then(|entry| entry.data().to_string().ok());
    let text = text.unwrap_or_else(|| format!("{of:?}"));
    let shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    format!("\"{shown}\"")
}

/// Unix seconds, 0 for a time before 1970.
pub(crate) fn unix(time: &Asn1TimeRef) -> Result<u64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    Ok(u64::try_from(seconds).unwrap_or(0))
}

/// Looks for a critical extension that we don't understand; `None` if this isn't the DER form of
/// a list. Source: RFC 5280 5.1 and 5.2.
fn unknown_critical_extension(der: &[u8]) -> Option<bool> {
    let (SEQUENCE, list, _) = element(der)? else { return None };
    let (SEQUENCE, mut rest, _) = element(list)? else { return None };
    let mut extensions = None;
    while !rest.is_empty() {
        let (tag, content, after) = element(rest)?;
        if tag == EXTENSIONS {
            extensions = Some(content);
        }
        rest = after;
    }
    let Some(extensions) = extensions else { return Some(false) };
    let (SEQUENCE, mut rest, _) = element(extensions)? else { return None };
    while !rest.is_empty() {
        let (SEQUENCE, extension, after) = element(rest)? else { return None };
        let (OBJECT, id, content) = element(extension)? else { return None };
        let (tag, value, _) = element(content)?;
        let critical = tag == BOOLEAN && value != [0];
        if critical && !UNDERSTOOD.contains(&id) {
            return Some(true);
        }
        rest = after;
    }
    Some(false)
}

/// The first element of DER bytes: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        let fold = |length: usize, digit: &u8| length << 8 | usize::from(*digit);
        (digits.iter().fold(0, fold), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

const BOOLEAN: u8 = 0x01;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]` of TBSCertList.
const EXTENSIONS: u8 = 0xa0;
/// 2.5.29.20 (number of the list) and 2.5.29.35 (which key of the issuer): they take nothing away.
const UNDERSTOOD: [&[u8]; 2] = [&[0x55, 0x1d, 0x14], &[0x55, 0x1d, 0x23]];

#[cfg(test)]
#[path = "revocation_tests.rs"]
mod tests;
