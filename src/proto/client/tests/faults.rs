//! What a server must not do, and what the client says to it.

use super::super::{ClientConfig, Quirks};
use super::stage::{CBC, GCM, PUSH, Stage, router};
use crate::proto::wire::Opcode;

#[test]
fn each_thing_that_a_server_must_not_do_is_reported() {
    type Break = fn(&mut Stage);
    let cases: [(&str, Break); 12] = [
        ("acknowledged twice", |s| s.say(0, Opcode::AckV1, None, &[0], b"")),
        ("never sent", |s| s.say(0, Opcode::AckV1, None, &[900], b"")),
        ("acknowledgements in one packet", |s| {
            s.say(0, Opcode::AckV1, None, &[900, 901, 902, 903, 904], b"");
        }),
        ("came where", |s| s.say(0, Opcode::ControlV1, Some(900), &[], b"x")),
        ("came where", |s| s.say(0, Opcode::ControlV1, Some(1), &[], b"x")),
        ("TLS bytes in one packet", |s| s.message(0, Opcode::ControlV1, &[], &[0; 1101])),
        ("unacknowledged at once", |s| {
            for _ in 0..5 {
                s.message(0, Opcode::ControlV1, &[], b"x");
            }
        }),
        ("which does not exist", |s| s.say(5, Opcode::ControlV1, Some(0), &[], b"x")),
        ("is not in its place", |s| s.message(0, Opcode::SoftResetV1, &[], b"")),
        ("unexpected HardResetServerV2", |s| s.message(0, Opcode::HardResetServerV2, &[], b"")),
        ("a frame of length 0", |s| s.give(&mut [0, 0])),
        ("a frame of 2000 bytes", |s| {
            let mut long = vec![0; 2002];
            long[..3].copy_from_slice(&[0x07, 0xd0, 0x30]);
            s.give(&mut long);
        }),
    ];
    for (what, break_it) in cases {
        let mut stage = Stage::new(router());
        stage.log_in(false, CBC);
        stage.push(PUSH);
        stage.acknowledge();
        assert!(stage.violations().is_empty());
        break_it(&mut stage);
        let found = stage.violations();
        assert!(found.iter().any(|text| text.contains(what)), "{what}: {found:?}");
    }
}

#[test]
fn data_must_be_authentic_in_sequence_and_of_a_known_form() {
    type Break = fn(&mut Stage);
    let cases: [(&str, Break); 5] = [
        ("not authentic", |s| {
            let mut packet = s.sealed(0, None, b"x");
            *packet.last_mut().unwrap() ^= 1;
            s.give(&mut packet);
        }),
        ("replay", |s| {
            let mut packet = s.sealed(0, None, b"x");
            let mut again = packet.clone();
            s.give(&mut packet);
            s.give(&mut again);
        }),
        ("came where 1 was due", |s| {
            drop(s.sealed(0, None, b"lost"));
            let mut packet = s.sealed(0, None, b"x");
            s.give(&mut packet);
        }),
        ("peer id, which was not announced", |s| {
            let mut packet = s.sealed(0, Some(0), b"x");
            s.give(&mut packet);
        }),
        ("key 3, which does not exist", |s| {
            let mut packet = s.sealed(0, None, b"x");
            packet[2] |= 3;
            s.give(&mut packet);
        }),
    ];
    for (what, break_it) in cases {
        let mut stage = Stage::new(router());
        stage.log_in(false, CBC);
        stage.push(PUSH);
        break_it(&mut stage);
        let found = stage.violations();
        assert!(found.iter().any(|text| text.contains(what)), "{what}: {found:?}");
    }
}

#[test]
fn data_before_the_push_reply_is_a_violation() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    let mut packet = stage.sealed(0, None, b"x");
    stage.give(&mut packet);
    assert_eq!(stage.violations(), ["a data packet of key 0, which does not exist"]);
}

#[test]
fn a_push_reply_must_fit_the_client() {
    let router_with = |quirks| ClientConfig { quirks, ..router() };
    let mut unasked = Stage::new(router());
    unasked.sent();
    unasked.message(0, Opcode::HardResetServerV2, &[0], b"");
    unasked.exchange(0, 0, false, CBC);
    unasked.push(PUSH);
    assert_eq!(unasked.violations(), ["a push reply that was not asked for"]);

    let mut foreign = Stage::new(ClientConfig::default());
    foreign.log_in(false, GCM);
    foreign.push(&format!("{PUSH},cipher AES-192-CBC"));
    assert_eq!(foreign.violations(), ["the pushed cipher AES-192-CBC was not offered"]);

    let quirks = Quirks { stalls_on_routes: true, ..Quirks::default() };
    let mut stalled = Stage::new(router_with(quirks));
    stalled.log_in(false, CBC);
    stalled.push(&format!("{PUSH}{}", ",route 1.1.1.1".repeat(33)));
    assert!(!stalled.connected() && stalled.closed().is_none());
    assert_eq!(stalled.client.poll_timeout(), None);

    let quirks = Quirks { ifconfig_is_netmask: true, ..Quirks::default() };
    let mut wrong = Stage::new(router_with(quirks));
    wrong.log_in(false, CBC);
    wrong.push("PUSH_REPLY,topology net30,ifconfig 10.8.0.6 10.8.0.5");
    assert_eq!(wrong.closed(), Some("the pushed netmask is none"));
}
