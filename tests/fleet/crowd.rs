//! Thousands of tunnels through the real binary.

use std::net::Ipv4Addr;
use std::time::Duration;

use tunnelhead::control_api::types::TunnelView;
use tunnelhead::testing::fleet::{Command, Fleet, Member, View};
use tunnelhead::testing::profiles;

use crate::binary::Binary;
use crate::lab::{Lab, ready};
use crate::support::eventually;

/// Routers in the crowd.
const CROWD: usize = 2_000;
/// Routers beside the crowd whose pings must go on.
const OTHERS: usize = 4;
/// Routers that stop reading.
const STALLED: usize = 500;
/// Datagrams for each of those, and their payload in bytes.
const FLOOD: (u64, usize) = (300, 1200);
/// What the server may keep for all slow routers together, as configured below.
const QUEUES_BYTES: u64 = 32 << 20;
/// Sealed bytes that it may hold for each beside that, and general growth.
const UNSENT_BYTES: u64 = 64 << 10;
const SLACK_BYTES: u64 = 16 << 20;
/// Time for two thousand handshakes in a debug build on a busy machine.
const CROWD_TIME: Duration = Duration::from_secs(150);
/// Time for anything that does not take a handshake.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn two_thousand_tunnels_from_one_address_rekey_at_once_and_a_quarter_of_them_stalls() {
    let name = "two_thousand_tunnels_from_one_address_rekey_at_once_and_a_quarter_of_them_stalls";
    if !ready(name) {
        return;
    }
    let lab = Lab::new(1);
    let binary = Binary::start(&lab, "[limits]\nqueue_bytes_total = \"32MiB\"");
    // Its sockets are made in the router's namespace: all have the same source address.
    let fleet = lab.routers[0].inside(Fleet::start).expect("a fleet");
    // Every profile that logs in with a password; P8 is what all do here.
    let kinds = [
        profiles::p3(),
        profiles::p4b(),
        profiles::p1(),
        profiles::p2(),
        profiles::p1b(),
        profiles::p4(),
        profiles::p2().with_peer_info(),
        profiles::p4().with_peer_info(),
    ];
    for (index, profile) in kinds.into_iter().cycle().take(CROWD + OTHERS).enumerate() {
        let account = binary.add(&format!("router-{index}"));
        let (username, password) = (&account.router.username, account.password.expose());
        fleet.add(Member {
            redial: Some(Duration::from_millis(200)),
            idle: true,
            ..Member::new(binary.listens(), profile, username, password)
        });
    }
    fleet.tell_all(Command::Dial);
    fleet.wait_all_up(CROWD_TIME);

    every_tunnel_carries_pings_and_all_bytes_are_accounted_for(&binary, &fleet);
    rekeys_of_all_disturb_no_other_tunnel(&binary, &fleet);
    stalled_readers_cost_bounded_memory_and_disturb_nobody(&binary, &fleet);
    fleet.expect_no_violations();
}

fn every_tunnel_carries_pings_and_all_bytes_are_accounted_for(binary: &Binary<'_>, fleet: &Fleet) {
    for round in 1..=3 {
        fleet.tell_all(Command::PingBoth);
        fleet.wait("answers", SOON, |views| {
            views.iter().all(|view| view.management_pings.1 == round && view.pings_answered())
        });
    }
    let (at_clients, at_server) = (sum_of_members(&fleet.views()), sum(&binary.tunnels()));
    assert_eq!(at_clients, at_server);
    assert_eq!(at_server.tunnels, CROWD + OTHERS);
    assert_eq!((at_server.rx_packets, at_server.lost), (6 * (CROWD + OTHERS) as u64, 0));
    assert_eq!(binary.counter("drop_tun_ring"), 0);
}

fn rekeys_of_all_disturb_no_other_tunnel(binary: &Binary<'_>, fleet: &Fleet) {
    let connections: Vec<u64> = fleet.views().iter().map(|view| view.dials).collect();
    for other in CROWD..CROWD + OTHERS {
        fleet.tell(other, Command::PingEvery(Some(Duration::from_millis(10))));
    }
    for id in 0..CROWD {
        fleet.tell(id, Command::Rekey);
    }
    fleet.wait("rekeys under way", SOON, |views| {
        views.iter().take(CROWD).all(|view| view.rekeys_started == 1)
    });
    fleet.wait("rekeys", CROWD_TIME, |views| views.iter().take(CROWD).all(|view| view.rekeys == 1));
    stop_pings_of_others(fleet);
    let pings: Vec<u64> = fleet.views().iter().map(|view| view.gateway_pings.1).collect();
    fleet.tell_all(Command::PingBoth);
    fleet.wait("answers", SOON, |views| {
        let more = |(view, before): (&View, &u64)| view.gateway_pings.1 > *before;
        views.iter().zip(&pings).all(more) && views.iter().all(View::pings_answered)
    });
    let now: Vec<u64> = fleet.views().iter().map(|view| view.dials).collect();
    assert_eq!(connections, now, "a tunnel was lost");
    eventually("rekeys in the counters", SOON, || {
        (binary.counter("rekeys") == CROWD as u64).then_some(())
    });
}

fn stalled_readers_cost_bounded_memory_and_disturb_nobody(binary: &Binary<'_>, fleet: &Fleet) {
    let before = binary.resident_bytes();
    let tunnels_before = sum(&binary.tunnels());
    let connections: Vec<u64> = fleet.views().iter().map(|view| view.dials).collect();
    for id in 0..STALLED {
        fleet.tell(id, Command::StopReading);
    }
    for other in CROWD..CROWD + OTHERS {
        fleet.tell(other, Command::PingEvery(Some(Duration::from_millis(20))));
    }
    let routers: Vec<Ipv4Addr> =
        fleet.views().iter().take(STALLED).filter_map(|view| view.address).collect();
    let (rounds, payload) = FLOOD;
    let sent = binary.flood(&routers, rounds, payload);
    let grown = binary.resident_bytes().saturating_sub(before);
    let bound = QUEUES_BYTES + STALLED as u64 * UNSENT_BYTES + SLACK_BYTES;
    assert!(grown < bound, "{grown} bytes for {sent} datagrams of {payload} bytes");
    stop_pings_of_others(fleet);

    let lost = sum(&binary.tunnels()).lost - tunnels_before.lost;
    assert!(lost > sent / 4, "{lost} of {sent}: the readers have not stalled");
    for id in 0..STALLED {
        fleet.tell(id, Command::ResumeReading);
    }
    // Every datagram has arrived undamaged or was counted where it was lost.
    fleet.wait("the rest of the flood", SOON, |views| {
        views.iter().map(|view| view.datagrams).sum::<u64>() >= sent - lost
    });
    let after = sum(&binary.tunnels());
    let arrived: u64 = fleet.views().iter().map(|view| view.datagrams).sum();
    assert_eq!(arrived + (after.lost - tunnels_before.lost), sent);
    assert_eq!(binary.counter("drop_tun_ring") + binary.counter("drop_mailbox_full"), 0);
    assert_eq!(sum_of_members(&fleet.views()), after);
    let now: Vec<u64> = fleet.views().iter().map(|view| view.dials).collect();
    assert_eq!(connections, now, "a tunnel was lost");
}

/// Stops the pings of those beside the crowd; not one of them went unanswered.
fn stop_pings_of_others(fleet: &Fleet) {
    fleet.tell_all(Command::PingEvery(None));
    fleet.wait("every answer", SOON, |views| {
        views.iter().skip(CROWD).all(|view| view.management_pings.0 == view.management_pings.1)
    });
    let pings: u64 = fleet.views().iter().skip(CROWD).map(|view| view.management_pings.0).sum();
    assert!(pings > 50, "only {pings} pings in all that time");
}

/// Inner traffic as one side has counted it.
#[derive(Debug)]
struct Traffic {
    tunnels: usize,
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
    /// Packets that were dropped, whatever the reason.
    lost: u64,
}

impl PartialEq for Traffic {
    fn eq(&self, other: &Self) -> bool {
        let counted = |traffic: &Self| {
            (
                (traffic.tunnels, traffic.rx_packets, traffic.rx_bytes),
                (traffic.tx_packets, traffic.tx_bytes),
            )
        };
        counted(self) == counted(other)
    }
}

fn sum(tunnels: &[TunnelView]) -> Traffic {
    let add = |count: fn(&TunnelView) -> u64| tunnels.iter().map(count).sum();
    Traffic {
        tunnels: tunnels.len(),
        rx_packets: add(|tunnel| tunnel.rx_packets),
        rx_bytes: add(|tunnel| tunnel.rx_bytes),
        tx_packets: add(|tunnel| tunnel.tx_packets),
        tx_bytes: add(|tunnel| tunnel.tx_bytes),
        lost: add(|tunnel| tunnel.drops.values().sum()),
    }
}

/// From the server's point of view: what members have sent was received.
fn sum_of_members(views: &[View]) -> Traffic {
    let add = |count: fn(&View) -> u64| views.iter().map(count).sum();
    Traffic {
        tunnels: views.iter().filter(|view| view.up).count(),
        rx_packets: add(|view| view.tx_packets),
        rx_bytes: add(|view| view.tx_bytes),
        tx_packets: add(|view| view.rx_packets),
        tx_bytes: add(|view| view.rx_bytes),
        lost: 0,
    }
}
