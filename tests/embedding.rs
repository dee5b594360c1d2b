//! The crate as a part of another program.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code: a failed expectation is the report"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tunnelhead::concentrator::{Concentrator, NoEvent, TunSource, Tunnel, TunnelEvent};
use tunnelhead::config::{Config, Listener};
use tunnelhead::control_api::ErrorCode;
use tunnelhead::control_api::types::{NewRouter, RouterPatch, TunnelFilter};
use tunnelhead::store::MemoryStore;
use tunnelhead::testing::fleet::{Command, Fleet, Host, Member};
use tunnelhead::testing::profiles;
use tunnelhead::tun::{Queue, memory};

#[path = "../docs/examples/embed.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program of its own for cargo run")]
mod embed;

const SOON: Duration = Duration::from_secs(30);

/// A concentrator with the host behind its device in memory.
struct Site {
    head: Concentrator,
    host: Host,
    _folder: TempDir,
}

impl Site {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            listeners: vec![Listener::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
            state_dir: folder.path().to_owned(),
            public_host: Some("127.0.0.1".to_owned()),
            ..Config::default()
        };
        let (queues, device) = memory::pair(2).unwrap();
        let host = Host::start(device, config.management_address).unwrap();
        let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect();
        let head = Concentrator::builder()
            .config(config)
            .store(Arc::new(MemoryStore::new()))
            .tun(TunSource::Queues(queues))
            .start()
            .await
            .unwrap();
        Self { head, host, _folder: folder }
    }

    /// A reference client with a new account.
    async fn member(&self, name: &str) -> Member {
        let account = self.head.routers().add(NewRouter::named(name)).await.unwrap();
        let (username, password) = (&account.router.username, account.password.expose());
        Member::new(self.head.local_addresses()[0], profiles::p1(), username, password)
    }

    /// Waits until a router has a tunnel other than `not`.
    async fn tunnel(&self, name: &str, not: Option<u64>) -> Tunnel {
        let mut events = self.head.events();
        let found = async {
            loop {
                match self.head.tunnel(name) {
                    Ok(tunnel) if Some(tunnel.generation()) != not => return tunnel,
                    _ => drop(events.recv().await),
                }
            }
        };
        tokio::time::timeout(SOON, found).await.expect("a tunnel")
    }

    fn expect_ping(&self, tunnel: &Tunnel, number: u16) {
        assert!(self.host.ping(tunnel.address(), number));
        self.host.wait_for(tunnel.address(), "answer", SOON, |seen| seen.replies >= number.into());
    }
}

#[tokio::test]
async fn the_example_runs() {
    embed::run().await.unwrap();
}

#[tokio::test]
async fn two_concentrators_in_one_process_have_nothing_in_common() {
    let (one, other) = (Site::start().await, Site::start().await);
    let fleet = Fleet::start().unwrap();
    for site in [&one, &other] {
        fleet.add(site.member("branch").await);
    }
    let in_one = one.tunnel("branch", None).await;
    let in_other = other.tunnel("branch", None).await;
    one.expect_ping(&in_one, 1);
    other.expect_ping(&in_other, 1);
    one.head.shutdown().await;
    assert_eq!(in_one.ended().await, "stopping");
    assert_eq!(in_other.ended_by(), None);
    other.expect_ping(&in_other, 2);
    assert_eq!(other.head.tunnels().list(TunnelFilter::ALL).await.unwrap().items.len(), 1);
    other.head.shutdown().await;
}

#[tokio::test]
async fn a_tunnel_is_a_handle_of_one_session() {
    let site = Site::start().await;
    let fleet = Fleet::start().unwrap();
    let member = fleet.add(site.member("branch").await);
    let first = site.tunnel("branch", None).await;
    assert_eq!(first.view().await.unwrap().generation, first.generation());
    assert_eq!(site.head.tunnel("nobody").err().unwrap().code, ErrorCode::TunnelNotFound);

    fleet.tell(member, Command::HangUp);
    fleet.tell(member, Command::Dial);
    let second = site.tunnel("branch", Some(first.generation())).await;
    assert!(second.generation() > first.generation());
    assert_eq!(second.address(), first.address(), "a router keeps its address");
    assert!(first.ended_by().is_some());
    assert_eq!(first.view().await.unwrap_err().code, ErrorCode::TunnelNotFound);
    assert_eq!(first.disconnect().await.unwrap_err().code, ErrorCode::TunnelNotFound);
    assert_eq!(second.ended_by(), None, "the end of the old one was not its end");

    let mut events = site.head.events();
    second.disconnect().await.unwrap();
    assert_eq!(second.ended().await, "disconnected_by_operator");
    let down = async {
        loop {
            if let TunnelEvent::Down { reason, .. } = &events.recv().await.unwrap().what {
                return *reason;
            }
        }
    };
    let reason = tokio::time::timeout(SOON, down).await.unwrap();
    assert_eq!(reason, "disconnected_by_operator");
    site.head.shutdown().await;
    assert_eq!(events.recv().await.err(), Some(NoEvent::Closed));
}

#[tokio::test]
async fn a_ban_refuses_before_the_password_and_ends_by_itself_or_when_it_is_lifted() {
    let site = Site::start().await;
    let fleet = Fleet::start().unwrap();
    let member = fleet.add(site.member("branch").await);
    let tunnel = site.tunnel("branch", None).await;
    let handle = site.head.handle();
    let all = tunnelhead::control_api::Scope::All;
    let mut events = site.head.events();
    handle.disconnect(&all, "branch", Some(3600)).await.unwrap();
    assert_eq!(tunnel.ended_by(), Some("banned"));
    let error = handle.disconnect(&all, "nobody", Some(3600)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TunnelNotFound);
    // No tunnel any more: the ban can be set anew all the same.
    handle.disconnect(&all, "branch", Some(7200)).await.unwrap();
    let error = handle.disconnect(&all, "branch", None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TunnelNotFound);

    // One that has not noticed the end would not dial.
    fleet.wait_for(member, "the end of its connection", SOON, |view| !view.connected);
    fleet.tell(member, Command::Dial);
    let failed = async {
        loop {
            if let TunnelEvent::LoginFailed { reason, .. } = &events.recv().await.unwrap().what {
                return *reason;
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, failed).await.unwrap(), "banned");
    handle.lift_ban(&all, "branch").await.unwrap();
    let error = handle.lift_ban(&all, "branch").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BanNotFound);
    fleet.tell(member, Command::Dial);
    let again = site.tunnel("branch", Some(tunnel.generation())).await;

    // One that runs out. Its end is told, and the router gets in.
    handle.ban(&all, "branch", 1).await.unwrap();
    assert_eq!(again.ended_by(), Some("banned"));
    let mut lifted = 0;
    let over = async {
        while lifted < 2 {
            lifted += usize::from(matches!(
                events.recv().await.unwrap().what,
                TunnelEvent::BanLifted { .. }
            ));
        }
    };
    tokio::time::timeout(SOON, over).await.expect("the end of both bans");
    fleet.tell(member, Command::Dial);
    site.tunnel("branch", Some(again.generation())).await;
    site.head.shutdown().await;
}

#[tokio::test]
async fn lists_come_in_pages_and_filters_leave_out_the_rest() {
    let site = Site::start().await;
    let fleet = Fleet::start().unwrap();
    for number in 0..7 {
        fleet.add(site.member(&format!("r{number}")).await);
    }
    fleet.add(site.member("other").await);
    for name in ["other", "r0", "r1", "r2", "r3", "r4", "r5", "r6"] {
        site.tunnel(name, None).await;
    }
    let tunnels = site.head.tunnels();
    let mut filter = TunnelFilter { name: Some("r*".to_owned()), ..TunnelFilter::ALL };
    filter.page.limit = 3;
    let mut seen = Vec::new();
    loop {
        let page = tunnels.list(filter.clone()).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|view| view.router));
        filter.page.after = page.next;
        if filter.page.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4", "r5", "r6"]);

    let count = async |filter: TunnelFilter| tunnels.list(filter).await.unwrap().items.len();
    let one = site.head.tunnel("r3").unwrap();
    let network = Some(ipnet::IpNet::from(std::net::IpAddr::V4(one.address())));
    assert_eq!(count(TunnelFilter { network, ..TunnelFilter::ALL }).await, 1);
    let home = Some("127.0.0.0/8".parse().unwrap());
    assert_eq!(count(TunnelFilter { network: home, ..TunnelFilter::ALL }).await, 8);
    assert_eq!(count(TunnelFilter { suspect: Some(true), ..TunnelFilter::ALL }).await, 0);
    assert_eq!(count(TunnelFilter { suspect: Some(false), ..TunnelFilter::ALL }).await, 8);
    let cipher = Some("AES-128-GCM".to_owned());
    assert_eq!(count(TunnelFilter { cipher, ..TunnelFilter::ALL }).await, 0);
    let tag = Some("none".to_owned());
    assert_eq!(count(TunnelFilter { tag, ..TunnelFilter::ALL }).await, 0);
    // A router that is disabled has no tunnel from the moment on that this is answered.
    let patch: RouterPatch = serde_json::from_str(r#"{"disabled": true}"#).unwrap();
    site.head.routers().change("r3", patch).await.unwrap();
    assert_eq!(one.ended_by(), Some("account_disabled"));
    assert_eq!(count(TunnelFilter::ALL).await, 7);
    site.head.shutdown().await;
}
