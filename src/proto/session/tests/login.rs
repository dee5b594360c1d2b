//! Logins: what routers and stock clients do, and what they are told.

use super::bench::*;
use crate::proto::control::Message;
use crate::proto::session::*;
use crate::proto::wire::Opcode;

fn push_replies(bench: &Bench) -> Vec<String> {
    let reply = |message: &Message| match message {
        Message::PushReply(text) => Some(text.clone()),
        _ => None,
    };
    bench.peer.messages.iter().filter_map(reply).collect()
}

fn failures(bench: &Bench) -> Vec<Option<String>> {
    let failed = |message: &Message| match message {
        Message::AuthFailed(text) => Some(text.clone()),
        _ => None,
    };
    bench.peer.messages.iter().filter_map(failed).collect()
}

#[test]
fn a_router_logs_in_and_packets_flow_both_ways() {
    let mut bench = Bench::new();
    bench.hello();
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    assert_eq!(bench.events, ["auth", "address branch-42"]);
    assert!(push_replies(&bench).is_empty(), "never unasked");
    bench.say(0, "PUSH_REQUEST");
    assert_eq!(bench.events, ["auth", "address branch-42", "established", "up"]);
    assert_eq!(
        push_replies(&bench),
        ["route-gateway 100.70.1.1,topology subnet,ping 20,ping-restart 90,\
          route 100.127.255.254 255.255.255.255,ifconfig 100.70.1.9 255.255.255.0"]
    );
    bench.feed_packet(0, &packet(1));
    bench.seal(&packet(2)).unwrap();
    assert_eq!(bench.inner, [packet(1)]);
    assert_eq!(bench.peer.inner, [(0, packet(2))]);
    let info = bench.session.info();
    assert_eq!(info.cipher.unwrap().name(), "AES-256-CBC");
    assert!(!info.data_v2 && !info.key_export && !info.dynamic_wrap);
    assert_eq!((info.stats.rx_packets, info.stats.tx_packets), (1, 1));
    let request = &bench.asked.as_ref().unwrap().1;
    assert_eq!(
        (&request.username[..], request.password.expose()),
        (&b"router"[..], &b"secret"[..])
    );
}

#[test]
fn a_stock_client_is_pushed_to_at_once_with_all_it_announced() {
    let mut bench = Bench::stock_up();
    let replies = push_replies(&bench);
    assert_eq!(replies.len(), 1);
    for option in ["peer-id 1", "cipher AES-256-GCM", "tls-ekm dyn-tls-crypt", "tun-mtu 1500"] {
        assert!(replies[0].contains(option), "{option} in {}", replies[0]);
    }
    assert!(!replies[0].contains("cc-exit"));
    bench.feed_packet(0, &packet(1));
    bench.seal(&packet(2)).unwrap();
    assert_eq!((bench.inner.len(), bench.peer.inner.len()), (1, 1));
    let info = bench.session.info();
    assert!(info.data_v2 && info.key_export && info.dynamic_wrap);
}

#[test]
fn iv_proto_2_alone_gets_a_peer_id_and_nothing_else() {
    let mut bench = Bench::new();
    bench.hello();
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), Some("IV_PROTO=2\n"));
    assert!(push_replies(&bench).is_empty());
    bench.say(0, "PUSH_REQUEST");
    let replies = push_replies(&bench);
    assert!(replies[0].ends_with("peer-id 1"), "{}", replies[0]);
    bench.feed_packet(0, &packet(1));
    bench.seal(&packet(2)).unwrap();
    assert_eq!((bench.inner.len(), bench.peer.inner.len()), (1, 1));
}

#[test]
fn two_hard_resets_in_a_row_are_one_session() {
    let mut bench = Bench::new();
    bench.send(Opcode::HardResetClientV2, 0, &[]);
    bench.send(Opcode::HardResetClientV2, 0, &[]);
    bench.send(Opcode::ControlV1, 0, b"hello");
    assert_eq!(bench.peer.key(0).acked, [0, 1, 2]);
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.say(0, "PUSH_REQUEST");
    assert!(bench.is_up());
}

#[test]
fn a_repeated_reset_is_acknowledged_again_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.send(Opcode::HardResetClientV2, 0, &[]);
    for _ in 0..3 {
        let again = bench.peer.frame(Opcode::HardResetClientV2, 0, &[], Some(0), &[]);
        bench.feed(again);
    }
    assert_eq!(bench.peer.key(0).acked, [0, 0, 0, 0]);
    assert_eq!(bench.session.stats().duplicates, 3);
    let resets =
        bench.peer.control.iter().filter(|c| c.opcode == Opcode::HardResetServerV2).count();
    assert_eq!(resets, 1);
    bench.send(Opcode::ControlV1, 0, b"hello");
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.say(0, "PUSH_REQUEST");
    assert!(bench.is_up());
}

#[test]
fn a_client_hello_before_our_reset_is_accepted() {
    let mut bench = Bench::new();
    let mut both = bench.peer.message(Opcode::HardResetClientV2, 0, &[]);
    both.extend(bench.peer.message(Opcode::ControlV1, 0, b"hello"));
    bench.feed(both);
    assert_eq!(bench.peer.control[0].acks, [0, 1], "one packet acknowledges both");
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.say(0, "PUSH_REQUEST");
    assert!(bench.is_up());
}

#[test]
fn a_session_may_begin_with_reset_id_1() {
    let mut bench = Bench::new();
    bench.peer.key(0).next_id = 1;
    bench.hello();
    assert_eq!(bench.peer.key(0).acked, [1, 2]);
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.say(0, "PUSH_REQUEST");
    assert!(bench.is_up());
}

#[test]
fn a_hard_reset_with_another_session_id_closes() {
    for up in [false, true] {
        let mut bench = if up { Bench::up() } else { Bench::new() };
        if !up {
            bench.send(Opcode::HardResetClientV2, 0, &[]);
        }
        let mut stranger = Bench::new();
        let reset = stranger.peer.message(Opcode::HardResetClientV2, 0, &[]);
        bench.feed(reset);
        assert_eq!(bench.closed, Some(CloseReason::SecondSession));
    }
}

#[test]
fn the_last_flight_may_carry_the_key_exchange() {
    let mut bench = Bench::new();
    bench.send(Opcode::HardResetClientV2, 0, &[]);
    let mut flight = b"hello".to_vec();
    flight.extend(bench.key_exchange_bytes(0, ROUTER, Some("router"), Some("secret"), None));
    bench.send(Opcode::ControlV1, 0, &flight);
    bench.say(0, "PUSH_REQUEST");
    assert!(bench.is_up());
}

#[test]
fn a_key_exchange_in_many_pieces_and_a_request_in_the_same_bytes_are_understood() {
    let mut bench = Bench::new();
    bench.hello();
    let mut bytes = bench.key_exchange_bytes(0, ROUTER, Some("r"), Some("s"), Some("IV_PROTO=2\n"));
    bytes.extend(b"PUSH_REQUEST\0");
    // Cuts inside the random values, the options and the peer info, none between two strings.
    for piece in [&bytes[..60], &bytes[60..200], &bytes[200..bytes.len() - 20]] {
        bench.send_tls(0, piece);
        assert!(bench.asked.is_none());
    }
    bench.send_tls(0, &bytes[bytes.len() - 20..]);
    assert!(bench.is_up());
}

#[test]
fn a_push_request_before_the_verdict_is_answered_after_it_and_not_before() {
    let mut bench = Bench::new();
    bench.verdict = None;
    bench.assignment = None;
    bench.hello();
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    for _ in 0..3 {
        bench.say(0, "PUSH_REQUEST");
    }
    // T27: nothing of the tunnel exists before it is allowed.
    assert!(push_replies(&bench).is_empty() && bench.needs_address.is_none());
    assert_eq!(bench.session.sealed_len(100), 0);
    assert_eq!(bench.seal(&packet(1)), Err(SealRefused::NotUp));
    bench.feed(vec![0, 5, 0x30, 1, 2, 3, 4]);
    assert!(bench.inner.is_empty());
    assert_eq!(bench.session.stats().drop_no_key, 1);

    let ticket = bench.asked.as_ref().unwrap().0;
    bench.session.handle_verdict(bench.now, ticket, allow());
    bench.pump();
    assert!(push_replies(&bench).is_empty());
    let ticket = bench.needs_address.unwrap();
    bench.session.handle_assignment(bench.now, ticket, Ok(address()));
    bench.pump();
    assert_eq!(push_replies(&bench).len(), 1);
    assert!(bench.is_up());
}

#[test]
fn answers_with_a_dead_ticket_are_ignored() {
    let mut bench = Bench::new();
    bench.verdict = None;
    bench.hello();
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    let ticket = bench.asked.as_ref().unwrap().0;
    bench.session.handle_verdict(bench.now, Ticket(ticket.0 + 7), allow());
    bench.session.handle_assignment(bench.now, ticket, Ok(address()));
    bench.pump();
    assert!(bench.needs_address.is_none());
    bench.session.handle_verdict(bench.now, ticket, allow());
    bench.session.handle_verdict(bench.now, ticket, Verdict::Deny(DenyReason::Disabled));
    bench.pump();
    bench.say(0, "PUSH_REQUEST");
    assert!(bench.is_up());
    assert_eq!(bench.session.stats().stale_answers, 3);
}

#[test]
fn every_refused_login_sees_the_same_bytes_and_is_closed_after_the_linger() {
    for reason in [
        DenyReason::UnknownUser,
        DenyReason::WrongPassword,
        DenyReason::Disabled,
        DenyReason::CertificateMissing,
        DenyReason::CertificateMismatch,
        DenyReason::TooLong,
        DenyReason::BackOff,
        DenyReason::Clone,
        DenyReason::Unavailable,
    ] {
        let mut bench = Bench::new();
        bench.verdict = Some(Verdict::Deny(reason));
        bench.hello();
        bench.key_exchange(0, ROUTER, Some("router"), Some("wrong"), None);
        assert_eq!(failures(&bench), [None], "{reason:?}");
        // Nothing that the peer does postpones the end.
        for _ in 0..4 {
            bench.advance(seconds(1));
            bench.say(0, "PUSH_REQUEST");
            bench.feed(vec![0, 5, 0x30, 1, 2, 3, 4]);
            assert_eq!(bench.closed, None);
        }
        bench.advance(seconds(1));
        assert_eq!(bench.closed, Some(CloseReason::Denied(reason)));
        assert_eq!(bench.live_engines(), 0);
        assert!(push_replies(&bench).is_empty() && bench.inner.is_empty());
    }
}

#[test]
fn auth_failed_waits_until_the_client_has_the_key_exchange() {
    let mut bench = Bench::new();
    bench.verdict = Some(Verdict::Deny(DenyReason::WrongPassword));
    bench.hello();
    bench.peer.auto_ack = false;
    bench.key_exchange(0, ROUTER, Some("router"), Some("wrong"), None);
    assert!(failures(&bench).is_empty());
    bench.peer.auto_ack = true;
    let ack = bench.peer.ack(0).unwrap();
    bench.feed(ack);
    assert_eq!(failures(&bench), [None]);
}

#[test]
fn what_can_be_mended_is_told_to_the_client() {
    let cases = [
        (ROUTER.replace("AES-256-CBC", "BF-CBC"), "BF-CBC"),
        (ROUTER.replace("cipher AES-256-CBC", "cipher [null-cipher]"), "null-cipher"),
        (ROUTER.replace("dev-type tun", "dev-type tap"), "TAP"),
        (ROUTER.replace("keysize 256", "comp-lzo"), "compression"),
        (ROUTER.replace("auth SHA1", "auth [null-digest]"), "digest"),
    ];
    for (options, word) in cases {
        let mut bench = Bench::new();
        bench.hello();
        bench.key_exchange(0, &options, Some("router"), Some("secret"), None);
        let told = failures(&bench);
        let text = told.first().cloned().flatten().unwrap_or_default();
        assert!(text.contains(word), "{word}: {told:?}");
        assert!(bench.needs_address.is_none());
        bench.run(seconds(10));
        assert!(matches!(bench.closed, Some(CloseReason::Cipher(_))), "{:?}", bench.closed);
    }
}

#[test]
fn a_full_pool_has_its_own_sentence() {
    let mut bench = Bench::new();
    bench.assignment = Some(Err(AssignmentRefused::PoolFull));
    bench.hello();
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    assert_eq!(failures(&bench), [Some("Every address of the pool is taken.".to_owned())]);
    bench.run(seconds(10));
    assert_eq!(bench.closed.unwrap().code(), "pool_full");
}

#[test]
fn absent_and_oversized_credentials_reach_the_authenticator_as_such() {
    let mut bench = Bench::new();
    bench.hello();
    bench.key_exchange(0, ROUTER, None, None, None);
    let request = &bench.asked.as_ref().unwrap().1;
    assert!(request.username.is_empty() && request.password.is_empty() && !request.too_long);
    for (username, password, too_long) in [(128, 1000, false), (129, 10, true), (10, 1001, true)] {
        let mut bench = Bench::new();
        bench.hello();
        let (name, word) = ("u".repeat(username), "p".repeat(password));
        bench.key_exchange(0, ROUTER, Some(&name), Some(&word), None);
        let request = &bench.asked.as_ref().expect("asked in any case").1;
        assert_eq!(request.too_long, too_long, "{username}/{password}");
    }
}

#[test]
fn a_login_that_takes_too_long_is_closed() {
    for stage in 0..4 {
        let mut bench = Bench::new();
        bench.verdict = None;
        if stage > 0 {
            bench.send(Opcode::HardResetClientV2, 0, &[]);
        }
        if stage > 1 {
            bench.send(Opcode::ControlV1, 0, b"hello");
        }
        if stage > 2 {
            bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
        }
        bench.run(seconds(59));
        assert_eq!(bench.closed, None, "stage {stage}");
        bench.run(seconds(2));
        assert_eq!(bench.closed, Some(CloseReason::LoginTimeout), "stage {stage}");
        assert_eq!(bench.session.poll_timeout(), None);
    }
}

#[test]
fn a_failed_handshake_sends_its_alert_and_closes() {
    let mut bench = Bench::new();
    bench.hello();
    bench.send(Opcode::ControlV1, 0, b"alert");
    assert_eq!(bench.closed.as_ref().unwrap().code(), "tls");
    assert!(bench.peer.key(0).plain.ends_with(b"last words"));
}

#[test]
fn a_malformed_key_exchange_closes() {
    let mut bench = Bench::new();
    bench.hello();
    bench.send_tls(0, &[0, 0, 0, 0, 3, 1, 2, 3]);
    assert_eq!(bench.closed, Some(CloseReason::KeyExchange));
}

#[test]
fn repeated_push_requests_are_answered_once_a_second_while_the_engine_lives() {
    let mut bench = Bench::up();
    bench.say(0, "PUSH_REQUEST");
    assert_eq!(push_replies(&bench).len(), 1);
    bench.advance(seconds(1));
    bench.say(0, "PUSH_REQUEST");
    assert_eq!(push_replies(&bench).len(), 2);
    bench.say(0, "PUSH_REQUEST");
    assert_eq!(push_replies(&bench).len(), 2);
    assert_eq!(bench.session.stats().drop_push_request, 2);
    bench.advance(seconds(1));
    bench.say(0, "PUSH_REQUEST");
    assert_eq!(push_replies(&bench).len(), 2, "the linger is over");
    assert!(bench.is_up());
}

#[test]
fn unknown_and_malformed_commands_are_counted() {
    let mut bench = Bench::up();
    bench.say(0, "HELLO,WORLD");
    bench.say(0, "bad\x1b[2Jtext");
    bench.say(0, &"x".repeat(5000));
    assert_eq!(bench.session.stats().unknown_commands, 3);
    assert!(bench.is_up());
}
