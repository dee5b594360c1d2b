//! Address to tunnel: one array access per packet.
//!
//! Pages of the array exist only while an address in them is in use, so a fleet of ten costs
//! kilobytes and one of four million 16 MiB.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Addresses a page covers; the worst-placed single address costs one page (4 KiB).
const PAGE: usize = 1024;
/// Marks an address without a tunnel; not a slot.
const FREE: u32 = u32::MAX;
/// Shortest network prefix: the pool of the product is a /10.
pub const MIN_PREFIX_LEN: u8 = 10;

/// Why an entry can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The network is larger than the table may be.
    #[error("the pool is larger than a /{MIN_PREFIX_LEN}")]
    TooLarge,
    /// The address is not in the table's network.
    #[error("the address is outside the pool")]
    OutsidePool,
    /// The slot number is the one that marks a free address.
    #[error("the slot number is reserved")]
    ReservedSlot,
}

/// A dense map from the addresses of one network to slots.
#[derive(Debug)]
pub struct RouteTable {
    network: Ipv4Net,
    pages: Vec<Option<Box<Page>>>,
    len: usize,
}

#[derive(Debug)]
struct Page {
    slots: [u32; PAGE],
    used: u16,
}

impl RouteTable {
    /// An empty table over `network`.
    ///
    /// # Errors
    /// [`RouteError::TooLarge`].
    pub fn new(network: Ipv4Net) -> Result<Self, RouteError> {
        if network.prefix_len() < MIN_PREFIX_LEN {
            return Err(RouteError::TooLarge);
        }
        let addresses = 1usize << (32 - network.prefix_len());
        let mut pages = Vec::new();
        pages.resize_with(addresses.div_ceil(PAGE), || None);
        Ok(Self { network: network.trunc(), pages, len: 0 })
    }

    /// Points `address` to `slot` and returns what it pointed to before.
    ///
    /// # Errors
    /// [`RouteError::OutsidePool`], [`RouteError::ReservedSlot`] for `u32::MAX`.
    pub fn insert(&mut self, address: Ipv4Addr, slot: u32) -> Result<Option<u32>, RouteError> {
        if slot == FREE {
            return Err(RouteError::ReservedSlot);
        }
        let (page, index) = self.locate(address).ok_or(RouteError::OutsidePool)?;
        let page = self.pages.get_mut(page).ok_or(RouteError::OutsidePool)?;
        let page = page.get_or_insert_with(|| Box::new(Page { slots: [FREE; PAGE], used: 0 }));
        let entry = page.slots.get_mut(index).ok_or(RouteError::OutsidePool)?;
        let before = std::mem::replace(entry, slot);
        if before == FREE {
            page.used += 1;
            self.len += 1;
            return Ok(None);
        }
        Ok(Some(before))
    }

    /// The slot of `address`.
    pub fn get(&self, address: Ipv4Addr) -> Option<u32> {
        let (page, index) = self.locate(address)?;
        let slot = *self.pages.get(page)?.as_ref()?.slots.get(index)?;
        (slot != FREE).then_some(slot)
    }

    /// Frees `address` and returns the slot it pointed to.
    pub fn remove(&mut self, address: Ipv4Addr) -> Option<u32> {
        let (page_index, index) = self.locate(address)?;
        let place = self.pages.get_mut(page_index)?;
        let page = place.as_mut()?;
        let slot = std::mem::replace(page.slots.get_mut(index)?, FREE);
        if slot == FREE {
            return None;
        }
        page.used -= 1;
        if page.used == 0 {
            *place = None;
        }
        self.len -= 1;
        Some(slot)
    }

    /// Frees `address` only if it still points to `slot`: a tunnel that was replaced by a newer one
    /// must not take the newer one's entry with it.
    pub fn remove_if(&mut self, address: Ipv4Addr, slot: u32) -> bool {
        self.get(address) == Some(slot) && self.remove(address).is_some()
    }

    /// Addresses in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no address is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The network the table covers.
    pub fn network(&self) -> Ipv4Net {
        self.network
    }

    fn locate(&self, address: Ipv4Addr) -> Option<(usize, usize)> {
        let offset = u32::from(address) ^ u32::from(self.network.addr());
        if offset & u32::from(self.network.netmask()) != 0 {
            return None;
        }
        let offset = usize::try_from(offset).ok()?;
        Some((offset / PAGE, offset % PAGE))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn table(network: &str) -> RouteTable {
        RouteTable::new(network.parse().unwrap()).unwrap()
    }

    #[test]
    fn covers_the_whole_of_the_largest_pool_and_nothing_beside_it() {
        let mut routes = table("100.64.0.0/10");
        for (slot, text) in ["100.64.0.0", "100.127.255.255", "100.100.3.4"].iter().enumerate() {
            let slot = u32::try_from(slot).unwrap();
            assert_eq!(routes.insert(text.parse().unwrap(), slot), Ok(None));
            assert_eq!(routes.get(text.parse().unwrap()), Some(slot));
        }
        for outside in ["100.63.255.255", "100.128.0.0", "0.64.0.0", "228.64.0.0"] {
            let outside = outside.parse().unwrap();
            assert_eq!(routes.get(outside), None);
            assert_eq!(routes.remove(outside), None);
            assert_eq!(routes.insert(outside, 1), Err(RouteError::OutsidePool));
        }
        assert_eq!(routes.len(), 3);
    }

    #[test]
    fn refuses_a_larger_network_and_the_reserved_slot() {
        let large = RouteTable::new("96.0.0.0/9".parse().unwrap());
        assert_eq!(large.unwrap_err(), RouteError::TooLarge);
        let mut routes = table("10.0.0.7/32");
        let address = Ipv4Addr::new(10, 0, 0, 7);
        assert_eq!(routes.insert(address, u32::MAX), Err(RouteError::ReservedSlot));
        assert_eq!(routes.insert(address, 5), Ok(None));
        assert_eq!(routes.insert(address, 6), Ok(Some(5)));
        assert!(!routes.remove_if(address, 5));
        assert!(routes.remove_if(address, 6));
        assert!(routes.is_empty());
    }

    #[test]
    fn an_unused_page_is_given_back() {
        let mut routes = table("100.64.0.0/10");
        let address = Ipv4Addr::new(100, 70, 0, 2);
        routes.insert(address, 1).unwrap();
        assert_eq!(routes.pages.iter().flatten().count(), 1);
        assert_eq!(routes.remove(address), Some(1));
        assert_eq!(routes.remove(address), None);
        assert_eq!(routes.pages.iter().flatten().count(), 0);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec((0u32..4096, 0u32..9, 0u8..3), 0..300)
        ) {
            let (mut routes, mut model) = (table("10.1.16.0/20"), BTreeMap::new());
            for (offset, slot, action) in steps {
                let address = Ipv4Addr::from(0x0a01_1000 + offset);
                match action {
                    0 => prop_assert_eq!(routes.remove(address), model.remove(&address)),
                    1 => {
                        let gone = model.get(&address) == Some(&slot);
                        if gone {
                            model.remove(&address);
                        }
                        prop_assert_eq!(routes.remove_if(address, slot), gone);
                    }
                    _ => prop_assert_eq!(
                        routes.insert(address, slot), Ok(model.insert(address, slot))
                    ),
                }
                prop_assert_eq!(routes.len(), model.len());
                prop_assert_eq!(routes.get(address), model.get(&address).copied());
            }
        }
    }
}
