//! Listeners against a plain model of what they ought to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

const BEFORE: u64 = 1000;
const AT: Moment = Moment(1_795_305_600_000);

fn hub(least: usize) -> Arc<EventHub> {
    Arc::new(EventHub::new(BEFORE, least, Box::new(|_| {})))
}

fn name(number: usize) -> Arc<str> {
    format!("r{number}").into()
}

fn up(router: &Arc<str>) -> TunnelEvent {
    TunnelEvent::Up {
        router: Arc::clone(router),
        address: Ipv4Addr::new(100, 64, 3, 7),
        real_address: "192.0.2.9:40000".parse().unwrap(),
        cipher: "AES-256-GCM",
    }
}

fn down(router: &Arc<str>) -> TunnelEvent {
    TunnelEvent::Down {
        router: Arc::clone(router),
        address: Ipv4Addr::new(100, 64, 3, 7),
        reason: "peer_closed",
        seconds: 1,
        rx_bytes: Some(1),
        tx_bytes: Some(2),
    }
}

fn added(router: &Arc<str>) -> TunnelEvent {
    TunnelEvent::RouterAdded { router: Arc::clone(router) }
}

/// Everything that a stream can give at once.
fn all(stream: &mut EventStream) -> Vec<Result<Arc<Event>, NoEvent>> {
    std::iter::from_fn(|| stream.recv().now_or_never())
        .take_while(|next| *next != Err(NoEvent::Closed))
        .collect()
}

fn kinds(stream: &mut EventStream) -> Vec<&'static str> {
    all(stream).into_iter().map(|next| next.unwrap().what.kind()).collect()
}

#[test]
fn up_and_down_alternate_even_if_the_old_tunnel_ends_late() {
    let hub = hub(64);
    let mut stream = EventStream::new(&hub, None);
    let router = name(1);
    hub.up(AT, None, ClientId(1), up(&router));
    assert!(hub.is_up("r1"));
    // The address has changed: another shard carries the new tunnel.
    hub.up(Moment(AT.0 + 90_000), None, ClientId(2), up(&router));
    hub.down(AT, ClientId(1), down(&router));
    assert!(hub.is_up("r1"));
    hub.down(AT, ClientId(2), down(&router));
    hub.down(AT, ClientId(2), down(&router));
    hub.down(AT, ClientId(3), down(&router));
    assert!(!hub.is_up("r1"));
    let told: Vec<Arc<Event>> = all(&mut stream).into_iter().map(Result::unwrap).collect();
    let kinds: Vec<&str> = told.iter().map(|event| event.what.kind()).collect();
    assert_eq!(kinds, ["tunnel.up", "tunnel.down", "tunnel.up", "tunnel.down"]);
    match &told[1].what {
        TunnelEvent::Down { reason, seconds, rx_bytes, .. } => {
            assert_eq!((*reason, *seconds, *rx_bytes), ("replaced_by_new_login", 90, None));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(told.iter().map(|event| event.id).collect::<Vec<_>>(), [1001, 1002, 1003, 1004]);
}

#[test]
fn filters_pass_what_is_asked_for_and_the_position_moves_over_the_rest() {
    let hub = hub(64);
    let follow = |kinds: &str, router: Option<&str>| {
        let mut filter =
            EventFilter { router: router.map(str::to_owned), ..EventFilter::default() };
        if !kinds.is_empty() {
            filter.add_kinds(kinds).unwrap();
        }
        EventStream::new(&hub, None).only(filter)
    };
    let mut streams = [
        follow("", None),
        follow("tunnel.", None),
        follow("", Some("r2")),
        follow("reloaded", None),
    ];
    for router in [name(1), name(2)] {
        hub.tell(AT, None, added(&router));
        hub.up(AT, None, ClientId(1), up(&router));
    }
    let got = streams.each_mut().map(kinds);
    assert_eq!(got[0], ["router.added", "tunnel.up", "router.added", "tunnel.up"]);
    assert_eq!(got[1], ["tunnel.up", "tunnel.up"]);
    assert_eq!(got[2], ["router.added", "tunnel.up"]);
    assert_eq!(got[3], [""; 0]);
    assert_eq!(streams.each_ref().map(EventStream::position), [hub.last_id(); 4]);
}

#[test]
fn a_slow_listener_is_told_what_it_lost_and_the_others_lose_nothing() {
    let hub = hub(16);
    let (mut slow, mut fast) = (EventStream::new(&hub, None), EventStream::new(&hub, None));
    let mut got = 0;
    for _ in 0..100 {
        hub.tell(AT, None, TunnelEvent::Reloaded);
        got += all(&mut fast).into_iter().map(Result::unwrap).count();
    }
    assert_eq!(got, 100);
    let told = all(&mut slow);
    let gap = EventGap { from: 1001, to: 1084, lost: Some(84) };
    assert_eq!(told[0], Err(NoEvent::Lost(gap)));
    assert_eq!(told.len(), 1 + 16);
    let counters = BTreeMap::from(hub.counters());
    assert_eq!((counters["events"], counters["events_dropped"]), (100, 84));
    assert_eq!((counters["events_lost"], counters["event_gaps"]), (84, 1));
    assert_eq!(counters["event_streams"], 2);
}

#[test]
fn a_storm_of_one_router_leaves_the_last_four_of_each_other() {
    let hub = hub(16);
    hub.set_routers(10);
    for number in 0..10 {
        for _ in 0..4 {
            hub.tell(AT, None, TunnelEvent::RouterChanged { router: name(number) });
        }
    }
    let wild = name(3);
    for client in 0..10_000 {
        hub.up(AT, None, ClientId(client), up(&wild));
        hub.down(AT, ClientId(client), down(&wild));
    }
    for number in (0..10).filter(|number| *number != 3) {
        let filter =
            EventFilter { router: Some(name(number).to_string()), ..EventFilter::default() };
        let mut stream = EventStream::new(&hub, Some(BEFORE)).only(filter);
        assert_eq!(kinds(&mut stream), ["router.changed"; 4], "r{number}");
    }
}

#[test]
fn a_router_that_changes_its_tenant_is_gone_for_one_and_new_for_the_other() {
    let hub = hub(16);
    let follow = |tenant: Option<&str>| {
        let filter = EventFilter { tenant: tenant.map(str::to_owned), ..EventFilter::default() };
        EventStream::new(&hub, None).only(filter)
    };
    let (mut old, mut new, mut all) = (follow(Some("old")), follow(Some("new")), follow(None));
    let router = name(1);
    hub.up(AT, Some("old".into()), ClientId(1), up(&router));
    hub.moved(AT, &router, Some("old".into()), Some("new".into()));
    hub.down(AT, ClientId(1), down(&router));
    assert_eq!(kinds(&mut old), ["tunnel.up", "router.removed"]);
    assert_eq!(kinds(&mut new), ["router.added", "tunnel.down"]);
    assert_eq!(kinds(&mut all), ["tunnel.up", "router.removed", "router.added", "tunnel.down"]);
}

#[tokio::test]
async fn a_listener_waits_is_woken_and_hears_of_the_end() {
    let hub = hub(16);
    let mut stream = EventStream::new(&hub, None);
    assert!(stream.recv().now_or_never().is_none());
    let teller = Arc::clone(&hub);
    let task = tokio::spawn(async move {
        tokio::task::yield_now().await;
        teller.tell(AT, None, TunnelEvent::Reloaded);
        tokio::task::yield_now().await;
        teller.close();
    });
    let patience = Duration::from_secs(30);
    let event = tokio::time::timeout(patience, stream.recv()).await.unwrap().unwrap();
    assert_eq!(event.what, TunnelEvent::Reloaded);
    let end = tokio::time::timeout(patience, stream.recv()).await.unwrap();
    assert_eq!(end, Err(NoEvent::Closed));
    task.await.unwrap();
}

/// What a client knows of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    routers: BTreeSet<Arc<str>>,
    up: BTreeSet<Arc<str>>,
}

impl Known {
    fn apply(&mut self, event: &TunnelEvent) {
        let Some(router) = event.router().cloned() else { return };
        match event.kind() {
            "router.added" => drop(self.routers.insert(router)),
            "router.removed" => drop(self.routers.remove(&router)),
            "tunnel.up" => drop(self.up.insert(router)),
            "tunnel.down" => drop(self.up.remove(&router)),
            _ => {}
        }
    }
}

/// A client: the id it has read, then the state, then the events after it.
#[derive(Default)]
struct Reader {
    id: Option<u64>,
    known: Option<Known>,
    stream: Option<EventStream>,
    relists: usize,
}

impl Reader {
    /// One step of list and follow.
    fn step(&mut self, hub: &Arc<EventHub>, state: &Known) {
        match (self.id, &mut self.stream) {
            (None, _) => self.id = Some(hub.last_id()),
            (Some(id), None) => {
                self.known = Some(state.clone());
                self.stream = Some(EventStream::new(hub, Some(id)));
            }
            (_, Some(stream)) => match stream.recv().now_or_never() {
                None => {}
                Some(Ok(event)) => self.known.as_mut().unwrap().apply(&event.what),
                Some(Err(_)) => *self = Self { relists: self.relists + 1, ..Self::default() },
            },
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A router is added if there is none, else removed.
    Toggle(usize),
    /// Its tunnel comes up if it is down, else goes down.
    Flap(usize),
    /// What was changed last is told.
    Tell,
    /// A reader does something, so often.
    Read(usize, usize),
    /// The process starts anew.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0usize..5).prop_map(Step::Toggle),
        // One flaps more than the others.
        6 => prop_oneof![2 => Just(0), 3 => 0usize..5].prop_map(Step::Flap),
        6 => Just(Step::Tell),
        6 => (0usize..3, 1usize..6).prop_map(|(reader, times)| Step::Read(reader, times)),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn a_list_and_the_events_after_it_are_a_later_list(steps in steps()) {
        let mut hub = hub(16);
        let mut state = Known::default();
        // Changed, but not told yet: others may read the state in between.
        let mut untold: Vec<TunnelEvent> = Vec::new();
        let mut readers: [Reader; 3] = Default::default();
        let tell = |hub: &EventHub, event: TunnelEvent| match event {
            TunnelEvent::Up { .. } => hub.up(AT, None, ClientId(1), event),
            TunnelEvent::Down { .. } => hub.down(AT, ClientId(1), event),
            event => hub.tell(AT, None, event),
        };
        for step in steps {
            match step {
                Step::Toggle(number) => {
                    let router = name(number);
                    let event = if state.routers.contains(&router) {
                        TunnelEvent::RouterRemoved { router, tenant: None }
                    } else {
                        added(&router)
                    };
                    state.apply(&event);
                    untold.push(event);
                }
                Step::Flap(number) => {
                    let router = name(number);
                    let event = if state.up.contains(&router) { down(&router) } else { up(&router) };
                    state.apply(&event);
                    untold.push(event);
                }
                Step::Tell if !untold.is_empty() => tell(&hub, untold.remove(0)),
                Step::Tell => {}
                Step::Read(reader, times) => {
                    (0..times).for_each(|_| readers[reader].step(&hub, &state));
                }
                Step::Restart => {
                    hub.close();
                    // Accounts are on disk, tunnels are gone, ids go on.
                    let before = before_first(0, hub.last_id() + 100);
                    hub = Arc::new(EventHub::new(before, 16, Box::new(|_| {})));
                    untold.clear();
                    state.up.clear();
                    for reader in &mut readers {
                        // The connection broke; it is opened again where it ended.
                        if let Some(stream) = &reader.stream {
                            let after = stream.position();
                            prop_assert!(hub.gap(after, None).is_some(), "410 after a restart");
                            reader.stream = Some(EventStream::new(&hub, Some(after)));
                        }
                    }
                }
            }
        }
        untold.drain(..).for_each(|event| tell(&hub, event));
        for reader in &mut readers {
            (0..200).for_each(|_| reader.step(&hub, &state));
            prop_assert_eq!(reader.known.as_ref(), Some(&state), "after {} new lists", reader.relists);
        }
    }
}
