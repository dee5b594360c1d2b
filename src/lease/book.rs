//! Who holds which address.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::pool::{Pool, PoolConfig, PoolError, gateway_of};

#[path = "planned.rs"]
mod planned;

pub use planned::{Planned, Wish};

/// One lease as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The tunnel address.
    pub address: Ipv4Addr,
    /// Whose it is, or was.
    pub identity: Arc<str>,
    /// True if an operator chose the address.
    pub fixed: bool,
    /// When it was handed out, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// When it was last known to be in use; likewise. 0 while no router ever had it.
    pub last_used: u64,
    /// When it was given up; likewise. It rests from then on.
    pub released_at: Option<u64>,
}

/// An address that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// The address.
    pub address: Ipv4Addr,
    /// True if the lease is not as recorded before: record it, see [`AddressBook::record_of`].
    pub fresh: bool,
}

/// Why an address can not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Every address is held or rests.
    #[error("the address pool is full: {in_use} addresses are held, {quarantined} rest after use")]
    PoolFull {
        /// Addresses held.
        in_use: u64,
        /// Addresses in quarantine.
        quarantined: u64,
    },
    /// It is not known which addresses are free.
    #[error(
        "it is not known which addresses were given before the state was recovered; until {until}          (unix time) the pool gives none, but an operator can name one"
    )]
    Unknown {
        /// End of the quarantine, in seconds since 1970-01-01 UTC.
        until: u64,
    },
    /// Not an address that a router may have.
    #[error(
        "{0} is not an address for a router: outside the pool, excluded, or not .2 to .254 of its /24"
    )]
    NotUsable(Ipv4Addr),
    /// Somebody else holds it.
    #[error("{address} belongs to {owner}")]
    Taken {
        /// The address.
        address: Ipv4Addr,
        /// Who holds it.
        owner: Arc<str>,
    },
    /// Somebody else held it not long ago.
    #[error("{address} belonged to {owner} and rests until {until} (unix time)")]
    Resting {
        /// The address.
        address: Ipv4Addr,
        /// Who held it.
        owner: Arc<str>,
        /// End of the quarantine, in seconds since 1970-01-01 UTC.
        until: u64,
    },
    /// Its address is being changed at this moment.
    #[error("the address of this router is being changed; try again")]
    Changing,
}

/// Who holds which address. No address has two holders; an identity holds at most one.
///
/// Invariant: a place of the order before `frontier` is exactly one of held, resting, put aside, in
/// `free`, or not usable. So handing out costs the same however full the pool is.
pub struct AddressBook {
    pool: Pool,
    quarantine_seconds: u64,
    leases: HashMap<Ipv4Addr, LeaseRecord>,
    holders: HashMap<Arc<str>, Ipv4Addr>,
    /// (released at, address) of everything that rests.
    resting: BTreeSet<(u64, Ipv4Addr)>,
    /// The address that an identity gave up last, while it rests.
    former: HashMap<Arc<str>, Ipv4Addr>,
    /// Rested addresses, the one that rested longest first.
    free: VecDeque<Ipv4Addr>,
    frontier: u64,
    /// Until then no address is given that is not known to be the router's.
    none_before: u64,
    /// What was put aside, and for whom; see [`Planned`].
    aside: HashMap<Ipv4Addr, Arc<str>>,
    /// The identities that something was put aside for.
    planning: HashSet<Arc<str>>,
    ignored: Vec<LeaseRecord>,
}

impl AddressBook {
    /// A book over the configured pool with the recorded leases. Records that do not fit (outside
    /// the pool as it is configured now, or contradicting an earlier record) are set aside, see
    /// [`Self::ignored`].
    ///
    /// # Errors
    /// The pool makes no sense.
    pub fn new(config: &PoolConfig, loaded: Vec<LeaseRecord>) -> Result<Self, PoolError> {
        let pool = Pool::new(config)?;
        let mut book = Self {
            pool,
            quarantine_seconds: config.quarantine_seconds,
            leases: HashMap::with_capacity(loaded.len()),
            holders: HashMap::with_capacity(loaded.len()),
            resting: BTreeSet::new(),
            former: HashMap::new(),
            free: VecDeque::new(),
            frontier: 0,
            none_before: 0,
            aside: HashMap::new(),
            planning: HashSet::new(),
            ignored: Vec::new(),
        };
        for record in loaded {
            book.load(record);
        }
        book.advance();
        Ok(book)
    }

    /// Gives no address to an identity that has none before `unix` (seconds since 1970-01-01 UTC):
    /// for a state from a copy, when any address may have been given after the copy. An operator
    /// can still name one.
    pub fn give_none_before(&mut self, unix: u64) {
        self.none_before = unix;
    }

    /// The address of `identity`: the one it holds, else the one it gave up if that still rests,
    /// else the next of the order.
    ///
    /// # Errors
    /// [`LeaseError::PoolFull`], an ordinary answer; [`LeaseError::Unknown`];
    /// [`LeaseError::Changing`] for an identity that holds nothing while a plan for it is under way.
    pub fn acquire(&mut self, identity: &str, unix: u64) -> Result<Acquired, LeaseError> {
        if let Some(address) = self.address_of(identity) {
            self.touch(identity, unix);
            return Ok(Acquired { address, fresh: false });
        }
        if self.is_planned_for(identity) {
            return Err(LeaseError::Changing);
        }
        self.expire(unix);
        let former = self.former.get(identity).copied();
        if former.is_none() && unix < self.none_before {
            return Err(LeaseError::Unknown { until: self.none_before });
        }
        let Some(address) = former.or_else(|| self.next_free()) else {
            return Err(LeaseError::PoolFull {
                in_use: self.in_use(),
                quarantined: self.quarantined(),
            });
        };
        self.grant(identity, address, unix);
        Ok(Acquired { address, fresh: true })
    }

    /// Gives `identity` exactly this address, for as long as it exists. An address that it held
    /// before goes into quarantine.
    ///
    /// # Errors
    /// The address is not usable, or somebody else's; nothing has changed.
    pub fn reserve_static(
        &mut self,
        identity: &str,
        address: Ipv4Addr,
        unix: u64,
    ) -> Result<Acquired, LeaseError> {
        let before = self.record_of(identity).map(|held| (held.address, held.fixed));
        let planned = self.plan(identity, Wish::Static(address), unix)?;
        self.settle(planned);
        Ok(Acquired { address, fresh: before != Some((address, true)) })
    }

    /// Ends the lease of `identity` and gives the record to store. The address rests from now on;
    /// one that no router ever had is free at once.
    pub fn release(&mut self, identity: &str, unix: u64) -> Option<LeaseRecord> {
        let address = self.holders.remove(identity)?;
        let mut record = self.leases.remove(&address)?;
        record.released_at = Some(unix);
        if record.last_used == NEVER {
            self.make_free(address);
        } else {
            self.rest(&record, unix);
            self.leases.insert(address, record.clone());
        }
        Some(record)
    }

    /// Notes that `identity` uses its address.
    pub fn touch(&mut self, identity: &str, unix: u64) {
        if let Some(address) = self.holders.get(identity)
            && let Some(record) = self.leases.get_mut(address)
        {
            record.last_used = record.last_used.max(unix);
        }
    }

    /// The address that `identity` holds.
    pub fn address_of(&self, identity: &str) -> Option<Ipv4Addr> {
        self.holders.get(identity).copied()
    }

    /// Who holds `address`; nobody while it rests.
    pub fn owner_of(&self, address: Ipv4Addr) -> Option<&Arc<str>> {
        let record = self.leases.get(&address)?;
        record.released_at.is_none().then_some(&record.identity)
    }

    /// The lease that holds `address`; none while it rests.
    pub fn holding(&self, address: Ipv4Addr) -> Option<&LeaseRecord> {
        self.leases.get(&address).filter(|record| record.released_at.is_none())
    }

    /// The lease of `identity`, to record it.
    pub fn record_of(&self, identity: &str) -> Option<&LeaseRecord> {
        self.leases.get(self.holders.get(identity)?)
    }

    /// Every lease, held or resting, in no particular order.
    pub fn records(&self) -> impl Iterator<Item = &LeaseRecord> {
        self.leases.values()
    }

    /// The gateway of the block of `address`.
    pub fn gateway_of(&self, address: Ipv4Addr) -> Ipv4Addr {
        gateway_of(address)
    }

    /// How many addresses routers may have.
    pub fn capacity(&self) -> u64 {
        self.pool.usable()
    }

    /// How many addresses are held.
    pub fn in_use(&self) -> u64 {
        self.holders.len() as u64
    }

    /// How many addresses rested when an address was last asked for.
    pub fn quarantined(&self) -> u64 {
        self.resting.len() as u64
    }

    /// Records that did not fit when the book was made.
    pub fn ignored(&self) -> &[LeaseRecord] {
        &self.ignored
    }

    fn load(&mut self, record: LeaseRecord) {
        let clash = self.leases.contains_key(&record.address)
            || record.released_at.is_none() && self.holders.contains_key(&record.identity);
        if clash || self.pool.place_of(record.address).is_none() {
            self.ignored.push(record);
            return;
        }
        if record.released_at.is_some() && record.last_used == NEVER {
            return;
        }
        match record.released_at {
            None => {
                self.holders.insert(Arc::clone(&record.identity), record.address);
            }
            Some(released) => self.rest(&record, released),
        }
        self.leases.insert(record.address, record);
    }

    fn grant(&mut self, identity: &str, address: Ipv4Addr, unix: u64) {
        if let Some(old) = self.leases.remove(&address) {
            self.forget_rest(&old);
        }
        let identity: Arc<str> = identity.into();
        self.holders.insert(Arc::clone(&identity), address);
        let record = LeaseRecord {
            address,
            identity,
            fixed: false,
            since: unix,
            last_used: unix,
            released_at: None,
        };
        self.leases.insert(address, record);
    }

    /// Checks that nobody else holds the address or let it rest.
    fn check_free_for(&self, identity: &str, address: Ipv4Addr) -> Result<(), LeaseError> {
        let Some(record) = self.leases.get(&address).filter(|other| *other.identity != *identity)
        else {
            return Ok(());
        };
        let owner = Arc::clone(&record.identity);
        let Some(released) = record.released_at else {
            return Err(LeaseError::Taken { address, owner });
        };
        let until = released.saturating_add(self.quarantine_seconds);
        Err(LeaseError::Resting { address, owner, until })
    }

    fn rest(&mut self, record: &LeaseRecord, released: u64) {
        self.resting.insert((released, record.address));
        let latest = self.former.get(&record.identity).and_then(|at| self.leases.get(at));
        if latest.is_none_or(|latest| latest.released_at <= Some(released)) {
            self.former.insert(Arc::clone(&record.identity), record.address);
        }
    }

    fn forget_rest(&mut self, record: &LeaseRecord) {
        if let Some(released) = record.released_at {
            self.resting.remove(&(released, record.address));
        }
        if self.former.get(&record.identity) == Some(&record.address) {
            self.former.remove(&record.identity);
        }
    }

    /// Ends every quarantine that is over.
    fn expire(&mut self, unix: u64) {
        while let Some((released, address)) = self.resting.first().copied() {
            if released.saturating_add(self.quarantine_seconds) > unix {
                return;
            }
            self.resting.pop_first();
            if let Some(record) = self.leases.remove(&address) {
                self.forget_rest(&record);
            }
            self.make_free(address);
        }
    }

    fn make_free(&mut self, address: Ipv4Addr) {
        if self.pool.place_of(address).is_some_and(|place| place < self.frontier) {
            self.free.push_back(address);
        }
    }

    /// The next address of the order that nobody ever had; else the one that rested longest.
    fn next_free(&mut self) -> Option<Ipv4Addr> {
        self.advance();
        if self.frontier < self.pool.candidates() {
            let address = self.pool.at(self.frontier);
            self.frontier = self.frontier.saturating_add(1);
            return address;
        }
        self.free.pop_front()
    }

    /// Moves the frontier to the next place that can be handed out. Walks over each place once in
    /// the life of the book.
    fn advance(&mut self) {
        while self.frontier < self.pool.candidates() {
            let address = self.pool.at(self.frontier);
            let free =
                |address| !self.leases.contains_key(&address) && !self.aside.contains_key(&address);
            if address.is_some_and(free) {
                return;
            }
            self.frontier = self.frontier.saturating_add(1);
        }
    }
}

/// `last_used` of a lease that no router ever had.
const NEVER: u64 = 0;

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
