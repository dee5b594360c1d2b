//! Sessions written out and read back.

use std::sync::Arc;

use proptest::prelude::*;
use tunnelhead_crypto::{ControlWrap, Role, StaticKey};

use super::bench::*;
use crate::proto::session::data_channel::PING;
use crate::proto::session::*;
use crate::proto::wire::Opcode;

impl Bench {
    pub(super) fn exported(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.session.export(self.now, &mut bytes).unwrap();
        bytes
    }

    /// Replaces the session by one read back from its export, as a successor process would. The
    /// moments of that process have nothing to do with those of this one.
    pub(super) fn hand_over(&mut self) {
        let bytes = self.exported();
        self.now += seconds(1_000_000);
        self.session = Session::import(Arc::clone(&self.config), self.now, &bytes).unwrap();
        // The driver drops the engines of the session that is gone.
        self.forget_engines();
        assert_eq!(self.exported(), bytes, "exporting again gives the same bytes");
    }
}

#[test]
fn a_session_goes_on_after_a_hand_over() {
    for stock in [false, true] {
        let mut bench = if stock { Bench::stock_up() } else { Bench::up() };
        bench.feed_packet(0, &PING);
        bench.feed_packet(0, &packet(1));
        bench.seal(&packet(2)).unwrap();
        let (before, phase) = (bench.session.info(), Phase::Up);
        bench.hand_over();
        let after = bench.session.info();
        assert_eq!((after.phase, after.generation), (phase, before.generation));
        assert_eq!((after.identity, after.address), (before.identity, before.address));
        assert_eq!((after.cipher, after.digest), (before.cipher, before.digest));
        assert_eq!((after.options, after.peer_info), (before.options, before.peer_info));
        assert_eq!((after.tls_version, after.stats), (before.tls_version, before.stats));
        assert_eq!(after.dynamic_wrap, stock);
        bench.feed_packet(0, &packet(3));
        bench.seal(&packet(4)).unwrap();
        assert_eq!(bench.inner, [packet(1), packet(3)]);
        assert_eq!(bench.peer.inner, [(0, packet(2)), (0, packet(4))]);
        // Late control messages: acknowledged, nothing else.
        bench.say(0, "PUSH_REQUEST");
        assert_eq!(bench.session.stats().after_linger, 1);
        assert!(bench.is_up());
    }
}

#[test]
fn rekeys_work_after_a_hand_over_and_between_two() {
    let key = StaticKey::generate(&mut fresh_random()).unwrap();
    let client = ControlWrap::tls_crypt(&key, Role::Client);
    let wrap = WrapConfig::TlsCrypt { key };
    let mut bench = Bench::with(SessionConfig { wrap, ..config() }, |peer| peer.wrap = client);
    bench.stock_login();
    for key_id in [1, 2, 3] {
        bench.hand_over();
        bench.send(Opcode::SoftResetV1, key_id, &[]);
        bench.send(Opcode::ControlV1, key_id, b"hello");
        bench.key_exchange(key_id, STOCK, Some("router"), Some("secret"), Some(STOCK_INFO));
        assert_eq!(bench.session.info().key_id, Some(key_id));
        bench.hand_over();
        // The old key is still valid, too.
        bench.feed_packet(key_id - 1, &packet(1));
        bench.feed_packet(key_id, &packet(2));
        bench.seal(&packet(3)).unwrap();
        assert_eq!(bench.peer.inner.last(), Some(&(key_id, packet(3))));
    }
    assert_eq!(bench.inner.len(), 6);
    // The credential travels as well.
    bench.hand_over();
    bench.send(Opcode::SoftResetV1, 4, &[]);
    bench.send(Opcode::ControlV1, 4, b"hello");
    bench.key_exchange(4, STOCK, Some("router"), Some("other"), Some(STOCK_INFO));
    assert_eq!(bench.closed, Some(CloseReason::CredentialChanged));
}

#[test]
fn replays_are_recognised_after_a_hand_over() {
    let mut bench = Bench::up();
    let frame = bench.peer.data(0, &packet(1));
    bench.feed(frame.clone());
    bench.hand_over();
    bench.feed(frame);
    assert_eq!(bench.closed, Some(CloseReason::DataReplay));
}

#[test]
fn deadlines_travel_as_what_is_left_of_them() {
    let mut bench = Bench::up();
    bench.feed_packet(0, &PING);
    bench.run(seconds(15));
    bench.hand_over();
    bench.run(seconds(4));
    assert_eq!(bench.session.stats().pings_tx, 0);
    bench.run(seconds(1));
    assert_eq!(bench.session.stats().pings_tx, 1);
    bench.run(seconds(50));
    bench.hand_over();
    bench.run(seconds(19));
    assert_eq!(bench.closed, None);
    bench.run(seconds(1));
    assert_eq!(bench.closed, Some(CloseReason::PeerDead));

    let mut bench = Bench::up();
    bench.send(Opcode::SoftResetV1, 1, &[]);
    bench.send(Opcode::ControlV1, 1, b"hello");
    bench.key_exchange(1, ROUTER, Some("router"), Some("secret"), None);
    bench.run(seconds(3000));
    bench.hand_over();
    bench.run(seconds(599));
    bench.feed_packet(0, &packet(1));
    bench.run(seconds(2));
    bench.feed_packet(0, &packet(2));
    assert_eq!((bench.inner.len(), bench.session.stats().drop_no_key), (1, 1));
}

#[test]
fn a_partial_frame_and_a_waiting_ping_travel() {
    let mut bench = Bench::up();
    bench.run(seconds(3));
    let frame = bench.peer.data(0, &packet(1));
    let (head, tail) = frame.split_at(9);
    bench.feed(head.to_vec());
    bench.now += seconds(20);
    let result = bench.session.handle_timeout(bench.now, &mut bench.rng);
    bench.note(result);
    bench.hand_over();
    bench.feed(tail.to_vec());
    assert_eq!(bench.inner, [packet(1)]);
    assert_eq!(bench.peer.inner, [(0, PING.to_vec())]);
}

#[test]
fn only_a_quiet_session_that_is_up_can_be_written_out() {
    let refused = |bench: &Bench| bench.session.export(bench.now, &mut Vec::new()).unwrap_err();
    let mut bench = Bench::new();
    assert_eq!(refused(&bench), ExportRefused::NotUp);
    bench.hello();
    assert_eq!(refused(&bench), ExportRefused::NotUp);
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.peer.auto_ack = false;
    bench.say(0, "PUSH_REQUEST");
    assert_eq!(refused(&bench), ExportRefused::NotUp);

    let mut bench = Bench::up();
    bench.hold_tls = true;
    bench.say(0, "PUSH_REQUEST");
    assert_eq!(refused(&bench), ExportRefused::Busy);
    bench.hold_tls = false;
    bench.pump();
    bench.exported();
    bench.send(Opcode::SoftResetV1, 1, &[]);
    assert_eq!(refused(&bench), ExportRefused::Rekeying);
    bench.session.shut(bench.now, Shut::Quiet);
    assert_eq!(refused(&bench), ExportRefused::NotUp);
}

#[test]
fn damaged_exports_are_refused() {
    let bench = Bench::stock_up();
    let bytes = bench.exported();
    let import = |bytes: &[u8]| Session::import(Arc::clone(&bench.config), bench.now, bytes);
    import(&bytes).unwrap();
    for len in 0..bytes.len() {
        assert!(import(&bytes[..len]).is_err(), "cut at {len}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(import(&longer).is_err());
    let mut newer = bytes;
    newer[0] += 1;
    assert!(matches!(import(&newer), Err(ImportError::Version(3))));
}

#[test]
fn the_certificate_and_its_chain_travel() {
    let id = |serial: &str| CertificateId { issuer_hash: [7; 32], serial: serial.into() };
    let mut bench = Bench::new();
    bench.certificate = Some(ClientCertificate {
        common_name: b"router".to_vec(),
        fingerprint: [1; 32],
        serial: "0abc".into(),
        issuer_hash: [2; 32],
        intermediates: vec![id("01"), id("02")],
    });
    bench.login();
    let before = bench.session.info().certificate;
    bench.hand_over();
    assert_eq!(bench.session.info().certificate, before);
    assert_eq!(before.unwrap().intermediates.len(), 2);
}

/// What happens between two moments of a session.
#[derive(Clone, Debug)]
enum Step {
    FromPeer(u8),
    ToPeer(u8),
    HandOver,
    Rekey { by_us: bool },
    Pass(u8),
    Late,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..20_u8).prop_map(Step::FromPeer),
        4 => (1..20_u8).prop_map(Step::ToPeer),
        3 => Just(Step::HandOver),
        1 => any::<bool>().prop_map(|by_us| Step::Rekey { by_us }),
        2 => (1..80_u8).prop_map(Step::Pass),
        1 => Just(Step::Late),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Nothing is lost, repeated or re-used: the peer insists on rising packet ids, the session on
    /// fresh ones, and both on every packet.
    #[test]
    fn hand_overs_amid_traffic_lose_nothing(
        stock in any::<bool>(),
        steps in prop::collection::vec(any_step(), 1..40),
        chunk in 1..200_usize,
    ) {
        let mut bench = if stock { Bench::stock_up() } else { Bench::up() };
        let (mut number, mut current) = (0, 0_u8);
        let (mut to_us, mut to_peer) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::FromPeer(count) => {
                    let mut stream = Vec::new();
                    for _ in 0..count {
                        number += 1;
                        to_us.push(packet(number));
                        stream.extend(bench.peer.data(current, &packet(number)));
                    }
                    // A hand-over in the middle of the stream, most likely in a frame.
                    for piece in stream.chunks(chunk) {
                        bench.feed(piece.to_vec());
                        bench.hand_over();
                    }
                }
                Step::ToPeer(count) => {
                    for _ in 0..count {
                        number += 1;
                        to_peer.push(packet(number));
                        bench.seal(&packet(number)).unwrap();
                    }
                }
                Step::HandOver => bench.hand_over(),
                Step::Rekey { by_us } => {
                    current = if current == 7 { 1 } else { current + 1 };
                    bench.peer.keys.remove(&current);
                    if by_us {
                        bench.session.start_rekey(bench.now).unwrap();
                        bench.pump();
                    }
                    bench.send(Opcode::SoftResetV1, current, &[]);
                    bench.send(Opcode::ControlV1, current, b"hello");
                    let (options, info) =
                        if stock { (STOCK, Some(STOCK_INFO)) } else { (ROUTER, None) };
                    bench.key_exchange(current, options, Some("router"), Some("secret"), info);
                    prop_assert_eq!(bench.session.info().key_id, Some(current));
                    bench.now += seconds(3);
                }
                Step::Pass(time) => bench.run(seconds(u64::from(time))),
                Step::Late => bench.say(0, "PUSH_REQUEST"),
            }
            prop_assert_eq!(&bench.closed, &None);
        }
        prop_assert_eq!(bench.inner, to_us);
        let received: Vec<Vec<u8>> = bench
            .peer
            .inner
            .into_iter()
            .map(|(_, packet)| packet)
            .filter(|packet| packet[..] != PING)
            .collect();
        prop_assert_eq!(received, to_peer);
    }

    #[test]
    fn hostile_exports_are_refused_or_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bench = Bench::stock_up();
        let mut bytes = bench.exported();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(session) = Session::import(Arc::clone(&bench.config), bench.now, &bytes) {
            bench.forget_engines();
            bench.session = session;
            let frame = bench.peer.data(0, &packet(1));
            let mut hostile = frame;
            let _ = bench.session.handle_link(bench.now, &mut hostile, &mut |_| {});
            let _ = bench.session.seal(bench.now, &packet(2), &mut bench.rng, &mut Vec::new());
            for _ in 0..20 {
                let Some(due) = bench.session.poll_timeout() else { break };
                bench.now = bench.now.max(due);
                let _ = bench.session.handle_timeout(bench.now, &mut bench.rng);
                bench.session.poll_transmit(bench.now, &mut Vec::new());
            }
            let _ = bench.session.info();
        }
    }
}
