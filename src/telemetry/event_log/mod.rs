//! The events of a run, by rising id, in bounded memory. Pure: it knows neither time nor readers.
//!
//! A reader is a number, the id up to which it has seen everything; it pulls. So there is no queue
//! per reader, a slow one costs nothing, and what it has missed is a [`Gap`] when it comes back.
//!
//! **What goes when it is full.** The oldest event goes first, unless it is one of the last
//! [`KEPT_EACH`] of its owner (a router): those are set aside. So a router that flaps cannot flush
//! what is known about the others, and the newest half of the capacity is always without holes for
//! readers of everything. What is set aside takes at most half of the capacity: with a capacity of
//! eight events an owner ([`capacity_for`]) no owner ever has fewer than its last four.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Events of an owner that others can't push out.
pub const KEPT_EACH: usize = 4;

/// The capacity at which [`KEPT_EACH`] holds for so many owners.
pub fn capacity_for(owners: usize) -> usize {
    owners.saturating_mul(2 * KEPT_EACH)
}

/// Ids that a reader can no longer get: from, to, both gone or passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first id that the reader has not seen.
    pub from: u64,
    /// The last id that it can't be given; what is after it is complete.
    pub to: u64,
    /// How many events are gone in between, of all owners; `None` if that is not known: an earlier
    /// run, or a reader of one owner.
    pub lost: Option<u64>,
}

/// What a reader gets in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<T> {
    /// What was lost before `events`; then there are none in this batch.
    pub gap: Option<Gap>,
    /// Events by rising id.
    pub events: Vec<(u64, T)>,
    /// Everything up to here was looked at: where to read on.
    pub cursor: u64,
    /// There is more to look at.
    pub more: bool,
}

/// The events of a run.
#[derive(Debug)]
pub struct EventLog<T> {
    capacity: usize,
    /// The last id before this run.
    before: u64,
    last: u64,
    /// The newest events without a hole.
    recent: VecDeque<Entry<T>>,
    /// Older ones that are among the last of their owner.
    kept: BTreeMap<u64, Entry<T>>,
    owners: HashMap<Arc<str>, Owner>,
    /// The highest id that is gone.
    gone: u64,
    /// The same for events without an owner, and of owners of whom nothing is left.
    gone_without_owner: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Entry<T> {
    id: u64,
    owner: Option<Arc<str>>,
    event: T,
}

#[derive(Debug)]
struct Owner {
    /// Its events in `recent`.
    recent: usize,
    /// Its ids in `kept`, rising.
    kept: VecDeque<u64>,
    /// The highest of its ids that is gone.
    gone: u64,
    /// Nothing is set aside for it any more.
    retired: bool,
}

impl<T: Clone> EventLog<T> {
    /// An empty log whose first id is `before + 1`; at least 16 events fit.
    pub fn new(before: u64, capacity: usize) -> Self {
        Self {
            capacity: capacity.max(16),
            before,
            last: before,
            recent: VecDeque::new(),
            kept: BTreeMap::new(),
            owners: HashMap::new(),
            gone: before,
            gone_without_owner: before,
            dropped: 0,
        }
    }

    /// Changes how many events fit.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.max(16);
        self.trim();
    }

    /// Adds an event and gives it the next id.
    pub fn push(&mut self, owner: Option<&Arc<str>>, event: T) -> u64 {
        self.last += 1;
        let id = self.last;
        if let Some(name) = owner {
            let gone = self.gone_without_owner;
            let owner = self.owners.entry(Arc::clone(name)).or_insert_with(|| Owner {
                recent: 0,
                kept: VecDeque::new(),
                // What an earlier owner of this name had is gone.
                gone,
                retired: false,
            });
            owner.recent += 1;
            if owner.kept.len() + owner.recent > KEPT_EACH
                && let Some(oldest) = owner.kept.pop_front()
                && let Some(entry) = self.kept.remove(&oldest)
            {
                self.forget(&entry);
            }
        }
        self.recent.push_back(Entry { id, owner: owner.cloned(), event });
        self.trim();
        id
    }

    /// The owner is gone for good: its events are nothing special any more.
    pub fn retire(&mut self, name: &str) {
        let Some(owner) = self.owners.get_mut(name) else { return };
        owner.retired = true;
        for id in std::mem::take(&mut owner.kept) {
            if let Some(entry) = self.kept.remove(&id) {
                self.forget(&entry);
            }
        }
    }

    /// There is an owner of this name again.
    pub fn restore(&mut self, name: &str) {
        if let Some(owner) = self.owners.get_mut(name) {
            owner.retired = false;
        }
    }

    /// The id that was given last; whoever reads on from it misses nothing.
    pub fn last_id(&self) -> u64 {
        self.last
    }

    /// Events that are held.
    pub fn len(&self) -> usize {
        self.recent.len() + self.kept.len()
    }

    /// True if none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events that were dropped because the log was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What was lost for a reader that has seen everything up to `cursor`, of one owner or of all.
    pub fn gap(&self, cursor: u64, owner: Option<&str>) -> Option<Gap> {
        if cursor > self.last {
            // An id that this log has not given: of a lost database, or made up.
            return Some(Gap { from: self.last.min(self.before + 1), to: self.last, lost: None });
        }
        let floor = match owner {
            None => self.gone,
            Some(name) => self.owners.get(name).map_or(self.gone_without_owner, |one| one.gone),
        };
        if cursor >= floor {
            return None;
        }
        let counted = owner.is_none() && cursor >= self.before;
        let lost = counted.then(|| {
            let held = self.kept.range(cursor + 1..=floor).count();
            (floor - cursor).saturating_sub(u64::try_from(held).unwrap_or(0))
        });
        Some(Gap { from: cursor + 1, to: floor, lost })
    }

    /// What follows `cursor`: at most `most` events that are `wanted`, after looking at no more
    /// than `look`.
    pub fn read(
        &self,
        cursor: u64,
        owner: Option<&str>,
        look: usize,
        most: usize,
        mut wanted: impl FnMut(&T) -> bool,
    ) -> Batch<T> {
        if let Some(gap) = self.gap(cursor, owner) {
            let cursor = gap.to;
            return Batch { gap: Some(gap), events: Vec::new(), cursor, more: cursor < self.last };
        }
        let kept = self.kept.range(cursor + 1..).map(|(_, entry)| entry);
        let start = self.recent.partition_point(|entry| entry.id <= cursor);
        let mut batch = Batch { gap: None, events: Vec::new(), cursor, more: false };
        for entry in kept.chain(self.recent.range(start..)).take(look) {
            if batch.events.len() == most {
                break;
            }
            batch.cursor = entry.id;
            let owned = owner.is_none() || entry.owner.as_deref() == owner;
            if owned && wanted(&entry.event) {
                batch.events.push((entry.id, entry.event.clone()));
            }
        }
        batch.more = batch.cursor < self.last;
        batch
    }

    fn trim(&mut self) {
        while self.len() > self.capacity {
            let Some(entry) = self.recent.pop_front() else { return };
            let owner = entry.owner.as_ref().and_then(|name| self.owners.get_mut(name));
            let set_aside = owner.is_some_and(|owner| {
                owner.recent -= 1;
                let last = !owner.retired && owner.recent + owner.kept.len() < KEPT_EACH;
                if last {
                    owner.kept.push_back(entry.id);
                }
                last
            });
            if set_aside {
                self.kept.insert(entry.id, entry);
            } else {
                self.forget(&entry);
            }
            // Only with more owners than the capacity is made for.
            if self.kept.len() > self.capacity / 2
                && let Some((id, entry)) = self.kept.pop_first()
            {
                let owner = entry.owner.as_ref().and_then(|name| self.owners.get_mut(name));
                if let Some(owner) = owner {
                    owner.kept.retain(|kept| *kept != id);
                }
                self.forget(&entry);
            }
        }
    }

    /// Notes that an event that was taken out is gone.
    fn forget(&mut self, entry: &Entry<T>) {
        self.dropped += 1;
        self.gone = self.gone.max(entry.id);
        let Some(name) = &entry.owner else {
            self.gone_without_owner = self.gone_without_owner.max(entry.id);
            return;
        };
        let Some(owner) = self.owners.get_mut(name) else { return };
        owner.gone = owner.gone.max(entry.id);
        if owner.recent == 0 && owner.kept.is_empty() {
            self.gone_without_owner = self.gone_without_owner.max(owner.gone);
            self.owners.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
