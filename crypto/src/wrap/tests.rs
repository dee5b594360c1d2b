//! Vectors of control-channel wrapping.

use super::*;
use crate::testutil::{hex, unhex_vec};

/// The static key of OpenVPN test_pkt.c.
fn openvpn_test_key() -> StaticKey {
    let bytes = unhex_vec(
        "37268ea8f95d7f71f9fb8fc03770c460daf714a483d815c013ce0a537efc18f2
         8f4f172669d9e6a413bac6741d8ea05400f49b7fd6326470f23798c606bf53d4
         de63ebc64ec59d57ce5d04d5b62e68b53ca6e5354351097fa370446c4d269f18
         7bb6ae54af2dc70ff7317fe2f8754b8282aad4202f9fa42c8640245d883e2c54
         a0c1c489a036cf3a8964d8d289c1583b9447c262b1da5fd167a5d27bd5ac5143
         17bc2343a31a2efc38dd920d910375f51c2e27f3afd36c49269da079f7ce466e
         bb0f9ad13e9bbb4665974e6bc24b513c5700393bf4a3e7f967e2f384069ac8a8
         e78b18b15604993fd16515cce9c0f3e42b4126b999005ade802797b0eeb8b9e6",
    );
    StaticKey::from(KeyBlock::from_bytes(bytes.try_into().unwrap()))
}

#[test]
fn tls_auth_matches_openvpn_unit_test() {
    let wire = unhex_vec(
        "38de694c5c7bfba27493537c1ded4e781529ae7cfe4b8c6d6b2b51f05a0000000161d3bf6c0000000000",
    );
    let key = openvpn_test_key();
    let mut server = ControlWrap::tls_auth(&key, KeyDirection::Normal, AuthDigest::Sha1);
    let mut plain = vec![1, 2, 3];
    server.unwrap(&wire, &mut plain).unwrap();
    assert_eq!(hex(&plain), "38de694c5c7bfba2740000000000");
    let mut client = ControlWrap::tls_auth(&key, KeyDirection::Inverse, AuthDigest::Sha1);
    let mut out = Vec::new();
    client.wrap(&plain, 0x61d3_bf6c, &mut out).unwrap();
    assert_eq!(hex(&out), hex(&wire));
    assert_eq!(client.overhead(), out.len() - plain.len());
}

#[test]
fn tls_crypt_matches_openvpn_unit_test() {
    let wire = unhex_vec(
        "38f419cb12d1f9e48f0000000161d3f8e1330206f56802be44fbed905064e3db43416bec5e526719462b7eb9\
         0c96defc9b05c44879f7",
    );
    let key = openvpn_test_key();
    let mut plain = Vec::new();
    ControlWrap::tls_crypt(&key, Role::Server).unwrap(&wire, &mut plain).unwrap();
    assert_eq!(hex(&plain), "38f419cb12d1f9e48f0000000000");
    let mut out = Vec::new();
    let mut client = ControlWrap::tls_crypt(&key, Role::Client);
    client.wrap(&plain, 0x61d3_f8e1, &mut out).unwrap();
    assert_eq!(hex(&out), hex(&wire));
    assert_eq!(client.overhead(), out.len() - plain.len());
}

#[test]
fn dynamic_tls_crypt_matches_openvpn_unit_test() {
    // OpenVPN test_tls_crypt_secure_reneg_key: exported key 256 x ba, empty header, slot 0.
    let key = StaticKey::from(KeyBlock::from_bytes([0xba; 256]));
    let mut out = Vec::new();
    TlsCrypt::new(&key, Role::Server).wrap_with(
        [0, 0, 0, 1, 0, 0, 0, 0],
        &[],
        b"1234567890",
        &mut out,
    );
    assert_eq!(
        hex(&out),
        "0000000100000000e319277f1c8d6e6a7796a855337b9cfb56e1f13a870e6647dfa195c92c17a015\
         ba4967a11d55ea1a06a7"
    );
}

/// The server key of OpenVPN test_tls_crypt.c: bytes 00..7f; the client key: bytes 00..ff.
fn v2_test_keys() -> (TlsCryptV2ServerKey, StaticKey) {
    let raw: Vec<u8> = (0..128).collect();
    let pem = crate::pem::encode(&raw, "OpenVPN tls-crypt-v2 server key");
    let client = KeyBlock::from_bytes(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    (TlsCryptV2ServerKey::parse_pem(&pem).unwrap(), StaticKey::from(client))
}

#[test]
fn wrapped_client_keys_match_openvpn_unit_test() {
    let (server, key) = v2_test_keys();
    for (metadata, len, tag) in [
        (
            Metadata::Timestamp(0),
            299,
            "177da5c074a94619b16be4acb71f1a6ccf24f33c6bbaf498459d5f06c369d495",
        ),
        (
            Metadata::User(unhex_vec("0000410820c3")),
            297,
            "69eda75582aa170b8c9418fe28248cdb7761bea2d277aa1647eb3a9d94083733",
        ),
    ] {
        let wrapped = server.wrap_client_key(&key, &metadata).unwrap();
        assert_eq!(wrapped.len(), len);
        assert_eq!(hex(&wrapped[len - 2..]), format!("{len:04x}"));
        assert_eq!(hex(&wrapped[..32]), tag);
        let packet = [&[0x50], wrapped.as_slice()].concat();
        let (found, read, inner) = server.split_and_unwrap(&packet).unwrap();
        assert!(found.ct_eq(&key));
        assert_eq!((read, inner), (metadata, &[0x50][..]));
    }
}
