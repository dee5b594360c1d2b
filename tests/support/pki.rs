//! Certificates for tests, made with the `openssl` crate and not with the product's own code.

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use openssl::x509::{
    X509, X509Builder, X509CrlBuilder, X509Extension, X509NameBuilder, X509RevokedBuilder,
};

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// An authority that signs servers and clients.
pub(crate) struct Authority {
    certificate: X509,
    key: PKey<Private>,
    client_key: PKey<Private>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Authority,
    Server,
    Client,
}

impl Authority {
    /// An RSA/SHA-256 authority, like the one that the product makes.
    pub(crate) fn new(name: &str) -> Self {
        let key = rsa();
        let certificate = issue(name, &key, None, Purpose::Authority);
        // One key for all clients: making 2,048-bit keys is what takes the time.
        Self { certificate, key, client_key: rsa() }
    }

    /// The authority's certificate as PEM.
    pub(crate) fn pem(&self) -> String {
        text(self.certificate.to_pem())
    }

    /// A server certificate with an RSA key.
    pub(crate) fn rsa_server(&self, name: &str) -> Identity {
        self.identity(name, &rsa(), Purpose::Server)
    }

    /// A server certificate with a P-256 key.
    pub(crate) fn ecdsa_server(&self, name: &str) -> Identity {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
        let key = EcKey::generate(&group).and_then(PKey::from_ec_key).expect("an EC key");
        self.identity(name, &key, Purpose::Server)
    }

    /// A client certificate whose only common name is `name`.
    pub(crate) fn client(&self, name: &str) -> Identity {
        self.identity(name, &self.client_key, Purpose::Client)
    }

    /// A client certificate that is valid from and to these moments (`YYYYMMDDhhmmssZ`).
    pub(crate) fn client_with(&self, name: &str, from: &str, to: &str) -> Identity {
        let key = &self.client_key;
        let certificate = issue_dated(name, key, Some(self), Purpose::Client, from, to);
        Identity {
            certificate: text(certificate.to_pem()),
            key: text(key.private_key_to_pem_pkcs8()),
        }
    }

    /// A revocation list that names these, made `age` days ago.
    pub(crate) fn crl(&self, revoked: &[&Identity], age: u32) -> String {
        let build = || {
            let mut builder = X509CrlBuilder::new()?;
            builder.set_issuer_name(self.certificate.subject_name())?;
            let made = 1_795_305_600 - i64::from(age) * 86_400;
            builder.set_last_update(Asn1Time::from_unix(made)?.as_ref())?;
            builder.set_next_update(Asn1Time::from_str("20491231235959Z")?.as_ref())?;
            for identity in revoked {
                let certificate = X509::from_pem(identity.certificate.as_bytes())?;
                let mut entry = X509RevokedBuilder::new()?;
                entry.set_serial_number(certificate.serial_number())?;
                entry.set_revocation_date(Asn1Time::from_unix(made)?.as_ref())?;
                builder.add_revoked(entry.build())?;
            }
            for (oid, content) in
                [("2.5.29.35", &[0x30, 3, 0x80, 1, 1][..]), ("2.5.29.20", &[2, 1, 7])]
            {
                let object = Asn1Object::from_str(oid)?;
                let content = Asn1OctetString::new_from_bytes(content)?;
                builder.append_extension(X509Extension::new_from_der(&object, false, &content)?)?;
            }
            builder.sign(&self.key, MessageDigest::sha256())?;
            builder.build()?.to_pem()
        };
        text(build())
    }

    fn identity(&self, name: &str, key: &PKey<Private>, purpose: Purpose) -> Identity {
        let certificate = issue(name, key, Some(self), purpose);
        Identity {
            certificate: text(certificate.to_pem()),
            key: text(key.private_key_to_pem_pkcs8()),
        }
    }
}

fn rsa() -> PKey<Private> {
    Rsa::generate(2048).and_then(PKey::from_rsa).expect("an RSA key")
}

fn text(pem: Result<Vec<u8>, openssl::error::ErrorStack>) -> String {
    String::from_utf8(pem.expect("PEM")).expect("PEM is ASCII")
}

fn issue(name: &str, key: &PKey<Private>, issuer: Option<&Authority>, purpose: Purpose) -> X509 {
    // Fixed dates: a test must not depend on the host's clock.
    issue_dated(name, key, issuer, purpose, "20000101000000Z", "20491231235959Z")
}

fn issue_dated(
    name: &str,
    key: &PKey<Private>,
    issuer: Option<&Authority>,
    purpose: Purpose,
    from: &str,
    to: &str,
) -> X509 {
    let build = || {
        let mut subject = X509NameBuilder::new()?;
        subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
        let subject = subject.build();
        let mut serial = BigNum::new()?;
        serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        let serial = serial.to_asn1_integer()?;
        builder.set_serial_number(&serial)?;
        builder.set_subject_name(&subject)?;
        builder.set_pubkey(key)?;
        builder.set_not_before(Asn1Time::from_str(from)?.as_ref())?;
        builder.set_not_after(Asn1Time::from_str(to)?.as_ref())?;
        match purpose {
            Purpose::Authority => {
                builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
                builder.append_extension(KeyUsage::new().key_cert_sign().crl_sign().build()?)?;
            }
            Purpose::Server => {
                let usage = ExtendedKeyUsage::new().server_auth().build()?;
                builder.append_extension(usage)?;
                let usage = KeyUsage::new().digital_signature().key_encipherment().build()?;
                builder.append_extension(usage)?;
            }
            Purpose::Client => {
                builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
            }
        }
        builder.set_issuer_name(issuer.map_or(&subject, |a| a.certificate.subject_name()))?;
        builder.sign(issuer.map_or(key, |a| &a.key), MessageDigest::sha256())?;
        Ok::<_, openssl::error::ErrorStack>(builder.build())
    };
    build().expect("a certificate")
}
