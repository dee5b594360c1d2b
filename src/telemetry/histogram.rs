//! Durations by size, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds for what a person or a router waits for, in seconds.
pub const LOGIN_SECONDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];
/// Upper bounds for what a disk takes, in seconds.
pub const DISK_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Durations by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: the last counts what is larger than all of them.
    counts: Box<[AtomicU64]>,
    microseconds: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// Upper bound in seconds, and how many observations were not above it.
    pub at_most: Vec<(f64, u64)>,
    /// All observations.
    pub count: u64,
    /// Their sum in seconds.
    pub sum_seconds: f64,
}

impl Histogram {
    /// An empty histogram; `bounds` are in seconds and rise.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, microseconds: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let index = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// What has been counted so far.
    pub fn read(&self) -> Buckets {
        let mut count = 0;
        let mut below = self.counts.iter().map(|one| {
            count += one.load(Ordering::Relaxed);
            count
        });
        let at_most = self.bounds.iter().copied().zip(&mut below).collect();
        let _ = below.next();
        let sum = Duration::from_micros(self.microseconds.load(Ordering::Relaxed));
        Buckets { at_most, count, sum_seconds: sum.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&[0.001, 0.01]);
        for micros in [0, 1000, 1001, 10_000, 10_001, 60_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!(read.at_most, [(0.001, 2), (0.01, 4)]);
        assert_eq!(read.count, 6);
        assert!((read.sum_seconds - 60.022_002).abs() < 1e-9);
    }
}
