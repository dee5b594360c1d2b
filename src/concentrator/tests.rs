//! Changes and cuts against logins in flight.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::core::Services;
use super::{Concentrator, TunSource};
use crate::config::Config;
use crate::control_api::types::NewRouter;
use crate::control_api::{ErrorCode, Expected, Scope};
use crate::greeter::{Departure, GreeterServices as _};
use crate::lease;
use crate::proto::ClientId;
use crate::proto::session::{Assignment, Identity, Session, WrapConfig};
use crate::shard::{Cut, ShardServices as _, TunnelReport};
use crate::store::{
    AuditRecord, AuditSeal, Change, Done, Holding, MemoryStore, SessionQuery, SessionRecord,
    Snapshot, Store, StoreError, StoreHealth,
};
use crate::telemetry::clock;
use crate::telemetry::flight::Flight;
use crate::testing::world::{random, server_config};
use crate::tun::{Queue, memory};

const PATIENCE: Duration = Duration::from_secs(20);

type Submitted = (Vec<Change>, Option<Done>);

/// A store whose disk can be made to take its time.
#[derive(Default)]
struct SlowStore {
    inner: MemoryStore,
    held: Mutex<Option<Vec<Submitted>>>,
    arrived: tokio::sync::Notify,
}

impl SlowStore {
    fn hold(&self) {
        *self.held.lock().unwrap() = Some(Vec::new());
    }

    fn release(&self) {
        for (changes, done) in self.held.lock().unwrap().take().unwrap_or_default() {
            self.inner.submit(changes, done);
        }
    }
}

impl Store for SlowStore {
    fn load(&self) -> Result<Snapshot, StoreError> {
        self.inner.load()
    }

    fn submit(&self, changes: Vec<Change>, done: Option<Done>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_mut() {
            held.push((changes, done));
            self.arrived.notify_one();
        } else {
            drop(held);
            self.inner.submit(changes, done);
        }
    }

    fn health(&self) -> StoreHealth {
        self.inner.health()
    }

    fn sessions(&self, query: &SessionQuery) -> Result<Vec<SessionRecord>, StoreError> {
        self.inner.sessions(query)
    }

    fn session_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<SessionRecord>, StoreError> {
        self.inner.session_at(address, at)
    }

    fn holder_at(&self, address: Ipv4Addr, at: u64) -> Result<Option<Holding>, StoreError> {
        self.inner.holder_at(address, at)
    }

    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.inner.audit(after, limit)
    }

    fn audit_seals(&self) -> Result<Vec<AuditSeal>, StoreError> {
        self.inner.audit_seals()
    }

    fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check()
    }

    fn back_up(&self, to: &Path, at: u64) -> Result<u64, StoreError> {
        self.inner.back_up(to, at)
    }

    fn copies_kept(&self, _: u64, _: u64) {}

    fn flush(&self) {}

    fn close(&self) {
        self.inner.close();
    }
}

async fn start(dir: &Path, store: Arc<SlowStore>) -> Concentrator {
    let text = "listen = [\"127.0.0.1:0\"]\npublic_host = \"127.0.0.1\"\nstate_dir = \"state\"\n";
    let config = Config::parse(text, dir, &[]).unwrap();
    let (queues, _) = memory::pair(1).unwrap();
    let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect();
    let builder = Concentrator::builder().config(config).store(store);
    builder.tun(TunSource::Queues(queues)).start().await.unwrap()
}

/// A login that has its address; the other end of its socket keeps it alive.
fn departure(
    head: &Concentrator,
    client: u64,
    name: &str,
    accepted_at: Instant,
) -> (Box<Departure>, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, real_address) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = head.core.leases().address_of(name).unwrap();
    let config = Arc::new(server_config(WrapConfig::None));
    let session = Session::new(config, clock::now(), 0, &mut random(client, 0)).unwrap();
    let mut flight = Flight::new(client, clock::now(), 0, real_address, 0, false);
    flight.allowed(name.into());
    let (record, trace) = flight.logged_in();
    let departure = Departure {
        client: ClientId(client),
        identity: Identity(name.into()),
        assignment: Assignment {
            address,
            prefix_len: lease::PREFIX_LEN,
            gateway: lease::gateway_of(address),
        },
        socket,
        real_address,
        session,
        unsent: Vec::new(),
        greeter: 0,
        accepted_at,
        record,
        trace,
    };
    (Box::new(departure), peer)
}

fn live_client(head: &Concentrator, name: &str) -> Option<u64> {
    head.core.live().get(name).map(|live| live.client.0)
}

#[tokio::test]
async fn a_removal_is_completed_even_if_its_caller_hangs_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SlowStore::default());
    let head = start(dir.path(), Arc::clone(&store)).await;
    let handle = head.handle();
    handle.add_router(&Scope::All, NewRouter::named("a")).await.unwrap();
    store.hold();
    tokio::select! {
        _ = handle.remove_router(&Scope::All, "a", Expected::Any) => panic!("nothing is on disk yet"),
        () = store.arrived.notified() => {}
    }
    store.release();
    let gone = async {
        while handle.get_router(&Scope::All, "a").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("gone from the disk, but not from here");
    head.shutdown().await;
}

#[tokio::test]
async fn a_router_is_shut_out_at_once_whatever_the_disk_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SlowStore::default());
    let head = start(dir.path(), Arc::clone(&store)).await;
    let handle = head.handle();
    handle.add_router(&Scope::All, NewRouter::named("a")).await.unwrap();
    store.inner.set_degraded(Some("the disk is full".to_owned()));
    let disable = serde_json::from_str("{\"disabled\": true}").unwrap();
    let error = handle.patch_router(&Scope::All, "a", Expected::Any, disable).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StoreDegraded);
    assert!(error.message.starts_with("a is cut and shut out until"), "{}", error.message);
    assert!(handle.get_router(&Scope::All, "a").await.unwrap().disabled);
    head.shutdown().await;
}

#[tokio::test]
async fn a_login_of_a_removed_account_is_no_tunnel_of_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let head = start(dir.path(), Arc::default()).await;
    let handle = head.handle();
    handle.add_router(&Scope::All, NewRouter::named("a")).await.unwrap();
    let (early, _peer) = departure(&head, 1, "a", clock::now());
    handle.remove_router(&Scope::All, "a", Expected::Any).await.unwrap();
    handle.add_router(&Scope::All, NewRouter::named("a")).await.unwrap();
    let services = Services(Arc::clone(&head.core));
    services.depart(early);
    assert_eq!(live_client(&head, "a"), None);
    assert_eq!(head.core.counters().get("login_closed_revoked_meanwhile"), Some(&1));

    let (late, _peer) = departure(&head, 2, "a", clock::now());
    services.depart(late);
    assert_eq!(live_client(&head, "a"), Some(2));
    head.shutdown().await;
}

#[tokio::test]
async fn the_end_of_a_replaced_tunnel_is_not_the_end_of_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let head = start(dir.path(), Arc::default()).await;
    let handle = head.handle();
    handle.add_router(&Scope::All, NewRouter::named("a")).await.unwrap();
    assert!(!head.core.cut("a", Cut::Disconnected), "there is nothing to cut");
    let services = Services(Arc::clone(&head.core));
    let (old, _old_peer) = departure(&head, 1, "a", clock::now());
    let report = TunnelReport {
        client: old.client,
        identity: old.identity.clone(),
        address: old.assignment.address,
        real_address: old.real_address,
        since: 0,
        up: true,
        suspect: false,
        info: old.session.info(),
        queued_bytes: 0,
        queue_drops: 0,
        seal_refusals: 0,
        isolation_drops: Vec::new(),
        as_of: clock::now(),
        tcp: None,
    };
    services.depart(old);
    let (new, _new_peer) = departure(&head, 2, "a", clock::now());
    services.depart(new);
    // The shard says the same once more when it has closed the old one.
    services.down(report, "replaced_by_new_login");
    assert_eq!(live_client(&head, "a"), Some(2));
    assert!(head.core.cut("a", Cut::Disconnected));
    head.shutdown().await;
}

/// A device whose reader ends with a panic once it is told to.
struct Trap {
    inner: Box<dyn Queue>,
    sprung: Arc<std::sync::atomic::AtomicBool>,
}

impl Queue for Trap {
    fn recv(&self, buf: &mut [u8]) -> std::io::Result<usize> {
        assert!(!self.sprung.load(std::sync::atomic::Ordering::SeqCst), "a planted panic");
        self.inner.recv(buf)
    }

    fn send(&self, packet: &[u8]) -> std::io::Result<()> {
        self.inner.send(packet)
    }

    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_thread_that_panics_is_told_as_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let text = "listen = [\"127.0.0.1:0\"]\npublic_host = \"127.0.0.1\"\nstate_dir = \"state\"\n";
    let config = Config::parse(text, dir.path(), &[]).unwrap();
    let (queues, hosts) = memory::pair(1).unwrap();
    let sprung = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let traps = queues.into_iter().map(|queue| {
        let trap = Trap { inner: Box::new(queue), sprung: Arc::clone(&sprung) };
        Box::new(trap) as Box<dyn Queue>
    });
    let builder = Concentrator::builder().config(config).store(Arc::new(MemoryStore::new()));
    let head = builder.tun(TunSource::Queues(traps.collect())).start().await.unwrap();
    assert_eq!(head.failure(), None);
    sprung.store(true, std::sync::atomic::Ordering::SeqCst);
    hosts.send(&[0x45; 60]).unwrap();
    let failed = async {
        while head.failure().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, failed).await.expect("a failure");
    assert!(head.failure().unwrap().contains("threads ended"), "{:?}", head.failure());
    // It still ends in good order.
    head.shutdown().await;
}
