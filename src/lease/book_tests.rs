use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const WEEK: u64 = 7 * 86_400;

fn config(network: &str, excluded: &[&str]) -> PoolConfig {
    PoolConfig {
        network: network.parse().unwrap(),
        excluded: excluded.iter().map(|net| net.parse().unwrap()).collect(),
        management: [100, 127, 255, 254].into(),
        order_key: [3; 32],
        quarantine_seconds: WEEK,
    }
}

/// Usable: .2 to .7 of the first block, .2 and .3 of the second.
fn tiny() -> PoolConfig {
    config(
        "100.64.0.0/23",
        &[
            "100.64.0.8/29",
            "100.64.0.16/28",
            "100.64.0.32/27",
            "100.64.0.64/26",
            "100.64.0.128/25",
            "100.64.1.4/30",
            "100.64.1.8/29",
            "100.64.1.16/28",
            "100.64.1.32/27",
            "100.64.1.64/26",
            "100.64.1.128/25",
        ],
    )
}

fn book(config: &PoolConfig) -> AddressBook {
    AddressBook::new(config, Vec::new()).unwrap()
}

fn restart(config: &PoolConfig, book: &AddressBook) -> AddressBook {
    let again = AddressBook::new(config, book.records().cloned().collect()).unwrap();
    assert_eq!(again.ignored(), []);
    again
}

#[test]
fn an_identity_keeps_its_address_over_logins_and_restarts() {
    let config = config("100.64.0.0/10", &[]);
    let mut book = book(&config);
    let first = book.acquire("a", 100).unwrap();
    assert!(first.fresh);
    assert_eq!(book.acquire("a", 200).unwrap(), Acquired { fresh: false, ..first });
    assert_ne!(book.acquire("b", 200).unwrap().address, first.address);
    let mut book = restart(&config, &book);
    assert_eq!(book.acquire("a", 300).unwrap(), Acquired { fresh: false, ..first });
    assert_eq!(book.owner_of(first.address).map(|o| &**o), Some("a"));
    let record = book.record_of("a").unwrap();
    assert_eq!((record.since, record.last_used, record.released_at), (100, 300, None));
}

#[test]
fn a_full_pool_is_an_answer_and_ends_when_a_quarantine_ends() {
    let config = tiny();
    let mut book = book(&config);
    assert_eq!(book.capacity(), 8);
    for router in 0..8 {
        book.acquire(&format!("r{router}"), 1000).unwrap();
    }
    let full = LeaseError::PoolFull { in_use: 8, quarantined: 0 };
    assert_eq!(book.acquire("late", 1000), Err(full));
    let freed = book.release("r3", 2000).unwrap();
    assert_eq!(freed.released_at, Some(2000));
    assert_eq!(book.owner_of(freed.address), None);
    let mut book = restart(&config, &book);
    let full = LeaseError::PoolFull { in_use: 7, quarantined: 1 };
    assert_eq!(book.acquire("late", 2000 + WEEK - 1), Err(full));
    assert_eq!(book.acquire("late", 2000 + WEEK).unwrap().address, freed.address);
    assert!(book.acquire("r3", 2000 + WEEK).is_err());
}

#[test]
fn the_former_holder_gets_its_resting_address_back() {
    let mut book = book(&config("100.64.0.0/16", &[]));
    let address = book.acquire("a", 1).unwrap().address;
    book.release("a", 2).unwrap();
    assert_eq!(book.acquire("a", 3).unwrap(), Acquired { address, fresh: true });
    assert_eq!((book.in_use(), book.quarantined()), (1, 0));
    assert!(book.release("nobody", 3).is_none());
}

#[test]
fn a_static_address_is_given_to_nobody_else() {
    let config = tiny();
    let mut book = book(&config);
    let fixed = Ipv4Addr::new(100, 64, 0, 5);
    assert!(book.reserve_static("s", fixed, 1).unwrap().fresh);
    assert!(!book.reserve_static("s", fixed, 2).unwrap().fresh, "asking again changes nothing");
    for router in 0..7 {
        assert_ne!(book.acquire(&format!("r{router}"), 3).unwrap().address, fixed);
    }
    assert!(book.acquire("late", 3).is_err());
    assert_eq!(book.acquire("s", 4).unwrap(), Acquired { address: fixed, fresh: false });
    let taken = LeaseError::Taken { address: fixed, owner: "s".into() };
    assert_eq!(book.reserve_static("r0", fixed, 5), Err(taken));
    book.release("s", 10).unwrap();
    let resting = LeaseError::Resting { address: fixed, owner: "s".into(), until: 10 + WEEK };
    assert_eq!(book.reserve_static("r0", fixed, 11), Err(resting));
    assert!(book.reserve_static("s", fixed, 11).is_ok(), "its former holder may have it");
}

#[test]
fn a_static_address_must_be_one_that_routers_may_have() {
    let mut book = book(&config("100.64.0.0/10", &["100.64.0.0/24"]));
    for bad in [
        [100, 64, 0, 9],
        [100, 64, 1, 0],
        [100, 64, 1, 1],
        [100, 64, 1, 255],
        [100, 127, 255, 9],
        [10, 0, 0, 9],
        [100, 128, 0, 9],
    ] {
        let bad = Ipv4Addr::from(bad);
        assert_eq!(book.reserve_static("s", bad, 1), Err(LeaseError::NotUsable(bad)));
    }
    assert_eq!(book.in_use(), 0);
}

#[test]
fn a_static_address_that_no_router_had_is_free_at_once() {
    let config = tiny();
    let mut book = book(&config);
    let fixed = Ipv4Addr::new(100, 64, 0, 5);
    for router in 0..7 {
        book.reserve_static("typo", fixed, 1).unwrap();
        book.acquire(&format!("r{router}"), 1).unwrap();
        book.release("typo", 2).unwrap();
    }
    assert!(book.reserve_static("s", fixed, 2).is_ok() || book.owner_of(fixed).is_some());
    assert_eq!(book.quarantined(), 0);
    assert!(restart(&config, &book).acquire("r0", 3).is_ok());
}

#[test]
fn moving_to_a_static_address_rests_the_old_one() {
    let mut book = book(&tiny());
    let old = book.acquire("a", 1).unwrap().address;
    let new = if old.octets()[3] == 2 { [100, 64, 0, 3] } else { [100, 64, 0, 2] };
    book.reserve_static("a", new.into(), 2).unwrap();
    assert_eq!(book.address_of("a"), Some(new.into()));
    assert_eq!((book.owner_of(old), book.in_use(), book.quarantined()), (None, 1, 1));
}

#[test]
fn records_that_no_longer_fit_are_set_aside() {
    let mut old = book(&config("100.64.0.0/16", &[]));
    for router in 0..100 {
        old.acquire(&format!("r{router}"), 1).unwrap();
    }
    let mut records: Vec<_> = old.records().cloned().collect();
    records.push(LeaseRecord { identity: "thief".into(), ..records[0].clone() });
    let mut book = AddressBook::new(&config("100.64.0.0/17", &[]), records).unwrap();
    let outside = old.records().filter(|r| r.address.octets()[2] >= 128).count();
    assert!(outside > 20 && book.address_of("thief").is_none());
    let thief = usize::from(old.records().next().unwrap().address.octets()[2] < 128);
    assert!((outside + thief..=outside + 1).contains(&book.ignored().len()));
    for router in 0..100 {
        assert!(book.acquire(&format!("r{router}"), 2).unwrap().address.octets()[2] < 128);
    }
}

#[test]
fn never_used_addresses_come_before_rested_ones() {
    let mut book = book(&config("100.64.0.0/24", &[]));
    let first = book.acquire("a", 0).unwrap().address;
    book.release("a", 1);
    let later = 2 + WEEK;
    for router in 0..252 {
        assert_ne!(book.acquire(&format!("r{router}"), later).unwrap().address, first);
    }
    assert_eq!(book.acquire("last", later).unwrap().address, first);
}

/// Counts the work instead of the time: a nearly full /10 answers as fast as an empty one.
#[test]
fn two_hundred_thousand_leases_load_and_hand_out_without_scanning_the_pool() {
    let config = config("100.64.0.0/10", &[]);
    let mut book = book(&config);
    for router in 0..200_000_u32 {
        book.acquire(&router.to_string(), 1).unwrap();
    }
    assert!(book.frontier < 201_000, "walked {} places", book.frontier);
    let mut again = restart(&config, &book);
    let before = again.frontier;
    for router in 0..1000 {
        assert!(again.acquire(&format!("new-{router}"), 1).unwrap().fresh);
    }
    assert!(again.frontier - before < 1100);
}

#[test]
fn a_plan_that_is_abandoned_leaves_no_trace() {
    let config = tiny();
    let mut book = book(&config);
    let old = book.acquire("a", 1).unwrap().address;
    let was = book.record_of("a").cloned();
    let planned = book.plan("a", Wish::Next, 5).unwrap();
    let new = planned.address();
    assert!(new != old && planned.moves());
    assert_eq!(book.acquire("a", 5), Ok(Acquired { address: old, fresh: false }));
    assert_eq!(book.plan("a", Wish::Next, 5).unwrap_err(), LeaseError::Changing);
    let taken = LeaseError::Taken { address: new, owner: "a".into() };
    assert_eq!(book.reserve_static("b", new, 5), Err(taken));
    book.abandon(planned);
    assert_eq!((book.in_use(), book.quarantined()), (1, 0));
    assert_eq!(
        book.record_of("a").map(|r| (r.address, r.since)),
        was.map(|r| (r.address, r.since))
    );
    // Free at once, for anybody, and only once.
    assert!(book.reserve_static("b", new, 5).is_ok());
    for router in 0..6 {
        book.acquire(&format!("r{router}"), 6).unwrap();
    }
    assert!(book.acquire("late", 6).is_err());
}

#[test]
fn a_plan_that_is_settled_rests_what_was_held() {
    let mut book = book(&tiny());
    let old = book.acquire("a", 1).unwrap().address;
    let planned = book.plan("a", Wish::Next, 5).unwrap();
    let record = planned.record().clone();
    book.settle(planned);
    assert_eq!(book.record_of("a"), Some(&record));
    assert_eq!((book.owner_of(old), book.in_use(), book.quarantined()), (None, 1, 1));
    let resting = LeaseError::Resting { address: old, owner: "a".into(), until: 5 + WEEK };
    assert_eq!(book.reserve_static("b", old, 6), Err(resting));
}

#[test]
fn the_hand_is_put_on_and_taken_off_an_address_that_stays() {
    let mut book = book(&tiny());
    let address = book.acquire("a", 1).unwrap().address;
    for (wish, fixed) in [
        (Wish::Static(address), true),
        (Wish::Pooled(address), false),
        (Wish::Pooled(address), false),
    ] {
        let planned = book.plan("a", wish, 2).unwrap();
        assert!(!planned.moves() && planned.record().fixed == fixed);
        book.settle(planned);
        let record = book.record_of("a").unwrap();
        assert_eq!((record.address, record.fixed, record.since), (address, fixed, 1));
    }
    assert_eq!((book.in_use(), book.quarantined()), (1, 0));
}

#[test]
fn an_abandoned_plan_for_a_resting_address_lets_it_rest_on() {
    let config = tiny();
    let mut book = book(&config);
    let address = book.acquire("a", 1).unwrap().address;
    book.release("a", 2);
    let planned = book.plan("a", Wish::Next, 3).unwrap();
    assert_eq!(planned.address(), address, "its former address");
    assert_eq!(book.acquire("a", 3), Err(LeaseError::Changing));
    assert_eq!(book.quarantined(), 0);
    book.abandon(planned);
    assert_eq!(book.quarantined(), 1);
    let resting = LeaseError::Resting { address, owner: "a".into(), until: 2 + WEEK };
    assert_eq!(book.reserve_static("b", address, 4), Err(resting));
    assert_eq!(book.acquire("a", 5).unwrap().address, address);
}

/// A restored lease may lie anywhere in the order, also where nothing was handed out yet.
#[test]
fn what_is_put_aside_is_handed_out_to_nobody() {
    let mut book = book(&tiny());
    let all: Vec<Ipv4Addr> = (2..=7)
        .map(|host| [100, 64, 0, host].into())
        .chain((2..=3).map(|host| [100, 64, 1, host].into()))
        .collect();
    let planned: Vec<Planned> = all
        .iter()
        .take(7)
        .enumerate()
        .map(|(n, address)| book.plan(&format!("r{n}"), Wish::Pooled(*address), 1).unwrap())
        .collect();
    let last = book.acquire("x", 1).unwrap().address;
    assert_eq!(Some(&last), all.last());
    assert!(book.acquire("y", 1).is_err());
    for planned in planned {
        book.settle(planned);
    }
    assert_eq!((book.in_use(), book.quarantined()), (8, 0));
    let fixed = book.records().filter(|record| record.fixed).count();
    assert_eq!(fixed, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(u8),
    Release(u8),
    Fix(u8, u8),
    Plan(u8, Option<u8>),
    Conclude(bool),
    Wait(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_u8).prop_map(Step::Acquire),
        4 => (0..12_u8).prop_map(Step::Release),
        2 => (0..12_u8, 0..12_u8).prop_map(|(who, what)| Step::Fix(who, what)),
        2 => (0..12_u8, prop::option::of(0..12_u8)).prop_map(|(who, what)| Step::Plan(who, what)),
        3 => any::<bool>().prop_map(Step::Conclude),
        2 => (1..WEEK).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// Who held a resting address, and when it was given back.
type Rest = (String, u64);

/// The naive model: a list of (address, identity, used, released) and the usable addresses.
#[derive(Default)]
struct Model {
    held: BTreeMap<String, (Ipv4Addr, bool)>,
    rests: BTreeMap<Ipv4Addr, Rest>,
    /// For whom an address is put aside, and how it rested before.
    aside: Option<(String, Ipv4Addr, Option<Rest>)>,
}

impl Model {
    fn expire(&mut self, now: u64) {
        self.rests.retain(|_, (_, released)| *released + WEEK > now);
    }

    fn release(&mut self, who: &str, now: u64) -> bool {
        match self.held.remove(who) {
            Some((address, true)) => {
                self.rests.insert(address, (who.to_owned(), now));
                true
            }
            Some((_, false)) => true,
            None => false,
        }
    }

    fn is_free(&self, address: Ipv4Addr) -> bool {
        !self.rests.contains_key(&address)
            && self.held.values().all(|(held, _)| *held != address)
            && self.aside.as_ref().is_none_or(|(_, aside, _)| *aside != address)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn behaves_like_the_naive_model(steps in prop::collection::vec(step(), 1..200)) {
        let config = tiny();
        let usable: BTreeSet<Ipv4Addr> = (2..=7).map(|host| [100, 64, 0, host].into())
            .chain((2..=3).map(|host| [100, 64, 1, host].into())).collect();
        let mut book = book(&config);
        let mut model = Model::default();
        let mut now = 1_000_000;
        let mut plan: Option<Planned> = None;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Restart => {
                    // What was put aside is nobody's again.
                    plan = None;
                    if let Some((_, address, Some(rested))) = model.aside.take() {
                        model.rests.insert(address, rested.clone());
                        let mut records: Vec<_> = book.records().cloned().collect();
                        records.push(LeaseRecord {
                            address,
                            identity: rested.0.as_str().into(),
                            fixed: false,
                            since: 1,
                            last_used: 1,
                            released_at: Some(rested.1),
                        });
                        book = AddressBook::new(&config, records).unwrap();
                    } else {
                        book = restart(&config, &book);
                    }
                }
                Step::Plan(who, what) => {
                    let who = format!("r{who}");
                    if plan.is_some() {
                        continue;
                    }
                    model.expire(now);
                    let wish = what.map_or(Wish::Next, |what| {
                        Wish::Pooled(Ipv4Addr::new(100, 64, what / 8, what % 8))
                    });
                    let held = model.held.get(&who).map(|(address, _)| *address);
                    let Ok(made) = book.plan(&who, wish, now) else {
                        let free = |address| usable.contains(&address) && model.is_free(address);
                        if let Wish::Pooled(address) = wish {
                            let own = model.rests.get(&address).is_some_and(|(o, _)| *o == who);
                            prop_assert!(!free(address) && !own && held != Some(address));
                        } else {
                            prop_assert!(!usable.iter().any(|address| free(*address)));
                        }
                        continue;
                    };
                    if let Wish::Pooled(address) = wish {
                        prop_assert_eq!(made.address(), address);
                    }
                    prop_assert_eq!(made.moves(), held != Some(made.address()));
                    if made.moves() {
                        let rested = model.rests.remove(&made.address());
                        prop_assert!(rested.as_ref().is_none_or(|(owner, _)| *owner == who));
                        prop_assert!(model.is_free(made.address()));
                        model.aside = Some((who, made.address(), rested));
                        plan = Some(made);
                    } else {
                        book.abandon(made);
                    }
                }
                Step::Conclude(good) => {
                    let Some(made) = plan.take() else { continue };
                    let (who, address, rested) = model.aside.take().unwrap();
                    if good {
                        let since = made.record().since;
                        book.settle(made);
                        model.release(&who, since);
                        model.held.insert(who, (address, true));
                    } else {
                        book.abandon(made);
                        if let Some(rested) = rested {
                            model.rests.insert(address, rested);
                        }
                    }
                }
                Step::Release(who) => {
                    let who = format!("r{who}");
                    prop_assert_eq!(book.release(&who, now).is_some(), model.release(&who, now));
                }
                Step::Acquire(who) => {
                    let who = format!("r{who}");
                    if let Some((address, used)) = model.held.get_mut(&who) {
                        let expected = Acquired { address: *address, fresh: false };
                        prop_assert_eq!(book.acquire(&who, now), Ok(expected));
                        *used = true;
                        continue;
                    }
                    model.expire(now);
                    if model.aside.as_ref().is_some_and(|(for_whom, ..)| *for_whom == who) {
                        prop_assert_eq!(book.acquire(&who, now), Err(LeaseError::Changing));
                        continue;
                    }
                    let own = model.rests.iter().filter(|(_, (owner, _))| *owner == who)
                        .max_by_key(|(_, (_, at))| *at).map(|(address, (_, at))| (*address, *at));
                    match book.acquire(&who, now) {
                        Ok(got) => {
                            prop_assert!(got.fresh && usable.contains(&got.address));
                            if let Some((_, latest)) = own {
                                let rest = model.rests.remove(&got.address);
                                prop_assert_eq!(rest, Some((who.clone(), latest)));
                            } else {
                                prop_assert!(model.is_free(got.address), "{} again", got.address);
                            }
                            model.held.insert(who, (got.address, true));
                        }
                        Err(error) => {
                            let full = usable.iter().all(|address| !model.is_free(*address));
                            prop_assert!(full && own.is_none(), "{error}");
                        }
                    }
                }
                Step::Fix(who, what) => {
                    let who = format!("r{who}");
                    let address = Ipv4Addr::new(100, 64, what / 8, what % 8);
                    model.expire(now);
                    let mine = model.held.get(&who).is_some_and(|(held, _)| *held == address);
                    let rests_for_me = model.rests.get(&address).is_some_and(|(o, _)| *o == who);
                    let busy = model.aside.as_ref().is_some_and(|(whom, ..)| *whom == who);
                    let allowed = !busy
                        && usable.contains(&address)
                        && (mine || rests_for_me || model.is_free(address));
                    let got = book.reserve_static(&who, address, now);
                    prop_assert_eq!(got.is_ok(), allowed, "{:?}", got);
                    if allowed && !mine {
                        model.release(&who, now);
                        model.rests.remove(&address);
                        model.held.insert(who, (address, false));
                    }
                }
            }
            for (who, (address, _)) in &model.held {
                prop_assert_eq!(book.address_of(who), Some(*address));
                prop_assert_eq!(book.owner_of(*address).map(|owner| &**owner), Some(who.as_str()));
            }
            prop_assert_eq!(book.in_use(), model.held.len() as u64);
        }
    }
}
