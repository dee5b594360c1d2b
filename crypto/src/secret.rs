//! Values that are wiped when dropped and never printed.
//!
//! They live on the heap, so that moving them leaves no copies behind. They have no `Clone`, no
//! `Display` and no `==`: copying is spelled [`Secret::duplicate`], comparing [`Secret::ct_eq`].
//! None of these compiles:
//!
//! ```compile_fail,E0277
//! println!("{}", tunnelhead_crypto::Secret::new([1; 32]));
//! ```
//! ```compile_fail,E0277
//! println!("{}", tunnelhead_crypto::SecretBytes::from(vec![1]));
//! ```
//! ```compile_fail,E0599
//! let copy = tunnelhead_crypto::Secret::new([1; 32]).clone();
//! ```
//! ```compile_fail,E0369
//! let same = tunnelhead_crypto::SecretBytes::new() == tunnelhead_crypto::SecretBytes::new();
//! ```

use std::fmt;

use zeroize::Zeroize;

use crate::credential::ct_eq;

/// A secret of fixed length.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Takes the bytes over; the caller's own copies remain the caller's to wipe.
    pub fn new(mut bytes: [u8; N]) -> Self {
        let secret = Self(Box::new(bytes));
        bytes.zeroize();
        secret
    }

    /// Fills the bytes in where they stay, so that none pass over the stack.
    pub(crate) fn filled(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// The first `N` bytes of `material`, or all of it and zeros behind.
    pub(crate) fn prefix(material: &[u8]) -> Self {
        Self::filled(|out| {
            for (out, byte) in out.iter_mut().zip(material) {
                *out = *byte;
            }
        })
    }

    /// Zeroes all but the first `len` bytes.
    pub(crate) fn keep(mut self, len: usize) -> Self {
        for byte in self.0.iter_mut().skip(len) {
            byte.zeroize();
        }
        self
    }

    /// The bytes, for the one operation that needs them.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        ct_eq(self.expose(), other.expose())
    }

    /// A second copy, wiped on its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A secret of any length.
#[derive(Default)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The bytes, for the one operation that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in constant time; the lengths are not secret.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        ct_eq(self.expose(), other.expose())
    }

    /// A second copy, wiped on its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        // All of the capacity, not only the length.
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_cuts_and_pads_and_keep_zeroes_the_rest() {
        assert_eq!(Secret::<2>::prefix(&[1, 2, 3]).expose(), &[1, 2]);
        assert_eq!(Secret::<4>::prefix(&[1, 2, 3]).expose(), &[1, 2, 3, 0]);
        assert_eq!(Secret::new([1, 2, 3]).keep(2).expose(), &[1, 2, 0]);
        assert_eq!(Secret::new([1, 2, 3]).keep(9).expose(), &[1, 2, 3]);
    }

    #[test]
    fn compares_by_content_and_length() {
        assert!(Secret::new([7; 32]).ct_eq(&Secret::new([7; 32])));
        assert!(!Secret::new([7; 32]).ct_eq(&Secret::new([8; 32])));
        let bytes = |slice: &[u8]| SecretBytes::from(slice.to_vec());
        assert!(bytes(b"abc").ct_eq(&bytes(b"abc").duplicate()));
        assert!(!bytes(b"abc").ct_eq(&bytes(b"abd")));
        assert!(!bytes(b"abc").ct_eq(&bytes(b"ab")));
        assert!(SecretBytes::new().is_empty());
        assert_eq!(bytes(b"abc").len(), 3);
    }
}
