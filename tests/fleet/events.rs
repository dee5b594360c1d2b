//! A client that lists once and then follows events knows what a later list says, through a storm
//! of routers that come and go and through restarts of the concentrator.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tunnelhead::control_api::client::{Client, ClientError, Told};
use tunnelhead::control_api::types::EventFilter;
use tunnelhead::testing::fleet::{Command, Fleet, Member};
use tunnelhead::testing::profiles;

use crate::binary::Binary;
use crate::lab::{Lab, ready};
use crate::support::eventually;

/// Routers that dial; some accounts come and go beside them.
const ROUTERS: usize = 40;
/// Things that happen in one storm.
const ROUNDS: usize = 150;
/// Time for forty logins in a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(90);

/// What a client knows of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    routers: BTreeSet<String>,
    up: BTreeSet<String>,
}

impl Known {
    /// Two lists, and the id after which events change what they say.
    fn list(socket: &Path) -> Option<(Self, u64)> {
        let names = |list: &Value, field: &str| {
            let items = list["items"].as_array().expect("a list").iter();
            items.map(|item| item[field].as_str().expect("a name").to_owned()).collect()
        };
        let routers = get(socket, "/v1/routers")?;
        let tunnels = get(socket, "/v1/tunnels")?;
        let id = routers["event_id"].as_u64().expect("an id");
        assert!(tunnels["event_id"].as_u64().expect("an id") >= id);
        let known = Self { routers: names(&routers, "name"), up: names(&tunnels, "router") };
        Some((known, id))
    }

    fn apply(&mut self, kind: &str, router: Option<String>) {
        let Some(router) = router else { return };
        match kind {
            "router.added" => drop(self.routers.insert(router)),
            "router.removed" => drop(self.routers.remove(&router)),
            "tunnel.up" => drop(self.up.insert(router)),
            "tunnel.down" => drop(self.up.remove(&router)),
            _ => {}
        }
    }
}

/// `GET`; None: nobody answers.
fn get(socket: &Path, path: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| serde_json::from_str(body).expect("JSON"))
}

/// A client on a thread of its own.
struct Follower {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    known: Known,
    /// Lists that it had to read.
    lists: u32,
    events: u64,
}

impl Follower {
    fn start(socket: PathBuf) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(follow(&socket, &seen, &stop));
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    fn seen(&self) -> Seen {
        self.seen.lock().expect("a lock").clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            assert!(std::thread::panicking(), "the follower has failed");
        }
    }
}

/// Lists, follows, goes on where a connection broke, and lists again only when it is told to.
async fn follow(socket: &Path, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let client = Client::new(socket);
    let mut after = None;
    while !stop.load(Ordering::Relaxed) {
        let id = match after {
            Some(id) => id,
            None => match Known::list(socket) {
                Some((known, id)) => {
                    let mut seen = seen.lock().expect("a lock");
                    seen.known = known;
                    seen.lists += 1;
                    id
                }
                None => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        after = Some(id);
        let mut following = match client.follow(&EventFilter::default(), after).await {
            Ok(following) => following,
            Err(ClientError::EventsGone(_)) => {
                after = None;
                continue;
            }
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while !stop.load(Ordering::Relaxed) {
            let next = tokio::time::timeout(Duration::from_millis(200), following.next()).await;
            match next {
                Err(_) => {}
                Ok(Ok(Some(Told::Event(event)))) => {
                    assert!(Some(event.id) > after, "ids rise");
                    after = Some(event.id);
                    let mut seen = seen.lock().expect("a lock");
                    seen.known.apply(&event.kind, event.router);
                    seen.events += 1;
                }
                Ok(Ok(Some(Told::Gap(_)))) => {
                    after = None;
                    break;
                }
                Ok(Ok(None) | Err(_)) => break,
            }
        }
    }
}

#[test]
fn list_and_events_are_the_list_through_a_storm_and_restarts() {
    if !ready("list_and_events_are_the_list_through_a_storm_and_restarts") {
        return;
    }
    let lab = Lab::new(1);
    let mut binary = Binary::start(&lab, "");
    let socket = binary.control_socket();
    let first = Follower::start(socket.clone());
    let fleet = lab.routers[0].inside(Fleet::start).expect("a fleet");
    let kinds = [profiles::p3(), profiles::p1(), profiles::p4()];
    for (index, profile) in kinds.into_iter().cycle().take(ROUTERS).enumerate() {
        let account = binary.add(&format!("router-{index}"));
        let (username, password) = (&account.router.username, account.password.expose());
        fleet.add(Member {
            redial: Some(Duration::from_millis(100)),
            ..Member::new(binary.listens(), profile, username, password)
        });
    }
    let seed = 0x5eed_u64;
    let mut random = seed;
    let mut next = |bound: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).expect("64 bits") % bound
    };
    let mut extra = BTreeSet::new();
    for (round, signal) in ["KILL", "TERM", ""].into_iter().enumerate() {
        // This one comes into the middle of it.
        let second = Follower::start(socket.clone());
        for _ in 0..ROUNDS {
            match next(8) {
                0 => {
                    let name = format!("extra-{}", next(5));
                    if extra.remove(&name) {
                        binary.remove(&name);
                    } else {
                        binary.add(&name);
                        extra.insert(name);
                    }
                }
                1 => fleet.tell(next(ROUTERS), Command::Abandon),
                _ => fleet.tell(next(ROUTERS), Command::HangUp),
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        fleet.wait_all_up(SOON);
        for (what, follower) in [("first", &first), ("second", &second)] {
            let mut last = None;
            eventually("agreement of list and events", SOON, || {
                let (listed, _) = Known::list(&socket)?;
                let seen = follower.seen();
                let agree = listed == seen.known && listed.up.len() == ROUTERS;
                last = Some((listed, seen));
                agree.then_some(())
            });
            let (listed, seen) = last.expect("a list");
            println!(
                "seed {seed:#x} round {round}: {what}: {} events, {} lists, {} routers, {} up",
                seen.events,
                seen.lists,
                listed.routers.len(),
                listed.up.len()
            );
            let restarts = u32::try_from(round).expect("a small number");
            let most = if what == "first" { 1 + restarts } else { 1 };
            assert!(seen.lists <= most, "{what}: {} lists", seen.lists);
            assert!(seen.events > 0);
            let connected = get(&socket, "/v1/routers").expect("a list");
            let connected = connected["items"].as_array().expect("a list").iter();
            assert_eq!(connected.filter(|one| one["connected"] == true).count(), ROUTERS);
        }
        drop(second);
        if !signal.is_empty() {
            binary.restart(signal);
        }
    }
    fleet.expect_no_violations();
}
