//! Making stored secrets and verifying passwords against them.

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tunnelhead_crypto::{RandomError, Secret, SecureRandom, credential_tag, ct_eq};

use super::secret::{StoredSecret, parse_phc};

impl StoredSecret {
    /// Keeps a generated password of at least 128 random bits.
    pub fn machine(key: &Secret<32>, name: &str, password: &[u8]) -> Self {
        Self::Machine { tag: machine_tag(key, name.as_bytes(), password) }
    }

    /// Keeps a password that a person chose. Slow on purpose: some ten milliseconds and 19 MiB.
    ///
    /// # Errors
    /// No randomness for the salt, or a password that Argon2 does not take (4 GiB).
    pub fn argon2id(password: &[u8], rng: &mut dyn SecureRandom) -> Result<Self, HashError> {
        let mut salt = [0; SALT_LEN];
        rng.fill(&mut salt)?;
        let hash = hasher()
            .and_then(|hasher| hasher.hash_password_with_salt(password, &salt).ok())
            .ok_or(HashError::Hash)?;
        Ok(Self::Argon2id(hash.to_string()))
    }

    /// True if `presented` is the keyed hash of a machine secret; always false for a human-set one.
    /// The same work whatever the outcome.
    pub(super) fn is_tag(&self, presented: &MachineTag) -> bool {
        match self {
            Self::Machine { tag } => ct_eq(&presented.0, tag),
            Self::Argon2id(_) => ct_eq(&presented.0, &[0; 32]) & false,
        }
    }

    /// Verifies against a human-set password; always false for a machine secret.
    /// Takes some ten milliseconds and 19 MiB.
    pub fn verify_slow(&self, password: &[u8]) -> bool {
        let Self::Argon2id(phc) = self else { return false };
        parse_phc(phc)
            .is_some_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
    }
}

/// The keyed hash of what was presented, to compare with machine secrets.
pub(super) struct MachineTag([u8; 32]);

impl MachineTag {
    pub(super) fn of(key: &Secret<32>, name: &[u8], password: &[u8]) -> Self {
        Self(machine_tag(key, name, password))
    }
}

/// Why a secret can not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Argon2 refused its input.
    #[error("the password can not be hashed")]
    Hash,
}

/// Does the work of [`StoredSecret::verify_slow`] for a user that does not exist.
pub(super) fn verify_decoy(password: &[u8]) {
    let mut out = [0; 32];
    if let Some(hasher) = hasher() {
        let done = hasher.hash_password_into(password, &[0; SALT_LEN], &mut out);
        std::hint::black_box((done.is_ok(), out));
    }
}

fn machine_tag(key: &Secret<32>, name: &[u8], password: &[u8]) -> [u8; 32] {
    credential_tag(key, &[MACHINE_LABEL, name, password])
}

fn hasher() -> Option<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

const MACHINE_LABEL: &[u8] = b"tunnelhead router secret v1";
const SALT_LEN: usize = 16;
/// Source: OWASP password storage, Argon2id with 19 MiB, t=2, p=1.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

#[cfg(test)]
mod tests {
    use tunnelhead_crypto::FastRandom;

    use super::*;

    struct NoRandom;

    impl SecureRandom for NoRandom {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), RandomError> {
            Err(RandomError)
        }
    }

    #[test]
    fn argon2id_has_the_stated_cost_and_a_salt_of_its_own() {
        let mut rng = FastRandom::from_seed([3; 32]);
        let first = StoredSecret::argon2id(b"secret", &mut rng).unwrap();
        let second = StoredSecret::argon2id(b"secret", &mut rng).unwrap();
        assert_ne!(first, second);
        let text = first.to_text();
        assert!(text.starts_with("argon2id-v1:$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let read = StoredSecret::parse(&text).unwrap();
        assert!(read.verify_slow(b"secret") && second.verify_slow(b"secret"));
        assert!(!read.verify_slow(b"secre") && !read.verify_slow(b""));
        assert!(!read.is_tag(&MachineTag::of(&Secret::new([1; 32]), b"a", b"secret")));
        assert!(!read.is_tag(&MachineTag([0; 32])));
    }

    /// Source: the reference implementation's test.c, Argon2id version 19.
    #[test]
    fn verifies_a_hash_of_the_reference_implementation() {
        let phc = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ\
                   $nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let secret = StoredSecret::parse(&format!("argon2id-v1:{phc}")).unwrap();
        assert!(secret.verify_slow(b"password"));
        assert!(!secret.verify_slow(b"differentpassword"));
    }

    #[test]
    fn malformed_hashes_verify_nothing() {
        for phc in ["", "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ", "$argon2id$"] {
            assert!(!StoredSecret::Argon2id(phc.to_owned()).verify_slow(b""), "{phc}");
        }
    }

    #[test]
    fn a_machine_secret_verifies_its_own_password_only() {
        let key = Secret::new([4; 32]);
        let secret = StoredSecret::machine(&key, "a", b"password");
        let fits = |key: &Secret<32>, name: &[u8], password: &[u8]| {
            secret.is_tag(&MachineTag::of(key, name, password))
        };
        assert!(fits(&key, b"a", b"password"));
        assert!(!fits(&key, b"a", b"passwore"));
        assert!(!fits(&key, b"b", b"password"));
        assert!(!fits(&key, b"", b"apassword"));
        assert!(!fits(&Secret::new([5; 32]), b"a", b"password"));
        assert!(!secret.verify_slow(b"password"));
    }

    #[test]
    fn no_randomness_is_an_error() {
        let made = StoredSecret::argon2id(b"secret", &mut NoRandom);
        assert!(matches!(made, Err(HashError::Random(_))));
    }
}
