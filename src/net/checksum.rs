//! The Internet checksum. Source: RFC 1071, RFC 1624.

/// The folded one's complement sum of `bytes` as big-endian 16-bit words; an odd last byte is the
/// high half of a word.
pub fn sum(bytes: &[u8]) -> u16 {
    // Words of 32 bits in native order into a wide sum: the order only swaps the result's bytes,
    // and 2^32 of them fit. The compiler turns this into vector code.
    let mut wide = 0u64;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        wide =
            wide.wrapping_add(u64::from(u32::from_ne_bytes(word.try_into().unwrap_or_default())));
    }
    let mut last = [0u8; 4];
    for (slot, byte) in last.iter_mut().zip(words.remainder()) {
        *slot = *byte;
    }
    wide = wide.wrapping_add(u64::from(u32::from_ne_bytes(last)));
    u16::from_be_bytes(fold(wide).to_ne_bytes())
}

/// The checksum field for `bytes` whose own checksum field is zero.
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// Whether `bytes`, checksum field included, add up.
pub fn verifies(bytes: &[u8]) -> bool {
    sum(bytes) == 0xffff
}

/// The new checksum field after one aligned 16-bit word under it changed from `old` to `new`.
/// Source: RFC 1624 equation 3.
pub fn update(field: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!field) + u64::from(!old) + u64::from(new))
}

#[expect(clippy::cast_possible_truncation, reason = "four folds leave 16 bits")]
fn fold(wide: u64) -> u16 {
    let wide = (wide & 0xffff_ffff) + (wide >> 32);
    let wide = (wide & 0xffff_ffff) + (wide >> 32);
    let wide = (wide & 0xffff) + (wide >> 16);
    let wide = (wide & 0xffff) + (wide >> 16);
    ((wide & 0xffff) + (wide >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0u16, |total, pair| {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            let (added, carry) = total.overflowing_add(word);
            added + u16::from(carry)
        })
    }

    #[test]
    fn agrees_with_the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[]), 0);
        assert!(!verifies(&[]));
    }

    proptest! {
        #[test]
        fn agrees_with_the_word_by_word_sum(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(sum(&bytes), naive(&bytes));
        }

        #[test]
        fn a_sealed_message_verifies_and_one_flipped_bit_is_seen(
            mut bytes in prop::collection::vec(any::<u8>(), 8..200), at in 0usize..64
        ) {
            bytes[2..4].fill(0);
            let field = checksum(&bytes);
            bytes[2..4].copy_from_slice(&field.to_be_bytes());
            prop_assert!(verifies(&bytes));
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert!(!verifies(&bytes));
        }

        #[test]
        fn an_update_equals_a_new_sum(
            mut bytes in prop::collection::vec(any::<u8>(), 8..64), new: u16
        ) {
            bytes[2..4].fill(0);
            bytes[6] |= 1;
            let old = u16::from_be_bytes([bytes[4], bytes[5]]);
            let field = checksum(&bytes);
            bytes[4..6].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(field, old, new), checksum(&bytes));
        }
    }
}
