//! A second implementation of every format, on OpenSSL and from the written formats alone.

use openssl::hash::MessageDigest;
use openssl::memcmp;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::symm::{Cipher, Crypter, Mode, decrypt_aead, encrypt_aead};
use proptest::prelude::*;
use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataCipher, KeyDirection, Metadata, NonceAuditor, Role, StaticKey,
    TlsCryptV2ServerKey, tls1_prf,
};

use crate::support::{V1, V2, block, formats, pair, seal, static_key};

fn message_digest(digest: AuthDigest) -> MessageDigest {
    match digest {
        AuthDigest::Sha1 => MessageDigest::sha1(),
        AuthDigest::Sha256 => MessageDigest::sha256(),
        AuthDigest::Sha384 => MessageDigest::sha384(),
        AuthDigest::Sha512 => MessageDigest::sha512(),
    }
}

fn hmac(digest: MessageDigest, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = PKey::hmac(key).unwrap();
    let mut signer = Signer::new(digest, &key).unwrap();
    for part in parts {
        signer.update(part).unwrap();
    }
    signer.sign_to_vec().unwrap()
}

fn crypt(cipher: Cipher, mode: Mode, key: &[u8], iv: &[u8], text: &[u8]) -> Vec<u8> {
    let mut crypter = Crypter::new(cipher, mode, key, Some(iv)).unwrap();
    let mut out = vec![0; text.len() + 16];
    let n = crypter.update(text, &mut out).unwrap();
    let n = n + crypter.finalize(&mut out[n..]).unwrap();
    out.truncate(n);
    out
}

/// One direction of the data channel.
struct Peer {
    cipher: Cipher,
    aead: bool,
    digest: AuthDigest,
    key: Vec<u8>,
    mac: Vec<u8>,
}

impl Peer {
    /// `slot`: 0 for what the client sends, 1 for what the server sends.
    fn new(format: (DataCipher, AuthDigest), material: &[u8; 256], slot: usize) -> Self {
        let cipher = match format.0 {
            DataCipher::Aes128Gcm => Cipher::aes_128_gcm(),
            DataCipher::Aes192Gcm => Cipher::aes_192_gcm(),
            DataCipher::Aes256Gcm => Cipher::aes_256_gcm(),
            DataCipher::Aes128Cbc => Cipher::aes_128_cbc(),
            DataCipher::Aes192Cbc => Cipher::aes_192_cbc(),
            DataCipher::Aes256Cbc => Cipher::aes_256_cbc(),
        };
        let start = slot * 128;
        Self {
            cipher,
            aead: format.0.is_aead(),
            digest: format.1,
            key: material[start..start + cipher.key_len()].to_vec(),
            mac: material[start + 64..start + 128].to_vec(),
        }
    }

    fn seal(&self, header: &[u8], id: u32, iv: &[u8; 16], payload: &[u8]) -> Vec<u8> {
        let id = id.to_be_bytes();
        if self.aead {
            let nonce = [&id[..], &self.mac[..8]].concat();
            let aad = if header.len() == 4 { [header, &id].concat() } else { id.to_vec() };
            let mut tag = [0; 16];
            let text = encrypt_aead(self.cipher, &self.key, Some(&nonce), &aad, payload, &mut tag)
                .unwrap();
            [header, &id, &tag, &text].concat()
        } else {
            let plain = [&id[..], payload].concat();
            let text = crypt(self.cipher, Mode::Encrypt, &self.key, iv, &plain);
            let len = self.digest.output_len();
            let mac = hmac(message_digest(self.digest), &self.mac[..len], &[iv, &text]);
            [header, &mac, iv, &text].concat()
        }
    }

    fn open(&self, header_len: usize, packet: &[u8]) -> (u32, Vec<u8>) {
        let (header, body) = packet.split_at(header_len);
        if self.aead {
            let (id, rest) = body.split_at(4);
            let (tag, text) = rest.split_at(16);
            let nonce = [id, &self.mac[..8]].concat();
            let aad = if header_len == 4 { [header, id].concat() } else { id.to_vec() };
            let plain =
                decrypt_aead(self.cipher, &self.key, Some(&nonce), &aad, text, tag).unwrap();
            (u32::from_be_bytes(id.try_into().unwrap()), plain)
        } else {
            let len = self.digest.output_len();
            let (mac, rest) = body.split_at(len);
            let expected = hmac(message_digest(self.digest), &self.mac[..len], &[rest]);
            assert!(memcmp::eq(mac, &expected));
            let (iv, text) = rest.split_at(16);
            let plain = crypt(self.cipher, Mode::Decrypt, &self.key, iv, text);
            let (id, payload) = plain.split_at(4);
            (u32::from_be_bytes(id.try_into().unwrap()), payload.to_vec())
        }
    }
}

#[test]
fn every_data_format_agrees_with_openssl_at_every_small_size() {
    let _audit = NonceAuditor::isolate();
    for format in formats() {
        let block = block(20);
        let (mut server, mut client) = pair(format, &block);
        let up = Peer::new(format, block.expose(), 0);
        let down = Peer::new(format, block.expose(), 1);
        for (n, len) in (0..70).chain([575, 576, 1399, 1400, 1500, 1999]).enumerate() {
            let id = u32::try_from(n).unwrap() + 1;
            let payload: Vec<u8> = (0..=255).cycle().skip(n).take(len).collect();
            let (header, wire): (_, &[u8]) = if n % 2 == 0 {
                (V1, &[6 << 3 | 5])
            } else {
                (V2, &[9 << 3 | 5, 0xab, 0xcd, 0xef])
            };
            let iv = [n as u8 ^ 0xa5; 16];
            // Sealed here, opened there; both directions.
            let sealed = seal(&mut server, header, &payload);
            assert_eq!(&sealed[..wire.len()], wire);
            assert_eq!(down.open(wire.len(), &sealed), (id, payload.clone()), "{format:?} {len}");
            let sealed = seal(&mut client, header, &payload);
            assert_eq!(up.open(wire.len(), &sealed), (id, payload.clone()), "{format:?} {len}");
            // Sealed there, opened here.
            let mut sealed = down.seal(wire, id, &iv, &payload);
            assert_eq!(client.opener.open(&mut sealed).unwrap(), payload, "{format:?} {len}");
            let mut sealed = up.seal(wire, id, &iv, &payload);
            assert_eq!(server.opener.open(&mut sealed).unwrap(), payload, "{format:?} {len}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn data_formats_agree_with_openssl(
        format in prop::sample::select(formats()),
        id in 1u32..,
        iv in prop::array::uniform16(any::<u8>()),
        payload in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let block = block(21);
        let (_, mut client) = pair(format, &block);
        let mut sealed =
            Peer::new(format, block.expose(), 1).seal(&[0x48, 0, 0, 1], id, &iv, &payload);
        prop_assert_eq!(&*client.opener.open(&mut sealed).unwrap(), payload.as_slice());
    }

    #[test]
    fn tls_crypt_agrees_with_openssl(
        head in prop::array::uniform9(any::<u8>()),
        rest in prop::collection::vec(any::<u8>(), 0..1300),
        time in any::<u32>(),
    ) {
        let key = static_key(22);
        let plain = [&head[..], &rest].concat();
        let mut wire = Vec::new();
        ControlWrap::tls_crypt(&key, Role::Server).wrap(&plain, time, &mut wire).unwrap();
        prop_assert_eq!(wire, tls_crypt_wrap(&key, 0, 1, time, &plain));
        // And the other way: a packet of the client, sent with slot 1.
        let wire = tls_crypt_wrap(&key, 1, 1, time, &plain);
        let mut out = Vec::new();
        ControlWrap::tls_crypt(&key, Role::Server).unwrap(&wire, &mut out).unwrap();
        prop_assert_eq!(out, plain);
    }

    #[test]
    fn tls_auth_agrees_with_openssl(
        digest in prop::sample::select(AuthDigest::ALL.to_vec()),
        direction in prop::sample::select(vec![
            (KeyDirection::Normal, 64), (KeyDirection::Inverse, 192), (KeyDirection::Bidirectional, 64),
        ]),
        head in prop::array::uniform9(any::<u8>()),
        rest in prop::collection::vec(any::<u8>(), 0..1300),
        time in any::<u32>(),
    ) {
        let key = static_key(23);
        let (direction, at) = direction;
        let id = [&1u32.to_be_bytes()[..], &time.to_be_bytes()].concat();
        let mac_key = &key.key_block().expose()[at..at + digest.output_len()];
        let mac = hmac(message_digest(digest), mac_key, &[&id, &head, &rest]);
        let expected = [&head[..], &mac, &id, &rest].concat();
        let plain = [&head[..], &rest].concat();
        let mut wire = Vec::new();
        ControlWrap::tls_auth(&key, direction, digest).wrap(&plain, time, &mut wire).unwrap();
        prop_assert_eq!(&wire, &expected);
        let mut out = Vec::new();
        let mut peer = ControlWrap::tls_auth(&key, direction.peer(), digest);
        peer.unwrap(&expected, &mut out).unwrap();
        prop_assert_eq!(out, plain);
    }

    #[test]
    fn the_prf_agrees_with_openssl_hmac(
        secret in prop::collection::vec(any::<u8>(), 1..200),
        seed in prop::collection::vec(any::<u8>(), 0..100),
        len in 0usize..300,
    ) {
        let half = secret.len().div_ceil(2);
        let p_hash = |digest, secret: &[u8]| {
            let (mut a, mut out) = (seed.clone(), Vec::new());
            while out.len() < len {
                a = hmac(digest, secret, &[&a]);
                out.extend(hmac(digest, secret, &[&a, &seed]));
            }
            out
        };
        let md5 = p_hash(MessageDigest::md5(), &secret[..half]);
        let sha1 = p_hash(MessageDigest::sha1(), &secret[secret.len() - half..]);
        let expected: Vec<u8> = md5.iter().zip(&sha1).map(|(a, b)| a ^ b).take(len).collect();
        let mut out = vec![0xff; len];
        tls1_prf(&secret, &seed, &mut out);
        prop_assert_eq!(out, expected);
    }
}

fn tls_crypt_wrap(key: &StaticKey, slot: usize, counter: u32, time: u32, plain: &[u8]) -> Vec<u8> {
    let material = &key.key_block().expose()[slot * 128..];
    let (head, rest) = plain.split_at(9);
    let id = [counter.to_be_bytes(), time.to_be_bytes()].concat();
    let tag = hmac(MessageDigest::sha256(), &material[64..96], &[head, &id, rest]);
    let text = crypt(Cipher::aes_256_ctr(), Mode::Encrypt, &material[..32], &tag[..16], rest);
    [head, &id, &tag, &text].concat()
}

#[test]
fn the_tls_crypt_counter_carries_through_the_iv() {
    // A tag whose first half ends in ff makes the counter carry; search for one.
    let key = static_key(24);
    let mut carried = 0;
    for n in 0u32..3000 {
        let plain = [&[0x20; 9][..], &n.to_be_bytes(), &[0x55; 64]].concat();
        let mut wire = Vec::new();
        ControlWrap::tls_crypt(&key, Role::Server).wrap(&plain, 1, &mut wire).unwrap();
        if wire[17 + 15] >= 0xfe {
            carried += 1;
            assert_eq!(wire, tls_crypt_wrap(&key, 0, 1, 1, &plain));
        }
    }
    assert!(carried > 0);
}

#[test]
fn wrapped_client_keys_agree_with_openssl() {
    let raw: Vec<u8> = (0..128).collect();
    let base64 = openssl::base64::encode_block(&raw);
    let label = "OpenVPN tls-crypt-v2 server key";
    let pem = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
    let server = TlsCryptV2ServerKey::parse_pem(&pem).unwrap();
    let key = static_key(25);
    for value in [vec![], vec![1; 100], vec![2; 733]] {
        let metadata = [&[0][..], &value].concat();
        let len = u16::try_from(290 + metadata.len()).unwrap().to_be_bytes();
        let plain = [&key.key_block().expose()[..], &metadata].concat();
        let tag = hmac(MessageDigest::sha256(), &raw[64..96], &[&len, &plain]);
        let text = crypt(Cipher::aes_256_ctr(), Mode::Encrypt, &raw[..32], &tag[..16], &plain);
        let expected = [&tag[..], &text, &len].concat();
        let wrapped = server.wrap_client_key(&key, &Metadata::User(value)).unwrap();
        assert_eq!(wrapped, expected);
    }
}
