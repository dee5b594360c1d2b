//! The forms in which the password of an account is kept.

use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Params};

/// The password of an account, in a form that does not give it away.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredSecret {
    /// A generated password: HMAC-SHA256 of account name and password under the server's key.
    /// A fast hash is enough because the password has at least 128 random bits.
    Machine {
        /// The keyed hash.
        tag: [u8; 32],
    },
    /// A password that a person chose: Argon2id as a PHC string.
    Argon2id(String),
}

impl StoredSecret {
    /// Reads the text form back.
    ///
    /// # Errors
    /// The text is of no known version or malformed, or asks for a costlier hash than we accept.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if let Some(digits) = text.strip_prefix(MACHINE_PREFIX) {
            return Ok(Self::Machine { tag: parse_hex(digits).ok_or(SecretError::Malformed)? });
        }
        if let Some(phc) = text.strip_prefix(ARGON2ID_PREFIX) {
            parse_phc(phc).ok_or(SecretError::Malformed)?;
            return Ok(Self::Argon2id(phc.to_owned()));
        }
        Err(SecretError::UnknownVersion)
    }

    /// The text form: a version word, a colon, the value. For the store.
    pub fn to_text(&self) -> String {
        match self {
            Self::Machine { tag } => {
                let digits: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{MACHINE_PREFIX}{digits}")
            }
            Self::Argon2id(phc) => format!("{ARGON2ID_PREFIX}{phc}"),
        }
    }

    /// True if verifying takes [`Self::verify_slow`].
    pub fn is_slow(&self) -> bool {
        matches!(self, Self::Argon2id(_))
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine { .. } => "Machine(..)",
            Self::Argon2id(_) => "Argon2id(..)",
        })
    }
}

/// Why a stored secret can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Not a form that this version knows.
    #[error("the stored secret has a form that this version does not know")]
    UnknownVersion,
    /// The form is known and the value is not well formed.
    #[error("the stored secret is malformed")]
    Malformed,
}

/// A PHC string of Argon2id that costs no more than [`MAX_MEMORY_KIB`] and [`MAX_PASSES`].
pub(super) fn parse_phc(phc: &str) -> Option<PasswordHash> {
    let hash = PasswordHash::new(phc).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let complete = hash.salt.is_some() && hash.hash.is_some();
    let bounded = params.m_cost() <= MAX_MEMORY_KIB
        && params.t_cost() <= MAX_PASSES
        && params.p_cost() <= MAX_LANES;
    (hash.algorithm == Algorithm::Argon2id.ident() && complete && bounded).then_some(hash)
}

fn parse_hex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

const MACHINE_PREFIX: &str = "machine-v1:";
const ARGON2ID_PREFIX: &str = "argon2id-v1:";
/// What a string from the store may ask for at most, so that a tampered one is no outage.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_PASSES: u32 = 4;
const MAX_LANES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const PHC: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
                       v6vPGJBkEcWDJ1vWeIjs6WbQzA+KQZ6SkUPhZ4jJTzM";

    #[test]
    fn the_text_form_reads_back() {
        let machine = StoredSecret::Machine { tag: [0x9a; 32] };
        let human = StoredSecret::Argon2id(PHC.to_owned());
        for secret in [machine, human] {
            assert_eq!(StoredSecret::parse(&secret.to_text()), Ok(secret));
        }
    }

    #[test]
    fn refuses_text_of_other_versions_and_shapes() {
        let hex = "ab".repeat(32);
        for (text, error) in [
            (String::new(), SecretError::UnknownVersion),
            (hex.clone(), SecretError::UnknownVersion),
            (format!("machine-v2:{hex}"), SecretError::UnknownVersion),
            (format!("Machine-v1:{hex}"), SecretError::UnknownVersion),
            (PHC.to_owned(), SecretError::UnknownVersion),
            ("machine-v1:".to_owned(), SecretError::Malformed),
            (format!("machine-v1:{hex}00"), SecretError::Malformed),
            (format!("machine-v1:{}", hex.to_uppercase()), SecretError::Malformed),
            (format!("machine-v1:+{}", &hex[1..]), SecretError::Malformed),
            ("argon2id-v1:".to_owned(), SecretError::Malformed),
            ("argon2id-v1:secret".to_owned(), SecretError::Malformed),
            ("argon2id-v1:$argon2id$v=19$m=19456,t=2,p=1".to_owned(), SecretError::Malformed),
        ] {
            assert_eq!(StoredSecret::parse(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn refuses_hashes_that_cost_too_much_or_are_of_another_kind() {
        let parse = |phc: String| StoredSecret::parse(&format!("argon2id-v1:{phc}"));
        assert!(parse(PHC.replace("m=19456", "m=65536")).is_ok());
        assert!(parse(PHC.replace("m=19456", "m=65537")).is_err());
        assert!(parse(PHC.replace("t=2", "t=5")).is_err());
        assert!(parse(PHC.replace("p=1", "p=5")).is_err());
        assert!(parse(PHC.replace("argon2id", "argon2i")).is_err());
    }

    #[test]
    fn never_prints_itself() {
        let secret = StoredSecret::Argon2id(PHC.to_owned());
        assert_eq!(format!("{secret:?}"), "Argon2id(..)");
        assert_eq!(format!("{:?}", StoredSecret::Machine { tag: [1; 32] }), "Machine(..)");
    }
}
