//! Certificates and handshakes for the tests of this module.

use std::path::PathBuf;
use std::sync::OnceLock;

use ::openssl::asn1::{Asn1Time, Asn1Type};
use ::openssl::bn::BigNum;
use ::openssl::ec::{EcGroup, EcKey};
use ::openssl::hash::MessageDigest;
use ::openssl::nid::Nid;
use ::openssl::pkey::{PKey, Private};
use ::openssl::rsa::Rsa;
use ::openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage};
use ::openssl::x509::{X509, X509Name};
use tunnelhead_crypto::SecretBytes;

use super::pki::{self, PkiFiles, PkiRequest};
use super::*;
use crate::proto::session::{TlsFacts, TlsOp};

pub(super) const SERVER_NAME: &str = "vpn.example.net";

/// One installation for all tests; making RSA keys is slow.
pub(super) fn installation() -> &'static (PathBuf, PkiFiles) {
    static FILES: OnceLock<(PathBuf, PkiFiles)> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap().keep();
        let request = PkiRequest { server_names: vec![SERVER_NAME.into(), "192.0.2.1".into()] };
        let files = pki::ensure(&dir, &request).unwrap();
        (dir, files)
    })
}

pub(super) fn ca_pem() -> Vec<u8> {
    std::fs::read(&installation().1.ca_certificate).unwrap()
}

pub(super) fn server_pairs(which: &[usize]) -> Vec<CertAndKey> {
    let servers = &installation().1.servers;
    which
        .iter()
        .map(|index| CertAndKey::read(&servers[*index].certificate, &servers[*index].key).unwrap())
        .collect()
}

/// A signer: the installation's CA, or a stranger of the same name.
pub(super) struct Signer {
    pub(super) certificate: X509,
    pub(super) key: PKey<Private>,
}

impl Signer {
    pub(super) fn ours() -> Self {
        let dir = &installation().0;
        Self {
            certificate: X509::from_pem(&ca_pem()).unwrap(),
            key: PKey::private_key_from_pem(&std::fs::read(dir.join("ca.key")).unwrap()).unwrap(),
        }
    }

    pub(super) fn stranger() -> Self {
        Self { key: key(Key::Rsa(2048)), ..Self::ours() }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    P256,
    P384,
    P521,
    Rsa(u32),
}

pub(super) fn key(kind: Key) -> PKey<Private> {
    let ec = |nid| {
        let group = EcGroup::from_curve_name(nid).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    };
    match kind {
        Key::P256 => ec(Nid::X9_62_PRIME256V1),
        Key::P384 => ec(Nid::SECP384R1),
        Key::P521 => ec(Nid::SECP521R1),
        Key::Rsa(bits) => PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap(),
    }
}

/// What a crafted certificate says.
#[derive(Clone)]
pub(super) struct Craft {
    pub(super) names: Vec<(Nid, Asn1Type, String)>,
    pub(super) client_auth: bool,
    pub(super) server_auth: bool,
    pub(super) ca: bool,
    pub(super) key: Key,
}

impl Craft {
    pub(super) fn common_names(names: &[&str]) -> Self {
        Self {
            names: names
                .iter()
                .map(|name| (Nid::COMMONNAME, Asn1Type::UTF8STRING, (*name).to_owned()))
                .collect(),
            client_auth: true,
            server_auth: false,
            ca: false,
            key: Key::P256,
        }
    }

    pub(super) fn sign(&self, signer: &Signer) -> (X509, PKey<Private>) {
        let key = key(self.key);
        let mut subject = X509Name::builder().unwrap();
        for (nid, kind, value) in &self.names {
            subject.append_entry_by_nid_with_type(*nid, value, *kind).unwrap();
        }
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder
            .set_serial_number(&BigNum::from_u32(0xabc).unwrap().to_asn1_integer().unwrap())
            .unwrap();
        builder.set_subject_name(&subject.build()).unwrap();
        builder.set_issuer_name(signer.certificate.subject_name()).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix(2_524_607_999).unwrap()).unwrap();
        builder.set_pubkey(&key).unwrap();
        let mut constraints = BasicConstraints::new();
        if self.ca {
            constraints.critical().ca();
        }
        builder.append_extension(constraints.build().unwrap()).unwrap();
        let mut usage = ExtendedKeyUsage::new();
        if self.client_auth {
            usage.client_auth();
        }
        if self.server_auth {
            usage.server_auth();
        }
        if self.client_auth || self.server_auth {
            builder.append_extension(usage.build().unwrap()).unwrap();
        }
        builder.sign(&signer.key, MessageDigest::sha256()).unwrap();
        (builder.build(), key)
    }

    pub(super) fn pair(&self, signer: &Signer) -> CertAndKey {
        let (certificate, key) = self.sign(signer);
        CertAndKey {
            certificate_pem: certificate.to_pem().unwrap(),
            key_pem: SecretBytes::from(key.private_key_to_pem_pkcs8().unwrap()),
        }
    }
}

/// How a handshake in memory ended.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) client: Side,
    pub(super) server: Side,
}

#[derive(Default)]
pub(super) struct Side {
    pub(super) facts: Option<Box<TlsFacts>>,
    pub(super) error: Option<String>,
    pub(super) plaintext: Vec<u8>,
    /// What it sent, one entry for every time it was asked.
    pub(super) flights: Vec<Vec<u8>>,
}

impl Side {
    fn note(&mut self, answer: EngineAnswer) -> Vec<u8> {
        if let Some(facts) = answer.established {
            assert!(self.facts.replace(facts).is_none(), "facts are given once");
        }
        if self.error.is_none() {
            self.error = answer.error;
        }
        self.plaintext.extend_from_slice(answer.plaintext.expose());
        if !answer.ciphertext.is_empty() {
            self.flights.push(answer.ciphertext.clone());
        }
        answer.ciphertext
    }
}

/// Carries bytes to and fro, in pieces of at most `chunk`, until nobody has anything to say.
pub(super) fn shake(
    client: &mut dyn TlsEngine,
    server: &mut dyn TlsEngine,
    chunk: usize,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut to_client = outcome.server.note(server.handle(TlsOp::Open));
    let mut to_server = outcome.client.note(client.handle(TlsOp::Open));
    while !to_client.is_empty() || !to_server.is_empty() {
        let mut replies = Vec::new();
        for piece in to_server.chunks(chunk) {
            if outcome.server.error.is_none() {
                replies.extend(outcome.server.note(server.handle(TlsOp::Input(piece.to_vec()))));
            }
        }
        to_client.extend(replies);
        to_server.clear();
        for piece in to_client.chunks(chunk) {
            if outcome.client.error.is_none() {
                to_server.extend(outcome.client.note(client.handle(TlsOp::Input(piece.to_vec()))));
            }
        }
        to_client.clear();
    }
    outcome
}

/// The usual pair of configurations, to be changed by the test.
pub(super) struct Setup {
    pub(super) server: ServerTlsConfig,
    pub(super) client: ClientTlsConfig,
}

impl Setup {
    pub(super) fn new(version: TlsVersion, servers: &[usize]) -> Self {
        Self {
            server: ServerTlsConfig {
                certificates: server_pairs(servers),
                client_ca: Some(ca_pem()),
                ..ServerTlsConfig::default()
            },
            client: ClientTlsConfig {
                min_version: version,
                max_version: version,
                ca: Some(ca_pem()),
                server_name: Some(SERVER_NAME.to_owned()),
                ..ClientTlsConfig::default()
            },
        }
    }

    pub(super) fn engines(&self) -> (OpensslEngine, OpensslEngine) {
        let client = OpensslContext::client(&self.client).unwrap();
        let server = OpensslContext::server(&self.server).unwrap();
        (client.engine().unwrap(), server.engine().unwrap())
    }

    pub(super) fn run(&self) -> Outcome {
        let (mut client, mut server) = self.engines();
        shake(&mut client, &mut server, usize::MAX)
    }
}
