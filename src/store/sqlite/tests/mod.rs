//! The durable store against real files.

mod crash;
mod faults;
mod files;
mod keeping;
mod model;
mod recovery;

use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use tempfile::TempDir;

use super::*;
use crate::identity::{Account, LoginMode, PreviousSecret, StoredSecret};
use crate::lease::LeaseRecord;
use crate::store::{Activity, MemoryStore, Recovery, SessionEnd};

/// A folder with the path of a database that is not there yet.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    (folder, path)
}

fn open(path: &Path) -> SqliteStore {
    // Without pauses of its own: `flush` tries to write at once.
    let tuning = Tuning { probe_every: Duration::from_secs(3600), ..Tuning::default() };
    SqliteStore::open_with(path, tuning).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(path: &Path) -> StoreError {
    SqliteStore::open(path).err().expect("must be refused")
}

fn account(name: &str) -> Account {
    Account {
        name: name.into(),
        username: format!("{name}-user"),
        secret: StoredSecret::Machine { tag: [7; 32] },
        login: LoginMode::Both,
        certificate_cn: Some(format!("{name} cn")),
        cipher: Some("AES-256-CBC".into()),
        auth: Some("SHA256".into()),
        disabled: false,
        address: None,
        created_at: 1_700_000_000,
        tenant: Some("north".into()),
        tags: vec!["region:7".into(), "spare".into()],
        note: "on the roof, ring twice; schlüssel".into(),
        previous: Some(PreviousSecret {
            secret: StoredSecret::Machine { tag: [8; 32] },
            until: 1_700_003_600,
        }),
        revision: 3,
    }
}

fn lease(identity: &str, address: [u8; 4]) -> LeaseRecord {
    LeaseRecord {
        address: address.into(),
        identity: identity.into(),
        fixed: false,
        since: 1000,
        last_used: 2000,
        released_at: None,
    }
}

fn session(id: u64, router: &str, since: u64) -> SessionRecord {
    SessionRecord {
        id,
        router: router.into(),
        address: [100, 64, 1, 2].into(),
        real_address: "198.51.100.7:40000".parse().unwrap(),
        since,
        rx_bytes: 0,
        tx_bytes: 0,
        ended: None,
    }
}

fn ended(session: SessionRecord, at: u64) -> SessionRecord {
    let ended = Some(SessionEnd { at, reason: "peer_closed".into() });
    SessionRecord { rx_bytes: 7, tx_bytes: 9, ended, ..session }
}

fn all_of(router: &str) -> SessionQuery {
    SessionQuery { router: router.into(), from: None, to: None, before: None, limit: 1000 }
}

/// Submits and waits for the answer.
fn submit(store: &dyn Store, changes: Vec<Change>) -> Result<(), StoreError> {
    let (done, result) = sync_channel(1);
    store.submit(changes, Some(Box::new(move |outcome| done.send(outcome).unwrap())));
    store.flush();
    result.recv().unwrap()
}

fn put(store: &dyn Store, name: &str) -> Result<(), StoreError> {
    submit(store, vec![Change::PutRouter(account(name))])
}

fn names(store: &dyn Store) -> Vec<String> {
    store.load().unwrap().accounts.iter().map(|account| account.name.to_string()).collect()
}

impl SqliteStore {
    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.ask(|answer| Job::Execute(sql.to_owned(), answer)).unwrap()
    }
}

#[test]
fn what_was_recorded_is_read_back_after_a_restart() {
    let (_folder, path) = folder();
    let store = open(&path);
    let mut second = account("b");
    second.secret = StoredSecret::parse(
        "argon2id-v1:$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
         v6vPGJBkEcWDJ1vWeIjs6WbQzA+KQZ6SkUPhZ4jJTzM",
    )
    .unwrap();
    second.login = LoginMode::Password;
    (second.certificate_cn, second.cipher, second.auth) = (None, None, None);
    second.disabled = true;
    second.address = Some([100, 64, 3, 9].into());
    (second.tenant, second.tags, second.previous) = (None, vec![], None);
    second.note = String::new();
    let released = LeaseRecord { released_at: Some(3000), ..lease("gone", [100, 64, 9, 9]) };
    let real = "2001:db8::7".parse().unwrap();
    submit(
        &store,
        vec![
            Change::PutRouter(account("a")),
            Change::PutRouter(second.clone()),
            Change::PutLease(lease("a", [100, 64, 1, 2])),
            Change::PutLease(LeaseRecord { fixed: true, ..lease("b", [100, 64, 3, 9]) }),
            Change::PutLease(released.clone()),
            Change::Touch { identity: "a".into(), at: 5000, real_address: Some(real) },
        ],
    )
    .unwrap();
    let expected = Snapshot {
        accounts: vec![account("a"), second],
        leases: vec![
            LeaseRecord { last_used: 5000, ..lease("a", [100, 64, 1, 2]) },
            LeaseRecord { fixed: true, ..lease("b", [100, 64, 3, 9]) },
            released,
        ],
        activity: vec![Activity { router: "a".into(), last_seen: 5000, real_address: Some(real) }],
        ..Snapshot::default()
    };
    assert_eq!(store.load().unwrap(), expected);
    drop(store);
    assert_eq!(open(&path).load().unwrap(), expected);
}

#[test]
fn a_failing_submit_takes_nothing_with_it_and_no_neighbour_down() {
    let (_folder, path) = folder();
    let store = open(&path);
    let (done, results) = sync_channel(100);
    let hold = hold(&store);
    for number in 0..20 {
        let mut bad = account("bad");
        bad.username = "r3-user".into();
        let mut changes = vec![Change::PutRouter(account(&format!("r{number}")))];
        if number == 10 {
            changes.push(Change::PutRouter(bad));
        }
        let done = done.clone();
        let tell = move |result| done.send((number, result)).unwrap();
        store.submit(changes, Some(Box::new(tell)));
    }
    drop(hold);
    store.flush();
    for number in 0..20 {
        let (which, result) = results.recv().unwrap();
        assert_eq!(which, number, "answers come in the order of submits");
        let clash = StoreError::Conflict("the user name belongs to another router".into());
        assert_eq!(result, if number == 10 { Err(clash) } else { Ok(()) });
    }
    let names = names(&store);
    assert_eq!(names.len(), 19);
    assert!(!names.contains(&"r10".to_owned()) && !names.contains(&"bad".to_owned()));
    assert_eq!(store.health(), StoreHealth::default());
}

#[test]
fn a_full_queue_refuses_at_once_and_counts() {
    let (_folder, path) = folder();
    let tuning = Tuning { queue: 4, ..Tuning::default() };
    let store = SqliteStore::open_with(&path, tuning).unwrap();
    let hold = hold(&store);
    let (done, results) = sync_channel(100);
    for number in 0..10 {
        let done = done.clone();
        let changes = vec![Change::PutRouter(account(&format!("r{number}")))];
        store.submit(changes, Some(Box::new(move |result| done.send((number, result)).unwrap())));
    }
    let refused: Vec<_> = results.try_iter().collect();
    assert_eq!(refused, (4..10).map(|n| (n, Err(StoreError::QueueFull))).collect::<Vec<_>>());
    assert_eq!((store.health().queued, store.health().refused), (4, 6));
    drop(hold);
    store.flush();
    assert!(results.try_iter().all(|(_, result)| result.is_ok()));
    assert_eq!((names(&store).len(), store.health().queued), (4, 0));
}

/// Keeps the thread busy until it is dropped, so that what is submitted forms one batch.
fn hold(store: &SqliteStore) -> SyncSender<()> {
    let (release, held) = sync_channel::<()>(0);
    let (entered, inside) = sync_channel(0);
    let wait = move |_| {
        entered.send(()).unwrap();
        let _ = held.recv();
    };
    store.submit(Vec::new(), Some(Box::new(wait)));
    inside.recv().unwrap();
    release
}

#[test]
fn a_callback_that_panics_does_not_end_the_store() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.submit(Vec::new(), Some(Box::new(|_| panic!("on purpose"))));
    put(&store, "a").unwrap();
    assert_eq!(names(&store), ["a"]);
}

#[test]
fn a_closed_store_says_so_and_has_told_everybody() {
    let (_folder, path) = folder();
    let store = open(&path);
    let (done, results) = sync_channel(100);
    for number in 0..50 {
        let done = done.clone();
        let changes = vec![Change::PutRouter(account(&format!("r{number}")))];
        store.submit(changes, Some(Box::new(move |result| done.send(result).unwrap())));
    }
    store.close();
    store.close();
    drop(done);
    assert_eq!(results.iter().collect::<Vec<_>>(), vec![Ok(()); 50]);
    assert_eq!(put(&store, "late"), Err(StoreError::Closed));
    assert_eq!(store.load(), Err(StoreError::Closed));
    assert_eq!(names(&open(&path)).len(), 50, "the file is free for the next one");
}

#[test]
fn ten_thousand_routers_load_quickly() {
    let (_folder, path) = folder();
    let store = open(&path);
    let changes = (0..10_000_u32)
        .flat_map(|number| {
            let name = format!("r{number}");
            let [_, high, middle, low] = number.to_be_bytes();
            let lease = lease(&name, [100, 64 + high, middle, low]);
            [Change::PutRouter(account(&name)), Change::PutLease(lease)]
        })
        .collect();
    submit(&store, changes).unwrap();
    drop(store);
    let start = crate::telemetry::clock::now();
    let snapshot = open(&path).load().unwrap();
    let took = start.elapsed();
    assert_eq!((snapshot.accounts.len(), snapshot.leases.len()), (10_000, 10_000));
    println!("opened, checked and loaded 10,000 routers in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
