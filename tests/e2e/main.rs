//! The real binary and the real `openvpn` client in network namespaces, with real TUN devices.
//!
//! ```text
//!                    internet  (bridge br0, 203.0.113.1/24; 192.0.2.1: a server out there)
//!              eth0 /        | eth0          \ eth0
//!   concentrator .2     router-1 .11        router-2 .12   ...
//!   tunnelhead serve    openvpn, tun        openvpn, tun
//!   100.127.255.254     100.64.0.0/10 address of its own
//!   198.51.100.1: another address of the host; forwarding is on
//! ```
//!
//! "The host" is the concentrator's namespace. All traffic stays in these namespaces; their names
//! hold the process id and a number, and they go away with the test. Needs root, iproute2, ping,
//! iperf3 and openvpn.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is the report"
)]

mod bulk;
mod dial;
mod harness;
mod isolation;
mod lab;
mod login;
mod mtu;
mod rekey;
mod service;
mod site;
mod stock;
#[path = "../support/mod.rs"]
mod support;
mod suspect;
mod tunnelhead_process;
