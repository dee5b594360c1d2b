//! Changes of who holds what that count only once they are recorded.
//!
//! An address is put aside with [`AddressBook::plan`], the caller records [`Planned::record`], and
//! then either [`AddressBook::settle`]s it or, if recording failed, [`AddressBook::abandon`]s it.
//! Until then the identity keeps what it holds, and nobody else gets the address.

use super::{AddressBook, LeaseError, LeaseRecord, NEVER};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Which address an identity is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// One of the pool, and another one than it holds now. An identity that holds none gets the one
    /// that it gave up, while that rests.
    Next,
    /// Exactly this one, chosen by hand.
    Static(Ipv4Addr),
    /// Exactly this one, as if the pool had given it: for a lease that is restored, and to take the
    /// hand off a static address.
    Pooled(Ipv4Addr),
}

/// An address that was put aside. To be settled or abandoned: nobody gets it before.
#[derive(Debug)]
#[must_use = "settle or abandon it: nobody gets the address before"]
pub struct Planned {
    record: LeaseRecord,
    /// How the address rested before, if it did.
    rested: Option<LeaseRecord>,
    /// True: the identity holds it already, only its kind changes.
    held: bool,
}

impl Planned {
    /// The lease as it is to be recorded. Recording it releases what the identity holds now, from
    /// [`LeaseRecord::since`] on.
    pub fn record(&self) -> &LeaseRecord {
        &self.record
    }

    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.record.address
    }

    /// True if the identity holds another address now, or none.
    pub fn moves(&self) -> bool {
        !self.held
    }
}

impl AddressBook {
    /// Puts an address aside for `identity`, which keeps what it holds.
    ///
    /// # Errors
    /// The address can't be had, or another plan for the identity is under way; nothing has
    /// changed.
    pub fn plan(&mut self, identity: &str, wish: Wish, unix: u64) -> Result<Planned, LeaseError> {
        if self.is_planned_for(identity) {
            return Err(LeaseError::Changing);
        }
        self.expire(unix);
        let (address, fixed) = match wish {
            Wish::Static(address) => (address, true),
            Wish::Pooled(address) => (address, false),
            Wish::Next => (self.another(identity, unix)?, false),
        };
        if let Some(record) = self.record_of(identity).filter(|held| held.address == address) {
            let record = LeaseRecord { fixed, ..record.clone() };
            return Ok(Planned { record, rested: None, held: true });
        }
        let place = self.pool.place_of(address).ok_or(LeaseError::NotUsable(address))?;
        if let Some(owner) = self.aside.get(&address) {
            return Err(LeaseError::Taken { address, owner: Arc::clone(owner) });
        }
        self.check_free_for(identity, address)?;
        let rested = self.leases.remove(&address);
        match &rested {
            Some(rested) => self.forget_rest(rested),
            // What `another` found is not among the free ones any more.
            None if wish != Wish::Next && place < self.frontier => {
                self.free.retain(|free| *free != address);
            }
            None => {}
        }
        let identity: Arc<str> = identity.into();
        self.aside.insert(address, Arc::clone(&identity));
        self.planning.insert(Arc::clone(&identity));
        let record = LeaseRecord {
            address,
            identity,
            fixed,
            since: unix,
            last_used: if fixed { NEVER } else { unix },
            released_at: None,
        };
        Ok(Planned { record, rested, held: false })
    }

    /// Makes a plan true: what the identity held rests from now on.
    pub fn settle(&mut self, planned: Planned) {
        let Planned { record, held, .. } = planned;
        if held {
            if let Some(lease) = self.leases.get_mut(&record.address) {
                lease.fixed = record.fixed;
            }
            return;
        }
        self.aside.remove(&record.address);
        self.planning.remove(&record.identity);
        self.release(&record.identity, record.since);
        self.holders.insert(Arc::clone(&record.identity), record.address);
        self.leases.insert(record.address, record);
    }

    /// Drops a plan: everything is as it was before.
    pub fn abandon(&mut self, planned: Planned) {
        let Planned { record, rested, held } = planned;
        if held {
            return;
        }
        self.aside.remove(&record.address);
        self.planning.remove(&record.identity);
        match rested {
            Some(rested) => {
                self.rest(&rested, rested.released_at.unwrap_or(record.since));
                self.leases.insert(record.address, rested);
            }
            None => self.make_free(record.address),
        }
    }

    /// True while an address waits for the identity.
    pub(super) fn is_planned_for(&self, identity: &str) -> bool {
        self.planning.contains(identity)
    }

    fn another(&mut self, identity: &str, unix: u64) -> Result<Ipv4Addr, LeaseError> {
        if self.address_of(identity).is_none()
            && let Some(former) = self.former.get(identity)
        {
            return Ok(*former);
        }
        if unix < self.none_before {
            return Err(LeaseError::Unknown { until: self.none_before });
        }
        self.next_free().ok_or_else(|| LeaseError::PoolFull {
            in_use: self.in_use(),
            quarantined: self.quarantined(),
        })
    }
}
