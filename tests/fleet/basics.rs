//! Fifty routers of every kind.

use tunnelhead::testing::fleet::{Command, Fleet};
use tunnelhead::testing::profiles;

use crate::head::{Head, SOON};

#[test]
fn fifty_routers_log_in_and_ping_and_every_byte_is_accounted_for() {
    let head = Head::start();
    let fleet = Fleet::start().expect("a fleet");
    let kinds = [
        profiles::p1(),
        profiles::p1b(),
        profiles::p2(),
        profiles::p3(),
        profiles::p4(),
        profiles::p4b(),
        profiles::stock_2_6(),
    ];
    for (index, profile) in kinds.iter().cycle().take(50).enumerate() {
        fleet.add(head.member(&format!("router-{index}"), profile.clone()));
    }
    fleet.wait_all_up(SOON);
    for _ in 0..5 {
        fleet.tell_all(Command::PingBoth);
    }
    fleet.wait("answers", SOON, |views| views.iter().all(|view| view.pings_answered()));
    for view in fleet.views() {
        let address = view.address.expect("an address");
        assert!(head.host.ping(address, 1));
        head.host.wait_for(address, "answer", SOON, |seen| seen.replies == 1);
    }
    fleet.wait("answers", SOON, |views| views.iter().all(|view| view.host_pings == 1));
    let tunnels = head.tunnels();
    assert_eq!(tunnels.len(), 50);
    for (tunnel, name) in tunnels.iter().map(|tunnel| (tunnel, &tunnel.router)) {
        let index: usize = name.trim_start_matches("router-").parse().expect("a number");
        let view = fleet.view(index);
        assert_eq!(Some(tunnel.address), view.address, "{name}");
        let at_client = (view.tx_bytes, view.rx_bytes, view.tx_packets, view.rx_packets);
        let at_server = (tunnel.rx_bytes, tunnel.tx_bytes, tunnel.rx_packets, tunnel.tx_packets);
        assert_eq!(at_client, at_server, "{name}");
        // A push request may cross the reply that came unasked.
        let lost = tunnel.drops.keys().find(|reason| *reason != "drop_push_request");
        assert_eq!(lost, None, "{name}: {:?}", tunnel.drops);
    }
    assert_eq!(head.host.problems(), Vec::<String>::new());
    fleet.expect_no_violations();
}
