use super::*;
use crate::store::{Change, MemoryStore};
use tunnelhead_crypto::Secret;

fn keys() -> [AuditKey; 2] {
    [AuditKey::new(Secret::new([7; 32])), AuditKey::new(Secret::new([7; 32]))]
}

fn start(store: &Arc<MemoryStore>, dir: &Path) -> Trail {
    let store = Arc::clone(store) as Arc<dyn Store>;
    Trail::start(Setup { store, state_dir: Some(dir), keys: keys(), retention: None }).unwrap()
}

fn change(trail: &Trail, router: &str) {
    let action = Action {
        what: "PATCH /v1/routers/{name}".to_owned(),
        router: Some(router.to_owned()),
        status: Some(200),
        ..Action::default()
    };
    trail.note(Who::default(), action);
}

fn everything() -> AuditQuery {
    AuditQuery { after: 0, limit: 100_000, router: None, uid: None }
}

fn good(trail: &Trail) {
    let check = trail.check(&[]).unwrap();
    assert!(check.good, "{:?}", check.findings);
}

#[test]
fn while_nothing_can_be_written_nobody_waits_and_what_is_lost_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let trail = start(&store, dir.path());
    change(&trail, "first");
    assert_eq!(trail.page(&everything()).unwrap().items.len(), 1);
    store.set_degraded(Some("the disk is full".to_owned()));
    for number in 0..MAX_WAITING + 500 {
        change(&trail, &format!("r{number}"));
    }
    trail.settle();
    let reason = trail.degraded().unwrap();
    assert!(reason.contains("the disk is full"), "{reason}");
    store.set_degraded(None);
    trail.close();
    let all = trail.page(&everything()).unwrap().items;
    let lost: u64 = all
        .iter()
        .filter(|one| one.action == Record::LOST)
        .map(|one| one.detail["records"].parse::<u64>().unwrap())
        .sum();
    assert_eq!(lost, 500);
    let kept = all.iter().filter(|one| one.action != Record::LOST).count();
    assert_eq!(kept, 1 + MAX_WAITING);
    // In order, and still one chain.
    assert_eq!(all[1].router.as_deref(), Some("r0"));
    assert!(all.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    good(&trail);
}

#[test]
fn a_restart_goes_on_where_the_trail_ended_and_notices_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let trail = start(&store, dir.path());
    (0..5).for_each(|number| change(&trail, &format!("r{number}")));
    trail.close();
    // A crash between the database and the head file: the file is behind, which is no alarm.
    let head = std::fs::read(dir.path().join("audit.head")).unwrap();
    let trail = start(&store, dir.path());
    change(&trail, "later");
    trail.close();
    std::fs::write(dir.path().join("audit.head"), head).unwrap();
    let trail = start(&store, dir.path());
    good(&trail);
    assert_eq!(trail.head().seq, 6);
    trail.close();
    // An older copy of the database in its place: the next start says so, for good.
    let older = Arc::new(MemoryStore::new());
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let rows = ledger.rows(0, 4).unwrap();
    Ledger::new(Arc::clone(&older) as Arc<dyn Store>).append(&rows).unwrap();
    for _ in 0..2 {
        let trail = start(&older, dir.path());
        let check = trail.check(&[]).unwrap();
        assert!(!check.good && check.findings[0].contains("ended with record 4"), "{check:?}");
        trail.close();
    }
}

#[test]
fn records_of_somebody_else_are_gone_around_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let trail = start(&store, dir.path());
    change(&trail, "ours");
    trail.settle();
    let foreign = crate::store::AuditRecord { seq: 2, at: 1, line: "{}".into(), mac: [1; 32] };
    store.submit(vec![Change::AppendAudit(foreign)], None);
    change(&trail, "ours too");
    trail.close();
    let rows = trail.ledger.rows(0, 10).unwrap();
    assert!(rows.len() >= 4 && rows.last().unwrap().line.contains("ours too"), "{rows:?}");
    assert!(!trail.check(&[]).unwrap().good);
}
