//! The data path.

use tunnelhead_crypto::DataHeader;

use super::bench::*;
use crate::proto::session::data_channel::{OCC, OCC_EXIT, PING};
use crate::proto::session::*;
use crate::proto::wire::{Opcode, push_frame};

#[test]
fn pings_are_swallowed_and_count_as_a_sign_of_life() {
    let mut bench = Bench::up();
    assert!(!bench.session.info().client_pings);
    bench.feed_packet(0, &PING);
    assert!(bench.inner.is_empty());
    assert!(bench.session.info().client_pings);
    assert_eq!(bench.session.stats().pings_rx, 1);
}

#[test]
fn occ_exit_ends_the_session_and_other_occ_does_not() {
    let mut bench = Bench::up();
    let mut request = OCC.to_vec();
    request.push(0);
    bench.feed_packet(0, &request);
    assert_eq!((bench.closed.as_ref(), bench.session.stats().drop_occ), (None, 1));
    *request.last_mut().unwrap() = OCC_EXIT;
    bench.feed_packet(0, &request);
    assert_eq!(bench.closed, Some(CloseReason::PeerExit));
}

#[test]
fn exit_inside_tls_ends_the_session() {
    let mut bench = Bench::up();
    bench.say(0, "EXIT");
    assert_eq!(bench.closed, Some(CloseReason::PeerExit));
    assert_eq!(bench.live_engines(), 0);
}

#[test]
fn compression_framing_and_empty_payloads_are_dropped_and_counted() {
    let mut bench = Bench::up();
    for payload in [&[0xfa, 0x45, 0][..], &[0xfb, 0, 0], &[0x50, 0, 0x45], &[0x66, 1], &[0x69, 1]] {
        bench.feed_packet(0, payload);
    }
    bench.feed_packet(0, &[]);
    bench.feed_packet(0, &[0x60; 40]);
    let stats = bench.session.stats();
    assert_eq!((stats.drop_compressed, stats.drop_empty, stats.rx_packets), (5, 1, 1));
    assert_eq!(bench.inner, [[0x60; 40]], "what is not IPv4 is for the net layer");
}

#[test]
fn a_damaged_data_packet_closes_and_nothing_comes_out() {
    for position in [3, 10, 40] {
        let mut bench = Bench::up();
        let mut frame = bench.peer.data(0, &packet(1));
        frame[position] ^= 1;
        bench.feed(frame);
        assert_eq!(bench.closed, Some(CloseReason::DataAuthentication), "byte {position}");
        assert!(bench.inner.is_empty());
        assert!(matches!(bench.error, Some(SessionError::Data(_))));
        assert!(bench.session.handle_link(bench.now, &mut [0, 1, 2], &mut |_| {}).is_err());
    }
}

#[test]
fn a_replayed_data_packet_closes() {
    let mut bench = Bench::up();
    let frame = bench.peer.data(0, &packet(1));
    bench.feed(frame.clone());
    bench.feed(frame);
    assert_eq!(bench.closed, Some(CloseReason::DataReplay));
    assert_eq!(bench.inner.len(), 1);
}

#[test]
fn a_data_packet_that_is_too_short_closes() {
    let mut bench = Bench::up();
    bench.feed(vec![0, 3, 0x30, 1, 2]);
    assert_eq!(bench.closed, Some(CloseReason::DataMalformed));
}

#[test]
fn data_under_an_unknown_key_id_has_no_effect() {
    let mut bench = Bench::up();
    let before = format!("{:?}", bench.session.core.state);
    bench.now += seconds(5);
    for key in 1..8_u8 {
        bench.feed(vec![0, 5, 0x30 | key, 1, 2, 3, 4]);
        bench.feed(vec![0, 7, 0x48 | key, 0, 0, 1, 2, 3, 4]);
    }
    assert_eq!(format!("{:?}", bench.session.core.state), before);
    assert_eq!(bench.session.stats().drop_no_key, 14);
}

#[test]
fn both_data_formats_are_accepted_whatever_was_pushed() {
    let mut bench = Bench::stock_up();
    for (number, peer_id) in [(1, None), (2, Some(0)), (3, Some(1)), (4, Some(0xff_ffff))] {
        let keys = bench.peer.keys.get_mut(&0).unwrap().data.as_mut().unwrap();
        let header = DataHeader { key_id: 0, peer_id };
        let mut frame = Vec::new();
        let mut rng = fresh_random();
        push_frame(&mut frame, |out| keys.sealer.seal(header, &packet(number), &mut rng, out))
            .unwrap();
        bench.feed(frame);
    }
    assert_eq!(bench.inner, [packet(1), packet(2), packet(3), packet(4)]);
}

#[test]
fn the_first_authentic_packet_makes_the_session_up() {
    let mut bench = Bench::new();
    bench.hello();
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.peer.auto_ack = false;
    bench.say(0, "PUSH_REQUEST");
    assert!(!bench.is_up());
    assert_eq!(bench.seal(&packet(1)), Err(SealRefused::NotUp));
    bench.feed_packet(0, &packet(2));
    assert!(bench.is_up());
    bench.seal(&packet(3)).unwrap();
}

#[test]
fn a_packet_that_fits_no_frame_is_refused_and_takes_no_number() {
    let mut bench = Bench::up();
    let mut out = vec![1, 2, 3];
    let Bench { session, rng, now, .. } = &mut bench;
    let refused = session.seal(*now, &[0x45; 2048], rng, &mut out);
    assert_eq!((refused, &out[..]), (Err(SealRefused::TooLong(2048)), &[1, 2, 3][..]));
    bench.seal(&packet(1)).unwrap();
    assert_eq!(bench.peer.inner.len(), 1);
}

#[test]
fn a_ping_that_waits_goes_before_the_next_packet() {
    let mut bench = Bench::up();
    bench.now += seconds(20);
    let result = bench.session.handle_timeout(bench.now, &mut bench.rng);
    bench.note(result);
    // Not drained: the driver seals first. The peer insists on rising numbers.
    bench.seal(&packet(1)).unwrap();
    assert_eq!(bench.peer.inner, [(0, PING.to_vec()), (0, packet(1))]);
}

#[test]
fn every_chunking_of_a_stream_gives_the_same_session() {
    let mut recorder = Bench::new();
    let mut stream = recorder.peer.message(Opcode::HardResetClientV2, 0, &[]);
    stream.extend(recorder.peer.message(Opcode::ControlV1, 0, b"hello"));
    // With peer info: a message that leaves it out ends where TLS has no more to give.
    let info = Some("IV_PROTO=2\n");
    let exchange = recorder.key_exchange_bytes(0, ROUTER, Some("r"), Some("s"), info);
    stream.extend(recorder.peer.message(Opcode::ControlV1, 0, &exchange));
    let request = b"PUSH_REQUEST\0";
    stream.extend(recorder.peer.message(Opcode::ControlV1, 0, request));
    for size in [1, 2, 3, 7, 64, stream.len()] {
        let mut bench = Bench::new();
        bench.peer.sid = recorder.peer.sid;
        // An acknowledgement of its own would land inside a frame.
        bench.peer.auto_ack = false;
        for chunk in stream.chunks(size) {
            bench.feed(chunk.to_vec());
        }
        assert_eq!(bench.events, ["auth", "address branch-42", "established"], "{size}");
    }
}
