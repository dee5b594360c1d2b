//! Both stores follow the same rules.

use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = Arc<str>> {
    (0..4_u8).prop_map(|number| Arc::from(format!("r{number}")))
}

fn change() -> impl Strategy<Value = Change> {
    let router = (name(), 0..5_u8, 0..4_u8, 0..6_u8, any::<bool>()).prop_map(
        |(name, user, common_name, address, disabled)| {
            let mut account = account(&name);
            account.username = format!("user{user}");
            account.certificate_cn = (common_name > 0).then(|| format!("cn{common_name}"));
            account.address = (address > 3).then(|| [100, 64, 1, address].into());
            account.login = if disabled { LoginMode::Password } else { LoginMode::Both };
            account.disabled = disabled;
            account.tenant = disabled.then(|| "south".into());
            account.revision = u64::from(user);
            account.previous = account.previous.filter(|_| address > 2);
            Change::PutRouter(account)
        },
    );
    let lease = (name(), 2..6_u8, 0..50_u64, any::<bool>(), any::<bool>()).prop_map(
        |(name, host, since, fixed, released)| {
            Change::PutLease(LeaseRecord {
                address: [100, 64, 1, host].into(),
                identity: name,
                fixed,
                since,
                last_used: since,
                released_at: released.then_some(since + 1),
            })
        },
    );
    let touch = (name(), 0..100_u64, prop::option::of(any::<[u8; 4]>())).prop_map(
        |(identity, at, from)| Change::Touch { identity, at, real_address: from.map(Into::into) },
    );
    prop_oneof![
        4 => router,
        4 => lease,
        2 => touch,
        1 => name().prop_map(|name| Change::DeleteRouter { name }),
        2 => (name(), 0..100_u64)
            .prop_map(|(identity, at)| Change::ReleaseLease { identity, at }),
        1 => (0..100_u64).prop_map(|released_before| Change::ForgetLeases { released_before }),
        4 => history(),
        2 => trail(),
    ]
}

fn history() -> impl Strategy<Value = Change> {
    let session = (name(), 1..9_u64, 2..4_u8, 0..100_u64, prop::option::of(0..50_u64)).prop_map(
        |(router, id, host, since, lasted)| {
            let session =
                SessionRecord { address: [100, 64, 1, host].into(), ..session(id, &router, since) };
            match lasted {
                Some(lasted) => Change::CloseSession(ended(session, since + lasted)),
                None => Change::OpenSession(session),
            }
        },
    );
    prop_oneof![
        6 => session,
        1 => Just(Change::EndSessions { reason: "process_ended".into() }),
        1 => (0..200_u64).prop_map(|at| Change::Alive { at }),
        2 => (0..120_u64, 0..3_u32)
            .prop_map(|(before, at_most)| Change::PruneSessions { before, at_most }),
    ]
}

fn trail() -> impl Strategy<Value = Change> {
    let mac = any::<u8>().prop_map(|byte| [byte; 32]);
    let line = (1..9_u64, 0..100_u64, mac.clone()).prop_map(|(seq, at, mac)| AuditRecord {
        seq,
        at,
        line: format!("line {seq}"),
        mac,
    });
    let seal = (1..5_u64, 0..9_u64, mac).prop_map(|(segment, last, mac)| AuditSeal {
        segment,
        last,
        line: format!("seal {last}"),
        mac,
    });
    prop_oneof![
        4 => line.prop_map(Change::AppendAudit),
        1 => seal.prop_map(Change::SealAudit),
        1 => (0..9_u64, 0..4_u32)
            .prop_map(|(through, at_most)| Change::PruneAudit { through, at_most }),
        1 => (0..99_u64).prop_map(|up_to| Change::ReserveEvents { up_to }),
    ]
}

/// Everything that can be asked of the past.
fn past(store: &dyn Store) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut pages = Vec::new();
    for router in ["r0", "r1", "r2", "r3"] {
        pages.push(store.sessions(&all_of(router)).unwrap());
        for limit in 0..3 {
            let some = SessionQuery {
                from: Some(40),
                to: Some(70),
                before: Some(7),
                limit,
                ..all_of(router)
            };
            pages.push(store.sessions(&some).unwrap());
        }
    }
    let mut holders = Vec::new();
    for host in 2..6 {
        for at in [0, 10, 25, 49, 100] {
            let address = [100, 64, 1, host].into();
            holders.push((
                store.holder_at(address, at).unwrap(),
                store.session_at(address, at).unwrap(),
            ));
        }
    }
    let trail = (store.audit(0, 100).unwrap(), store.audit(3, 2).unwrap());
    (pages, holders, trail, store.audit_seals().unwrap())
}

/// A change can contradict two things; which one is named does not matter.
fn kind(error: StoreError) -> StoreError {
    match error {
        StoreError::Conflict(_) => StoreError::Conflict(String::new()),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_durable_store_does_what_the_store_in_memory_does(
        submits in prop::collection::vec(prop::collection::vec(change(), 0..5), 1..30),
        reopen_at in 0..30_usize,
    ) {
        let (_folder, path) = folder();
        let mut durable = open(&path);
        let memory = MemoryStore::new();
        for (number, changes) in submits.into_iter().enumerate() {
            if number == reopen_at {
                drop(durable);
                durable = open(&path);
            }
            let expected = submit(&memory, changes.clone()).map_err(kind);
            prop_assert_eq!(submit(&durable, changes).map_err(kind), expected);
            prop_assert_eq!(durable.load(), memory.load());
            prop_assert_eq!(past(&durable), past(&memory));
        }
        let contradictions: Vec<_> = durable
            .check()
            .unwrap()
            .into_iter()
            // Accounts and leases are made one by one here.
            .filter(|sentence| !sentence.contains("static address"))
            .collect();
        prop_assert_eq!(contradictions, Vec::<String>::new());
    }
}
