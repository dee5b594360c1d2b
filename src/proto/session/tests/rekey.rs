//! Renewing keys: by either side, at bad moments, and refused.

use super::bench::*;
use crate::proto::session::*;
use crate::proto::wire::Opcode;

/// The handshake and key exchange of a key whose reset is on its way.
fn exchange(bench: &mut Bench, key: u8) {
    bench.send(Opcode::ControlV1, key, b"hello");
    bench.key_exchange(key, ROUTER, Some("router"), Some("secret"), None);
}

fn client_rekey(bench: &mut Bench, key: u8) {
    bench.send(Opcode::SoftResetV1, key, &[]);
    exchange(bench, key);
}

fn both_ways(bench: &mut Bench, peer_key: u8, our_key: u8) {
    let (before, seen) = (bench.inner.len(), bench.peer.inner.len());
    bench.feed_packet(peer_key, &packet(1));
    bench.seal(&packet(2)).unwrap();
    assert_eq!(bench.inner.len(), before + 1);
    assert_eq!(bench.peer.inner[seen..], [(our_key, packet(2))]);
}

fn key(bench: &Bench) -> Option<u8> {
    bench.session.info().key_id
}

#[test]
fn a_client_renews_its_key_and_nobody_is_asked_again() {
    let mut bench = Bench::up();
    bench.events.clear();
    client_rekey(&mut bench, 1);
    assert_eq!(bench.events, ["engine 0 closed", "key 1"]);
    both_ways(&mut bench, 1, 1);
    // What was under way with the old key still arrives.
    bench.feed_packet(0, &packet(3));
    assert_eq!(bench.inner.len(), 2);
    assert_eq!(bench.session.stats().rekeys, 1);
    bench.run(seconds(3));
    assert_eq!(bench.live_engines(), 0);
}

#[test]
fn the_server_renews_a_key() {
    let mut bench = Bench::up();
    bench.session.start_rekey(bench.now).unwrap();
    assert_eq!(bench.session.start_rekey(bench.now), Err(RekeyRefused::InFlight));
    bench.pump();
    assert!(bench.peer.control.iter().any(|heard| heard.opcode == Opcode::SoftResetV1));
    client_rekey(&mut bench, 1);
    assert_eq!(key(&bench), Some(1));
    both_ways(&mut bench, 1, 1);
    assert_eq!(Bench::new().session.start_rekey(bench.now), Err(RekeyRefused::NotUp));
}

#[test]
fn both_sides_may_begin_at_the_same_moment() {
    let mut bench = Bench::up();
    // The client's reset is under way when ours is made.
    let reset = bench.peer.message(Opcode::SoftResetV1, 1, &[]);
    bench.session.start_rekey(bench.now).unwrap();
    bench.feed(reset);
    exchange(&mut bench, 1);
    assert_eq!(key(&bench), Some(1));
    let resets = bench.peer.control.iter().filter(|heard| heard.opcode == Opcode::SoftResetV1);
    assert_eq!(resets.count(), 1);
    both_ways(&mut bench, 1, 1);
}

#[test]
fn sealing_stays_with_the_old_key_until_the_new_one_is_proved() {
    let mut bench = Bench::up();
    bench.peer.auto_ack = false;
    client_rekey(&mut bench, 1);
    assert_eq!(key(&bench), Some(0));
    both_ways(&mut bench, 0, 0);
    let ack = bench.peer.ack(1).unwrap();
    bench.feed(ack);
    assert_eq!(key(&bench), Some(1));
    both_ways(&mut bench, 1, 1);
}

#[test]
fn an_authentic_packet_under_the_new_key_proves_it_too() {
    let mut bench = Bench::up();
    bench.peer.auto_ack = false;
    client_rekey(&mut bench, 1);
    assert_eq!(key(&bench), Some(0));
    bench.feed_packet(1, &packet(1));
    assert_eq!(key(&bench), Some(1));
    both_ways(&mut bench, 1, 1);
}

#[test]
fn key_ids_go_round_and_leave_out_0() {
    let mut bench = Bench::up();
    for (round, key_id) in [1, 2, 3, 4, 5, 6, 7, 1, 2].into_iter().enumerate() {
        bench.peer.keys.remove(&key_id);
        if round % 2 == 1 {
            bench.session.start_rekey(bench.now).unwrap();
            bench.pump();
        }
        client_rekey(&mut bench, key_id);
        assert_eq!(key(&bench), Some(key_id), "round {round}");
        both_ways(&mut bench, key_id, key_id);
        bench.run(seconds(5));
    }
    assert_eq!(bench.session.stats().rekeys, 9);
    assert!(bench.live_engines() <= 1);
}

#[test]
fn at_most_two_keys_open_packets() {
    let mut bench = Bench::up();
    client_rekey(&mut bench, 1);
    client_rekey(&mut bench, 2);
    bench.feed_packet(2, &packet(2));
    bench.feed_packet(1, &packet(1));
    bench.feed_packet(0, &packet(0));
    assert_eq!(bench.inner, [packet(2), packet(1)]);
    assert_eq!(bench.session.stats().drop_no_key, 1);
}

#[test]
fn the_oldest_key_goes_when_the_newest_can_open_packets() {
    let mut bench = Bench::up();
    client_rekey(&mut bench, 1);
    bench.send(Opcode::SoftResetV1, 2, &[]);
    bench.feed_packet(0, &packet(0));
    assert_eq!(bench.inner.len(), 1, "a rekey that has only begun takes nothing away");
    bench.peer.auto_ack = false;
    exchange(&mut bench, 2);
    assert_eq!(key(&bench), Some(1));
    bench.feed_packet(0, &packet(1));
    assert_eq!((bench.inner.len(), bench.session.stats().drop_no_key), (1, 1));
    bench.feed_packet(1, &packet(2));
    bench.feed_packet(2, &packet(3));
    assert_eq!(bench.inner.len(), 3);
}

#[test]
fn the_old_key_opens_for_the_transition_window_and_not_longer() {
    let mut bench = Bench::up();
    client_rekey(&mut bench, 1);
    bench.run(seconds(3599));
    bench.feed_packet(0, &packet(1));
    assert_eq!(bench.inner.len(), 1);
    bench.now += seconds(1);
    // The packet comes before the timer does.
    bench.feed_packet(0, &packet(2));
    assert_eq!((bench.inner.len(), bench.session.stats().drop_no_key), (1, 1));
    bench.run(seconds(1));
    bench.feed_packet(0, &packet(3));
    bench.feed_packet(1, &packet(4));
    assert_eq!(bench.inner.last(), Some(&packet(4)));
    assert_eq!(bench.session.stats().drop_no_key, 2);
}

#[test]
fn the_same_credential_is_shown_once_and_waits_for_nobody() {
    let mut bench = Bench::up();
    client_rekey(&mut bench, 1);
    assert_eq!(key(&bench), Some(1), "nothing waited for a verdict");
    let presented = std::mem::take(&mut bench.presented);
    assert_eq!(presented.len(), 1);
    assert_eq!(presented[0].username, b"router");
    assert_eq!(presented[0].password.expose(), b"secret");
}

#[test]
fn another_credential_ends_the_session() {
    for (username, password) in [("router", "changed"), ("other", "secret"), ("route", "rsecret")] {
        let mut bench = Bench::up();
        bench.send(Opcode::SoftResetV1, 1, &[]);
        bench.send(Opcode::ControlV1, 1, b"hello");
        bench.key_exchange(1, ROUTER, Some(username), Some(password), None);
        assert_eq!(bench.closed, Some(CloseReason::CredentialChanged), "{username} {password}");
        assert!(bench.presented.is_empty(), "a new login decides, not this one");
        assert_eq!(bench.live_engines(), 0);
    }
}

#[test]
fn another_certificate_ends_the_session() {
    let certificate = |print| ClientCertificate {
        common_name: b"router".to_vec(),
        fingerprint: [print; 32],
        serial: "01".into(),
        issuer_hash: [0; 32],
        intermediates: Vec::new(),
    };
    for (second, closed) in [
        (Some(certificate(1)), None),
        (Some(certificate(2)), Some(CloseReason::CredentialChanged)),
        (None, Some(CloseReason::CredentialChanged)),
    ] {
        let mut bench = Bench::new();
        bench.certificate = Some(certificate(1));
        bench.login();
        assert_eq!(bench.session.info().certificate, Some(certificate(1)));
        bench.certificate = second;
        client_rekey(&mut bench, 1);
        assert_eq!(bench.closed, closed);
    }
}

#[test]
fn a_rekey_that_gets_nowhere_is_given_up_and_may_be_tried_again() {
    let mut bench = Bench::up();
    bench.session.start_rekey(bench.now).unwrap();
    bench.run(seconds(59));
    assert!(bench.session.info().rekeying);
    bench.run(seconds(2));
    assert!(!bench.session.info().rekeying);
    assert_eq!((bench.closed.as_ref(), bench.session.stats().rekeys_failed), (None, 1));
    both_ways(&mut bench, 0, 0);
    // The peer may use the id again, or the one after it.
    for key_id in [1, 2] {
        let mut bench = Bench::up();
        bench.session.start_rekey(bench.now).unwrap();
        bench.run(seconds(61));
        bench.peer.keys.remove(&1);
        client_rekey(&mut bench, key_id);
        assert_eq!(key(&bench), Some(key_id));
        both_ways(&mut bench, key_id, key_id);
    }
}

#[test]
fn a_failed_handshake_of_a_rekey_leaves_the_tunnel_alone() {
    let mut bench = Bench::up();
    bench.send(Opcode::SoftResetV1, 1, &[]);
    bench.send(Opcode::ControlV1, 1, b"hello");
    bench.send(Opcode::ControlV1, 1, b"alert");
    assert_eq!((bench.closed.as_ref(), bench.session.stats().rekeys_failed), (None, 1));
    both_ways(&mut bench, 0, 0);
    bench.session.start_rekey(bench.now).unwrap();
}

#[test]
fn a_rekey_that_is_never_confirmed_ends_the_session() {
    let mut bench = Bench::up();
    bench.peer.auto_ack = false;
    client_rekey(&mut bench, 1);
    bench.run(seconds(61));
    assert_eq!(bench.closed, Some(CloseReason::RekeyUnfinished));
}

#[test]
fn rekeys_in_a_loop_end_the_session() {
    let mut bench = Bench::up();
    for round in 0..31_u8 {
        let key_id = round % 7 + 1;
        bench.peer.keys.remove(&key_id);
        assert_eq!(bench.closed, None, "round {round}");
        client_rekey(&mut bench, key_id);
        bench.now += seconds(1);
    }
    assert_eq!(bench.closed, Some(CloseReason::RekeyFlood));
}

#[test]
fn one_rekey_is_in_flight_at_a_time() {
    let mut bench = Bench::up();
    bench.send(Opcode::SoftResetV1, 1, &[]);
    bench.send(Opcode::SoftResetV1, 2, &[]);
    bench.send(Opcode::SoftResetV1, 5, &[]);
    assert_eq!(bench.session.stats().drop_unknown_key, 2);
    exchange(&mut bench, 1);
    assert_eq!(key(&bench), Some(1));
    assert_eq!(bench.opened, 2);
}

#[test]
fn a_soft_reset_out_of_turn_is_dropped() {
    for key_id in [2, 3, 7] {
        let mut bench = Bench::up();
        bench.send(Opcode::SoftResetV1, key_id, &[]);
        assert!(!bench.session.info().rekeying, "key {key_id}");
        assert_eq!(bench.session.stats().drop_unknown_key, 1);
    }
    let mut bench = Bench::up();
    bench.peer.key(1).next_id = 1;
    bench.send(Opcode::SoftResetV1, 1, &[]);
    assert!(!bench.session.info().rekeying, "message id 1");
    assert_eq!(bench.session.stats().drop_unexpected, 1);
}

#[test]
fn a_rekey_by_age_is_spread_and_repeats() {
    let after = seconds(1000);
    let mut starts = Vec::new();
    let until_rekey = |bench: &mut Bench| {
        while !bench.session.info().rekeying {
            bench.now = bench.session.poll_timeout().unwrap();
            bench.advance(seconds(0));
        }
    };
    for _ in 0..20 {
        let mut bench = Bench::with(SessionConfig { rekey_after: Some(after), ..config() }, |_| {});
        bench.login();
        let begin = bench.now;
        until_rekey(&mut bench);
        let age = bench.now - begin;
        assert!(age >= after * 9 / 10 && age <= after, "{age:?}");
        starts.push(age);
        client_rekey(&mut bench, 1);
        assert_eq!(key(&bench), Some(1));
        let begin = bench.now;
        until_rekey(&mut bench);
        assert!(bench.now - begin >= after * 9 / 10, "and again");
    }
    starts.sort();
    starts.dedup();
    assert!(starts.len() > 10, "{starts:?}");
}

#[test]
fn push_requests_on_a_later_key_are_not_answered() {
    let mut bench = Bench::up();
    client_rekey(&mut bench, 1);
    let messages = bench.peer.messages.len();
    bench.run(seconds(1));
    bench.say(1, "PUSH_REQUEST");
    assert_eq!(bench.peer.messages.len(), messages);
    assert_eq!(bench.session.stats().drop_push_request, 1);
    bench.say(1, "EXIT");
    assert_eq!(bench.closed, Some(CloseReason::PeerExit));
}

#[test]
fn answers_of_engines_that_are_gone_are_ignored() {
    let mut bench = Bench::up();
    bench.session.start_rekey(bench.now).unwrap();
    bench.pump();
    bench.hold_tls = true;
    bench.send(Opcode::SoftResetV1, 1, &[]);
    bench.send(Opcode::ControlV1, 1, b"hello");
    bench.run(seconds(61));
    bench.hold_tls = false;
    bench.pump();
    assert_eq!((bench.closed.as_ref(), bench.session.stats().stale_answers), (None, 1));
    both_ways(&mut bench, 0, 0);
}

/// Needs the setter of the crypto package's feature `testing`.
#[cfg(feature = "testing")]
mod near_the_limits {
    use super::*;

    fn at(next: u32) -> Bench {
        let mut bench = Bench::stock_up();
        let State::Established(session) = &mut bench.session.core.state else { panic!("not up") };
        session.keys.current.data.sealer.set_next_packet_id_for_test(next);
        bench
    }

    #[test]
    fn the_server_renews_the_key_by_itself() {
        let mut bench = at(0xff00_0000 - 2);
        bench.seal(&packet(0)).unwrap();
        bench.run(seconds(0));
        assert!(!bench.session.info().rekeying);
        for number in 1..4 {
            bench.seal(&packet(number)).unwrap();
            bench.run(seconds(0));
        }
        assert!(bench.session.info().rekeying);
        bench.send(Opcode::SoftResetV1, 1, &[]);
        bench.send(Opcode::ControlV1, 1, b"hello");
        bench.key_exchange(1, STOCK, Some("router"), Some("secret"), Some(STOCK_INFO));
        assert_eq!(key(&bench), Some(1));
        both_ways(&mut bench, 1, 1);
        bench.run(seconds(100));
        assert!(!bench.session.info().rekeying);
    }

    #[test]
    fn a_peer_that_refuses_is_asked_again_and_the_end_of_the_key_is_the_end() {
        let mut bench = at(0xffff_fff0);
        bench.seal(&packet(0)).unwrap();
        bench.run(seconds(0));
        assert!(bench.session.info().rekeying);
        bench.run(seconds(61));
        assert!(!bench.session.info().rekeying);
        assert_eq!(bench.closed, None);
        bench.peer.keys.remove(&1);
        bench.run(seconds(60));
        assert!(bench.session.info().rekeying, "again after a pause");
        let mut refused = None;
        for number in 1..20 {
            if let Err(error) = bench.seal(&packet(number)) {
                refused = Some(error);
                break;
            }
        }
        assert_eq!(refused, Some(SealRefused::Exhausted));
        bench.run(seconds(0));
        assert_eq!(bench.closed, Some(CloseReason::KeyExhausted));
    }
}
