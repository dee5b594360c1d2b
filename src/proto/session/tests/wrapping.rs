//! Control-channel wrapping, each kind from the first packet to a rekey.

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, KeyDirection, Metadata, Role, StaticKey, TlsCryptV2ServerKey,
};

use super::bench::*;
use crate::proto::session::*;
use crate::proto::wire::Opcode;

fn with_wrap(wrap: WrapConfig) -> SessionConfig {
    SessionConfig { wrap, ..config() }
}

fn static_key() -> StaticKey {
    StaticKey::generate(&mut fresh_random()).unwrap()
}

fn tls_auth() -> (WrapConfig, ControlWrap) {
    let key = static_key();
    let client = ControlWrap::tls_auth(&key, KeyDirection::Inverse, AuthDigest::Sha256);
    let direction = KeyDirection::Normal;
    (WrapConfig::TlsAuth { key, direction, digest: AuthDigest::Sha256 }, client)
}

fn tls_crypt() -> (WrapConfig, ControlWrap) {
    let key = static_key();
    let client = ControlWrap::tls_crypt(&key, Role::Client);
    (WrapConfig::TlsCrypt { key }, client)
}

fn rekey_works(bench: &mut Bench) {
    bench.send(Opcode::SoftResetV1, 1, &[]);
    bench.send(Opcode::ControlV1, 1, b"hello");
    bench.key_exchange(1, STOCK, Some("router"), Some("secret"), Some(STOCK_INFO));
    assert_eq!(bench.session.info().key_id, Some(1), "{:?}", bench.closed);
    bench.feed_packet(1, &packet(7));
    bench.seal(&packet(8)).unwrap();
    assert_eq!(bench.inner.last(), Some(&packet(7)));
    assert_eq!(bench.peer.inner.last(), Some(&(1, packet(8))));
}

#[test]
fn tls_auth_and_tls_crypt_carry_logins_and_rekeys() {
    for (wrap, client) in [tls_auth(), tls_crypt()] {
        let mut bench = Bench::with(with_wrap(wrap), |peer| peer.wrap = client);
        bench.stock_login();
        assert!(bench.peer.dynamic.is_some());
        rekey_works(&mut bench);
    }
}

#[test]
fn a_client_without_dynamic_wrapping_rekeys_under_the_static_key() {
    for (wrap, client) in [tls_auth(), tls_crypt()] {
        let mut bench = Bench::with(with_wrap(wrap), |peer| peer.wrap = client);
        bench.login();
        assert!(bench.peer.dynamic.is_none());
        rekey_works(&mut bench);
    }
}

#[test]
fn tls_crypt_v2_uses_the_clients_own_key() {
    let server_key = TlsCryptV2ServerKey::generate(&mut fresh_random()).unwrap();
    let key = static_key();
    let wkc = server_key.wrap_client_key(&key, &Metadata::Timestamp(1_700_000_000)).unwrap();
    let config = with_wrap(WrapConfig::TlsCryptV2 { server_key });
    let mut bench = Bench::with(config, |peer| {
        peer.wrap = ControlWrap::tls_crypt(&key, Role::Client);
        peer.wkc = wkc;
        peer.reset = Opcode::HardResetClientV3;
    });
    bench.send(Opcode::HardResetClientV3, 0, &[]);
    // The wrapped key may come again with a message, or with a repetition of the reset.
    let again = bench.peer.frame(Opcode::HardResetClientV3, 0, &[], Some(0), &[]);
    bench.feed(again);
    bench.send(Opcode::ControlWkcV1, 0, b"hello");
    bench.key_exchange(0, ROUTER, Some("router"), Some("secret"), None);
    bench.say(0, "PUSH_REQUEST");
    assert!(bench.is_up(), "{:?}", bench.closed);
    rekey_works(&mut bench);
}

#[test]
fn dynamic_wrapping_mixes_in_the_clients_own_key() {
    let server_key = TlsCryptV2ServerKey::generate(&mut fresh_random()).unwrap();
    let key = static_key();
    let wkc = server_key.wrap_client_key(&key, &Metadata::Timestamp(1_700_000_000)).unwrap();
    let config = with_wrap(WrapConfig::TlsCryptV2 { server_key });
    let mut bench = Bench::with(config, |peer| {
        peer.wrap = ControlWrap::tls_crypt(&key, Role::Client);
        peer.wkc = wkc;
        peer.reset = Opcode::HardResetClientV3;
    });
    bench.stock_login();
    let dynamic = bench.facts.values().next().unwrap().1.duplicate();
    bench.peer.dynamic = Some(ControlWrap::dynamic_tls_crypt(&dynamic, Some(&key), Role::Client));
    rekey_works(&mut bench);
}

#[test]
fn a_first_packet_of_the_wrong_kind_is_met_with_silence() {
    let server_key = TlsCryptV2ServerKey::generate(&mut fresh_random()).unwrap();
    let servers: [fn() -> WrapConfig; 3] = [|| WrapConfig::None, || tls_auth().0, || tls_crypt().0];
    let clients: [fn() -> ControlWrap; 3] = [ControlWrap::none, || tls_auth().1, || tls_crypt().1];
    for (i, server) in servers.iter().enumerate() {
        for (j, client) in clients.iter().enumerate() {
            // The keys differ in each call, so equal kinds do not fit, either, except none.
            if i == 0 && j == 0 {
                continue;
            }
            let mut bench = Bench::with(with_wrap(server()), |peer| peer.wrap = client());
            bench.send(Opcode::HardResetClientV2, 0, &[]);
            assert_eq!(bench.closed, Some(CloseReason::FirstPacket), "{i} {j}");
            assert_eq!(bench.session.stats().link_tx_bytes, 0);
            assert_eq!(bench.opened, 0);
        }
    }
    // A client without its wrapped key on a tls-crypt-v2 listener, and the other way round.
    let mut bench = Bench::with(with_wrap(WrapConfig::TlsCryptV2 { server_key }), |_| {});
    bench.send(Opcode::HardResetClientV2, 0, &[]);
    assert_eq!(bench.closed, Some(CloseReason::FirstPacket));
    let mut bench = Bench::with(config(), |peer| peer.reset = Opcode::HardResetClientV3);
    bench.send(Opcode::HardResetClientV3, 0, &[]);
    assert_eq!(bench.closed, Some(CloseReason::FirstPacket));
}

#[test]
fn a_forged_or_replayed_control_packet_closes() {
    for replay in [false, true] {
        let (wrap, client) = tls_crypt();
        let mut bench = Bench::with(with_wrap(wrap), |peer| peer.wrap = client);
        bench.login();
        let mut frame = bench.peer.message(Opcode::ControlV1, 0, b"x\0");
        if replay {
            bench.feed(frame.clone());
            assert_eq!(bench.closed, None);
        } else {
            *frame.last_mut().unwrap() ^= 1;
        }
        bench.feed(frame);
        assert_eq!(bench.closed, Some(CloseReason::ControlWrap));
    }
}

#[test]
fn a_wrapped_key_on_another_listener_closes() {
    let mut bench = Bench::up();
    bench.send(Opcode::ControlWkcV1, 0, b"x\0");
    assert_eq!(bench.closed, Some(CloseReason::UnexpectedPacket));
}
