//! How much one AES-GCM key may carry in one direction.
//!
//! Source: OpenVPN 2.7 data channel usage limits: blocks of 16 bytes plus packets.

/// Beyond this nothing more is sealed: 2^36 - 1.
const GCM_HARD: u64 = (1 << 36) - 1;

/// Above this a new key is due: 7/8 of the hard limit.
const GCM_SOFT: u64 = GCM_HARD / 8 * 7;

/// Blocks plus packets under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GcmUsage(u64);

impl GcmUsage {
    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    /// Counts one packet with `len` bytes of payload.
    pub(super) fn add_packet(&mut self, len: usize) {
        let blocks = len.div_ceil(16) as u64;
        self.0 = self.0.saturating_add(blocks).saturating_add(1);
    }

    pub(super) const fn needs_rekey(self) -> bool {
        self.0 > GCM_SOFT
    }

    pub(super) const fn is_exhausted(self) -> bool {
        self.0 >= GCM_HARD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_begun_blocks_and_packets() {
        let mut usage = GcmUsage::default();
        usage.add_packet(0);
        assert_eq!(usage.raw(), 1);
        usage.add_packet(1);
        assert_eq!(usage.raw(), 3);
        usage.add_packet(17);
        assert_eq!(usage.raw(), 6);
    }

    #[test]
    fn soft_limit_comes_before_hard_limit() {
        assert!(!GcmUsage::from_raw(GCM_SOFT).needs_rekey());
        assert!(GcmUsage::from_raw(GCM_SOFT + 1).needs_rekey());
        assert!(!GcmUsage::from_raw(GCM_HARD - 1).is_exhausted());
        assert!(GcmUsage::from_raw(GCM_HARD).is_exhausted());
        let mut usage = GcmUsage::from_raw(u64::MAX);
        usage.add_packet(1400);
        assert!(usage.is_exhausted());
    }
}
