//! AES-CBC encryption of several packets side by side.
//!
//! Inside a packet each block waits for the one before it; packets of one key have nothing to do
//! with each other. With eight of them in flight the processor's AES units are busy all the time.

use aes::cipher::consts::U16;
use aes::cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser,
};

use super::cbc_hmac::Block;

/// Packets side by side.
pub(super) const LANES: usize = 8;

/// One packet: `IV | plaintext`, whole blocks.
pub(super) type Lane<'a> = &'a mut [Block];

/// Encrypts every lane in place, each behind its first block, the IV.
pub(super) fn encrypt<C>(cipher: &C, lanes: &mut [Lane<'_>; LANES])
where
    C: BlockCipherEncrypt<BlockSize = U16>,
{
    // Long ones first: at every step the lanes that still have a block are at the front.
    lanes.sort_unstable_by_key(|lane| std::cmp::Reverse(lane.len()));
    cipher.encrypt_with_backend(Job { lanes });
}

struct Job<'a, 'b> {
    lanes: &'a mut [Lane<'b>; LANES],
}

impl BlockSizeUser for Job<'_, '_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Job<'_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut previous = [Block::default(); LANES];
        for (previous, lane) in previous.iter_mut().zip(self.lanes.iter()) {
            *previous = lane.first().copied().unwrap_or_default();
        }
        let longest = self.lanes.first().map_or(0, |lane| lane.len());
        for step in 1..longest {
            for (previous, lane) in previous.iter_mut().zip(self.lanes.iter_mut()) {
                let Some(block) = lane.get_mut(step) else { break };
                // As one number each: byte by byte the processor would wait for its own stores.
                let mixed =
                    u128::from_ne_bytes((*previous).into()) ^ u128::from_ne_bytes((*block).into());
                *previous = mixed.to_ne_bytes().into();
                backend.encrypt_block_inplace(previous);
                *block = *previous;
            }
        }
    }
}
