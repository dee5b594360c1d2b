//! Many bytes each way, compared.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::lab::{Lab, Namespace};
use crate::site::Router;
use crate::support::process::Process;
use crate::support::run;

/// Nothing in a transfer may take longer than this without a byte moving.
const STALL: Duration = Duration::from_secs(30);
/// What is written at once.
const BLOCK: usize = 64 * 1024;

/// Which side sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToRouter,
    FromRouter,
}

/// Opens a connection from the host to a listener on the router.
pub(crate) fn connect(host: &Namespace, router: &Router<'_>) -> (TcpStream, TcpStream) {
    let listener = router.namespace.inside(|| {
        TcpListener::bind(SocketAddr::from((router.address, 0))).expect("a listener on the router")
    });
    let target = listener.local_addr().expect("the listener's address");
    let near = host.inside(|| TcpStream::connect_timeout(&target, STALL));
    let near = near.expect("a connection from the host to the router");
    let (far, _) = listener.accept().expect("the router's end of the connection");
    for end in [&near, &far] {
        end.set_read_timeout(Some(STALL)).expect("a read timeout");
        end.set_write_timeout(Some(STALL)).expect("a write timeout");
    }
    (near, far)
}

/// Sends blocks of unrepeating bytes while `more` says so; returns their number and their digest.
fn send(mut stream: TcpStream, mut more: impl FnMut(u64) -> bool) -> (u64, [u8; 32]) {
    let mut digest = Sha256::new();
    let mut block: Vec<u8> = (0..=250).cycle().take(BLOCK).collect();
    let mut sent = 0_u64;
    while more(sent) {
        // Each block differs from every other: lost, repeated or swapped blocks change the digest.
        block[..8].copy_from_slice(&sent.to_be_bytes());
        stream.write_all(&block).expect("the sender is not stalled");
        digest.update(&block);
        sent += BLOCK as u64;
    }
    stream.shutdown(std::net::Shutdown::Write).expect("the sender's end");
    (sent, digest.finalize().into())
}

fn receive(mut stream: TcpStream) -> (u64, [u8; 32]) {
    let mut digest = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut received = 0;
    loop {
        let read = stream.read(&mut block).expect("the receiver is not stalled");
        if read == 0 {
            return (received, digest.finalize().into());
        }
        digest.update(&block[..read]);
        received += read as u64;
    }
}

/// Sends while `more(bytes sent)` says so and compares what arrives. The host opens the connection
/// either way: that is the direction that isolation allows.
pub(crate) fn transfer(
    lab: &Lab,
    router: &Router<'_>,
    way: Way,
    more: impl FnMut(u64) -> bool + Send,
) -> u64 {
    let (near, far) = connect(&lab.concentrator, router);
    let (from, to) = if way == Way::ToRouter { (near, far) } else { (far, near) };
    let (sent, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(from, more));
        let received = receive(to);
        (sender.join().expect("the sender"), received)
    });
    assert_eq!(sent, received, "{way:?}: what arrived is not what was sent");
    sent.0
}

/// Sends `bytes` and compares.
pub(crate) fn transfer_bytes(lab: &Lab, router: &Router<'_>, way: Way, bytes: u64) {
    transfer(lab, router, way, |sent| sent < bytes);
}

/// iperf3 from the host's side; returns the bytes that arrived.
pub(crate) fn iperf3(lab: &Lab, router: &Router<'_>, way: Way) -> u64 {
    let address = router.address.to_string();
    let mut server = router.namespace.command("iperf3");
    server.args(["-s", "-1", "--forceflush", "-B", &address]);
    let server = Process::spawn("iperf3", &mut server);
    server.expect_line(0, Duration::from_secs(10), "Server listening");
    let mut client = lab.concentrator.command("iperf3");
    client.args(["-J", "-t", "2", "-c", &address]);
    if way == Way::FromRouter {
        client.arg("-R");
    }
    let report: serde_json::Value = serde_json::from_str(&run(&mut client)).expect("JSON");
    report["end"]["sum_received"]["bytes"].as_u64().expect("a sum of received bytes")
}
