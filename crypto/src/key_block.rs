//! 256 bytes of key material in two slots, and which side sends with which slot.

use std::fmt;

use zeroize::Zeroize;

use crate::credential::ct_eq;

/// Length of a key block in bytes.
pub const KEY_BLOCK_LEN: usize = 256;

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that accepted the connection.
    Server,
    /// The side that made the connection.
    Client,
}

/// One half of a key block.
///
/// Slot 0: cipher material 0..64, MAC material 64..128. Slot 1: 128..192 and 192..256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Zero,
    One,
}

impl Slot {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Zero => Self::One,
            Self::One => Self::Zero,
        }
    }

    /// The slot of the data channel with which `role` sends: client 0, server 1.
    ///
    /// The reverse of tls-crypt. Source: OpenVPN 2 init_key_contexts, key_direction of the server.
    pub(crate) const fn data_send(role: Role) -> Self {
        match role {
            Role::Client => Self::Zero,
            Role::Server => Self::One,
        }
    }

    /// The slot of tls-crypt with which `role` sends: server 0, client 1.
    pub(crate) const fn tls_crypt_send(role: Role) -> Self {
        match role {
            Role::Server => Self::Zero,
            Role::Client => Self::One,
        }
    }
}

/// 256 bytes of key material: derived data keys, exported keying material, or a static key.
pub struct KeyBlock(Box<[u8; KEY_BLOCK_LEN]>);

impl KeyBlock {
    /// Takes the bytes over.
    pub fn from_bytes(mut bytes: [u8; KEY_BLOCK_LEN]) -> Self {
        let block = Self(Box::new(bytes));
        bytes.zeroize();
        block
    }

    /// A block of zeros to be filled in place.
    pub(crate) fn filled(fill: impl FnOnce(&mut [u8; KEY_BLOCK_LEN])) -> Self {
        let mut block = Self(Box::new([0; KEY_BLOCK_LEN]));
        fill(&mut block.0);
        block
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; KEY_BLOCK_LEN] {
        &self.0
    }

    /// Both blocks combined byte by byte with exclusive or, as dynamic tls-crypt combines the
    /// exported key with the static key.
    #[must_use]
    pub fn xor(&self, other: &Self) -> Self {
        Self::filled(|out| {
            for ((out, a), b) in out.iter_mut().zip(self.0.iter()).zip(other.0.iter()) {
                *out = a ^ b;
            }
        })
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

    /// 64 bytes of cipher material.
    pub(crate) fn cipher_material(&self, slot: Slot) -> &[u8] {
        let bytes = self.expose();
        match slot {
            Slot::Zero => &bytes[..64],
            Slot::One => &bytes[128..192],
        }
    }

    /// 64 bytes of MAC material.
    pub(crate) fn mac_material(&self, slot: Slot) -> &[u8] {
        let bytes = self.expose();
        match slot {
            Slot::Zero => &bytes[64..128],
            Slot::One => &bytes[192..],
        }
    }
}

impl Drop for KeyBlock {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for KeyBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBlock(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_where_the_protocol_says() {
        let block = KeyBlock::filled(|out| {
            for (i, byte) in out.iter_mut().enumerate() {
                *byte = u8::try_from(i).unwrap();
            }
        });
        assert_eq!(block.cipher_material(Slot::Zero)[0], 0);
        assert_eq!(block.mac_material(Slot::Zero)[0], 64);
        assert_eq!(block.cipher_material(Slot::One)[0], 128);
        assert_eq!(block.mac_material(Slot::One)[0], 192);
        for slot in [Slot::Zero, Slot::One] {
            assert_eq!(block.cipher_material(slot).len(), 64);
            assert_eq!(block.mac_material(slot).len(), 64);
        }
        assert_eq!(Slot::data_send(Role::Server), Slot::One);
        assert_eq!(Slot::tls_crypt_send(Role::Server), Slot::Zero);
    }

    #[test]
    fn xor_undoes_itself() {
        let a = KeyBlock::from_bytes([0x5a; 256]);
        let b = KeyBlock::from_bytes([0x33; 256]);
        assert_eq!(a.xor(&b).expose(), &[0x69; 256]);
        assert!(a.xor(&b).xor(&b).ct_eq(&a));
        assert!(!a.ct_eq(&b));
    }
}
