//! Leaky counters for any number of keys in memory of fixed size.
//!
//! A count-min sketch whose cells leak: a key's level is the lowest of its cells. Keys that share
//! all their cells add up, so a level is never below the truth. The hash is keyed at random, so
//! nobody can choose names that share cells with somebody else's.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, Instant};

/// How many events a key may have: `burst` at once, then one more each `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Events at once, at least 1.
    pub burst: u32,
    /// Time that gives one event back.
    pub every: Duration,
}

pub(super) struct LeakySketch {
    hasher: RandomState,
    epoch: Instant,
    budget: Budget,
    cells: Box<[Cell]>,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    level: f64,
    /// Seconds since `epoch`.
    at: f64,
}

impl LeakySketch {
    pub(super) fn new(epoch: Instant, budget: Budget) -> Self {
        let cells = vec![Cell::default(); ROWS * WIDTH].into_boxed_slice();
        Self { hasher: RandomState::new(), epoch, budget, cells }
    }

    /// How long until the key may have one more event; zero if it may now.
    pub(super) fn wait(&self, now: Instant, key: &impl Hash) -> Duration {
        let seconds = self.seconds(now);
        let level = self
            .indices(key)
            .into_iter()
            .filter_map(|index| self.cells.get(index))
            .map(|cell| self.leaked(*cell, seconds))
            .fold(f64::INFINITY, f64::min);
        let excess = level + 1.0 - f64::from(self.budget.burst.max(1));
        // Rounding must not keep out an event that is due.
        if excess <= 1e-3 { Duration::ZERO } else { self.budget.every.mul_f64(excess) }
    }

    /// Counts one event.
    pub(super) fn add(&mut self, now: Instant, key: &impl Hash) {
        self.shift(now, key, 1.0);
    }

    /// Takes one event back.
    pub(super) fn refund(&mut self, now: Instant, key: &impl Hash) {
        self.shift(now, key, -1.0);
    }

    fn shift(&mut self, now: Instant, key: &impl Hash, amount: f64) {
        let seconds = self.seconds(now);
        for index in self.indices(key) {
            let level = self.cells.get(index).map(|cell| self.leaked(*cell, seconds));
            if let (Some(level), Some(cell)) = (level, self.cells.get_mut(index)) {
                *cell = Cell { level: (level + amount).max(0.0), at: seconds };
            }
        }
    }

    fn leaked(&self, cell: Cell, seconds: f64) -> f64 {
        let every = self.budget.every.as_secs_f64().max(1e-3);
        (cell.level - (seconds - cell.at).max(0.0) / every).max(0.0)
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.epoch).as_secs_f64()
    }

    /// One cell of each row; the rows' hashes are made from the two halves of one.
    fn indices(&self, key: &impl Hash) -> [usize; ROWS] {
        let hash = self.hasher.hash_one(key);
        let (first, step) = (hash & 0xFFFF_FFFF, (hash >> 32) | 1);
        let mut hash = first;
        let mut base = 0;
        [(); ROWS].map(|()| {
            let within = usize::try_from(hash % WIDTH as u64).unwrap_or(0);
            let index = within.wrapping_add(base);
            hash = hash.wrapping_add(step);
            base = base.wrapping_add(WIDTH);
            index
        })
    }
}

const ROWS: usize = 4;
const WIDTH: usize = 1 << 14;
