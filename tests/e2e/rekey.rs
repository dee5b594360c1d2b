//! Traffic while the keys change.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tunnelhead::telemetry::clock;

use crate::bulk::{Way, transfer};
use crate::lab::Lab;
use crate::site::Router;

/// What OpenVPN logs at the end of each key exchange.
const KEYS_CHANGED: &str = "Outgoing Data Channel: Cipher";
/// A run that does not see its key changes in this time has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between two datagrams: a low rate, so that no queue is ever full.
const PACE: Duration = Duration::from_millis(4);

/// Says true until the client has changed its keys `times` times; panics if it takes too long.
fn until_rekeyed<'a>(router: &'a Router<'_>, times: usize) -> impl FnMut() -> bool + Send + 'a {
    let (from, end) = (router.client.process.mark(), clock::now() + LIMIT);
    move || {
        let changed = router.client.process.count(from, KEYS_CHANGED);
        assert!(clock::now() < end, "{changed} of {times} rekeys within {LIMIT:?}");
        changed < times
    }
}

/// A stream in one direction across `times` rekeys, every byte compared.
pub(crate) fn stream(lab: &Lab, router: &Router<'_>, way: Way, times: usize) -> u64 {
    let mut more = until_rekeyed(router, times);
    transfer(lab, router, way, move |_| more())
}

/// Numbered datagrams to the router and back across `times` rekeys: none may be lost, repeated or
/// changed. Returns how many there were.
pub(crate) fn datagrams(lab: &Lab, router: &Router<'_>, times: usize) -> u64 {
    let any_port = SocketAddr::from((router.address, 0));
    let far = router.namespace.inside(|| UdpSocket::bind(any_port)).expect("a socket");
    let target = far.local_addr().expect("an address");
    let near = lab.concentrator.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(target)?;
        Ok::<_, std::io::Error>(socket)
    });
    let near = near.expect("a socket");
    near.set_read_timeout(Some(PACE)).expect("a read timeout");
    far.set_read_timeout(Some(Duration::from_secs(10))).expect("a read timeout");

    std::thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut buffer = [0; 2048];
            let mut seen = 0_u64;
            while let Ok((length, peer)) = far.recv_from(&mut buffer) {
                if buffer[..length] == *b"end" {
                    break;
                }
                seen += 1;
                far.send_to(&buffer[..length], peer).expect("the echo");
            }
            seen
        });
        let mut back = HashSet::new();
        let mut sent = 0_u64;
        let mut more = until_rekeyed(router, times);
        let mut take = |socket: &UdpSocket| {
            let mut buffer = [0; 2048];
            let Ok(length) = socket.recv(&mut buffer) else { return false };
            let number = u64::from_be_bytes(buffer[..8].try_into().expect("8 bytes"));
            assert_eq!(buffer[..length], datagram(number)[..], "datagram {number} was changed");
            assert!(back.insert(number), "datagram {number} came twice");
            true
        };
        while more() {
            near.send(&datagram(sent)).expect("a datagram");
            sent += 1;
            let next = clock::now() + PACE;
            while clock::now() < next {
                take(&near);
            }
        }
        near.set_read_timeout(Some(Duration::from_secs(2))).expect("a read timeout");
        while take(&near) {}
        near.send(b"end").expect("the end");
        let there = echo.join().expect("the echo");
        let lost: Vec<u64> = (0..sent).filter(|number| !back.contains(number)).collect();
        assert_eq!(
            (there, back.len() as u64),
            (sent, sent),
            "arrived there and back, of {sent}; not back: {lost:?}"
        );
        sent
    })
}

/// A datagram with its number, of a length that follows from it.
fn datagram(number: u64) -> Vec<u8> {
    let length = 8 + (number * 37 % 1200) as usize;
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length, number.to_le_bytes()[0]);
    bytes
}
