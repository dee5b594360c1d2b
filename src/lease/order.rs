//! A keyed permutation of `0..len`: the order in which the pool is handed out.
//!
//! A Feistel network over the next even power of two; values outside the range are sent through
//! it again until they fall inside (cycle walking, less than four rounds on average). No table.
//! The order hides nothing that matters, it only spreads routers over the pool.

/// A permutation of `0..len`.
#[derive(Clone)]
pub(super) struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; 4],
}

impl Permutation {
    pub(super) fn new(len: u64, key: &[u8; 32]) -> Self {
        let bits = u64::BITS.saturating_sub(len.saturating_sub(1).leading_zeros());
        let mut keys = [0; 4];
        for (word, bytes) in keys.iter_mut().zip(key.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self { len, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// The value at `index`. `index` must be below `len`.
    pub(super) fn at(&self, index: u64) -> u64 {
        debug_assert!(index < self.len);
        let mut value = index;
        loop {
            value = self.forward(value);
            if value < self.len {
                return value;
            }
        }
    }

    /// The index at which `value` comes. `value` must be below `len`.
    pub(super) fn index_of(&self, value: u64) -> u64 {
        debug_assert!(value < self.len);
        let mut index = value;
        loop {
            index = self.backward(index);
            if index < self.len {
                return index;
            }
        }
    }

    fn forward(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.split(value);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.mix(round, right));
        }
        (left << self.half_bits) | right
    }

    fn backward(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.split(value);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.mix(round, left), left);
        }
        (left << self.half_bits) | right
    }

    fn split(&self, value: u64) -> (u64, u64) {
        (value >> self.half_bits, value & self.mask())
    }

    fn mask(&self) -> u64 {
        (1 << self.half_bits) - 1
    }

    /// The round function: the finaliser of SplitMix64 over half, round and key.
    fn mix(&self, round: u64, half: u64) -> u64 {
        let [a, b, c, d] = self.keys;
        let mut z = a ^ half.wrapping_add(round.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30) ^ b).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27) ^ c).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31) ^ d) & self.mask()
    }
}

const ROUNDS: u64 = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_permutation_with_an_inverse(len in 1u64..3000, key: [u8; 32]) {
            let order = Permutation::new(len, &key);
            let mut seen = vec![false; usize::try_from(len).unwrap()];
            for index in 0..len {
                let value = order.at(index);
                prop_assert!(value < len);
                prop_assert!(!std::mem::replace(&mut seen[usize::try_from(value).unwrap()], true));
                prop_assert_eq!(order.index_of(value), index);
            }
        }
    }

    #[test]
    fn depends_on_the_key_and_spreads_over_the_range() {
        let len = 16384 * 253;
        let (a, b) = (Permutation::new(len, &[1; 32]), Permutation::new(len, &[2; 32]));
        assert!((0..100).filter(|i| a.at(*i) == b.at(*i)).count() < 3);
        let quarters: Vec<_> = (0..4000).map(|index| a.at(index) * 4 / len).collect();
        for quarter in 0..4 {
            let count = quarters.iter().filter(|q| **q == quarter).count();
            assert!((850..1150).contains(&count), "quarter {quarter}: {count}");
        }
        for index in [0, 1, len / 2, len - 1] {
            assert_eq!(a.index_of(a.at(index)), index);
        }
    }
}
