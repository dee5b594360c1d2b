//! Which addresses of the network routers may have.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::order::Permutation;

/// Length of the prefix that a router gets with its address: the pool is cut into blocks of it.
pub const PREFIX_LEN: u8 = 24;

/// The gateway of the block that `address` lies in: its first address.
pub fn gateway_of(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & BLOCK_MASK | 1)
}

/// The pool as configured.
#[derive(Clone)]
pub struct PoolConfig {
    /// The whole network, /8 to /24.
    pub network: Ipv4Net,
    /// Parts of it that no router gets.
    pub excluded: Vec<Ipv4Net>,
    /// The source of everything that the host sends; its /24 leaves the pool.
    pub management: Ipv4Addr,
    /// Decides the order in which addresses are handed out; keep it the same over restarts.
    pub order_key: [u8; 32],
    /// How long an address rests after its release, in seconds.
    pub quarantine_seconds: u64,
}

/// Why a pool can not be as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Not between /8 and /24.
    #[error("the pool {0} must be a network from /8 to /24")]
    Size(Ipv4Net),
    /// Nothing is left after the exclusions.
    #[error("the pool {0} has no address left after its exclusions")]
    Empty(Ipv4Net),
}

/// The addresses that routers may have, in the order in which they are handed out.
///
/// A *candidate* is `.2` to `.254` of any block of the network; candidates are numbered in keyed
/// order. A candidate is *usable* if it is not excluded.
pub(super) struct Pool {
    first: u32,
    candidates: u64,
    /// Merged, sorted, inclusive, clipped to the network.
    excluded: Vec<(u32, u32)>,
    usable: u64,
    order: Permutation,
}

impl Pool {
    pub(super) fn new(config: &PoolConfig) -> Result<Self, PoolError> {
        let network = config.network.trunc();
        if !(8..=PREFIX_LEN).contains(&network.prefix_len()) {
            return Err(PoolError::Size(config.network));
        }
        let first = network.network().to_bits();
        let last = network.broadcast().to_bits();
        let block = config.management.to_bits() & BLOCK_MASK;
        let mut excluded: Vec<(u32, u32)> = config
            .excluded
            .iter()
            .map(|net| (net.network().to_bits(), net.broadcast().to_bits()))
            .chain([(block, block | !BLOCK_MASK)])
            .filter(|(from, to)| *to >= first && *from <= last)
            .map(|(from, to)| (from.max(first), to.min(last)))
            .collect();
        excluded.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(excluded.len());
        for (from, to) in excluded {
            match merged.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
                _ => merged.push((from, to)),
            }
        }
        let blocks = 1_u64 << PREFIX_LEN.saturating_sub(network.prefix_len());
        let candidates = blocks * HOSTS;
        let lost: u64 = merged
            .iter()
            .map(|(from, to)| {
                let below = |bits: u32| candidates_below(u64::from(bits) - u64::from(first));
                below(*to) + u64::from(is_host(*to)) - below(*from)
            })
            .sum();
        let usable = candidates - lost;
        if usable == 0 {
            return Err(PoolError::Empty(config.network));
        }
        let order = Permutation::new(candidates, &config.order_key);
        Ok(Self { first, candidates, excluded: merged, usable, order })
    }

    /// How many addresses routers may have.
    pub(super) fn usable(&self) -> u64 {
        self.usable
    }

    /// How many places the order has, usable or not.
    pub(super) fn candidates(&self) -> u64 {
        self.candidates
    }

    /// The address at `place` of the order, if it is usable.
    pub(super) fn at(&self, place: u64) -> Option<Ipv4Addr> {
        let candidate = self.order.at(place);
        let offset = candidate / HOSTS * 256 + candidate % HOSTS + FIRST_HOST;
        let bits = self.first.checked_add(u32::try_from(offset).ok()?)?;
        (!self.is_excluded(bits)).then(|| Ipv4Addr::from_bits(bits))
    }

    /// The place of `address` in the order; `None` if no router may have it.
    pub(super) fn place_of(&self, address: Ipv4Addr) -> Option<u64> {
        let bits = address.to_bits();
        let offset = u64::from(bits.checked_sub(self.first)?);
        let candidate = candidates_below(offset);
        if candidate >= self.candidates || !is_host(bits) || self.is_excluded(bits) {
            return None;
        }
        Some(self.order.index_of(candidate))
    }

    fn is_excluded(&self, bits: u32) -> bool {
        let after = self.excluded.partition_point(|(from, _)| *from <= bits);
        let candidate = after.checked_sub(1).and_then(|index| self.excluded.get(index));
        candidate.is_some_and(|(_, to)| bits <= *to)
    }
}

/// True for `.2` to `.254`: not network, gateway or broadcast of its block.
fn is_host(bits: u32) -> bool {
    let host = u64::from(bits & !BLOCK_MASK);
    (FIRST_HOST..FIRST_HOST + HOSTS).contains(&host)
}

/// How many candidates lie below `offset`, counted from the start of the network.
fn candidates_below(offset: u64) -> u64 {
    offset / 256 * HOSTS + (offset % 256).saturating_sub(FIRST_HOST).min(HOSTS)
}

const BLOCK_MASK: u32 = 0xFFFF_FF00;
const FIRST_HOST: u64 = 2;
/// `.2` to `.254`.
const HOSTS: u64 = 253;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn config(network: &str, excluded: &[&str]) -> PoolConfig {
        PoolConfig {
            network: network.parse().unwrap(),
            excluded: excluded.iter().map(|net| net.parse().unwrap()).collect(),
            management: [100, 127, 255, 254].into(),
            order_key: [9; 32],
            quarantine_seconds: 0,
        }
    }

    /// Every usable address, by the naive rule.
    fn naive(config: &PoolConfig) -> HashSet<Ipv4Addr> {
        let management = Ipv4Net::new(config.management, 24).unwrap();
        let inside = |ip: &Ipv4Addr| !config.excluded.iter().any(|net| net.contains(ip));
        let (from, to) = (config.network.network().to_bits(), config.network.broadcast().to_bits());
        (from..=to)
            .map(Ipv4Addr::from_bits)
            .filter(|ip| (2..=254).contains(&ip.octets()[3]) && !management.contains(ip))
            .filter(inside)
            .collect()
    }

    #[test]
    fn the_order_is_exactly_the_usable_addresses() {
        for (network, excluded) in [
            ("100.64.0.0/24", vec![]),
            ("100.127.252.0/22", vec!["100.127.254.128/25", "100.127.254.0/30"]),
            ("100.64.0.0/16", vec!["100.64.0.0/24", "100.64.0.0/17", "100.64.200.7/32"]),
            ("100.64.0.0/20", vec!["100.64.4.255/32", "100.64.5.0/31", "10.0.0.0/8"]),
            ("100.64.8.0/21", vec!["100.64.0.0/20", "100.64.15.2/32"].split_off(1)),
        ] {
            let config = config(network, &excluded);
            let pool = Pool::new(&config).unwrap();
            let mut found = HashSet::new();
            for place in 0..pool.candidates() {
                if let Some(address) = pool.at(place) {
                    assert!(found.insert(address), "{address} twice");
                    assert_eq!(pool.place_of(address), Some(place));
                }
            }
            let expected = naive(&config);
            assert_eq!(pool.usable(), expected.len() as u64, "{network}");
            assert_eq!(found, expected, "{network}");
        }
    }

    #[test]
    fn the_default_pool_has_the_stated_size_and_holes() {
        let pool =
            Pool::new(&config("100.64.0.0/10", &["100.64.0.0/24", "100.100.100.0/24"])).unwrap();
        assert_eq!(pool.usable(), (16384 - 3) * 253);
        for bad in [
            [100, 64, 0, 2],
            [100, 100, 100, 100],
            [100, 127, 255, 2],
            [100, 64, 1, 0],
            [100, 64, 1, 1],
            [100, 64, 1, 255],
            [100, 63, 255, 2],
            [100, 128, 0, 2],
            [0, 0, 0, 2],
            [255, 255, 255, 254],
        ] {
            assert_eq!(pool.place_of(bad.into()), None, "{bad:?}");
        }
        assert!(pool.place_of([100, 64, 1, 2].into()).is_some());
        assert!(pool.place_of([100, 127, 254, 254].into()).is_some());
    }

    #[test]
    fn refuses_pools_that_make_no_sense() {
        let error = |network, excluded: &[&str]| Pool::new(&config(network, excluded)).err();
        assert!(matches!(error("100.64.0.0/25", &[]), Some(PoolError::Size(_))));
        assert!(matches!(error("96.0.0.0/7", &[]), Some(PoolError::Size(_))));
        assert!(matches!(error("100.64.0.0/24", &["100.0.0.0/8"]), Some(PoolError::Empty(_))));
        assert!(matches!(error("100.127.255.0/24", &[]), Some(PoolError::Empty(_))));
        assert!(Pool::new(&config("100.64.0.0/24", &["100.64.0.0/25"])).is_ok());
    }

    #[test]
    fn the_gateway_is_the_first_address_of_the_block() {
        assert_eq!(gateway_of([100, 64, 7, 254].into()), Ipv4Addr::new(100, 64, 7, 1));
        assert_eq!(gateway_of([100, 64, 7, 2].into()), Ipv4Addr::new(100, 64, 7, 1));
    }
}
