//! The sizes of inner packets.

use std::net::Ipv4Addr;

use crate::lab::{Lab, Namespace};
use crate::site::{MANAGEMENT, Router};

/// IPv4 and ICMP headers in front of a ping's data.
const HEADERS: usize = 28;

/// Packets up to `mtu` bytes with DF set pass both ways, longer ones are refused where they start.
pub(crate) fn check(lab: &Lab, router: &Router<'_>, mtu: usize) {
    let from_1280 = (1280..=mtu).step_by(11).chain([1280, 1281, mtu - 1, mtu]);
    let sizes: Vec<usize> = from_1280.filter(|size| *size <= mtu).collect();
    for (from, to) in [(&lab.concentrator, router.address), (router.namespace, MANAGEMENT)] {
        for &size in &sizes {
            if let Err(output) = df_ping(from, to, size, "-W 3") {
                panic!("a packet of {size} bytes to {to} with MTU {mtu}:\n{output}");
            }
        }
        for size in [mtu + 1, mtu + 100] {
            assert!(
                df_ping(from, to, size, "-W 0.3").is_err(),
                "{size} bytes passed with MTU {mtu}"
            );
        }
        // Without DF the sender cuts it into fragments, and they arrive too.
        from.ping("-c 1 -W 3 -M dont -s 4000", to).expect("a fragmented ping");
    }
}

fn df_ping(from: &Namespace, to: Ipv4Addr, size: usize, wait: &str) -> Result<(), String> {
    from.ping(&format!("-c 1 {wait} -M do -s {}", size - HEADERS), to)
}
