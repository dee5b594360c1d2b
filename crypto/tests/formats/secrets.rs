//! No secret in any printed form.

use std::fmt::Debug;

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataKeys, FastRandom, KeyBlock, KeyDirection, KeySource, Metadata,
    Role, Secret, SecretBytes, SecureRandom, StaticKey, TlsCryptV2ClientKey, TlsCryptV2ServerKey,
    TlsCryptV2ServerKey as ServerKey,
};

use crate::support::formats;

/// A byte pattern that is easy to find: every four bytes of it are.
const MARK: [u8; 4] = [0xc3, 0xa5, 0xd7, 0xe9];

/// Gives out nothing but the mark.
struct Marked;

impl SecureRandom for Marked {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), tunnelhead_crypto::RandomError> {
        out.iter_mut().zip(MARK.into_iter().cycle()).for_each(|(out, byte)| *out = byte);
        Ok(())
    }
}

fn marked<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    Marked.fill(&mut bytes).unwrap();
    bytes
}

/// Every way in which two neighbouring bytes of the mark could have been printed.
fn traces() -> Vec<String> {
    let mut traces = Vec::new();
    for n in 0..4 {
        let (a, b) = (MARK[n], MARK[(n + 1) % 4]);
        traces.push(format!("{a}, {b}"));
        traces.push(format!("{a:02x}{b:02x}"));
        traces.push(format!("{a:02X}{b:02X}"));
        traces.push(format!("{a:x}, {b:x}"));
        traces.push(format!("{a:X}, {b:X}"));
        traces.push(format!("{a:#x}, {b:#x}"));
        traces.push(format!("\\x{a:02x}\\x{b:02x}"));
        traces.push(format!("{a},\n"));
    }
    let bytes: [u8; 6] = [MARK[0], MARK[1], MARK[2], MARK[3], MARK[0], MARK[1]];
    for n in 0..3 {
        traces.push(openssl::base64::encode_block(&bytes[n..n + 3]));
    }
    traces
}

fn check(name: &str, value: &dyn Debug) {
    let printed = format!("{value:?}\n{value:#?}\n{value:x?}\n{value:X?}");
    for trace in traces() {
        assert!(!printed.contains(&trace), "{name} prints {trace:?}: {printed}");
    }
    assert!(printed.len() < 2000, "{name} prints too much: {printed}");
}

#[test]
fn the_search_finds_what_it_should() {
    let found = |text: String| traces().iter().any(|trace| text.contains(trace));
    assert!(found(format!("{:?}", marked::<8>())));
    assert!(found(format!("{:#?}", marked::<8>())));
    assert!(found(format!("{:x?}", marked::<8>())));
    assert!(found(format!("{:X?}", marked::<8>())));
    assert!(found(StaticKey::generate(&mut Marked).unwrap().to_text()));
    assert!(found(ServerKey::generate(&mut Marked).unwrap().to_pem()));
}

#[test]
fn no_secret_type_prints_its_secret() {
    let key = StaticKey::generate(&mut Marked).unwrap();
    let server = TlsCryptV2ServerKey::generate(&mut Marked).unwrap();
    let client = TlsCryptV2ClientKey::generate(&server, &Metadata::Empty, &mut Marked).unwrap();
    check("Secret", &Secret::new(marked::<32>()));
    check("SecretBytes", &SecretBytes::from(marked::<64>().to_vec()));
    check("KeyBlock", &KeyBlock::from_bytes(marked()));
    check("KeySource", &KeySource::generate(&mut Marked).unwrap());
    check("StaticKey", &key);
    check("TlsCryptV2ServerKey", &server);
    check("TlsCryptV2ClientKey", &client);
    check("FastRandom", &FastRandom::from_seed(marked()));
    for wrap in [
        ControlWrap::none(),
        ControlWrap::tls_crypt(&key, Role::Server),
        ControlWrap::tls_auth(&key, KeyDirection::Normal, AuthDigest::Sha512),
        ControlWrap::dynamic_tls_crypt(key.key_block(), None, Role::Client),
    ] {
        check("ControlWrap", &wrap);
    }
    for (cipher, digest) in formats() {
        let keys = DataKeys::new(cipher, digest, key.key_block(), Role::Server).unwrap();
        check("DataKeys", &keys);
        check("DataSealer", &keys.sealer);
        check("DataOpener", &keys.opener);
    }
}

#[test]
fn errors_of_key_files_hold_none_of_the_key() {
    let damage = |text: String| text.replace("-----END", "!\n-----END");
    let key = damage(StaticKey::generate(&mut Marked).unwrap().to_text());
    let error = StaticKey::parse(&key).unwrap_err();
    check("StaticKey::parse", &error);
    check("StaticKey::parse", &error.to_string());
    let pem = damage(TlsCryptV2ServerKey::generate(&mut Marked).unwrap().to_pem());
    let error = TlsCryptV2ServerKey::parse_pem(&pem).unwrap_err();
    check("TlsCryptV2ServerKey::parse_pem", &error);
    check("TlsCryptV2ServerKey::parse_pem", &error.to_string());
}
