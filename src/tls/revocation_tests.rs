use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509CrlBuilder, X509Extension, X509Name, X509RevokedBuilder};

use super::*;
use crate::tls::test_support::*;
use crate::tls::{
    CertAndKey, ClientCertificatePolicy, OpensslContext, Reloadable, TlsContext, TlsVersion,
};
use std::sync::Arc;

/// What a list says.
struct Crl<'a> {
    serials: &'a [u32],
    made: i64,
    end: i64,
    /// Object identifier, critical, content.
    extra: Option<(&'a str, bool)>,
}

const DAY: i64 = 86_400;
/// 2026-01-01.
const MADE: i64 = 1_767_225_600;

impl<'a> Crl<'a> {
    fn of(serials: &'a [u32]) -> Self {
        Self { serials, made: MADE, end: MADE + 30 * DAY, extra: None }
    }

    fn sign(&self, signer: &Signer) -> String {
        let mut builder = X509CrlBuilder::new().unwrap();
        builder.set_issuer_name(signer.certificate.subject_name()).unwrap();
        builder.set_last_update(&Asn1Time::from_unix(self.made).unwrap()).unwrap();
        builder.set_next_update(&Asn1Time::from_unix(self.end).unwrap()).unwrap();
        for serial in self.serials {
            let mut revoked = X509RevokedBuilder::new().unwrap();
            let number = BigNum::from_u32(*serial).unwrap().to_asn1_integer().unwrap();
            revoked.set_serial_number(&number).unwrap();
            revoked.set_revocation_date(&Asn1Time::from_unix(self.made).unwrap()).unwrap();
            builder.add_revoked(revoked.build()).unwrap();
        }
        let mut add = |oid: &str, critical: bool, content: &[u8]| {
            let object = Asn1Object::from_str(oid).unwrap();
            let content = Asn1OctetString::new_from_bytes(content).unwrap();
            let extension = X509Extension::new_from_der(&object, critical, &content).unwrap();
            builder.append_extension(extension).unwrap();
        };
        add("2.5.29.35", false, &[0x30, 0x03, 0x80, 0x01, 0x01]);
        add("2.5.29.20", false, &[0x02, 0x01, 0x07]);
        if let Some((oid, critical)) = self.extra {
            add(oid, critical, &[0x30, 0x00]);
        }
        builder.sign(&signer.key, MessageDigest::sha256()).unwrap();
        String::from_utf8(builder.build().unwrap().to_pem().unwrap()).unwrap()
    }
}

fn authorities() -> String {
    String::from_utf8(ca_pem()).unwrap()
}

fn read(texts: &[&str]) -> Result<Revocations, String> {
    Revocations::read(texts, &authorities()).map_err(|mut problems| problems.remove(0).1)
}

fn id(serial: &str) -> CertificateId {
    let issuer_hash = name_hash(Signer::ours().certificate.subject_name()).unwrap();
    CertificateId { issuer_hash, serial: serial.to_owned() }
}

#[test]
fn a_list_revokes_what_it_names_and_nothing_else() {
    let list = read(&[&Crl::of(&[0xabc, 7]).sign(&Signer::ours())]).unwrap();
    assert!(list.revokes(&id("0abc")) && list.revokes(&id("07")));
    assert!(!list.revokes(&id("08")));
    assert!(!list.revokes(&CertificateId { issuer_hash: [1; 32], ..id("07") }));
    let facts = &list.lists()[0];
    let made = u64::try_from(MADE).unwrap();
    assert_eq!(
        (facts.revoked, facts.last_update, facts.next_update),
        (2, made, Some(made + 30 * 86_400))
    );
    assert_eq!(list.without_list(&authorities()), [""; 0]);
    assert_eq!(Revocations::default().without_list(&authorities()).len(), 1);
    // A list that names nobody is a list.
    assert_eq!(read(&[&Crl::of(&[]).sign(&Signer::ours())]).unwrap().lists()[0].revoked, 0);
}

#[test]
fn of_two_lists_of_one_issuer_the_newer_counts_in_any_order() {
    let ours = Signer::ours();
    let old = Crl { made: MADE - DAY, ..Crl::of(&[1, 2]) }.sign(&ours);
    let new = Crl::of(&[2, 3]).sign(&ours);
    for texts in [&[old.as_str(), &new][..], &[&new, &old], &[&format!("{old}{new}")]] {
        let list = read(texts).unwrap();
        assert!(!list.revokes(&id("01")) && list.revokes(&id("02")) && list.revokes(&id("03")));
        assert_eq!(list.lists().len(), 1);
    }
}

/// A CA of the signer's name and key.
fn self_signed(signer: &Signer) -> Signer {
    let name = signer.certificate.subject_name();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(name).unwrap();
    builder.set_issuer_name(name).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(MADE * 2).unwrap()).unwrap();
    builder.set_pubkey(&signer.key).unwrap();
    builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    builder.sign(&signer.key, MessageDigest::sha256()).unwrap();
    Signer { certificate: builder.build(), key: signer.key.clone() }
}

#[test]
fn a_ca_that_has_changed_its_key_has_a_list_of_each() {
    let (ours, next) = (Signer::ours(), Signer::stranger());
    let renewed = self_signed(&next).certificate.to_pem().unwrap();
    let renewed = String::from_utf8(renewed).unwrap();
    let both = format!("{}{renewed}", authorities());
    let old = Crl { made: MADE - DAY, ..Crl::of(&[1]) }.sign(&ours);
    let new = Crl::of(&[2]).sign(&next);
    let list = Revocations::read(&[&old, &new], &both).unwrap();
    assert!(list.revokes(&id("01")) && list.revokes(&id("02")));
}

#[test]
fn a_list_that_is_not_ours_or_not_whole_is_refused() {
    let good = Crl::of(&[1]).sign(&Signer::ours());
    let forged = Crl::of(&[1]).sign(&Signer::stranger());
    let (other, key) = Craft::common_names(&["Another CA"]).sign(&Signer::ours());
    let foreign = Crl::of(&[1]).sign(&Signer { certificate: other, key });
    let partial = |oid| Crl { extra: Some((oid, true)), ..Crl::of(&[1]) }.sign(&Signer::ours());
    let truncated = &good[..good.len() / 2];
    let half_of_two = format!("{good}{truncated}");
    let damaged = good.replacen("MII", "MIJ", 1);
    for (text, expected) in [
        (forged.as_str(), "has not signed"),
        (&foreign, "\"Another CA\", which is not among the CAs of tls.client_ca"),
        (&partial("2.5.29.27"), "does not speak for all"),
        (&partial("2.5.29.28"), "does not speak for all"),
        (&partial("1.2.3.4"), "does not speak for all"),
        (truncated, "ends in the middle"),
        (&half_of_two, "ends in the middle"),
        (&damaged, "cannot be read"),
        (&authorities(), "holds no CRL"),
        ("", "holds no CRL"),
    ] {
        let error = read(&[text]).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // What is not critical takes nothing away.
    let harmless = Crl { extra: Some(("1.2.3.4", false)), ..Crl::of(&[1]) }.sign(&Signer::ours());
    assert!(read(&[&harmless]).is_ok());
    let problems = Revocations::read(&[&good, &forged, truncated], &authorities()).unwrap_err();
    assert_eq!(problems.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn an_overdue_list_revokes_but_locks_nobody_out() {
    let overdue = Crl { made: 1000, end: 2000, ..Crl::of(&[7]) }.sign(&Signer::ours());
    let list = read(&[&overdue]).unwrap();
    assert!(list.revokes(&id("07")) && !list.revokes(&id("08")));
    assert_eq!(list.lists()[0].next_update, Some(2000));
}

#[test]
fn names_are_equal_whatever_their_kind_of_text_case_and_blanks() {
    let hash = |text: &str, kind| {
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_nid_with_type(Nid::COMMONNAME, text, kind).unwrap();
        name_hash(&name.build()).unwrap()
    };
    use openssl::asn1::Asn1Type;
    let one = hash("Router CA", Asn1Type::UTF8STRING);
    for same in ["Router CA", "router ca", " Router   CA "] {
        assert_eq!(hash(same, Asn1Type::PRINTABLESTRING), one, "{same}");
        assert_eq!(hash(same, Asn1Type::TELETEXSTRING), one, "{same}");
    }
    for other in ["RouterCA", "Router CA 2"] {
        assert_ne!(hash(other, Asn1Type::UTF8STRING), one, "{other}");
    }
}

#[test]
fn a_revoked_certificate_and_one_below_a_revoked_ca_do_not_log_in() {
    // The installation's own CA allows none below it.
    let ours = self_signed(&Signer::ours());
    let root = ours.certificate.to_pem().unwrap();
    let log_in = |list: &Arc<Revocations>, pair: CertAndKey, version: TlsVersion| {
        let mut setup = Setup::new(version, &[1]);
        setup.server.client_certificate = ClientCertificatePolicy::Required;
        setup.server.client_ca = Some(root.clone());
        setup.server.revocations = Arc::clone(list);
        setup.client.certificate = Some(pair);
        let server = setup.run().server;
        match server.error {
            Some(error) => Err(error),
            None => Ok(server.facts.unwrap().client_certificate.unwrap().intermediates.len()),
        }
    };
    let mut craft = Craft::common_names(&["Regional CA"]);
    (craft.ca, craft.client_auth) = (true, false);
    let (certificate, key) = craft.sign(&ours);
    let regional_pem = certificate.to_pem().unwrap();
    let regional = Signer { certificate, key };
    let direct = || Craft::common_names(&["branch-42"]).pair(&ours);
    let below = || {
        let mut pair = Craft::common_names(&["branch-42"]).pair(&regional);
        pair.certificate_pem.extend(&regional_pem);
        pair
    };
    // Every certificate of these tests has the same serial number, 0xabc.
    let none = Arc::new(read(&[&Crl::of(&[1]).sign(&ours)]).unwrap());
    let all = Arc::new(read(&[&Crl::of(&[0xabc]).sign(&ours)]).unwrap());
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        assert_eq!(log_in(&none, direct(), version), Ok(0));
        assert_eq!(log_in(&none, below(), version), Ok(1));
        assert_eq!(
            log_in(&all, direct(), version).unwrap_err(),
            "the client certificate was refused: it is revoked"
        );
        assert_eq!(
            log_in(&all, below(), version).unwrap_err(),
            "the client certificate was refused: a CA of its chain is revoked"
        );
    }
    // The live tunnel of a router below the regional CA is found as well.
    let chain = |intermediates| ClientCertificate {
        common_name: b"branch-42".to_vec(),
        fingerprint: [0; 32],
        serial: "05".into(),
        issuer_hash: name_hash(regional.certificate.subject_name()).unwrap(),
        intermediates,
    };
    let regional_id = id_of(&regional.certificate).unwrap();
    assert!(all.covers(&chain(vec![regional_id.clone()])));
    assert!(!none.covers(&chain(vec![regional_id])) && !all.covers(&chain(Vec::new())));
}

#[test]
fn an_engine_keeps_the_context_it_was_made_from() {
    let setup = |servers: &[usize]| Setup::new(TlsVersion::Tls12, servers);
    let context = |setup: &Setup| Arc::new(OpensslContext::server(&setup.server).unwrap());
    let (rsa, ecdsa) = (setup(&[0]), setup(&[1]));
    let reloadable = Reloadable::new(context(&rsa));
    let mut begun = reloadable.open().unwrap();
    reloadable.replace(context(&ecdsa));
    let mut next = reloadable.open().unwrap();
    for (engine, expected) in [(&mut begun, "RSA"), (&mut next, "ECDSA")] {
        let (mut client, _) = rsa.engines();
        let outcome = shake(&mut client, &mut **engine, usize::MAX);
        let suite = outcome.client.facts.unwrap().suite.clone();
        assert!(suite.contains(&format!("-{expected}-")), "{suite}");
    }
}
