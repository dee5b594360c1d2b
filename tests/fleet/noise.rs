//! What every open port hears: scanners. And the headers of load balancers.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tunnelhead::testing::fleet::{Command, Fleet, Member, View};
use tunnelhead::testing::profiles;
use tunnelhead_crypto::{FastRandom, SecureRandom as _};

use crate::head::{Head, SOON, listener};
use crate::support::eventually;

/// Speaks first, then listens to the end; returns what was answered.
fn answer_to(target: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(target).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a read timeout");
    // The server may hang up while we speak.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    answer
}

/// True if the server hangs up by itself, without a word, after these bytes.
fn hangs_up_on(target: SocketAddr, source: Option<Ipv4Addr>, bytes: &[u8]) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("a source address");
    }
    socket.connect(&target.into()).expect("a connection");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).expect("a read timeout");
    let _ = stream.write_all(bytes);
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

const SEED: u64 = 20_260_731;

fn random(length: usize, rng: &mut FastRandom) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes).expect("randomness");
    bytes
}

#[test]
fn scanners_hear_nothing_and_disturb_nobody() {
    let (head, fleet) = (Head::start(), Fleet::start().expect("a fleet"));
    let id = fleet.add(head.member("router", profiles::p3()));
    fleet.wait_all_up(SOON);
    fleet.tell(id, Command::PingEvery(Some(Duration::from_millis(10))));
    let target = head.listens(0);

    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x01\x02\x03\x04\x05\x06\x07";
    let greetings: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n",
        b"POST /login HTTP/1.0\r\n\r\n",
        client_hello,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x05\x01\x00",
        b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
    ];
    for greeting in greetings {
        assert_eq!(answer_to(target, greeting), b"", "{}", greeting.escape_ascii());
    }
    assert!(hangs_up_on(target, None, greetings[0]));
    assert!(head.counter("login_closed_not_openvpn") >= 4, "{:?}", head.status().counters);

    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&SEED.to_be_bytes());
    let mut rng = FastRandom::from_seed(seed);
    for round in 0..100 {
        let bytes = random(1 + round * 7 % 300, &mut rng);
        assert_eq!(answer_to(target, &bytes), b"", "seed {SEED}, round {round}");
    }
    let closed = |head: &Head| -> u64 {
        let counters = head.status().counters;
        counters.iter().filter(|(name, _)| name.starts_with("login_closed_")).map(|(_, n)| n).sum()
    };
    let before = closed(&head);
    // Every length that a frame may have, a few that none may have, as a hard reset at first sight.
    let lengths = (0..=2060_usize).chain([4096, 0x1603, 0x4745, 32_768, 65_535]);
    let mut count = 0;
    for length in lengths {
        let mut bytes = u16::try_from(length).expect("a length").to_be_bytes().to_vec();
        bytes.push(0x38);
        bytes.extend(std::iter::repeat_n(0xa5, length.saturating_sub(1)));
        bytes.truncate(2 + length);
        assert_eq!(answer_to(target, &bytes), b"", "length {length}");
        count += 1;
    }
    eventually("closed connections", SOON, || (closed(&head) >= before + count).then_some(()));
    assert_eq!(head.status().logins_in_progress, 0);

    fleet.tell(id, Command::PingEvery(None));
    let view = fleet.wait_for(id, "every answer", SOON, |view| {
        view.management_pings.0 > 0 && view.management_pings.0 == view.management_pings.1
    });
    assert_eq!(view.closes, 0);
    fleet.expect_no_violations();
}

/// A version 2 header for a TCP connection over IPv4.
fn version_2(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&source);
    header.extend_from_slice(&[192, 0, 2, 1]);
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&8443u16.to_be_bytes());
    header
}

#[test]
fn headers_of_a_listed_balancer_name_the_router_and_others_are_refused() {
    let head = Head::start_with(|config| {
        config.listeners[0].proxy_protocol = vec!["127.0.0.9/32".parse().expect("a network")];
        config.listeners.push(listener());
    });
    let fleet = Fleet::start().expect("a fleet");
    let version_1 = b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 8443\r\n".to_vec();
    let six = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 8443\r\n".to_vec();
    let balancer = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
    let cases = [
        ("one", version_1.clone(), "198.51.100.7:4711"),
        ("six", six, "[2001:db8::7]:4711"),
        ("two", version_2([198, 51, 100, 8], 4712), "198.51.100.8:4712"),
    ];
    for (name, header, real) in cases {
        for one_byte_segments in [false, true] {
            let name = format!("{name}-{one_byte_segments}");
            let id = fleet.add(Member {
                source: balancer,
                preamble: header.clone(),
                one_byte_segments,
                ..head.member(&name, profiles::p2())
            });
            fleet.wait_for(id, &name, SOON, |view| view.up);
            fleet.tell(id, Command::PingBoth);
            fleet.wait_for(id, "answers", SOON, View::pings_answered);
            let tunnel = head.tunnel(&name).expect("a tunnel");
            assert_eq!(tunnel.real_address.to_string(), real);
        }
    }

    // The balancer without a header, with a broken one, and with one that never ends.
    let source = Some(Ipv4Addr::new(127, 0, 0, 9));
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let reset = b"\x00\x0e\x38\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00";
    let broken: [&[u8]; 3] = [reset, b"PROXY TCP4 nonsense\r\n", &endless];
    for (count, bytes) in (1..).zip(broken) {
        assert!(hangs_up_on(head.listens(0), source, bytes), "{}", bytes.escape_ascii());
        head.wait_counter("login_closed_proxy_header", count);
    }
    // A stranger with a header on the same listener, and anybody on one without balancers.
    assert!(hangs_up_on(head.listens(0), Some(Ipv4Addr::new(127, 0, 0, 8)), &version_1));
    assert!(hangs_up_on(head.listens(1), source, &version_1));
    head.wait_counter("login_closed_not_openvpn", 2);
    // A stranger without one logs in as itself.
    let id = fleet.add(head.member("direct", profiles::p3()));
    fleet.wait_for(id, "a tunnel", SOON, |view| view.up);
    // Its own packets tell the server, a moment later, that it is up.
    let tunnel = eventually("tunnel", SOON, || head.tunnel("direct"));
    assert_eq!(tunnel.real_address.ip(), Ipv4Addr::LOCALHOST);
    fleet.expect_no_violations();
}
