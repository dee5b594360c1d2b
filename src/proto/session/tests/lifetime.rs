//! Keepalive, linger, and how sessions end.

use super::bench::*;
use crate::proto::control::Message;
use crate::proto::session::data_channel::PING;
use crate::proto::session::*;
use crate::proto::wire::Opcode;

fn pings(bench: &Bench) -> usize {
    bench.peer.inner.iter().filter(|(_, payload)| payload[..] == PING).count()
}

#[test]
fn silence_from_our_side_is_broken_by_pings() {
    let mut bench = Bench::up();
    bench.run(seconds(19));
    assert_eq!(pings(&bench), 0);
    bench.run(seconds(1));
    assert_eq!(pings(&bench), 1);
    bench.run(seconds(10));
    bench.seal(&packet(1)).unwrap();
    bench.run(seconds(19));
    assert_eq!(pings(&bench), 1, "traffic takes the place of a ping");
    bench.run(seconds(1));
    assert_eq!(pings(&bench), 2);
    assert_eq!(bench.session.stats().pings_tx, 2);
}

#[test]
fn a_client_that_never_pings_stays_up_for_ten_restart_periods() {
    let mut bench = Bench::up();
    bench.feed_packet(0, &packet(1));
    bench.run(seconds(900));
    assert_eq!(bench.closed, None);
    bench.seal(&packet(1)).unwrap();
}

#[test]
fn a_client_that_has_pinged_is_dead_after_the_restart_time() {
    let mut bench = Bench::up();
    bench.feed_packet(0, &PING);
    bench.run(seconds(89));
    assert_eq!(bench.closed, None);
    bench.feed_packet(0, &packet(1));
    bench.run(seconds(89));
    assert_eq!(bench.closed, None, "any authentic packet counts");
    bench.run(seconds(1));
    assert_eq!(bench.closed, Some(CloseReason::PeerDead));
}

#[test]
fn our_own_stall_counts_against_nobody() {
    let mut bench = Bench::up();
    bench.feed_packet(0, &PING);
    // Stopped for ten minutes; the timer comes before the socket is read.
    bench.now += seconds(600);
    bench.advance(seconds(0));
    assert_eq!(bench.closed, None);
    bench.feed_packet(0, &PING);
    bench.run(seconds(89));
    assert_eq!(bench.closed, None);
    bench.run(seconds(1));
    assert_eq!(bench.closed, Some(CloseReason::PeerDead));
    // The time is given back once: 40 s of a 60 s silence, in which a ping was due after 20.
    let mut bench = Bench::up();
    bench.feed_packet(0, &PING);
    bench.now += seconds(60);
    bench.advance(seconds(0));
    bench.run(seconds(69));
    assert_eq!(bench.closed, None);
    bench.run(seconds(1));
    assert_eq!(bench.closed, Some(CloseReason::PeerDead));
    // Nor does it if a packet to the peer goes out before the timers are looked at.
    let mut bench = Bench::up();
    bench.feed_packet(0, &PING);
    bench.now += seconds(600);
    bench.seal(&packet(1)).unwrap();
    bench.advance(seconds(0));
    assert_eq!(bench.closed, None);
    // A peer that is dead is dead: the stall is given back once.
    let mut bench = Bench::up();
    bench.feed_packet(0, &PING);
    bench.now += seconds(600);
    bench.advance(seconds(0));
    bench.run(seconds(90));
    assert_eq!(bench.closed, Some(CloseReason::PeerDead));
}

#[test]
fn the_engine_is_dropped_after_the_linger_and_late_messages_are_only_acknowledged() {
    let mut bench = Bench::up();
    assert_eq!(bench.live_engines(), 1);
    bench.run(seconds(1));
    assert_eq!(bench.live_engines(), 1);
    bench.run(seconds(1));
    assert_eq!(bench.live_engines(), 0);
    let acked = bench.peer.key(0).acked.len();
    for _ in 0..20 {
        bench.say(0, "PUSH_REQUEST");
    }
    assert_eq!(bench.peer.key(0).acked.len(), acked + 20);
    assert_eq!(bench.session.stats().after_linger, 20);
    bench.feed_packet(0, &packet(1));
    assert!(bench.is_up());
}

#[test]
fn an_unacknowledged_push_reply_keeps_the_engine_for_the_longest_linger_only() {
    let mut bench = Bench::new();
    bench.hello();
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.peer.auto_ack = false;
    bench.say(0, "PUSH_REQUEST");
    bench.feed_packet(0, &packet(1));
    assert!(bench.is_up());
    bench.run(seconds(29));
    assert_eq!(bench.live_engines(), 1);
    bench.run(seconds(1));
    assert_eq!(bench.live_engines(), 0);
    assert_eq!(bench.closed, None);
}

#[test]
fn a_client_that_never_takes_its_push_reply_is_closed() {
    let mut bench = Bench::new();
    bench.hello();
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.peer.auto_ack = false;
    bench.say(0, "PUSH_REQUEST");
    assert_eq!(bench.session.info().phase, Phase::Established);
    bench.run(seconds(61));
    assert_eq!(bench.closed, Some(CloseReason::LoginTimeout));
}

#[test]
fn a_tls_failure_after_the_login_does_not_end_the_tunnel() {
    let mut bench = Bench::up();
    bench.send(Opcode::ControlV1, 0, b"alert");
    assert_eq!(bench.closed, None);
    bench.feed_packet(0, &packet(1));
    bench.seal(&packet(2)).unwrap();
    bench.run(seconds(10));
    assert_eq!(bench.live_engines(), 0);
}

#[test]
fn restart_is_said_while_an_engine_lives() {
    let mut bench = Bench::up();
    bench.session.shut(bench.now, Shut::Restart);
    bench.pump();
    assert_eq!(bench.peer.messages.last(), Some(&Message::Restart(None)));
    assert_eq!(bench.closed, Some(CloseReason::ShutDown), "acknowledged, so at once");
    assert_eq!(bench.live_engines(), 0);
}

#[test]
fn a_shut_session_is_silent_at_once_and_closed_within_a_second() {
    let mut bench = Bench::up();
    bench.peer.auto_ack = false;
    bench.session.shut(bench.now, Shut::Restart);
    bench.pump();
    for _ in 0..9 {
        bench.peer.key(0).unacked.clear();
        bench.feed_packet(0, &packet(1));
        bench.say(0, "PUSH_REQUEST");
        bench.send(Opcode::SoftResetV1, 1, &[]);
        bench.session.shut(bench.now, Shut::Restart);
        assert_eq!(bench.seal(&packet(2)), Err(SealRefused::NotUp));
        bench.advance(seconds(1) / 10);
        assert_eq!(bench.closed, None);
    }
    bench.advance(seconds(1) / 10);
    assert_eq!(bench.closed, Some(CloseReason::ShutDown));
    assert!(bench.inner.is_empty());
    assert_eq!(bench.session.stats().drop_closing, 18);
}

#[test]
fn without_an_engine_or_a_tunnel_a_shut_is_immediate() {
    let mut lingered = Bench::up();
    lingered.run(seconds(3));
    lingered.session.shut(lingered.now, Shut::Restart);
    let mut quiet = Bench::up();
    quiet.session.shut(quiet.now, Shut::Quiet);
    let mut new = Bench::new();
    new.session.shut(new.now, Shut::Restart);
    let mut login = Bench::new();
    login.hello();
    login.session.shut(login.now, Shut::Restart);
    for mut bench in [lingered, quiet, new, login] {
        bench.pump();
        assert_eq!(bench.closed, Some(CloseReason::ShutDown));
        assert_eq!(bench.live_engines(), 0);
        assert!(bench.peer.messages.iter().all(|m| !matches!(m, Message::Restart(_))));
        assert_eq!(bench.session.poll_timeout(), None);
    }
}

#[test]
fn every_reason_has_a_code_of_its_own_and_a_sentence() {
    let reasons = [
        CloseReason::NotOpenVpn { looks_like: None },
        CloseReason::FirstPacket,
        CloseReason::KeyMethod1,
        CloseReason::BadFrame,
        CloseReason::Malformed,
        CloseReason::ControlWrap,
        CloseReason::SessionIdMismatch,
        CloseReason::SecondSession,
        CloseReason::UnexpectedPacket,
        CloseReason::DataAuthentication,
        CloseReason::DataReplay,
        CloseReason::DataMalformed,
        CloseReason::Memory,
        CloseReason::ControlFlood,
        CloseReason::RekeyFlood,
        CloseReason::Tls { detail: "no shared cipher".into() },
        CloseReason::KeyExchange,
        CloseReason::Denied(DenyReason::WrongPassword),
        CloseReason::Denied(DenyReason::UnknownUser),
        CloseReason::Assignment(AssignmentRefused::PoolFull),
        CloseReason::LoginTimeout,
        CloseReason::PeerDead,
        CloseReason::PeerExit,
        CloseReason::CredentialChanged,
        CloseReason::RekeyUnfinished,
        CloseReason::KeyExhausted,
        CloseReason::ShutDown,
        CloseReason::Internal,
    ];
    let mut codes: Vec<&str> = reasons.iter().map(CloseReason::code).collect();
    for (reason, code) in reasons.iter().zip(&codes) {
        let sentence = reason.to_string();
        assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()));
        assert!(sentence.ends_with('.') && sentence.starts_with(char::is_uppercase), "{sentence}");
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), reasons.len());
}
