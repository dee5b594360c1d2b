use ::openssl::asn1::Asn1Type;
use ::openssl::nid::Nid;
use tunnelhead_crypto::SecretBytes;

use super::certificate::CertificateRefusal;
use super::test_support::*;
use super::*;
use crate::proto::session::TlsOp;

const RSA: usize = 0;
const ECDSA: usize = 1;
const MODERN: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

#[test]
fn every_version_with_every_key_judges_every_client_certificate() {
    enum Expect {
        Nobody,
        Name(&'static [u8]),
        Refused(&'static str),
    }
    let (ours, stranger) = (Signer::ours(), Signer::stranger());
    let mut server_usage = Craft::common_names(&["branch-42"]);
    (server_usage.client_auth, server_usage.server_auth) = (false, true);
    let mut no_usage = Craft::common_names(&["branch-42"]);
    no_usage.client_auth = false;
    let two = Craft::common_names(&["branch-42", "branch-43"]);
    let nul = Craft::common_names(&["branch-42\0.example"]);
    let good = Craft::common_names(&["branch-42"]);
    let table = [
        (None, Expect::Nobody),
        (Some((&good, &ours)), Expect::Name(b"branch-42")),
        (Some((&good, &stranger)), Expect::Refused("certificate signature failure")),
        (Some((&server_usage, &ours)), Expect::Refused("unsuitable certificate purpose")),
        (Some((&no_usage, &ours)), Expect::Refused("clientAuth is missing")),
        (Some((&two, &ours)), Expect::Refused("more than one common name")),
        (Some((&nul, &ours)), Expect::Refused("control character")),
    ];
    for version in MODERN {
        for server in [RSA, ECDSA] {
            for (row, (pair, expect)) in table.iter().enumerate() {
                let mut setup = Setup::new(version, &[server]);
                setup.server.client_certificate = ClientCertificatePolicy::Optional;
                setup.client.certificate = pair.map(|(craft, signer)| craft.pair(signer));
                let outcome = setup.run();
                let what = format!("{version:?}, server {server}, row {row}");
                match expect {
                    Expect::Refused(why) => {
                        assert!(outcome.server.facts.is_none(), "{what}");
                        let error = outcome.server.error.unwrap();
                        assert!(error.contains(why), "{what}: {error}");
                        let client = outcome.client.error.unwrap();
                        assert!(
                            client.contains("alert") || client.contains("accept"),
                            "{what}: {client}"
                        );
                    }
                    Expect::Nobody | Expect::Name(_) => {
                        assert_eq!(outcome.server.error, None, "{what}");
                        let ours = outcome.server.facts.unwrap();
                        let theirs = outcome.client.facts.unwrap();
                        assert_eq!(ours.data_keys.expose(), theirs.data_keys.expose(), "{what}");
                        assert_eq!(ours.dynamic_wrap.expose(), theirs.dynamic_wrap.expose());
                        assert_ne!(ours.data_keys.expose(), ours.dynamic_wrap.expose());
                        assert_eq!((&ours.version, &ours.suite), (&theirs.version, &theirs.suite));
                        let expected =
                            if version == TlsVersion::Tls12 { "TLSv1.2" } else { "TLSv1.3" };
                        assert_eq!(ours.version, expected);
                        assert!(theirs.client_certificate.is_none());
                        let name = ours.client_certificate.map(|certificate| {
                            assert_eq!(certificate.serial, "0abc");
                            certificate.common_name
                        });
                        match expect {
                            Expect::Name(expected) => assert_eq!(name.as_deref(), Some(*expected)),
                            _ => assert_eq!(name, None),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_required_certificate_must_come() {
    for version in MODERN {
        let mut setup = Setup::new(version, &[ECDSA]);
        setup.server.client_certificate = ClientCertificatePolicy::Required;
        let error = setup.run().server.error.unwrap();
        assert_eq!(error, "the listener requires a client certificate and the peer sent none");
        setup.client.certificate = Some(Craft::common_names(&["branch-42"]).pair(&Signer::ours()));
        let outcome = setup.run();
        assert_eq!(outcome.server.error, None);
        assert!(outcome.server.facts.unwrap().client_certificate.is_some());
    }
}

#[test]
fn both_server_certificates_serve_side_by_side() {
    for (suite, key_kind) in [
        ("ECDHE-RSA-AES256-GCM-SHA384", RSA),
        ("ECDHE-ECDSA-AES128-SHA256", ECDSA),
        ("ECDHE-RSA-AES256-SHA", RSA),
        ("AES128-SHA", RSA),
        ("AES256-GCM-SHA384", RSA),
    ] {
        let mut setup = Setup::new(TlsVersion::Tls12, &[RSA, ECDSA]);
        setup.client.cipher_list = Some(suite.to_owned());
        let outcome = setup.run();
        assert_eq!(outcome.client.error, None, "{suite}");
        assert_eq!(outcome.server.facts.unwrap().suite, suite);
        let flight = &outcome.server.flights[0];
        let sent = |index: usize| {
            let pem = &server_pairs(&[index])[0].certificate_pem;
            let der = ::openssl::x509::X509::from_pem(pem).unwrap().to_der().unwrap();
            flight.windows(der.len()).any(|window| window == der)
        };
        assert!(sent(key_kind) && !sent(1 - key_kind), "{suite}");
    }
    for foreign in ["DHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"] {
        let mut setup = Setup::new(TlsVersion::Tls12, &[RSA, ECDSA]);
        setup.client.cipher_list = Some(foreign.to_owned());
        let error = setup.run().server.error.unwrap();
        assert_eq!(error, "the peer offers no TLS cipher suite that we allow");
    }
}

#[test]
fn a_client_that_verifies_finds_a_wrong_server() {
    for version in MODERN {
        let mut setup = Setup::new(version, &[RSA]);
        setup.client.server_name = Some("192.0.2.1".to_owned());
        assert_eq!(setup.run().client.error, None);
        setup.client.server_name = Some("other.example.net".to_owned());
        let outcome = setup.run();
        assert!(outcome.client.error.unwrap().contains("hostname mismatch"));
        assert!(outcome.server.error.is_some(), "the client's alert arrives");
    }
}

#[test]
fn any_chunking_gives_the_same_result() {
    for version in MODERN {
        for chunk in [1, 2, 7, 100] {
            let mut setup = Setup::new(version, &[ECDSA]);
            setup.server.client_certificate = ClientCertificatePolicy::Required;
            setup.client.certificate = Some(Craft::common_names(&["x"]).pair(&Signer::ours()));
            let (mut client, mut server) = setup.engines();
            let outcome = shake(&mut client, &mut server, chunk);
            assert_eq!(outcome.server.error, None, "{version:?} by {chunk}");
            let message = SecretBytes::from(vec![7; 3000]);
            let sent = client.handle(TlsOp::Write(message)).ciphertext;
            let mut got = Vec::new();
            for piece in sent.chunks(chunk) {
                let answer = server.handle(TlsOp::Input(piece.to_vec()));
                assert_eq!(answer.error, None);
                got.extend_from_slice(answer.plaintext.expose());
            }
            assert_eq!(got, vec![7; 3000]);
        }
    }
}

#[test]
fn the_last_flight_and_the_first_message_may_come_together() {
    for version in MODERN {
        let (mut client, mut server) = Setup::new(version, &[ECDSA]).engines();
        let mut to_server = client.handle(TlsOp::Open).ciphertext;
        let mut greeted = false;
        for _ in 0..4 {
            let answer = server.handle(TlsOp::Input(std::mem::take(&mut to_server)));
            if answer.established.is_some() && version == TlsVersion::Tls13 {
                assert_eq!(answer.plaintext.expose(), b"key method 2");
            }
            let reply = client.handle(TlsOp::Input(answer.ciphertext));
            to_server = reply.ciphertext;
            if reply.established.is_some() {
                greeted = true;
                let message = SecretBytes::from(b"key method 2".to_vec());
                to_server.extend(client.handle(TlsOp::Write(message)).ciphertext);
                let answer = server.handle(TlsOp::Input(std::mem::take(&mut to_server)));
                assert_eq!(answer.plaintext.expose(), b"key method 2");
                break;
            }
        }
        assert!(greeted);
    }
}

#[test]
fn no_tickets_are_sent() {
    for version in MODERN {
        let outcome = Setup::new(version, &[ECDSA]).run();
        assert!(outcome.server.facts.is_some());
        match version {
            // ServerHello to Finished in one flight, and silence after the client's Finished.
            TlsVersion::Tls13 => assert_eq!(outcome.server.flights.len(), 1),
            // A ticket would be a plain handshake record before the change of cipher.
            _ => assert_eq!(outcome.server.flights[1][0], 20),
        }
    }
}

#[test]
fn renegotiation_is_refused() {
    for version in MODERN {
        let (mut client, mut server) = Setup::new(version, &[ECDSA]).engines();
        let outcome = shake(&mut client, &mut server, usize::MAX);
        assert!(outcome.server.facts.is_some());
        let mut hello = vec![22, 3, 3, 0, 40];
        hello.resize(45, 0);
        let error = server.handle(TlsOp::Input(hello)).error.unwrap();
        assert!(error.contains("renegotiation"), "{error}");
        let after = server.handle(TlsOp::Input(vec![0])).error.unwrap();
        assert!(after.contains("already ended"));
    }
}

#[test]
fn a_flood_of_small_records_after_the_handshake_ends_the_engine() {
    for version in MODERN {
        let (mut client, mut server) = Setup::new(version, &[ECDSA]).engines();
        shake(&mut client, &mut server, usize::MAX);
        let mut accepted = 0;
        let error = loop {
            let sent = client.handle(TlsOp::Write(SecretBytes::from(vec![1])));
            match server.handle(TlsOp::Input(sent.ciphertext)).error {
                None => accepted += 1,
                Some(error) => break error,
            }
            assert!(accepted < 10_000);
        };
        assert_eq!(error, "the peer sent too many records after the TLS handshake");
        assert_eq!(accepted, 512);
    }
}

#[test]
fn old_versions_only_where_they_are_allowed() {
    for (version, name) in [(TlsVersion::Tls10, "TLSv1"), (TlsVersion::Tls11, "TLSv1.1")] {
        for server in [RSA, ECDSA] {
            let mut setup = Setup::new(version, &[server]);
            setup.client.security_level = 0;
            let outcome = setup.run();
            assert_eq!(
                outcome.server.error.as_deref(),
                Some("the peer offers no TLS version that we allow")
            );
            setup.server.legacy = true;
            let (mut client, mut server) = setup.engines();
            let outcome = shake(&mut client, &mut server, usize::MAX);
            assert_eq!(outcome.server.error, None);
            let facts = outcome.server.facts.unwrap();
            assert_eq!(facts.version, name);
            assert_eq!(facts.data_keys.expose(), outcome.client.facts.unwrap().data_keys.expose());
            let sent =
                server.handle(TlsOp::Write(SecretBytes::from(b"message".to_vec()))).ciphertext;
            let length = usize::from(u16::from_be_bytes([sent[3], sent[4]]));
            assert_eq!(sent.len(), length + 5, "one message is one record");
        }
    }
    let mut setup = Setup::new(TlsVersion::Tls13, &[RSA]);
    setup.server.legacy = true;
    assert_eq!(setup.run().server.facts.unwrap().version, "TLSv1.3", "legacy is not a downgrade");
}

#[test]
fn garbage_is_an_error_and_nothing_else() {
    let context = OpensslContext::server(&Setup::new(TlsVersion::Tls12, &[RSA]).server).unwrap();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0; 100],
        vec![0xff; 100],
        vec![0x80, 0x2e, 1, 3, 1, 0, 21, 0, 0, 0, 16],
        vec![22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff],
        vec![22, 3, 1, 0, 4, 2, 0, 0, 0],
        vec![21, 3, 1, 0, 2, 2, 40],
        vec![23, 3, 3, 0, 1, 0],
        [vec![22, 3, 1, 0, 50, 1, 0, 0, 46, 3, 3], vec![0xaa; 44]].concat(),
    ] {
        let mut engine = context.engine().unwrap();
        let answer = engine.handle(TlsOp::Input(bytes.clone()));
        let error = answer.error.unwrap_or_else(|| panic!("{bytes:?} was accepted"));
        assert!(!error.is_empty() && answer.established.is_none());
        assert!(engine.handle(TlsOp::Input(vec![1])).error.is_some());
    }
}

#[test]
fn flipped_bytes_never_panic_and_never_make_two_truths() {
    use rand_bytes::Bytes;
    let setup = Setup::new(TlsVersion::Tls13, &[ECDSA]);
    let client = OpensslContext::client(&setup.client).unwrap();
    let server = OpensslContext::server(&setup.server).unwrap();
    for seed in 0..200 {
        let mut random = Bytes::new(seed);
        let (mut client, mut server) = (client.engine().unwrap(), server.engine().unwrap());
        let mut hello = client.handle(TlsOp::Open).ciphertext;
        // The record header before the hello is not part of what both sides agree on.
        let at = 5 + random.below(hello.len() - 5);
        hello[at] ^= 1 << random.below(8);
        let answer = server.handle(TlsOp::Input(hello));
        if answer.error.is_none() {
            let reply = client.handle(TlsOp::Input(answer.ciphertext));
            let end = server.handle(TlsOp::Input(reply.ciphertext));
            assert!(end.established.is_none(), "seed {seed}: a changed hello was agreed on");
        }
    }
}

#[test]
fn a_message_before_the_handshake_is_our_mistake_and_an_error() {
    let (mut client, _) = Setup::new(TlsVersion::Tls13, &[ECDSA]).engines();
    let answer = client.handle(TlsOp::Write(SecretBytes::from(vec![1])));
    assert!(answer.error.unwrap().contains("before the TLS handshake"));
    let (mut client, _) = Setup::new(TlsVersion::Tls13, &[ECDSA]).engines();
    assert!(client.handle(TlsOp::Close).is_nothing());
    assert!(client.handle(TlsOp::Open).error.is_some(), "closed stays closed");
}

#[test]
fn a_long_or_deep_or_weak_chain_is_refused() {
    let ours = Signer::ours();
    let run = |pair: CertAndKey, level: u32| {
        let mut setup = Setup::new(TlsVersion::Tls12, &[ECDSA]);
        setup.server.client_certificate = ClientCertificatePolicy::Required;
        // The certificate is forced on the library, past the checks of our own client.
        setup.client.security_level = level;
        setup.client.certificate = Some(pair);
        setup.run().server.error.unwrap_or_default()
    };

    let mut long = Craft::common_names(&["x"]).pair(&ours);
    for _ in 0..110 {
        long.certificate_pem.extend(ca_pem());
    }
    assert_eq!(run(long, 2), "the peer sent too many bytes in the TLS handshake");

    let mut signer = Signer::ours();
    let mut chain = Vec::new();
    for level in 0..3 {
        let mut craft = Craft::common_names(&[["one", "two", "three"][level]]);
        (craft.ca, craft.client_auth) = (true, false);
        let (certificate, key) = craft.sign(&signer);
        chain.insert(0, certificate.to_pem().unwrap());
        signer = Signer { certificate, key };
    }
    let mut deep = Craft::common_names(&["x"]).pair(&signer);
    deep.certificate_pem.extend(chain.concat());
    let error = run(deep, 2);
    assert!(error.contains("refused"), "{error}");

    for (kind, problem) in [(Key::P256, ""), (Key::P384, ""), (Key::Rsa(2048), "")] {
        let mut craft = Craft::common_names(&["x"]);
        craft.key = kind;
        assert_eq!(run(craft.pair(&ours), 0), problem, "{kind:?}");
    }
    for kind in [Key::P521, Key::Rsa(1024)] {
        let mut craft = Craft::common_names(&["x"]);
        craft.key = kind;
        let (certificate, _) = craft.sign(&ours);
        assert!(certificate::check_certificate_key(&certificate).is_err(), "{kind:?}");
        let refused = OpensslContext::client(&ClientTlsConfig {
            certificate: Some(craft.pair(&ours)),
            security_level: 0,
            ..ClientTlsConfig::default()
        });
        assert!(matches!(refused, Err(TlsError::KeyNotAllowed { .. })), "{kind:?}");
    }
}

#[test]
fn no_crafted_subject_is_taken_for_the_victim() {
    let cn = Nid::COMMONNAME;
    let utf8 = Asn1Type::UTF8STRING;
    let one = |nid, kind, value: &str| vec![(nid, kind, value.to_owned())];
    let mut table = vec![
        vec![],
        one(Nid::ORGANIZATIONNAME, utf8, "victim"),
        one(Nid::ORGANIZATIONALUNITNAME, utf8, "victim"),
        one(Nid::SURNAME, utf8, "victim"),
        one(Nid::DOMAINCOMPONENT, Asn1Type::IA5STRING, "victim"),
        one(cn, Asn1Type::BMPSTRING, "\0v\0i\0c\0t\0i\0m"),
        one(cn, Asn1Type::UNIVERSALSTRING, "\0\0\0v\0\0\0i\0\0\0c\0\0\0t\0\0\0i\0\0\0m"),
        [one(cn, utf8, "victim"), one(cn, utf8, "victim")].concat(),
        [one(cn, utf8, "victim"), one(cn, utf8, "attacker")].concat(),
        [one(cn, utf8, "attacker"), one(cn, utf8, "victim")].concat(),
        [one(cn, utf8, "attacker"), one(Nid::ORGANIZATIONNAME, utf8, "victim")].concat(),
        [one(cn, utf8, "attacker/CN=victim"), one(Nid::ORGANIZATIONNAME, utf8, "x")].concat(),
    ];
    for name in [
        "Victim",
        "VICTIM",
        "victiM",
        " victim",
        "victim ",
        "\tvictim",
        "victim\n",
        "victim\r",
        "victim\0",
        "\0victim",
        "victim\0.example",
        "vic\0tim",
        "victim.",
        ".victim",
        "victim,",
        "CN=victim",
        "/CN=victim",
        "victim/CN=x",
        "\"victim\"",
        "v\u{456}ctim",
        "vict\u{131}m",
        "victim\u{200b}",
        "\u{feff}victim",
        "\u{202e}mitciv",
        "victim\u{301}",
        "victim\u{7f}",
        "*",
        "victim*",
        "victi",
        "victimm",
    ] {
        table.push(one(cn, utf8, name));
    }
    let ours = Signer::ours();
    for names in table {
        let mut craft = Craft::common_names(&[]);
        craft.names = names.clone();
        let (certificate, _) = craft.sign(&ours);
        if let Ok(identity) = certificate::identify(&certificate) {
            assert_ne!(identity.common_name, b"victim", "{names:?}");
        }
    }
    let (certificate, _) = Craft::common_names(&["victim"]).sign(&ours);
    assert_eq!(certificate::identify(&certificate).unwrap().common_name, b"victim");
    let (certificate, _) = Craft::common_names(&[]).sign(&ours);
    assert_eq!(certificate::identify(&certificate), Err(CertificateRefusal::NoCommonName));
}

#[test]
fn unusable_configurations_are_refused_with_a_sentence() {
    let config = |certificates, client_ca, client_certificate| ServerTlsConfig {
        certificates,
        client_ca,
        client_certificate,
        ..ServerTlsConfig::default()
    };
    let no = ClientCertificatePolicy::No;
    let mut mixed = server_pairs(&[RSA]);
    mixed[0].certificate_pem = server_pairs(&[ECDSA])[0].certificate_pem.clone();
    let mut broken = server_pairs(&[RSA]);
    broken[0].key_pem = SecretBytes::from(b"not a key".to_vec());
    for (config, expected) in [
        (config(vec![], None, no), "at least one certificate"),
        (config(server_pairs(&[RSA, RSA]), None, no), "key of the same kind (RSA)"),
        (config(mixed, None, no), "does not belong to the certificate"),
        (config(broken, None, no), "a private key"),
        (config(server_pairs(&[RSA]), None, ClientCertificatePolicy::Required), "no client CA"),
        (
            config(server_pairs(&[RSA]), Some(vec![]), ClientCertificatePolicy::Optional),
            "no client CA",
        ),
    ] {
        let error = OpensslContext::server(&config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = CertAndKey::read("/does/not/exist".as_ref(), "/x".as_ref()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /does/not/exist"));
}

/// Enough randomness for tests, from a seed.
mod rand_bytes {
    use sha2::{Digest, Sha256};

    pub(super) struct Bytes {
        seed: u64,
        drawn: u64,
    }

    impl Bytes {
        pub(super) fn new(seed: u64) -> Self {
            Self { seed, drawn: 0 }
        }

        pub(super) fn below(&mut self, limit: usize) -> usize {
            self.drawn += 1;
            let mut hash = Sha256::new();
            hash.update(self.seed.to_be_bytes());
            hash.update(self.drawn.to_be_bytes());
            let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
            usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap() % limit
        }
    }
}
