//! `[store]` and `[history]`: what is kept of the state and of the past.

use std::time::Duration;

use super::section::Section;

/// `[store]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreKeeping {
    /// Snapshots of the database that are kept; 0: none are made.
    pub snapshots: usize,
    /// Time between two of them.
    pub snapshot_every: Duration,
}

impl StoreKeeping {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let snapshots = usize::try_from(section.integer("snapshots", 24, 0..=1000)).unwrap_or(24);
        let range = Duration::from_secs(1)..=7 * DAY;
        let snapshot_every = section.duration("snapshot_every", Duration::from_secs(3600), range);
        section.finish();
        Self { snapshots, snapshot_every }
    }
}

/// `[history]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// For how long sessions, and who had which address, are kept after their end.
    pub retention: Duration,
}

impl History {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let range = Duration::from_secs(60)..=3650 * DAY;
        let retention = section.duration("retention", 90 * DAY, range);
        section.finish();
        Self { retention }
    }
}

const DAY: Duration = Duration::from_secs(86_400);
