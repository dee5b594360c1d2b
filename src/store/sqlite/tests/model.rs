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
    ]
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
        }
    }
}
