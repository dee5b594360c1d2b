//! Sources of randomness, handed to every operation that needs one.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroize;

use crate::error::RandomError;

/// A source of bytes that nobody can predict.
pub trait SecureRandom: Send {
    /// Fills `out` with random bytes.
    ///
    /// # Errors
    /// [`RandomError`] if the source failed; `out` must not be used then.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError>;
}

impl<R: SecureRandom + ?Sized> SecureRandom for &mut R {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        (**self).fill(out)
    }
}

impl<R: SecureRandom + ?Sized> SecureRandom for Box<R> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        (**self).fill(out)
    }
}

/// The operating system's source; one system call each time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl SecureRandom for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(out).map_err(|_| RandomError)
    }
}

/// ChaCha20 with a seed from the operating system: no system call each time. One a thread, for the
/// IVs of data packets.
pub struct FastRandom(ChaCha20Rng);

impl FastRandom {
    /// Seeds a generator from the operating system.
    ///
    /// # Errors
    /// [`RandomError`] if the operating system gave no seed.
    pub fn from_os() -> Result<Self, RandomError> {
        let mut seed = [0; 32];
        SystemRandom.fill(&mut seed)?;
        let random = Self::from_seed(seed);
        seed.zeroize();
        Ok(random)
    }

    /// Makes a generator whose output follows from `seed`: for tests and simulation.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }
}

impl SecureRandom for FastRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        self.0.fill_bytes(out);
        Ok(())
    }
}

impl std::fmt::Debug for FastRandom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FastRandom(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(random: &mut dyn SecureRandom) -> [u8; 32] {
        let mut out = [0; 32];
        random.fill(&mut out).unwrap();
        out
    }

    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        assert_eq!(
            draw(&mut FastRandom::from_seed([1; 32])),
            draw(&mut FastRandom::from_seed([1; 32]))
        );
        let mut random = FastRandom::from_seed([1; 32]);
        assert_ne!(draw(&mut random), draw(&mut random));
        assert_ne!(
            draw(&mut FastRandom::from_os().unwrap()),
            draw(&mut FastRandom::from_os().unwrap())
        );
        assert_ne!(draw(&mut SystemRandom), draw(&mut SystemRandom));
    }

    #[test]
    fn the_seeded_generator_is_chacha20() {
        // RFC 7539 A.1 vector 1: zero key, zero nonce, block 0.
        let expected = [
            0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86,
            0xbd, 0x28, 0xbd, 0xd2, 0x19, 0xb8, 0xa0, 0x8d, 0xed, 0x1a, 0xa8, 0x36, 0xef, 0xcc,
            0x8b, 0x77, 0x0d, 0xc7,
        ];
        assert_eq!(draw(&mut FastRandom::from_seed([0; 32])), expected);
    }
}
