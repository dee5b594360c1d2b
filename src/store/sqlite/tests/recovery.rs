//! Copies in place of the database.

use std::fs;
use std::net::Ipv4Addr;

use super::*;
use crate::lease::{AddressBook, PoolConfig};
use crate::store::sqlite::journal::path_of;
use crate::store::sqlite::open::with_suffix;

const DAY: u64 = 86_400;

fn damage(path: &Path) {
    let mut file = fs::read(path).unwrap();
    let middle = file.len() / 2;
    file[middle..].iter_mut().for_each(|byte| *byte ^= 0xFF);
    fs::write(path, file).unwrap();
}

/// Routers a0 to a39 with leases, copied at 10,000.
fn copied() -> (TempDir, PathBuf, PathBuf, SqliteStore) {
    let (folder, path) = folder();
    let store = open(&path);
    for number in 0..40_u8 {
        give(&store, &format!("a{number}"), [100, 64, 1, 2 + number], 1000);
    }
    let copy = folder.path().join("copy.db");
    store.back_up(&copy, 10_000).unwrap();
    store.copies_kept(10_000, 10_000);
    (folder, path, copy, store)
}

fn give(store: &SqliteStore, name: &str, address: [u8; 4], since: u64) {
    let lease = LeaseRecord { since, last_used: since, ..lease(name, address) };
    submit(store, vec![Change::PutRouter(account(name)), Change::PutLease(lease)]).unwrap();
}

fn book(snapshot: &Snapshot) -> AddressBook {
    let config = PoolConfig {
        network: "100.64.0.0/23".parse().unwrap(),
        excluded: vec!["100.64.0.0/24".parse().unwrap()],
        management: [100, 127, 255, 254].into(),
        order_key: [9; 32],
        quarantine_seconds: 7 * DAY,
    };
    AddressBook::new(&config, snapshot.leases.clone()).unwrap()
}

/// Every address that newcomers get until the pool is full.
fn newcomers(book: &mut AddressBook, at: u64) -> Vec<Ipv4Addr> {
    let got = (0..).map_while(|n| book.acquire(&format!("new{n} of {at}"), at).ok());
    got.map(|acquired| acquired.address).collect()
}

#[test]
fn an_address_given_after_the_copy_goes_to_nobody_else_for_the_quarantine() {
    let (_folder, path, copy, store) = copied();
    // After the copy: a new router, a router that moves, and one whose address is given away.
    give(&store, "late", [100, 64, 1, 100], 11_000);
    give(&store, "a1", [100, 64, 1, 101], 11_500);
    submit(&store, vec![Change::ReleaseLease { identity: "a2".into(), at: 12_000 }]).unwrap();
    submit(&store, vec![Change::ForgetLeases { released_before: 12_001 }]).unwrap();
    give(&store, "late2", [100, 64, 1, 4], 12_500);
    drop(store);
    damage(&path);
    assert!(matches!(refusal(&path), StoreError::Damaged { .. }));
    let now = 20_000;
    let recovered = recover(&path, std::slice::from_ref(&copy), now).unwrap();
    assert_eq!((recovered.copied_at, recovered.addresses_known), (10_000, true));
    assert_eq!((recovered.from, recovered.resting), (copy, 3));
    assert!(recovered.set_aside.unwrap().exists());
    let store = open(&path);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    let snapshot = store.load().unwrap();
    assert_eq!(
        snapshot.marks.recovery,
        Some(Recovery { at: now, copied_at: 10_000, addresses_known: true })
    );
    assert_eq!(snapshot.accounts.len(), 40, "the state is that of the copy");
    let unknown: [Ipv4Addr; 3] =
        [[100, 64, 1, 100].into(), [100, 64, 1, 101].into(), [100, 64, 1, 4].into()];
    let mut book = book(&snapshot);
    let given = newcomers(&mut book, now + 7 * DAY - 1);
    assert!(given.len() > 200);
    assert!(unknown.iter().all(|one| !given.contains(one)), "{given:?}");
    // Who had it gets it back by the same name; a2 lost an address that it had given up.
    assert_eq!(book.acquire("late", now + 1).unwrap().address, unknown[0]);
    assert_eq!(book.acquire("late2", now + 1).unwrap().address, unknown[2]);
    assert_eq!(book.address_of("a2"), None);
    assert_eq!(book.address_of("a1"), Some([100, 64, 1, 3].into()));
    let rested = newcomers(&mut book, now + 7 * DAY);
    assert_eq!(rested, [unknown[1]], "then it is an address like any other");
}

#[test]
fn without_a_complete_journal_any_address_may_have_been_given() {
    for spoil in ["missing", "damaged", "too young"] {
        let (_folder, path, copy, store) = copied();
        give(&store, "late", [100, 64, 1, 100], 11_000);
        if spoil == "too young" {
            store.copies_kept(10_001, 10_001);
        }
        drop(store);
        let journal = path_of(&path);
        match spoil {
            "missing" => fs::remove_file(&journal).unwrap(),
            "damaged" => {
                let text = fs::read_to_string(&journal).unwrap();
                fs::write(&journal, text.replace("100.64.1.100", "100.64.1.101")).unwrap();
            }
            _ => {}
        }
        damage(&path);
        let now = 20_000;
        let recovered = recover(&path, &[copy], now).unwrap();
        assert!(!recovered.addresses_known, "{spoil}");
        let snapshot = open(&path).load().unwrap();
        assert!(!snapshot.marks.recovery.unwrap().addresses_known, "{spoil}");
        let mut book = book(&snapshot);
        book.give_none_before(now + 7 * DAY);
        assert_eq!(newcomers(&mut book, now + 7 * DAY - 1), Vec::<Ipv4Addr>::new());
        assert_eq!(book.acquire("a1", now).unwrap().address, Ipv4Addr::from([100, 64, 1, 3]));
        let operators = book.reserve_static("named", [100, 64, 1, 200].into(), now).unwrap();
        assert!(operators.fresh, "an operator may name one");
        assert!(newcomers(&mut book, now + 7 * DAY).len() > 200);
    }
}

#[test]
fn the_newest_good_copy_is_taken_and_the_damaged_database_kept() {
    let (folder, path, oldest, store) = copied();
    give(&store, "late", [100, 64, 1, 100], 11_000);
    let newer = folder.path().join("newer.db");
    store.back_up(&newer, 20_000).unwrap();
    let newest = folder.path().join("newest.db");
    store.back_up(&newest, 30_000).unwrap();
    drop(store);
    damage(&path);
    damage(&newest);
    let before = fs::read(&path).unwrap();
    let copies = [oldest, newest, newer.clone()];
    let recovered = recover(&path, &copies, 40_000).unwrap();
    assert_eq!((recovered.from, recovered.copied_at), (newer, 20_000));
    assert_eq!(fs::read(recovered.set_aside.unwrap()).unwrap(), before);
    assert_eq!(names(&open(&path)).len(), 41);
    // Again, with the copies all gone bad.
    damage(&path);
    for copy in &copies {
        if copy != &copies[1] {
            damage(copy);
        }
    }
    let before = fs::read(&path).unwrap();
    let error = recover(&path, &copies, 50_000).unwrap_err();
    assert!(matches!(error, StoreError::NothingToRecover { .. }), "{error:?}");
    assert!(error.to_string().contains("store restore"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before, "nothing was touched");
    let error = recover(&path, &[], 50_000).unwrap_err();
    assert!(error.to_string().contains("there is no snapshot"), "{error}");
}

#[test]
fn a_backup_is_restored_and_what_it_replaces_is_kept() {
    let (_folder, path, copy, store) = copied();
    give(&store, "late", [100, 64, 1, 100], 11_000);
    assert!(matches!(restore(&copy, &path, 20_000), Err(StoreError::InUse { .. })));
    drop(store);
    // A log that belongs to the replaced database must not be read into the new one.
    fs::write(with_suffix(&path, "-wal"), b"a log of somebody").unwrap();
    let restored = restore(&copy, &path, 20_000).unwrap();
    assert_eq!((restored.resting, restored.addresses_known), (1, true));
    let aside = restored.set_aside.unwrap();
    assert!(aside.to_string_lossy().ends_with("state.db.replaced-20000"), "{aside:?}");
    let store = open(&path);
    assert_eq!(names(&store).len(), 40);
    drop(store);
    fs::remove_file(with_suffix(&aside, "-wal")).unwrap();
    assert_eq!(names(&open(&aside)).len(), 41, "the replaced one is whole");
    // Into a folder where there was none; by hand-made copies too.
    let (_other, new) = folder();
    let restored = restore(&copy, &new, 20_000).unwrap();
    assert_eq!((restored.set_aside, restored.addresses_known), (None, false));
    assert_eq!(names(&open(&new)).len(), 40);
}

#[test]
fn a_bad_file_is_refused_before_anything_is_touched() {
    let (folder, path, copy, store) = copied();
    drop(store);
    let before = fs::read(&path).unwrap();
    let bad = folder.path().join("bad.db");
    fs::copy(&copy, &bad).unwrap();
    damage(&bad);
    let text = folder.path().join("text.db");
    fs::write(&text, "[pool]\n".repeat(1000)).unwrap();
    for (file, what) in [(&bad, "damaged"), (&text, "not a tunnelhead database")] {
        let error = restore(file, &path, 20_000).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
    }
    assert!(restore(&folder.path().join("none.db"), &path, 20_000).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names(&open(&path)).len(), 40);
}
