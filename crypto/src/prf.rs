//! Key derivation with the TLS 1.0 pseudo-random function (RFC 2246 section 5), which OpenVPN uses
//! with every TLS version unless both sides agreed on the exporter.

use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use zeroize::Zeroize;

use crate::error::RandomError;
use crate::key_block::KeyBlock;
use crate::mac::keyed;
use crate::random::SecureRandom;
use crate::secret::Secret;

/// Label of the master secret. Source: OpenVPN 2 KEY_EXPANSION_ID and " master secret".
const LABEL_MASTER: &[u8] = b"OpenVPN master secret";
/// Label of the key expansion.
const LABEL_EXPANSION: &[u8] = b"OpenVPN key expansion";

/// The random values of one side's key-method-2 message.
#[derive(Debug)]
pub struct KeySource {
    /// The pre-master secret; the client's alone counts, the server's is zero.
    pub pre_master: Secret<48>,
    /// Goes into the master secret.
    pub random1: Secret<32>,
    /// Goes into the key expansion.
    pub random2: Secret<32>,
}

impl KeySource {
    /// Draws all three values; a server's pre-master secret is neither sent nor used.
    ///
    /// # Errors
    /// [`RandomError`] if the source failed.
    pub fn generate(random: &mut dyn SecureRandom) -> Result<Self, RandomError> {
        Ok(Self { pre_master: draw(random)?, random1: draw(random)?, random2: draw(random)? })
    }

    /// A second copy, wiped on its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            pre_master: self.pre_master.duplicate(),
            random1: self.random1.duplicate(),
            random2: self.random2.duplicate(),
        }
    }
}

fn draw<const N: usize>(random: &mut dyn SecureRandom) -> Result<Secret<N>, RandomError> {
    let mut outcome = Ok(());
    let secret = Secret::filled(|out| outcome = random.fill(out));
    outcome.map(|()| secret)
}

/// The data keys of one key id, from both sides' random values and session ids.
///
/// Source: OpenVPN 2 generate_key_expansion_openvpn_prf. The client's session id comes first on
/// both sides.
pub fn derive_key_block(
    client: &KeySource,
    server: &KeySource,
    client_session: &[u8; 8],
    server_session: &[u8; 8],
) -> KeyBlock {
    let master = derive_master(client, server);
    KeyBlock::filled(|out| {
        prf_parts(
            master.expose(),
            &[
                LABEL_EXPANSION,
                client.random2.expose(),
                server.random2.expose(),
                client_session,
                server_session,
            ],
            out,
        );
    })
}

fn derive_master(client: &KeySource, server: &KeySource) -> Secret<48> {
    Secret::filled(|out| {
        prf_parts(
            client.pre_master.expose(),
            &[LABEL_MASTER, client.random1.expose(), server.random1.expose()],
            out,
        );
    })
}

/// Fills `out` with the TLS 1.0 PRF of `secret` and `seed` (the label is part of the seed).
pub fn tls1_prf(secret: &[u8], seed: &[u8], out: &mut [u8]) {
    prf_parts(secret, &[seed], out);
}

fn prf_parts(secret: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    out.fill(0);
    // The halves share the middle byte when the length is odd.
    let half = secret.len().div_ceil(2);
    let first = secret.get(..half).unwrap_or_default();
    let last = secret.get(secret.len().saturating_sub(half)..).unwrap_or_default();
    xor_p_hash::<Hmac<Md5>>(first, seed, out);
    xor_p_hash::<Hmac<Sha1>>(last, seed, out);
}

/// `out ^= P_hash(secret, seed)`.
fn xor_p_hash<M: Mac + hmac::KeyInit + Clone>(secret: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    let mac: M = keyed(secret);
    let mac_of = |first: &[u8], parts: &[&[u8]]| {
        let mut mac = mac.clone();
        mac.update(first);
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes()
    };
    let mut a = mac_of(&[], seed);
    for chunk in out.chunks_mut(M::output_size()) {
        let mut block = mac_of(&a, seed);
        for (out, byte) in chunk.iter_mut().zip(block.iter()) {
            *out ^= byte;
        }
        block.as_mut_slice().zeroize();
        a = mac_of(&a, &[]);
    }
    a.as_mut_slice().zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::{hex, live_client_source, live_server_source, unhex};

    #[test]
    fn prf_matches_openvpn_unit_test_with_odd_secret() {
        // OpenVPN test_crypto.c crypto_test_tls_prf.
        let secret = b"Lorem ipsum dolor sit amet, consectetur adipisici elit, sed eiusmod tempor \
                       incidunt ut labore et dolore magna aliqua.";
        assert_eq!(secret.len(), 117);
        let seed = b"Quis aute iure reprehenderit in voluptate velit esse cillum dolore";
        let mut out = [0; 32];
        tls1_prf(secret, seed, &mut out);
        assert_eq!(hex(&out), "d98c8518c85e946927916acfc2d592fbb1567e4b4b1459e6a904ac2ddab72d67");
    }

    #[test]
    fn prf_matches_openvpn_self_test() {
        let mut out = [0xff; 8];
        tls1_prf(b"tls1-prf-test-secret", b"tls1-prf-test", &mut out);
        assert_eq!(hex(&out), "7144fe2540737595");
    }

    #[test]
    fn prf_takes_empty_secrets_and_outputs() {
        tls1_prf(b"", b"seed", &mut []);
        let mut out = [0; 5];
        tls1_prf(b"", b"seed", &mut out);
        assert_ne!(out, [0; 5]);
    }

    #[test]
    fn derives_the_keys_of_a_live_session() {
        // OpenVPN 2.4.12 client against OpenVPN server, reference section 13.1.
        let (client, server) = (live_client_source(), live_server_source());
        assert_eq!(
            hex(derive_master(&client, &server).expose()),
            "fd377e702fe8f3ff1f64f8f4bcacc6e0ef23fb4773ef9a5d009fb596e4e3bf1d\
             d3f95c4870b6161373cdb5c24e2282e7"
        );
        let block = derive_key_block(
            &client,
            &server,
            &unhex("0c87e1b4ec892597"),
            &unhex("5cc254075bf85830"),
        );
        assert_eq!(
            hex(block.expose()),
            "298eb0e8e3f468983ec32a324b8ae4c4f9bd52ae5da2fa5ef9887c1cd0063017\
             0d1e390fb613350a0f67b3842672af268b5681e4ffb872d062e52fe6f523737a\
             28aa9fc61db67136d19c75ff0604ff008b9687256a60cf80fb0338aea553b0c6\
             f46a78b328b78c118fdbdd32a647eac80269d632287ec1845cc8627915e727fb\
             04b549aa8c722fd5bef553f2ef4e1c95acf0bfaf540b36a2aa2e0ccdd2913fb9\
             9b8da28f8c8885d41a1bbb7ac0b11775a442b88ac90455f58cf7a11d7b31fa15\
             e622dcac58ed33d0b7ae2a62acd2772731588082f37bfbc104ee719e6a05bd44\
             2233d2b9e48a56eb5170b9ff0c23c123cac5b350500daaa0c0d225fc745abcee"
        );
    }

    #[test]
    fn the_order_of_session_ids_matters() {
        let (client, server) = (live_client_source(), live_server_source());
        let one = derive_key_block(&client, &server, &[1; 8], &[2; 8]);
        let other = derive_key_block(&client, &server, &[2; 8], &[1; 8]);
        assert!(!one.ct_eq(&other));
    }

    #[test]
    fn generated_sources_differ() {
        let mut random = crate::random::FastRandom::from_seed([3; 32]);
        let a = KeySource::generate(&mut random).unwrap();
        let b = KeySource::generate(&mut random).unwrap();
        assert!(!a.pre_master.ct_eq(&b.pre_master));
        assert!(!a.random1.ct_eq(&b.random1));
        assert!(!a.random1.ct_eq(&a.random2));
        assert!(a.duplicate().random2.ct_eq(&a.random2));
    }
}
