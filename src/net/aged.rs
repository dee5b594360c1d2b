//! A map that forgets: entries go when they have not been renewed for a while, and the oldest go
//! when it is full. Nothing depends on the order of a hash table.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

const END: u32 = u32::MAX;

/// A bounded map with ages. Calls must pass times that never go back (a monotonic clock's).
#[derive(Debug)]
pub struct AgedMap<K, V> {
    index: HashMap<K, u32>,
    entries: Vec<Entry<K, V>>,
    unused: Vec<u32>,
    oldest: u32,
    newest: u32,
    capacity: usize,
    max_age: Duration,
    evicted: u64,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    renewed: Instant,
    older: u32,
    newer: u32,
}

impl<K: Copy + Eq + Hash, V> AgedMap<K, V> {
    /// An empty map for at most `capacity` entries (at least one), each living for `max_age` after
    /// it was last put in.
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        Self {
            index: HashMap::new(),
            entries: Vec::new(),
            unused: Vec::new(),
            oldest: END,
            newest: END,
            capacity: capacity.clamp(1, 1 << 30),
            max_age,
            evicted: 0,
        }
    }

    /// From now on entries live so long, those that are there included.
    pub fn set_max_age(&mut self, max_age: Duration) {
        self.max_age = max_age;
    }

    /// Puts an entry in, or renews its age and value. Aged entries make room first, then the oldest.
    pub fn put(&mut self, now: Instant, key: K, value: V) {
        self.expire(now);
        if let Some(&place) = self.index.get(&key) {
            self.unlink(place);
            self.link_newest(place);
            if let Some(entry) = self.entry_mut(place) {
                (entry.value, entry.renewed) = (value, now);
            }
            return;
        }
        if self.index.len() >= self.capacity {
            self.drop_oldest();
            self.evicted += 1;
        }
        let entry = Entry { key, value, renewed: now, older: END, newer: END };
        let place = match self.unused.pop() {
            Some(place) => {
                if let Some(slot) = self.entry_mut(place) {
                    *slot = entry;
                }
                place
            }
            None => {
                let place = u32::try_from(self.entries.len()).unwrap_or(END);
                self.entries.push(entry);
                place
            }
        };
        self.index.insert(key, place);
        self.link_newest(place);
    }

    /// The value of a living entry; does not renew it.
    pub fn get(&self, now: Instant, key: &K) -> Option<&V> {
        let entry = self.entry(*self.index.get(key)?)?;
        (!self.is_aged(entry, now)).then_some(&entry.value)
    }

    /// Forgets one entry.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(place) = self.index.remove(key) else { return false };
        self.unlink(place);
        self.unused.push(place);
        true
    }

    /// Entries held, aged ones that nobody has cleared yet included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Living entries that had to go because the map was full.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Clears aged entries; [`Self::put`] does it too.
    pub fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.entry(self.oldest)
            && self.is_aged(entry, now)
        {
            self.drop_oldest();
        }
        if self.index.is_empty() && !self.entries.is_empty() {
            (self.index, self.entries, self.unused) = (HashMap::new(), Vec::new(), Vec::new());
        }
    }

    fn is_aged(&self, entry: &Entry<K, V>, now: Instant) -> bool {
        now.saturating_duration_since(entry.renewed) >= self.max_age
    }

    fn drop_oldest(&mut self) {
        if let Some(key) = self.entry(self.oldest).map(|entry| entry.key) {
            self.remove(&key);
        }
    }

    fn unlink(&mut self, place: u32) {
        let Some((older, newer)) = self.entry(place).map(|e| (e.older, e.newer)) else { return };
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, place: u32) {
        let before = self.newest;
        if let Some(entry) = self.entry_mut(place) {
            (entry.older, entry.newer) = (before, END);
        }
        match self.entry_mut(before) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn entry(&self, place: u32) -> Option<&Entry<K, V>> {
        self.entries.get(usize::try_from(place).ok()?)
    }

    fn entry_mut(&mut self, place: u32) -> Option<&mut Entry<K, V>> {
        self.entries.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::testing::start;

    const AGE: Duration = Duration::from_secs(10);

    #[test]
    fn an_entry_lives_for_its_age_and_not_longer() {
        let (mut map, t0) = (AgedMap::new(4, AGE), start());
        map.put(t0, 1, "a");
        let nearly = t0 + AGE - Duration::from_nanos(1);
        assert_eq!(map.get(nearly, &1), Some(&"a"));
        assert_eq!(map.get(t0 + AGE, &1), None);
        map.put(nearly, 1, "b");
        assert_eq!(map.get(t0 + AGE, &1), Some(&"b"));
        map.expire(nearly + AGE);
        assert!(map.is_empty() && map.entries.is_empty());
    }

    #[test]
    fn a_full_map_forgets_the_oldest_and_counts_it() {
        let (mut map, t0) = (AgedMap::new(2, AGE), start());
        map.put(t0, 1, ());
        map.put(t0, 2, ());
        map.put(t0, 1, ());
        map.put(t0, 3, ());
        assert!(map.get(t0, &1).is_some() && map.get(t0, &3).is_some());
        assert!(map.get(t0, &2).is_none());
        assert_eq!((map.len(), map.evicted()), (2, 1));
        map.put(t0 + AGE, 4, ());
        assert_eq!((map.len(), map.evicted()), (1, 1));
    }

    proptest! {
        #[test]
        fn behaves_like_a_list_ordered_by_renewal(
            steps in prop::collection::vec((0u8..12, 0u64..4, 0u8..4), 0..200)
        ) {
            let (mut map, mut now) = (AgedMap::new(5, AGE), start());
            let mut model: Vec<(u8, Instant)> = Vec::new();
            for (key, wait, action) in steps {
                now += Duration::from_secs(wait);
                model.retain(|(_, renewed)| now - *renewed < AGE);
                let held = model.iter().any(|(k, _)| *k == key);
                prop_assert_eq!(map.get(now, &key).is_some(), held);
                if action == 0 {
                    model.retain(|(k, _)| *k != key);
                    map.remove(&key);
                } else {
                    model.retain(|(k, _)| *k != key);
                    if model.len() == 5 {
                        model.remove(0);
                    }
                    model.push((key, now));
                    map.put(now, key, ());
                    prop_assert_eq!(map.len(), model.len());
                }
                prop_assert!(map.entries.len() <= 5);
            }
        }
    }
}
