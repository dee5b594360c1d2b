//! A concentrator's host with connected routers, whoever plays the concentrator.

use std::net::Ipv4Addr;

use crate::lab::{Lab, Namespace};
use crate::support::client::{Client, Config, LOGIN};
use crate::support::eventually;

/// The default management address.
pub(crate) const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);

/// A router whose tunnel is up.
pub(crate) struct Router<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) client: Client,
    /// Its tunnel address.
    pub(crate) address: Ipv4Addr,
    /// The gateway of its block.
    pub(crate) gateway: Ipv4Addr,
}

impl<'a> Router<'a> {
    /// Starts the client of router number `index` and waits until it answers.
    pub(crate) fn connect(lab: &'a Lab, index: usize, config: Config) -> Self {
        let namespace = &lab.routers[index];
        let client =
            config.start_by(&format!("router-{}", index + 1), |program| namespace.command(program));
        client.expect_up(0);
        let (address, gateway) = (client.address(), client.gateway());
        // The client is up a moment before the server knows that it is.
        eventually("answer to a ping", LOGIN, || {
            lab.concentrator.ping("-c 1 -W 0.2", address).ok()
        });
        Self { namespace, client, address, gateway }
    }
}

/// Ping: host to router, router to gateway, router to management address.
pub(crate) fn expect_reachable(lab: &Lab, router: &Router<'_>) {
    lab.concentrator.expect_ping(router.address);
    router.namespace.expect_ping(router.gateway);
    router.namespace.expect_ping(MANAGEMENT);
}
