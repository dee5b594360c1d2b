//! Machine-made user names and passwords.

use tunnelhead_crypto::{RandomError, SecureRandom};

/// The longest user name that every RouterOS takes. Source: RouterOS manual, OVPN client.
pub const MAX_DEFAULT_USERNAME: usize = 27;
/// Length of a generated user name: 130 bits in base32.
pub const GENERATED_USERNAME_LEN: usize = 26;

/// The user name of a new account: its NAME if every RouterOS takes one that long, else 26
/// characters of base32 made from `rng`.
///
/// # Errors
/// No randomness.
pub fn default_username(name: &str, rng: &mut dyn SecureRandom) -> Result<String, RandomError> {
    if name.len() <= MAX_DEFAULT_USERNAME {
        return Ok(name.to_owned());
    }
    pick([BASE32; GENERATED_USERNAME_LEN], rng)
}

/// A password of 24 characters, at least 130 bits, with an upper-case letter, a lower-case letter
/// and a digit. Letters and digits only, so no script has to quote it; none that look alike
/// (`0 O 1 l I i o`).
///
/// # Errors
/// No randomness.
pub fn generate_password(rng: &mut dyn SecureRandom) -> Result<String, RandomError> {
    let mut sets = [ANY; PASSWORD_LEN];
    sets[..3].copy_from_slice(&[UPPER, LOWER, DIGIT]);
    pick(sets, rng)
}

/// One character of each set. Four random bytes a character keep the bias below 2^-26.
fn pick<const N: usize>(
    sets: [&[u8]; N],
    rng: &mut dyn SecureRandom,
) -> Result<String, RandomError> {
    let mut out = String::with_capacity(N);
    for set in sets {
        let mut word = [0; 4];
        rng.fill(&mut word)?;
        let index = u64::from(u32::from_le_bytes(word)).wrapping_rem(set.len() as u64);
        out.extend(set.iter().copied().map(char::from).nth(usize::try_from(index).unwrap_or(0)));
    }
    Ok(out)
}

const PASSWORD_LEN: usize = 24;
const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
const UPPER: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
const LOWER: &[u8] = b"abcdefghjkmnpqrstuvwxyz";
const DIGIT: &[u8] = b"23456789";
const ANY: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tunnelhead_crypto::SystemRandom;

    use super::*;

    #[test]
    fn short_names_are_their_own_user_name() {
        let mut rng = SystemRandom;
        let name = "n".repeat(27);
        assert_eq!(default_username(&name, &mut rng).unwrap(), name);
        let made = default_username(&"n".repeat(28), &mut rng).unwrap();
        assert_eq!(made.len(), 26);
        assert!(made.bytes().all(|b| BASE32.contains(&b)), "{made}");
        assert_ne!(made, default_username(&"n".repeat(28), &mut rng).unwrap());
    }

    #[test]
    fn passwords_are_long_mixed_plain_and_different() {
        let mut rng = SystemRandom;
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let password = generate_password(&mut rng).unwrap();
            assert_eq!(password.len(), 24);
            assert!(password.bytes().any(|b| b.is_ascii_uppercase()), "{password}");
            assert!(password.bytes().any(|b| b.is_ascii_lowercase()), "{password}");
            assert!(password.bytes().any(|b| b.is_ascii_digit()), "{password}");
            assert!(password.bytes().all(|b| b.is_ascii_alphanumeric()), "{password}");
            assert!(!password.contains(['0', 'O', '1', 'l', 'I', 'i', 'o']), "{password}");
            assert!(seen.insert(password));
        }
    }

    #[test]
    fn the_alphabets_hold_at_least_128_bits() {
        let bits = |sets: &[&[u8]]| sets.iter().map(|s| (s.len() as f64).log2()).sum::<f64>();
        let mut sets = vec![UPPER, LOWER, DIGIT];
        sets.resize(PASSWORD_LEN, ANY);
        assert!(bits(&sets) >= 128.0, "{}", bits(&sets));
        assert!(bits(&[BASE32; GENERATED_USERNAME_LEN]) >= 128.0);
        assert_eq!(ANY, [UPPER, LOWER, DIGIT].concat());
    }
}
