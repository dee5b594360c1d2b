//! A map of bounded size that forgets its oldest half.

use std::collections::HashMap;
use std::hash::Hash;

/// A map of at most `2 * half` entries: two generations, the older one is dropped when the younger
/// one is full. Entries that are written again stay young.
#[derive(Debug)]
pub(super) struct AgingMap<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> AgingMap<K, V> {
    pub(super) fn new(half: usize) -> Self {
        Self { half: half.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        self.young.insert(key, value);
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_keeps_what_is_written_again() {
        let mut map = AgingMap::new(100);
        for key in 0..100_000 {
            map.insert(key, key);
            map.insert(-1, -1);
            assert!(map.len() <= 200);
        }
        assert_eq!((map.get(&-1), map.get(&0), map.get(&99_999)), (Some(&-1), None, Some(&99_999)));
        assert_eq!(map.remove(&-1), Some(-1));
        assert_eq!(map.get(&-1), None);
    }
}
