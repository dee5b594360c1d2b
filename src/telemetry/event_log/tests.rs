//! The log against a plain list of everything that was ever told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BEFORE: u64 = 1000;

fn name(number: usize) -> Arc<str> {
    format!("r{number}").into()
}

/// Every id that a reader gets from here on, without a gap on the way.
fn ids(log: &EventLog<usize>, cursor: u64, owner: Option<&str>) -> Vec<u64> {
    let mut cursor = cursor;
    let mut ids = Vec::new();
    loop {
        let batch = log.read(cursor, owner, 7, 3, |_| true);
        assert_eq!(batch.gap, None, "a reader at {cursor} of {owner:?}");
        ids.extend(batch.events.iter().map(|(id, _)| *id));
        assert!(batch.cursor > cursor || !batch.more, "no progress at {cursor}");
        cursor = batch.cursor;
        if !batch.more {
            return ids;
        }
    }
}

/// What is held of an owner, however old.
fn held(log: &EventLog<usize>, owner: &str) -> Vec<u64> {
    let start = log.gap(BEFORE, Some(owner)).map_or(BEFORE, |gap| gap.to);
    ids(log, start, Some(owner))
}

#[test]
fn a_router_that_flaps_leaves_the_others_their_last_four() {
    let mut log = EventLog::new(BEFORE, capacity_for(3));
    let (calm, wild) = (name(0), name(1));
    for n in 0..6 {
        log.push(Some(&calm), n);
    }
    for n in 0..100_000 {
        log.push(Some(&wild), n);
    }
    assert_eq!(held(&log, &calm), [1003, 1004, 1005, 1006]);
    assert_eq!(log.len(), 24);
    assert_eq!(held(&log, &wild).len(), 20);
    log.push(Some(&calm), 6);
    assert_eq!(held(&log, &calm), [1004, 1005, 1006, log.last_id()]);
}

#[test]
fn a_removed_router_keeps_nothing_and_its_successor_starts_with_a_gap() {
    let mut log = EventLog::new(BEFORE, 16);
    let (old, wild) = (name(0), name(1));
    log.push(Some(&old), 0);
    log.retire(&old);
    for n in 0..100 {
        log.push(Some(&wild), n);
    }
    assert_eq!(log.len(), 16);
    assert_eq!(log.owners.len(), 1);
    log.push(Some(&old), 0);
    assert!(log.gap(BEFORE, Some(&old)).is_some(), "its first event is gone");
    log.restore(&old);
    for n in 0..100 {
        log.push(Some(&wild), n);
    }
    assert_eq!(held(&log, &old).len(), 1);
}

#[test]
fn a_gap_counts_what_is_gone_and_names_where_to_go_on() {
    let mut log = EventLog::new(BEFORE, 16);
    assert_eq!(log.gap(BEFORE, None), None);
    let other_run = log.gap(BEFORE - 1, None).unwrap();
    assert_eq!((other_run.from, other_run.to, other_run.lost), (1000, 1000, None));
    for n in 0..20 {
        log.push(None, n);
    }
    let gap = log.gap(BEFORE + 1, None).unwrap();
    assert_eq!(gap, Gap { from: 1002, to: 1004, lost: Some(3) });
    let batch = log.read(BEFORE + 1, None, 100, 100, |_| true);
    assert_eq!((batch.gap, batch.events.len(), batch.more), (Some(gap), 0, true));
    assert_eq!(ids(&log, batch.cursor, None), (1005..=1020).collect::<Vec<_>>());
    assert_eq!(log.dropped(), 4);
    let made_up = log.gap(5000, None).unwrap();
    assert_eq!((made_up.from, made_up.to, made_up.lost), (1001, 1020, None));
}

#[test]
fn more_owners_than_it_is_made_for_stay_within_its_capacity() {
    let mut log = EventLog::new(BEFORE, 64);
    for n in 0..10_000 {
        log.push(Some(&name(n)), n);
    }
    assert_eq!(log.len(), 64);
    assert!(log.owners.len() <= 64);
    assert_eq!(log.kept.len(), 32);
}

#[derive(Clone, Debug)]
enum Step {
    Push(Option<usize>),
    Retire(usize),
    Restore(usize),
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Router 0 flaps.
    let owner = prop_oneof![5 => Just(Some(0)), 3 => (0usize..4).prop_map(Some), 1 => Just(None)];
    let step = prop_oneof![
        20 => owner.prop_map(Step::Push),
        1 => (1usize..4).prop_map(Step::Retire),
        1 => (1usize..4).prop_map(Step::Restore),
        3 => (0usize..3).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn nothing_is_lost_untold_and_the_last_four_stay(steps in steps()) {
        const CAPACITY: usize = 32;
        let mut log = EventLog::new(BEFORE, CAPACITY);
        let mut told: Vec<(u64, Option<usize>)> = Vec::new();
        let mut retired = [false; 4];
        // What an owner had before it was restored may be gone.
        let mut counts_from = [BEFORE; 4];
        // Per reader: position, what it got, what it was told it lost.
        let mut readers = [(BEFORE, 0u64, 0u64); 3];
        for step in steps {
            match step {
                Step::Push(owner) => {
                    let id = log.push(owner.map(name).as_ref(), told.len());
                    prop_assert_eq!(id, BEFORE + 1 + told.len() as u64);
                    told.push((id, owner));
                }
                Step::Retire(owner) => {
                    log.retire(&name(owner));
                    retired[owner] |= told.iter().any(|(_, one)| *one == Some(owner));
                }
                Step::Restore(owner) => {
                    log.restore(&name(owner));
                    if std::mem::take(&mut retired[owner]) {
                        counts_from[owner] = log.last_id();
                    }
                }
                Step::Read(reader) => {
                    let (cursor, got, lost) = &mut readers[reader];
                    let batch = log.read(*cursor, None, 5, 3, |_| true);
                    if let Some(gap) = batch.gap {
                        let count = gap.lost.unwrap();
                        prop_assert!(count >= 1 && count <= gap.to - *cursor);
                        // What it did not get but is still there is not called lost.
                        *lost += gap.to - *cursor;
                    }
                    *got += batch.events.len() as u64;
                    *cursor = batch.cursor;
                    prop_assert_eq!(*got + *lost, *cursor - BEFORE);
                }
            }
            prop_assert!(log.len() <= CAPACITY);
            prop_assert_eq!(log.len() as u64 + log.dropped(), told.len() as u64);
            let mut by_owner: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
            for (id, owner) in &told {
                if let Some(owner) = owner {
                    by_owner.entry(*owner).or_default().push(*id);
                }
            }
            for (owner, all) in &by_owner {
                let held = held(&log, &name(*owner));
                prop_assert!(all.ends_with(&held), "r{} has a hole", owner);
                if !retired[*owner] {
                    let due = all.iter().filter(|id| **id > counts_from[*owner]).count();
                    prop_assert!(held.len() >= due.min(KEPT_EACH), "r{} lost more", owner);
                }
            }
            // The newest half is complete for everybody.
            let half = told.len().saturating_sub(CAPACITY / 2);
            prop_assert!(log.gap(BEFORE + half as u64, None).is_none());
            let start = log.gap(BEFORE, None).map_or(BEFORE, |gap| gap.to);
            prop_assert_eq!(
                ids(&log, start, None),
                (start + 1..=log.last_id()).collect::<Vec<_>>()
            );
        }
    }
}
