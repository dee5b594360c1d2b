//! Sessions over restarts, pruning, reads beside writes, and copies while changes go on.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::sqlite::open::with_suffix;

#[test]
fn a_session_that_was_up_when_the_process_ended_is_closed_at_the_last_known_time() {
    let (_folder, path) = folder();
    let store = open(&path);
    submit(
        &store,
        vec![
            Change::OpenSession(session(1, "a", 1000)),
            Change::OpenSession(session(2, "b", 1100)),
            Change::CloseSession(ended(session(1, "a", 1000), 1500)),
            Change::OpenSession(session(3, "a", 1600)),
            Change::Alive { at: 1700 },
        ],
    )
    .unwrap();
    drop(store);
    let store = open(&path);
    let marks = store.load().unwrap().marks;
    assert_eq!((marks.last_session, marks.alive_at), (3, 1700));
    submit(&store, vec![Change::EndSessions { reason: crate::store::PROCESS_ENDED.into() }])
        .unwrap();
    let of_a = store.sessions(&all_of("a")).unwrap();
    let end = SessionEnd { at: 1700, reason: "process_ended".into() };
    assert_eq!(
        of_a,
        [
            SessionRecord { ended: Some(end.clone()), ..session(3, "a", 1600) },
            ended(session(1, "a", 1000), 1500),
        ]
    );
    assert_eq!(store.sessions(&all_of("b")).unwrap()[0].ended, Some(end));
}

#[test]
fn pruning_goes_in_chunks_the_oldest_first_and_spares_what_is_up() {
    let (_folder, path) = folder();
    let store = open(&path);
    let mut changes: Vec<Change> =
        (1..=100).map(|id| Change::CloseSession(ended(session(id, "a", id), 200 - id))).collect();
    changes.push(Change::OpenSession(session(101, "a", 1)));
    submit(&store, changes).unwrap();
    let left = || store.sessions(&all_of("a")).unwrap().iter().map(|s| s.id).collect::<Vec<_>>();
    submit(&store, vec![Change::PruneSessions { before: 150, at_most: 10 }]).unwrap();
    // Number 100 ended first, at 100.
    assert_eq!(left(), [101].into_iter().chain((1..=90).rev()).collect::<Vec<_>>());
    for _ in 0..20 {
        submit(&store, vec![Change::PruneSessions { before: 150, at_most: 10 }]).unwrap();
    }
    assert_eq!(left(), [101].into_iter().chain((1..=50).rev()).collect::<Vec<_>>());
}

#[test]
fn chunks_of_pruning_and_pages_among_two_hundred_thousand_sessions() {
    let (_folder, path) = folder();
    let store = open(&path);
    let mut id = 0;
    for _ in 0..20 {
        let chunk = (0..10_000)
            .map(|_| {
                id += 1;
                Change::CloseSession(ended(session(id, &format!("r{}", id % 500), id), id + 5))
            })
            .collect();
        submit(&store, chunk).unwrap();
    }
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let start = crate::telemetry::clock::now();
        submit(&store, vec![Change::PruneSessions { before: 100_000, at_most: 500 }]).unwrap();
        longest = longest.max(start.elapsed());
    }
    println!("longest chunk of 500 among 200,000 sessions: {longest:?}");
    let start = crate::telemetry::clock::now();
    let page = SessionQuery { limit: 100, ..all_of("r7") };
    assert_eq!(store.sessions(&page).unwrap().len(), 100);
    println!("a page of 100 among 190,000 sessions: {:?}", start.elapsed());
}

#[test]
fn reads_of_the_past_do_not_wait_for_the_writer() {
    let (_folder, path) = folder();
    let store = open(&path);
    submit(&store, vec![Change::OpenSession(session(1, "a", 10))]).unwrap();
    let hold = hold(&store);
    assert_eq!(store.sessions(&all_of("a")).unwrap(), [session(1, "a", 10)]);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    drop(hold);
    store.close();
    assert_eq!(store.sessions(&all_of("a")), Err(StoreError::Closed));
}

#[test]
fn the_audit_trail_takes_a_number_once_and_forgets_only_what_is_sealed() {
    let (_folder, path) = folder();
    let store = open(&path);
    let line = |seq: u64| AuditRecord { seq, at: seq, line: format!("{seq}"), mac: [1; 32] };
    submit(&store, (1..=9).map(|seq| Change::AppendAudit(line(seq))).collect()).unwrap();
    let again = submit(&store, vec![Change::AppendAudit(line(9))]);
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    let prune = || vec![Change::PruneAudit { through: 9, at_most: 3 }];
    submit(&store, prune()).unwrap();
    assert_eq!(store.audit(0, 100).unwrap().len(), 9, "nothing is sealed");
    let seal = |line: &str| AuditSeal { segment: 1, last: 5, line: line.into(), mac: [2; 32] };
    submit(&store, vec![Change::SealAudit(seal("sealed"))]).unwrap();
    let seal = seal("exported");
    submit(&store, vec![Change::SealAudit(seal.clone())]).unwrap();
    assert_eq!(store.audit_seals().unwrap(), std::slice::from_ref(&seal));
    submit(&store, prune()).unwrap();
    assert_eq!(store.audit(0, 2).unwrap(), [line(4), line(5)]);
    submit(&store, prune()).unwrap();
    assert_eq!(store.audit(0, 100).unwrap(), (6..=9).map(line).collect::<Vec<_>>());
    drop(store);
    let snapshot = open(&path).load().unwrap();
    assert_eq!((snapshot.audit_head, snapshot.audit_seal), (Some(line(9)), Some(seal)));
}

#[test]
fn a_copy_made_while_changes_go_on_is_of_one_moment() {
    let (folder, path) = folder();
    let store = open(&path);
    // Every submit adds a router and moves its lease and a session with it: in any moment their
    // numbers are equal.
    let stop = AtomicBool::new(false);
    let mut copies = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0_u32;
            while !stop.load(Ordering::Relaxed) && number < 60_000 {
                let name = format!("r{number}");
                let [_, high, middle, low] = number.to_be_bytes();
                let record = lease(&name, [100, 64 + high, middle, low]);
                let id = u64::from(number) + 1;
                let changes = vec![
                    Change::PutRouter(account(&name)),
                    Change::PutLease(record),
                    Change::OpenSession(session(id, "all", id)),
                ];
                if number % 64 == 63 {
                    submit(&store, changes).unwrap();
                } else {
                    store.submit(changes, None);
                }
                number += 1;
            }
            number
        });
        for number in 0..6 {
            let to = folder.path().join(format!("copy{number}.db"));
            let bytes = store.back_up(&to, 5000 + number).unwrap();
            assert_eq!(fs::metadata(&to).unwrap().len(), bytes);
            copies.push(to);
        }
        stop.store(true, Ordering::Relaxed);
        println!("{} submits during 6 copies", writer.join().unwrap());
    });
    let mut last = 0;
    for (number, copy) in (0..).zip(&copies) {
        for suffix in ["-wal", "-shm", "-journal", ".unfinished"] {
            assert!(!with_suffix(copy, suffix).exists(), "{suffix}");
        }
        let facts = inspect(copy).unwrap();
        assert_eq!(facts.copied_at, Some(5000 + number));
        let copy = open(copy);
        let snapshot = copy.load().unwrap();
        let count = snapshot.accounts.len();
        assert_eq!(snapshot.leases.len(), count);
        assert_eq!(snapshot.marks.last_session, u64::try_from(count).unwrap());
        assert_eq!(copy.check().unwrap(), Vec::<String>::new());
        assert!(count >= last, "time goes on");
        last = count;
    }
    assert!(last > 0);
}

#[test]
fn the_check_finds_what_contradicts() {
    let (_folder, path) = folder();
    let store = open(&path);
    put(&store, "a").unwrap();
    submit(&store, vec![Change::PutLease(lease("a", [100, 64, 1, 2]))]).unwrap();
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    for (sql, sentence) in [
        ("UPDATE routers SET address = '100.64.7.7'", "static address 100.64.7.7 but holds"),
        ("UPDATE address_history SET identity = 'b'", "the history of 100.64.1.2"),
        (
            "PRAGMA foreign_keys = OFF; INSERT INTO router_activity VALUES ('none', 1, NULL)",
            "a row of router_activity belongs to nothing",
        ),
        ("UPDATE routers SET secret = 'a:b'", "a record can not be read"),
    ] {
        store.execute(sql).unwrap();
        let found = store.check().unwrap();
        assert!(found.iter().any(|one| one.contains(sentence)), "{sql}: {found:?}");
    }
}

#[test]
fn a_copy_to_a_full_disk_fails_in_words_and_leaves_nothing() {
    let (_folder, path) = folder();
    let store = open(&path);
    let Some(disk) = faults::SmallDisk::mount("a_copy_to_a_full_disk", "1m") else { return };
    let changes = (0..5000).map(|n| Change::PutRouter(account(&format!("r{n}")))).collect();
    submit(&store, changes).unwrap();
    let to = disk.path();
    let error = store.back_up(&to, 1).unwrap_err();
    assert!(matches!(error, StoreError::Copy { .. }), "{error:?}");
    assert!(error.to_string().contains("full"), "{error}");
    let folder = to.parent().unwrap();
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    assert_eq!(store.health(), StoreHealth::default(), "the store itself is well");
    put(&store, "after").unwrap();
}

#[test]
fn a_full_disk_for_the_journal_refuses_new_leases_and_keeps_touches() {
    let Some(disk) = faults::SmallDisk::mount("a_full_disk_for_the_journal", "1m") else { return };
    let store = open(&disk.path());
    submit(&store, vec![Change::PutLease(lease("a", [100, 64, 1, 2]))]).unwrap();
    disk.fill();
    let mut refused = false;
    for number in 0..2000_u32 {
        let [_, _, middle, low] = number.to_be_bytes();
        let one = lease(&format!("r{number}"), [100, 65, middle, low]);
        if submit(&store, vec![Change::PutLease(one)]).is_err() {
            refused = true;
            break;
        }
    }
    assert!(refused);
    disk.free();
    submit(&store, vec![Change::PutLease(lease("late", [100, 66, 1, 2]))]).unwrap();
    assert_eq!(store.health().degraded, None);
    let journal = journal::read(&journal::path_of(&disk.path()));
    assert_eq!(journal.complete_since, Some(0), "no half line is left in it");
    assert!(journal.given.iter().any(|given| &*given.identity == "late"));
}
