//! From the first packet to a tunnel that is up.

use std::time::Duration;

use tunnelhead_crypto::{AuthDigest, FastRandom, KeyDirection, StaticKey};

use super::super::{ClientConfig, ClientWrap, Quirks, SendRefused};
use super::stage::{CBC, GCM, PUSH, Stage, router};
use crate::proto::control::Message;
use crate::proto::session::TlsOp;
use crate::proto::wire::Opcode;

#[test]
fn an_old_router_logs_in_and_passes_packets() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    stage.push(PUSH);
    assert!(stage.connected(), "{:?}", stage.events);
    let mut packet = stage.sealed(0, None, b"to the router");
    stage.give(&mut packet);
    assert_eq!(stage.inner.pop().as_deref(), Some(&b"to the router"[..]));
    assert_eq!(stage.send(b"from the router"), 0);
    assert_eq!(stage.violations(), Vec::<&str>::new());
}

#[test]
fn a_stock_client_uses_exported_keys_and_the_peer_id() {
    let mut stage = Stage::new(ClientConfig::default());
    stage.log_in(true, GCM);
    stage.push(&format!(
        "{PUSH},peer-id 3,cipher AES-256-GCM,protocol-flags tls-ekm dyn-tls-crypt,tun-mtu 1500"
    ));
    assert!(stage.connected());
    let mut packet = stage.sealed(0, Some(0), b"down");
    stage.give(&mut packet);
    assert_eq!(stage.inner.pop().as_deref(), Some(&b"down"[..]));
    let mut out = Vec::new();
    stage.client.send_packet(stage.now, b"up", &mut stage.rng, &mut out).unwrap();
    assert_eq!(out[2..6], [0x48, 0, 0, 3]);
    assert_eq!(stage.violations(), Vec::<&str>::new());
}

#[test]
fn the_handshake_starts_as_each_profile_does() {
    let mut plain = Stage::new(router());
    assert_eq!(plain.sent(), [(0, Opcode::HardResetClientV2, Some(0), vec![], vec![])]);
    assert!(plain.client.poll_event().is_none(), "TLS waits for the acknowledged reset");
    plain.message(0, Opcode::HardResetServerV2, &[], b"");
    assert!(plain.events.is_empty(), "a reset without the acknowledgement stalls");
    plain.say(0, Opcode::AckV1, None, &[0], b"");
    let tasks = plain.take_tasks();
    assert!(matches!(tasks[0].op, TlsOp::Open));
    assert!(matches!(&tasks[1].op, TlsOp::Input(bytes) if bytes.is_empty()));
    assert_eq!(plain.sent(), [(0, Opcode::AckV1, None, vec![0], vec![])]);

    let quirks = Quirks { second_reset: true, ..Quirks::default() };
    let mut old = Stage::new(ClientConfig { quirks, ..router() });
    let ids: Vec<_> = old.sent().into_iter().map(|(_, opcode, id, _, _)| (opcode, id)).collect();
    let reset = Opcode::HardResetClientV2;
    assert_eq!(ids, [(reset, Some(0)), (reset, Some(1))]);
    old.message(0, Opcode::HardResetServerV2, &[0, 1], b"");
    old.tls(0, b"", b"hello", false);
    let hello = (0, Opcode::ControlV1, Some(2), vec![0], b"hello".to_vec());
    assert_eq!(old.sent(), [hello]);

    let quirks = Quirks { early_hello: true, ..Quirks::default() };
    let mut early = Stage::new(ClientConfig { quirks, ..router() });
    early.events.extend(std::iter::from_fn(|| early.client.poll_event()));
    assert_eq!(early.take_tasks().len(), 2);
    early.tls(0, b"", b"hello", false);
    let sent = early.sent();
    assert_eq!(sent[0].1, reset);
    assert_eq!(sent[1], (0, Opcode::ControlV1, Some(1), vec![], b"hello".to_vec()));
    early.message(0, Opcode::HardResetServerV2, &[0, 1], b"");
    assert!(early.take_tasks().is_empty(), "TLS is not opened twice");
}

#[test]
fn every_wrapping_carries_the_handshake() {
    let key = || StaticKey::generate(&mut FastRandom::from_seed([1; 32])).unwrap();
    for wrap in [
        ClientWrap::TlsAuth {
            key: key(),
            direction: KeyDirection::Inverse,
            digest: AuthDigest::Sha256,
        },
        ClientWrap::TlsCrypt { key: key() },
    ] {
        let mut stage = Stage::new(ClientConfig { wrap, ..router() });
        stage.log_in(false, CBC);
        stage.push(PUSH);
        assert!(stage.connected());
    }
}

#[test]
fn key_method_2_holds_what_the_profile_sends() {
    let mut stage = Stage::new(router());
    stage.sent();
    stage.message(0, Opcode::HardResetServerV2, &[0], b"");
    stage.tls(0, b"", b"", true);
    let message = stage.key_method2();
    assert_eq!(message.username.as_deref(), Some(&b"bob"[..]));
    assert_eq!(message.password.map(|p| p.expose().to_vec()), Some(b"secret".to_vec()));
    assert!(message.options.contains("cipher AES-256-CBC,auth SHA1,keysize 256"));
    assert_eq!(message.peer_info, None);
}

#[test]
fn push_requests_repeat_until_the_reply_and_then_stop() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    for _ in 0..3 {
        stage.advance(Duration::from_secs(5));
        assert_eq!(stage.take_tasks().len(), 1);
    }
    stage.push(PUSH);
    stage.advance(Duration::from_secs(5));
    assert!(stage.take_tasks().is_empty());
    assert_eq!(stage.client.stats().push_requests, 4);
    let mut silent = Stage::new(router());
    silent.log_in(false, CBC);
    silent.advance(Duration::from_secs(60));
    assert_eq!(silent.closed(), Some("no push reply came"));
}

#[test]
fn a_negotiation_that_hangs_is_given_up() {
    let mut stage = Stage::new(router());
    assert_eq!(stage.client.poll_timeout(), Some(stage.now + Duration::from_secs(60)));
    stage.advance(Duration::from_secs(60));
    assert_eq!(stage.closed(), Some("the key negotiation took too long"));
    assert_eq!(stage.client.poll_timeout(), None);
}

#[test]
fn answers_of_the_server_become_events() {
    for (message, expected) in [
        (Message::AuthFailed(Some("no".into())), "AuthFailed(Some(\"no\"))"),
        (Message::Restart(None), "Restart(None)"),
        (Message::Halt(None), "Halt(None)"),
        (Message::Exit, "Exit"),
    ] {
        let mut stage = Stage::new(router());
        stage.log_in(false, CBC);
        stage.push(&message.to_text());
        assert_eq!(format!("{:?}", stage.events[0]), expected);
        assert!(stage.closed().is_some() && stage.violations().is_empty());
    }
}

#[test]
fn pings_go_out_in_silence_and_a_silent_server_is_dead() {
    let mut stage = Stage::new(ClientConfig { pings: true, ..router() });
    stage.log_in(false, CBC);
    stage.push(PUSH);
    // The exchange was the last to be sent, one second before the push.
    stage.advance(Duration::from_secs(18));
    stage.sent();
    assert!(stage.inner.is_empty());
    stage.advance(Duration::from_secs(1));
    stage.sent();
    assert_eq!(stage.inner.len(), 1);
    let mut ping = stage.sealed(0, None, &stage.inner[0].clone());
    stage.give(&mut ping);
    assert_eq!((stage.inner.len(), stage.client.stats().pings_in), (1, 1), "swallowed");
    for _ in 0..5 {
        stage.advance(Duration::from_secs(18));
    }
    assert_eq!(stage.closed(), Some("the server is silent"));

    let mut quiet = Stage::new(router());
    quiet.log_in(false, CBC);
    quiet.push(PUSH);
    quiet.advance(Duration::from_secs(88));
    quiet.sent();
    assert!(quiet.inner.is_empty() && quiet.closed().is_none());
}

#[test]
fn a_client_that_repeats_acknowledgements_does_so() {
    let quirks = Quirks { repeat_acks: true, ..Quirks::default() };
    let mut stage = Stage::new(ClientConfig { quirks, ..ClientConfig::default() });
    stage.sent();
    stage.message(0, Opcode::HardResetServerV2, &[0], b"");
    assert_eq!(stage.sent()[0].3, [0]);
    stage.message(0, Opcode::ControlV1, &[], b"a");
    assert_eq!(stage.sent()[0].3, [1, 0]);
    stage.message(0, Opcode::ControlV1, &[], b"b");
    assert_eq!(stage.sent()[0].3, [2, 1, 0]);
}

#[test]
fn a_closed_client_does_nothing_more() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    stage.push("HALT");
    let events = stage.events.len();
    stage.push(PUSH);
    stage.advance(Duration::from_secs(100));
    assert_eq!(stage.events.len(), events);
    let mut out = Vec::new();
    let refused = stage.client.send_packet(stage.now, b"x", &mut stage.rng, &mut out);
    assert_eq!(refused, Err(SendRefused::NotConnected));
}
