//! The control socket beside a full house: how long an import, a look-up, a page of a list and a
//! disconnect take at 10,000 live tunnels, and what idle and slow API clients do to a ping inside a
//! tunnel. The real binary, a real TUN device, reference clients from a network namespace; needs
//! root. `TUNNELHEAD_BENCH_TUNNELS` changes the number.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that can't be set up has nothing to measure; it prints what it measures"
)]

#[allow(dead_code, reason = "made for the tests with fleets; this uses a part of it")]
#[path = "../../tests/fleet/binary.rs"]
mod binary;
mod http;
#[allow(dead_code, reason = "made for the tests with real clients; this uses a part of it")]
#[path = "../../tests/e2e/lab.rs"]
mod lab;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tunnelhead::telemetry::clock;
use tunnelhead::testing::fleet::{Command, Fleet, Member};
use tunnelhead::testing::profiles;

use binary::Binary;
use http::Connection;
use lab::Lab;

/// Look-ups measured.
const LOOK_UPS: usize = 5_000;
/// Pages measured.
const PAGES: usize = 500;
/// Disconnects measured.
const DISCONNECTS: usize = 100;
/// Pings a run, and the time between two.
const PINGS: (usize, &str) = (3_000, "0.003");
/// Runs of pings without API clients.
const CONTROL_RUNS: usize = 5;
/// API clients that only connect, and that ask and never read.
const IDLE: usize = 1_000;
const SLOW: usize = 100;
/// For the fleet to be up.
const PATIENCE: Duration = Duration::from_secs(900);

fn main() {
    // `cargo test --benches` must not start this.
    if !std::env::args().any(|argument| argument == "--bench") || !lab::ready("control_api") {
        return;
    }
    let tunnels = std::env::var("TUNNELHEAD_BENCH_TUNNELS");
    let tunnels: usize = tunnels.map_or(10_000, |text| text.parse().expect("a number"));
    let lab = Lab::new(1);
    let binary = Binary::start(
        &lab,
        &format!("[limits]\ncontrol_connections = {}\n", 2 * (IDLE + SLOW) + 64),
    );
    let socket = binary.control_socket();

    let began = clock::now();
    let accounts = http::import(&socket, tunnels);
    println!("import of {tunnels} routers: {:.2} s", began.elapsed().as_secs_f64());

    let fleet = lab.routers[0].inside(Fleet::start).expect("a fleet");
    let kinds = [profiles::p3(), profiles::p4b(), profiles::p1(), profiles::p2()];
    for (profile, (username, password)) in kinds.into_iter().cycle().zip(&accounts) {
        fleet.add(Member {
            redial: Some(Duration::from_secs(5)),
            ..Member::new(binary.listens(), profile, username, password)
        });
    }
    let began = clock::now();
    fleet.wait_all_up(PATIENCE);
    println!("{tunnels} tunnels up: {:.1} s", began.elapsed().as_secs_f64());

    let mut connection = Connection::open(&socket);
    let names: Vec<&str> = (0..LOOK_UPS)
        .map(|n| accounts[n.wrapping_mul(7_919) % accounts.len()].0.as_str())
        .collect();
    report(
        "look-up of one tunnel, one connection",
        names.iter().map(|name| timed(|| connection.get(&format!("/v1/tunnels/{name}")))),
    );
    report(
        "look-up of one tunnel, a connection each",
        names
            .iter()
            .map(|name| timed(|| Connection::open(&socket).get(&format!("/v1/tunnels/{name}")))),
    );
    let mut next = String::new();
    report(
        "page of 100 tunnels",
        (0..PAGES).map(|_| {
            let mut cursor = None;
            let took = timed(|| cursor = connection.page(&format!("/v1/tunnels?limit=100{next}")));
            next = cursor.map(|cursor| format!("&after={cursor}")).unwrap_or_default();
            took
        }),
    );
    disconnects(&binary, &fleet, &accounts, &mut connection);
    pings(&lab, &socket, &fleet);
}

/// From the request to the moment at which the router has lost its connection.
fn disconnects(
    binary: &Binary<'_>,
    fleet: &Fleet,
    accounts: &[(String, String)],
    connection: &mut Connection,
) {
    let mut took = Vec::new();
    for member in (0..accounts.len()).step_by((accounts.len() / DISCONNECTS).max(1)) {
        let closes = fleet.view(member).closes;
        let began = clock::now();
        connection.delete(&format!("/v1/tunnels/{}", accounts[member].0));
        fleet.wait("a disconnect", PATIENCE, |views| views[member].closes > closes);
        took.push(began.elapsed());
    }
    report("disconnect until the router has lost its connection", took.into_iter());
    fleet.wait_all_up(PATIENCE);
    drop(binary.status());
}

fn pings(lab: &Lab, socket: &Path, fleet: &Fleet) {
    let address = fleet.view(0).address.expect("it is up");
    let mut runs: Vec<f64> = (0..CONTROL_RUNS).map(|_| ping_p99(lab, address)).collect();
    runs.sort_by(f64::total_cmp);
    let median = runs[runs.len() / 2];
    println!(
        "ping p99 in a tunnel, {CONTROL_RUNS} control runs: {runs:.3?} ms, median {median:.3}"
    );
    let mut clients: Vec<UnixStream> = Vec::new();
    for _ in 0..IDLE {
        clients.push(UnixStream::connect(socket).expect("a connection"));
    }
    for _ in 0..SLOW {
        let mut slow = UnixStream::connect(socket).expect("a connection");
        slow.write_all(b"GET /v1/tunnels HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        clients.push(slow);
    }
    let with = ping_p99(lab, address);
    println!(
        "ping p99 with {IDLE} idle and {SLOW} slow API clients: {with:.3} ms, {:.2} x the median",
        with / median
    );
    drop(clients);
    let _ = fleet.view(0);
    fleet.tell_all(Command::HangUp);
}

/// The 99th percentile of a series of pings from the host to a router, milliseconds.
fn ping_p99(lab: &Lab, address: Ipv4Addr) -> f64 {
    let mut ping = lab.concentrator.command("ping");
    ping.args(["-n", "-i", PINGS.1, "-c", &PINGS.0.to_string(), &address.to_string()]);
    let output = ping.output().expect("ping");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut times: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(times.len(), PINGS.0, "pings were lost");
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let began = clock::now();
    let _ = work();
    began.elapsed()
}

fn report(what: &str, took: impl Iterator<Item = Duration>) {
    let mut all: Vec<f64> = took.map(|time| time.as_secs_f64() * 1e3).collect();
    all.sort_by(f64::total_cmp);
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    println!(
        "{what}: p50 {:.3} ms, p99 {:.3} ms, worst {:.3} ms of {}",
        at(50),
        at(99),
        at(100),
        all.len()
    );
}
