//! Failing TLS handshakes leave no memory behind (threat T20). Alone in its process, so that the
//! figures are its own.

#![expect(clippy::unwrap_used, reason = "test code: a failed expectation is the report")]

use tunnelhead::proto::session::TlsOp;
use tunnelhead::tls::pki::{self, PkiRequest};
use tunnelhead::tls::{
    CertAndKey, ClientCertificatePolicy, ClientTlsConfig, OpensslContext, ServerTlsConfig,
    TlsEngine, TlsVersion,
};
use tunnelhead_crypto::SecretBytes;

const WARM_UP: usize = 2_000;
const HANDSHAKES: usize = 10_000;
/// What an allocator may still move about after the warm-up; a leak of 500 bytes a handshake
/// would be twice this.
const SLACK_KIB: u64 = 2_560;

#[test]
fn ten_thousand_failing_handshakes_leave_memory_flat() {
    let ours = tempfile::tempdir().unwrap();
    let theirs = tempfile::tempdir().unwrap();
    let files = pki::ensure(ours.path(), &PkiRequest::default()).unwrap();
    let [_, ecdsa] = &files.servers;
    let server = OpensslContext::server(&ServerTlsConfig {
        certificates: vec![CertAndKey::read(&ecdsa.certificate, &ecdsa.key).unwrap()],
        client_ca: Some(std::fs::read(&files.ca_certificate).unwrap()),
        client_certificate: ClientCertificatePolicy::Required,
        ..ServerTlsConfig::default()
    })
    .unwrap();

    let (certificate, key) = pki::issue_client(theirs.path(), "stranger").unwrap();
    let stranger = OpensslContext::client(&ClientTlsConfig {
        max_version: TlsVersion::Tls12,
        certificate: Some(CertAndKey {
            certificate_pem: certificate.into_bytes(),
            key_pem: SecretBytes::from(key.as_bytes().to_vec()),
        }),
        ..ClientTlsConfig::default()
    })
    .unwrap();
    let no_suite = OpensslContext::client(&ClientTlsConfig {
        max_version: TlsVersion::Tls12,
        cipher_list: Some("ECDHE-ECDSA-CHACHA20-POLY1305".to_owned()),
        ..ClientTlsConfig::default()
    })
    .unwrap();
    let hello = no_suite.engine().unwrap().handle(TlsOp::Open).ciphertext;

    let mut after_warm_up = 0;
    for round in 0..WARM_UP + HANDSHAKES {
        if round == WARM_UP {
            after_warm_up = resident_kib();
        }
        match round % 50 {
            // The whole way, with signatures: slow, so only now and then.
            0 => fail_whole(&stranger, &server),
            // Half a hello, given up.
            1..10 => {
                let half = hello.iter().take(hello.len() / 2).copied().collect();
                assert!(server.engine().unwrap().handle(TlsOp::Input(half)).error.is_none());
            }
            10..20 => fail_at_once(&server, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
            _ => fail_at_once(&server, hello.clone()),
        }
    }
    let growth = resident_kib().saturating_sub(after_warm_up);
    println!("{HANDSHAKES} failing handshakes: {growth} KiB more than the {after_warm_up} before");
    assert!(growth < SLACK_KIB, "grew by {growth} KiB from {after_warm_up} KiB");
}

fn fail_at_once(server: &OpensslContext, bytes: Vec<u8>) {
    assert!(server.engine().unwrap().handle(TlsOp::Input(bytes)).error.is_some());
}

fn fail_whole(client: &OpensslContext, server: &OpensslContext) {
    let (mut client, mut server) = (client.engine().unwrap(), server.engine().unwrap());
    let mut to_server = client.handle(TlsOp::Open).ciphertext;
    loop {
        let answer = server.handle(TlsOp::Input(std::mem::take(&mut to_server)));
        if let Some(error) = answer.error {
            assert!(error.contains("refused"), "{error}");
            return;
        }
        to_server = client.handle(TlsOp::Input(answer.ciphertext)).ciphertext;
        assert!(!to_server.is_empty(), "the handshake did not fail");
    }
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
