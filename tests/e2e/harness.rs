//! The lab and the checks themselves, proved against the stock server.

use std::sync::LazyLock;

use crate::bulk::{self, Way};
use crate::lab::{INTERNET_SERVER, Lab, ready};
use crate::service::{GREETING, Service, greeting, no_greeting};
use crate::site::{Router, expect_reachable};
use crate::support::keys::Keys;
use crate::{mtu, rekey, stock};

static KEYS: LazyLock<Keys> = LazyLock::new(Keys::make);

#[test]
fn stock_server_passes_traffic() {
    if !ready("stock_server_passes_traffic") {
        return;
    }
    let lab = Lab::new(2);
    let _server = stock::start(&lab, &KEYS, "AES-256-GCM");
    let routers = [0, 1]
        .map(|index| Router::connect(&lab, index, stock::client(&KEYS, index, "AES-256-GCM")));
    for router in &routers {
        expect_reachable(&lab, router);
    }
    let [on_router, on_internet] =
        [routers[0].namespace, &lab.internet].map(|namespace| Service::start(namespace, 22));
    for (target, service) in [(routers[0].address, on_router), (INTERNET_SERVER, on_internet)] {
        assert_eq!(greeting(&lab.concentrator, target, 22).as_deref(), Some(GREETING));
        assert!(no_greeting(&lab.concentrator, target, 23));
        assert_eq!(service.callers(), 1);
    }
    for way in [Way::ToRouter, Way::FromRouter] {
        bulk::transfer_bytes(&lab, &routers[0], way, 20_000_000);
        assert!(bulk::iperf3(&lab, &routers[1], way) > 1_000_000);
    }
    mtu::check(&lab, &routers[0], 1500);
}

#[test]
fn stock_server_loses_nothing_in_a_rekey() {
    if !ready("stock_server_loses_nothing_in_a_rekey") {
        return;
    }
    let lab = Lab::new(1);
    let _server = stock::start(&lab, &KEYS, "AES-256-CBC");
    let config = stock::client(&KEYS, 0, "AES-256-CBC").line("reneg-sec 2");
    let router = Router::connect(&lab, 0, config);
    assert!(rekey::datagrams(&lab, &router, 2) > 100);
    assert!(rekey::stream(&lab, &router, Way::ToRouter, 2) > 1_000_000);
}
