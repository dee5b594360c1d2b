//! Peers that mean harm, and streams that are not OpenVPN at all.

use std::sync::Arc;

use proptest::prelude::*;
use tunnelhead_crypto::SecretBytes;

use super::bench::*;
use crate::proto::session::*;
use crate::proto::wire::Opcode;

fn fresh(bench: &mut Bench) -> Session {
    Session::new(Arc::clone(&bench.config), bench.now, 1_700_000_000, &mut bench.rng).unwrap()
}

#[test]
fn strangers_are_named_and_not_answered() {
    let cases: [(&[u8], Option<&str>); 6] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Some("a TLS client")),
        (b"GET / HTTP/1.1\r\n\r\n", Some("an HTTP request")),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Some("an SSH client")),
        (b"\x00\x00", None),
        (b"\xff\xff", None),
        (b"\x08\x01", None),
    ];
    for (bytes, name) in cases {
        let mut bench = Bench::new();
        bench.feed(bytes.to_vec());
        assert_eq!(bench.closed, Some(CloseReason::NotOpenVpn { looks_like: name }));
        assert_eq!(bench.session.stats().link_tx_bytes, 0);
        assert_eq!(bench.error.unwrap().disposition(), Disposition::Silent);
    }
    let mut bench = Bench::up();
    bench.feed(vec![0, 0]);
    assert_eq!(bench.closed, Some(CloseReason::BadFrame));
}

#[test]
fn a_lower_limit_of_frames_closes_and_survives_a_hand_over() {
    let low = || SessionConfig { frame_bytes: 1700, ..config() };
    let length = |bytes: u16| bytes.to_be_bytes().to_vec();
    let mut bench = Bench::with(low(), |_| {});
    bench.feed(length(1700));
    assert_eq!(bench.closed, None);
    let mut bench = Bench::with(low(), |_| {});
    bench.feed(length(1701));
    assert_eq!(bench.closed, Some(CloseReason::NotOpenVpn { looks_like: None }));
    let mut bench = Bench::with(low(), |_| {});
    bench.login();
    bench.run(seconds(60));
    bench.hand_over();
    bench.feed(length(1701));
    assert_eq!(bench.closed, Some(CloseReason::BadFrame));
    // The standard limit lets the same length through.
    let mut bench = Bench::new();
    bench.feed(length(1701));
    assert_eq!(bench.closed, None);
}

#[test]
fn key_method_1_is_named() {
    let mut bench = Bench::new();
    bench.feed(vec![0, 14, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0]);
    assert_eq!(bench.closed, Some(CloseReason::KeyMethod1));
}

#[test]
fn a_reset_that_acknowledges_something_is_no_first_packet() {
    let mut bench = Bench::new();
    bench.peer.server = Some(bench.peer.sid);
    let frame = bench.peer.frame(Opcode::HardResetClientV2, 0, &[0], Some(0), &[]);
    bench.feed(frame);
    assert_eq!(bench.closed, Some(CloseReason::FirstPacket));
    for id in [2, 3, u32::MAX] {
        let mut bench = Bench::new();
        let frame = bench.peer.frame(Opcode::HardResetClientV2, 0, &[], Some(id), &[]);
        bench.feed(frame);
        assert_eq!(bench.closed, Some(CloseReason::FirstPacket), "id {id}");
    }
}

#[test]
fn an_engine_that_does_not_answer_is_given_a_bounded_amount() {
    let mut bench = Bench::new();
    bench.hello();
    bench.hold_tls = true;
    let mut sent = 0;
    while bench.closed.is_none() {
        bench.send(Opcode::ControlV1, 0, &[0x17; 1100]);
        sent += 1100;
        assert!(sent < 80 * 1024);
    }
    let bound = matches!(bench.closed, Some(CloseReason::ControlFlood | CloseReason::Memory));
    assert!(bound, "{:?}", bench.closed);
    assert_eq!(bench.live_engines(), 0);
}

#[test]
fn endless_small_and_empty_messages_end_the_session() {
    for (payload, up) in [(&b""[..], false), (b"", true), (b"y", true), (b"\0", true)] {
        let mut bench = Bench::new();
        if up {
            bench.login();
        } else {
            bench.hello();
        }
        let mut count = 0;
        while bench.closed.is_none() {
            bench.send(Opcode::ControlV1, 0, payload);
            count += 1;
            assert!(count < 5000);
        }
        assert_eq!(bench.closed, Some(CloseReason::ControlFlood), "{payload:?} {up}");
    }
}

#[test]
fn a_key_exchange_without_end_closes() {
    let mut bench = Bench::new();
    bench.hello();
    // A user name that says it has 65,535 bytes.
    let mut bytes = bench.key_exchange_bytes(0, ROUTER, None, None, None);
    bytes.extend([0xff, 0xff]);
    bytes.resize(9000, b'u');
    bench.send_tls(0, &bytes);
    assert_eq!(bench.closed, Some(CloseReason::ControlFlood));
    assert!(bench.asked.is_none());
}

#[test]
fn more_messages_in_one_read_than_any_client_sends_close() {
    let mut bench = Bench::new();
    bench.send(Opcode::HardResetClientV2, 0, &[]);
    let mut burst = Vec::new();
    for _ in 0..17 {
        burst.extend(bench.peer.message(Opcode::ControlV1, 0, b""));
    }
    bench.feed(burst);
    assert_eq!(bench.closed, Some(CloseReason::ControlFlood));
}

#[test]
fn forged_acknowledgements_change_nothing() {
    let mut bench = Bench::up();
    bench.run(seconds(3));
    let timeout = bench.session.poll_timeout();
    for _ in 0..1000 {
        let frame = bench.peer.frame(Opcode::AckV1, 0, &[9, 10, 11, 12, 13, 14, 15, 16], None, &[]);
        let mut frame = frame;
        let result = bench.session.handle_link(bench.now, &mut frame, &mut |_| {});
        result.unwrap();
    }
    let mut out = Vec::new();
    assert!(!bench.session.poll_transmit(bench.now, &mut out));
    assert_eq!(bench.session.poll_timeout(), timeout);
    assert_eq!(bench.session.stats().foreign_acks, 8000);
    let frame = bench.peer.frame(Opcode::AckV1, 0, &[0, 0, 0, 0], None, &[]);
    bench.feed(frame);
    assert!(bench.is_up());
}

#[test]
fn messages_out_of_order_are_put_in_order_and_those_too_far_ahead_are_dropped() {
    let mut bench = Bench::new();
    let reset = bench.peer.message(Opcode::HardResetClientV2, 0, &[]);
    let hello = bench.peer.message(Opcode::ControlV1, 0, b"hello");
    let bytes = bench.key_exchange_bytes(0, ROUTER, Some("r"), Some("s"), Some("IV_PROTO=2\n"));
    let (first, second) = bytes.split_at(100);
    let first = bench.peer.message(Opcode::ControlV1, 0, first);
    let second = bench.peer.message(Opcode::ControlV1, 0, second);
    bench.feed(reset);
    bench.feed(second);
    assert!(bench.asked.is_none());
    bench.feed(first);
    bench.feed(hello);
    // The greeting and the message came as one TLS input.
    assert!(bench.asked.is_some());
    let far = bench.peer.frame(Opcode::ControlV1, 0, &[], Some(500), b"far");
    bench.feed(far);
    assert_eq!(bench.session.stats().drop_out_of_window, 1);
    assert!(!bench.peer.key(0).acked.contains(&500));
}

#[test]
fn a_client_that_takes_nothing_makes_us_hold_little() {
    let mut bench = Bench::with(SessionConfig { preauth_bytes: 16 * 1024, ..config() }, |_| {});
    bench.hello();
    bench.hold_tls = true;
    bench.send(Opcode::ControlV1, 0, b"z");
    let engine = EngineId(0);
    let mut result = Ok(());
    let mut total = 0;
    while result.is_ok() {
        let answer = TlsAnswer {
            engine,
            ciphertext: vec![0; 4000],
            plaintext: SecretBytes::from(Vec::new()),
            established: None,
            error: None,
        };
        result = bench.session.handle_tls_answer(bench.now, answer, &mut bench.rng);
        total += 4000;
        assert!(total <= 24_000);
    }
    assert_eq!(result.unwrap_err().reason(), CloseReason::Memory);
}

/// The stream of a client that logs in and sends packets, and where each frame begins.
fn recorded(bench: &mut Bench) -> Vec<u8> {
    let peer = &mut bench.peer;
    let mut stream = peer.message(Opcode::HardResetClientV2, 0, &[]);
    stream.extend(peer.message(Opcode::ControlV1, 0, b"hello"));
    let exchange =
        bench.key_exchange_bytes(0, ROUTER, Some("router"), Some("secret"), Some("IV_PROTO=2\n"));
    let peer = &mut bench.peer;
    stream.extend(peer.message(Opcode::ControlV1, 0, &exchange));
    stream.extend(peer.message(Opcode::ControlV1, 0, b"PUSH_REQUEST\0"));
    stream.extend(peer.message(Opcode::SoftResetV1, 1, b""));
    stream.extend(peer.message(Opcode::ControlV1, 1, b"hello"));
    stream
}

/// Feeds a stream and answers like a driver would; gives everything that was sent.
fn drive(bench: &mut Bench, stream: &[u8], chunk: usize) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut inner = 0_usize;
    for piece in stream.chunks(chunk.max(1)) {
        let mut piece = piece.to_vec();
        let fed = bench.session.handle_link(bench.now, &mut piece, &mut |_| inner += 1);
        bench.note(fed);
        for _ in 0..100 {
            bench.session.poll_transmit(bench.now, &mut sent);
            let Some(event) = bench.session.poll_event() else { break };
            match event {
                Event::Tls(TlsTask { engine, op: TlsOp::Input(bytes) }) => {
                    let answer = TlsAnswer {
                        engine,
                        ciphertext: vec![1; 10],
                        plaintext: SecretBytes::from(
                            bytes.strip_prefix(b"hello").unwrap_or(&bytes).to_vec(),
                        ),
                        established: bytes.starts_with(b"hello").then(|| bench.facts()),
                        error: bytes.is_empty().then(|| "empty".to_owned()),
                    };
                    let result = bench.session.handle_tls_answer(bench.now, answer, &mut bench.rng);
                    bench.note(result);
                }
                Event::Tls(TlsTask { engine, op: TlsOp::Write(bytes) }) => {
                    let answer = TlsAnswer {
                        engine,
                        ciphertext: bytes.expose().to_vec(),
                        plaintext: SecretBytes::from(Vec::new()),
                        established: None,
                        error: None,
                    };
                    let result = bench.session.handle_tls_answer(bench.now, answer, &mut bench.rng);
                    bench.note(result);
                }
                Event::AuthNeeded { ticket, .. } => {
                    bench.session.handle_verdict(bench.now, ticket, allow());
                }
                Event::AssignmentNeeded { ticket, .. } => {
                    bench.session.handle_assignment(bench.now, ticket, Ok(address()));
                }
                Event::Close(reason) => {
                    assert!(bench.closed.is_none(), "closed twice");
                    bench.closed = Some(reason);
                }
                _ => {}
            }
        }
        bench.now += seconds(1);
        let result = bench.session.handle_timeout(bench.now, &mut bench.rng);
        bench.note(result);
    }
    assert_eq!(inner, 0, "no packet without an authentic one");
    sent
}

impl Bench {
    fn facts(&mut self) -> Box<TlsFacts> {
        use tunnelhead_crypto::{KeyBlock, SecureRandom};
        let mut block = || {
            let mut bytes = [0; 256];
            self.rng.fill(&mut bytes).unwrap();
            KeyBlock::from_bytes(bytes)
        };
        Box::new(TlsFacts {
            version: "TLSv1.2".into(),
            suite: "NULL".into(),
            client_certificate: None,
            data_keys: block(),
            dynamic_wrap: block(),
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_are_never_answered(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunk in 1..50_usize,
    ) {
        let mut bench = Bench::new();
        let sent = drive(&mut bench, &bytes, chunk);
        prop_assert!(sent.is_empty());
    }

    #[test]
    fn random_packets_are_judged(
        packets in prop::collection::vec(
            (0..16_u8, 0..8_u8, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)),
            0..40,
        ),
        chunk in 1..200_usize,
    ) {
        let mut bench = Bench::new();
        let mut stream = recorded(&mut bench);
        for (opcode, key, sid, body) in packets {
            let mut frame = vec![opcode << 3 | key];
            if sid {
                frame.extend(bench.peer.sid.bytes());
            }
            frame.extend(body);
            stream.extend(u16::try_from(frame.len()).unwrap().to_be_bytes());
            stream.extend(frame);
        }
        drive(&mut bench, &stream, chunk);
    }

    #[test]
    fn mutated_sessions_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        chunk in 1..400_usize,
    ) {
        let mut bench = Bench::new();
        let mut stream = recorded(&mut bench);
        for (index, value) in changes {
            let at = index.index(stream.len());
            stream[at] = value;
        }
        stream.truncate(cut.index(stream.len()) + 1);
        drive(&mut bench, &stream, chunk);
        // Whatever happened: an end in bounded time, unless it is up.
        if bench.session.info().phase != Phase::Up {
            let mut session = std::mem::replace(&mut bench.session, fresh_session());
            for _ in 0..50 {
                let Some(due) = session.poll_timeout() else { break };
                bench.now = bench.now.max(due);
                let _ = session.handle_timeout(bench.now, &mut bench.rng);
                session.poll_transmit(bench.now, &mut Vec::new());
                if session.info().phase == Phase::Up {
                    return Ok(());
                }
            }
            prop_assert_eq!(session.info().phase, Phase::Closed);
        }
    }
}

fn fresh_session() -> Session {
    let mut bench = Bench::new();
    fresh(&mut bench)
}
