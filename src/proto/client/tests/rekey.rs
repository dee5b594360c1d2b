//! Renegotiations by either side.

use std::time::Duration;

use tunnelhead_crypto::{ControlWrap, FastRandom, KeyBlock, Role, StaticKey};

use super::super::{ClientConfig, ClientEvent, ClientWrap, SwitchPolicy};
use super::stage::{CBC, GCM, PUSH, Stage, router};
use crate::proto::session::TlsOp;
use crate::proto::wire::Opcode;

/// Brings a client to its first connection and through one renegotiation.
fn rekeyed(mut config: ClientConfig, by_server: bool) -> Stage {
    config.hand_window = Duration::from_secs(60);
    let mut stage = Stage::new(config);
    stage.log_in(false, CBC);
    stage.push(PUSH);
    stage.take_tasks();
    stage.acknowledge();
    rekey(&mut stage, 1, 1, by_server);
    stage
}

fn rekey(stage: &mut Stage, key: u8, engine: u32, by_server: bool) {
    stage.next_id[usize::from(key)] = 0;
    stage.data.retain(|(id, _)| *id != key);
    if by_server {
        stage.message(key, Opcode::SoftResetV1, &[], b"");
        let sent = stage.sent();
        assert_eq!(sent, [(key, Opcode::SoftResetV1, Some(0), vec![0], vec![])]);
        stage.say(key, Opcode::AckV1, None, &[0], b"");
    } else {
        assert!(stage.client.start_rekey(stage.now));
        assert!(!stage.client.start_rekey(stage.now), "one at a time");
        let sent = stage.sent();
        assert_eq!(sent, [(key, Opcode::SoftResetV1, Some(0), vec![], vec![])]);
        stage.message(key, Opcode::SoftResetV1, &[0], b"");
    }
    stage.exchange(key, engine, false, CBC);
}

#[test]
fn a_renegotiation_by_either_side_makes_new_keys_without_a_push() {
    for by_server in [false, true] {
        let stage = rekeyed(router(), by_server);
        let changed = |e: &ClientEvent| matches!(e, ClientEvent::KeysChanged { key_id: 1 });
        assert!(stage.events.iter().any(changed));
        assert_eq!(stage.violations(), Vec::<&str>::new());
        assert_eq!(stage.client.stats().rekeys, 1);
    }
}

#[test]
fn both_keys_receive_and_the_send_key_switches_by_policy() {
    let mut slow = rekeyed(router(), false);
    for key in [1, 0, 1, 0] {
        let mut packet = slow.sealed(key, None, b"x");
        slow.give(&mut packet);
    }
    assert_eq!((slow.inner.len(), slow.violations().len()), (4, 0));
    slow.inner.clear();
    assert_eq!(slow.send(b"y"), 0);
    slow.advance(Duration::from_secs(60));
    assert_eq!(slow.send(b"y"), 1);

    let mut quick = rekeyed(ClientConfig { switch: SwitchPolicy::Immediately, ..router() }, true);
    assert_eq!(quick.send(b"y"), 1);
}

#[test]
fn key_ids_go_round_and_the_oldest_key_is_dropped() {
    let mut stage = rekeyed(router(), false);
    for (engine, key) in (2..).zip([2_u8, 3, 4, 5, 6, 7, 1, 2]) {
        rekey(&mut stage, key, engine, engine % 2 == 0);
        stage.take_tasks();
        assert_eq!(stage.engines_closed, usize::try_from(engine).unwrap() - 1);
        let mut packet = stage.sealed(key, None, b"x");
        stage.give(&mut packet);
        stage.inner.clear();
        stage.now += Duration::from_secs(60);
        assert_eq!(stage.send(b"y"), key);
    }
    assert_eq!(stage.violations(), Vec::<&str>::new());
    stage.advance(Duration::from_secs(0));
    let mut old = stage.sealed(7, None, b"x");
    stage.give(&mut old);
    assert_eq!(stage.violations(), ["a data packet of key 7, which does not exist"]);
}

#[test]
fn an_old_key_expires() {
    let mut stage = rekeyed(router(), false);
    for _ in 0..50 {
        let mut packet = stage.sealed(1, None, b"x");
        stage.give(&mut packet);
        stage.advance(Duration::from_secs(80));
    }
    assert!(stage.take_tasks().iter().any(|task| matches!(task.op, TlsOp::Close)));
    let mut old = stage.sealed(0, None, b"x");
    stage.give(&mut old);
    assert_eq!(stage.violations(), ["a data packet of key 0, which does not exist"]);
}

#[test]
fn a_client_starts_its_own_renegotiations_on_time() {
    let rekey_after = Some(Duration::from_secs(50));
    let mut stage = Stage::new(ClientConfig { rekey_after, ..router() });
    stage.log_in(false, CBC);
    stage.push(PUSH);
    stage.acknowledge();
    stage.advance(Duration::from_secs(49));
    assert!(stage.sent().is_empty());
    stage.advance(Duration::from_secs(1));
    assert_eq!(stage.sent()[0].1, Opcode::SoftResetV1);
}

#[test]
fn both_sides_may_start_at_once() {
    let mut stage = Stage::new(router());
    stage.log_in(false, CBC);
    stage.push(PUSH);
    stage.acknowledge();
    stage.take_tasks();
    assert!(stage.client.start_rekey(stage.now));
    stage.message(1, Opcode::SoftResetV1, &[], b"");
    let sent = stage.sent();
    assert_eq!(sent, [(1, Opcode::SoftResetV1, Some(0), vec![0], vec![])]);
    stage.say(1, Opcode::AckV1, None, &[0], b"");
    stage.exchange(1, 1, false, CBC);
    assert_eq!(stage.violations(), Vec::<&str>::new());
    assert_eq!(stage.client.stats().rekeys, 1);
}

#[test]
fn a_dynamic_key_wraps_renegotiations_only() {
    let key = || StaticKey::generate(&mut FastRandom::from_seed([1; 32])).unwrap();
    for wrapped in [false, true] {
        let wrap = if wrapped { ClientWrap::TlsCrypt { key: key() } } else { ClientWrap::None };
        let mut stage = Stage::new(ClientConfig { wrap, ..ClientConfig::default() });
        stage.log_in(true, GCM);
        let flags = "cipher AES-256-GCM,protocol-flags tls-ekm dyn-tls-crypt";
        stage.push(&format!("{PUSH},{flags}"));
        stage.acknowledge();
        let exported = KeyBlock::from_bytes([0xba; 256]);
        let original = key();
        let original = wrapped.then_some(&original);
        stage.dynamic = Some(ControlWrap::dynamic_tls_crypt(&exported, original, Role::Server));
        assert!(stage.client.start_rekey(stage.now));
        assert_eq!(stage.sent()[0].1, Opcode::SoftResetV1);
        stage.message(1, Opcode::SoftResetV1, &[0], b"");
        stage.take_tasks();
        stage.exchange(1, 1, true, GCM);
        assert_eq!(stage.client.stats().rekeys, 1);
        assert_eq!(stage.violations(), Vec::<&str>::new());
    }
}
