//! A concentrator inside a program: ten lines to start it, then a router, events, a ping and a
//! look at the tunnel.
//!
//! `cargo run --example embed --features testing` needs no root and leaves nothing behind: packets
//! go to a device in memory, accounts to a store in memory, and the router is the reference client
//! of the feature `testing`. A program in production leaves `store` and `tun` out (it then gets a
//! database in `state_dir` and a TUN device), and opens connections to its routers:
//!
//! ```no_run
//! # async fn reach(head: &tunnelhead::concentrator::Concentrator)
//! #     -> Result<(), Box<dyn std::error::Error>> {
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let mut stream = head.tunnel("branch-42")?.dial(22).await?; // AsyncRead + AsyncWrite
//! let mut banner = [0; 64];
//! let n = stream.read(&mut banner).await?;
//! println!("{}", String::from_utf8_lossy(&banner[..n]));
//! stream.shutdown().await?; // our half; the stream ends with the router's session at the latest
//! # Ok(())
//! # }
//! ```

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "an example talks to whoever runs it, and has just made what it indexes"
)]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tunnelhead::concentrator::{Concentrator, DialError, TunSource, TunnelEvent};
use tunnelhead::config::{Config, Listener};
use tunnelhead::control_api::types::{NewRouter, TunnelFilter};
use tunnelhead::store::MemoryStore;
use tunnelhead::testing::fleet::{Fleet, Host, Member};
use tunnelhead::testing::profiles;
use tunnelhead::tun::{Queue, memory};

const SOON: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await
}

/// Everything that this example shows.
pub async fn run() -> Result<(), Box<dyn Error>> {
    // The concentrator: a free port, a folder for keys, and a device whose other end is `host`.
    let folder = tempfile::tempdir()?;
    let config = Config {
        listeners: vec![Listener::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
        state_dir: folder.path().to_owned(),
        public_host: Some("127.0.0.1".to_owned()),
        ..Config::default()
    };
    let management = config.management_address;
    let (queues, device) = memory::pair(1)?;
    let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect();
    let head = Concentrator::builder()
        .config(config)
        .store(Arc::new(MemoryStore::new()))
        .tun(TunSource::Queues(queues))
        .start()
        .await?;
    let host = Host::start(device, management)?;
    let mut events = head.events();

    // An account, and the router that logs in with it. A real one gets `account.script`.
    let account = head.routers().add(NewRouter::named("branch-42")).await?;
    let fleet = Fleet::start()?;
    let (username, password) = (&account.router.username, account.password.expose());
    fleet.add(Member::new(head.local_addresses()[0], profiles::p1(), username, password));
    let address = loop {
        let event = tokio::time::timeout(SOON, events.recv()).await??;
        println!("{} {:?}", event.at, event.what);
        if let TunnelEvent::Up { address, .. } = event.what {
            break address;
        }
    };

    // The host pings the router; the answer comes back through the same device.
    host.ping(address, 1);
    host.wait_for(address, "answer", SOON, |seen| seen.replies == 1);
    println!("{address} answers");

    // Everything that the control socket knows is here, too.
    let tunnel = head.tunnel("branch-42")?;
    let view = tunnel.view().await?;
    println!("{}: {} with {}, {} bytes sent", view.router, view.state, view.cipher, view.tx_bytes);
    assert_eq!(head.tunnels().list(TunnelFilter::ALL).await?.items.len(), 1);

    // Connections need the network of the host: a device in memory has none, and says so.
    let refused = tunnel.dial(22).await;
    assert!(matches!(refused, Err(DialError::NeedsKernelDevice)));

    head.shutdown().await;
    println!("the tunnel ended: {}", tunnel.ended().await);
    Ok(())
}
