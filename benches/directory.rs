//! Which router has an address: with a hundred thousand entries not much slower than with a
//! thousand. The look-up in memory alone, and as a caller of the handle gets it.

#![expect(clippy::expect_used, reason = "a bench that can't be set up has nothing to measure")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tunnelhead::concentrator::{Concentrator, TunSource};
use tunnelhead::config::{Config, Listener};
use tunnelhead::control_api::{Handle, Scope};
use tunnelhead::identity::{Account, StoredSecret};
use tunnelhead::lease::{AddressBook, LeaseRecord, PoolConfig};
use tunnelhead::store::{Change, SqliteStore, Store};
use tunnelhead::tun::{Queue, memory};

const SIZES: [u32; 2] = [1_000, 100_000];

/// Entry number `index`: .2 to .254 of one /24 after the other.
fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(100, 64, 1, 2)) + index / 253 * 256 + index % 253)
}

fn name(index: u32) -> String {
    format!("router-{index:06}")
}

fn leases(count: u32) -> Vec<LeaseRecord> {
    (0..count)
        .map(|index| LeaseRecord {
            address: address(index),
            identity: name(index).into(),
            fixed: false,
            since: 1,
            last_used: 1,
            released_at: None,
        })
        .collect()
}

/// A different entry each time, in an order that no cache foresees.
fn next(state: &mut u32, count: u32) -> Ipv4Addr {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    address(u32::try_from((u64::from(*state) * u64::from(count)) >> 32).unwrap_or(0))
}

fn book(c: &mut Criterion) {
    let mut group = c.benchmark_group("directory/memory");
    for count in SIZES {
        let config = PoolConfig {
            network: "100.64.0.0/10".parse().expect("a network"),
            excluded: vec!["100.64.0.0/24".parse().expect("a network")],
            management: [100, 127, 255, 254].into(),
            order_key: [7; 32],
            quarantine_seconds: 0,
        };
        let book = AddressBook::new(&config, leases(count)).expect("a pool");
        let mut state = 1;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| black_box(book.owner_of(next(&mut state, count))).map(Arc::as_ptr));
        });
    }
    group.finish();
}

fn handle(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("directory/handle");
    for count in SIZES {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(folder.path().join("store.db")).expect("a store");
        let accounts = (0..count).map(|index| {
            let (name, secret) = (name(index), StoredSecret::Machine { tag: [7; 32] });
            Change::PutRouter(Account::named(&name, &name, secret))
        });
        let changes = accounts.chain(leases(count).into_iter().map(Change::PutLease)).collect();
        let (done, result) = sync_channel(1);
        let tell = move |written| done.send(written).expect("somebody waits");
        store.submit(changes, Some(Box::new(tell)));
        result.recv().expect("an answer").expect("a commit");
        let config = Config {
            listeners: vec![Listener::new((Ipv4Addr::LOCALHOST, 0).into())],
            state_dir: folder.path().join("state"),
            ..Config::default()
        };
        std::fs::create_dir_all(&config.state_dir).expect("a folder");
        std::fs::write(config.state_dir.join("server.secret"), [7; 32]).expect("a secret");
        let (queues, _host) = memory::pair(1).expect("a memory device");
        let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect();
        let head = runtime
            .block_on(
                Concentrator::builder()
                    .config(config)
                    .store(Arc::new(store))
                    .tun(TunSource::Queues(queues))
                    .start(),
            )
            .expect("a concentrator");
        let handle: Arc<dyn Handle> = head.handle();
        let mut state = 1;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let wanted = next(&mut state, count);
                let answer = runtime.block_on(handle.directory(&Scope::All, wanted, None));
                black_box(answer.expect("an entry"))
            });
        });
        runtime.block_on(head.shutdown());
    }
    group.finish();
}

criterion_group!(benches, book, handle);
criterion_main!(benches);
