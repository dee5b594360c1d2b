//! Authentic packets damaged, replayed and made up.

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataCipher, DataHeader, DataKeys, FastRandom, KeyBlock, KeyDirection,
    Metadata, NonceAuditor, Role, StaticKey, TlsCryptV2ServerKey,
};

use super::{Input, damage};

/// Data packets of every cipher: authentic ones open once, others never.
pub fn data_open(data: &[u8]) {
    // Every run uses the same keys with the same packet ids, on purpose.
    let _apart = NonceAuditor::isolate();
    let mut input = Input(data);
    let cipher = input.pick(&DataCipher::ALL);
    let digest = input.pick(&AuthDigest::ALL);
    let header = DataHeader {
        key_id: input.u8() % 8,
        peer_id: input.pick(&[None, Some(0), Some(0x00ff_fffe)]),
    };
    let keys = |role| match DataKeys::new(cipher, digest, &block(), role) {
        Ok(keys) => keys,
        Err(error) => panic!("keys: {error}"),
    };
    let (mut sender, mut receiver) = (keys(Role::Client), keys(Role::Server));
    let mut random = FastRandom::from_seed([7; 32]);
    let length = usize::from(input.u16()) % 1600;
    let payload = input.bytes(length).to_vec();
    let mut sealed = Vec::new();
    if let Err(error) = sender.sealer.seal(header, &payload, &mut random, &mut sealed) {
        panic!("{} bytes cannot be sealed: {error}", payload.len());
    }
    assert_eq!(sealed.len(), sender.sealer.sealed_len(header, payload.len()));

    let mut damaged = sealed.clone();
    let was_damaged = damage(&mut damaged, &mut input);
    // The opcode byte of DATA_V1, and the first byte's key id, are checked elsewhere with CBC.
    if was_damaged && damaged.get(4..) != sealed.get(4..) {
        assert!(receiver.opener.open(&mut damaged).is_err(), "{cipher:?}: a damaged packet opens");
    }
    let cut = usize::from(input.u16()) % sealed.len().max(1);
    let mut short = sealed.get(..cut).unwrap_or_default().to_vec();
    assert!(receiver.opener.open(&mut short).is_err(), "{cipher:?}: a cut packet opens");
    let mut made_up = input.rest().to_vec();
    assert!(receiver.opener.open(&mut made_up).is_err(), "{cipher:?}: a made-up packet opens");

    let mut copy = sealed.clone();
    match receiver.opener.open(&mut copy) {
        Ok(opened) => assert_eq!(opened, payload),
        Err(error) => panic!("{cipher:?}: an authentic packet is refused: {error}"),
    }
    assert!(receiver.opener.open(&mut sealed).is_err(), "{cipher:?}: a packet opens twice");
}

/// No wrapping: what is long enough goes through as it is.
pub fn unwrap_none(data: &[u8]) {
    let mut plain = Vec::new();
    match ControlWrap::none().unwrap(data, &mut plain) {
        Ok(()) => assert_eq!(plain, data),
        Err(_) => assert!(plain.is_empty()),
    }
}

/// tls-auth with every digest.
pub fn unwrap_tls_auth(data: &[u8]) {
    let mut input = Input(data);
    let digest = input.pick(&AuthDigest::ALL);
    let direction =
        input.pick(&[KeyDirection::Normal, KeyDirection::Inverse, KeyDirection::Bidirectional]);
    let key = StaticKey::from(block());
    wrapped(
        input,
        ControlWrap::tls_auth(&key, direction, digest),
        ControlWrap::tls_auth(&key, direction.peer(), digest),
    );
}

/// tls-crypt.
pub fn unwrap_tls_crypt(data: &[u8]) {
    let key = StaticKey::from(block());
    wrapped(
        Input(data),
        ControlWrap::tls_crypt(&key, Role::Client),
        ControlWrap::tls_crypt(&key, Role::Server),
    );
}

/// The client key at the end of a tls-crypt-v2 reset: an authentic one comes out with its
/// metadata, a damaged or made-up one does not.
pub fn unwrap_tls_crypt_v2(data: &[u8]) {
    let mut random = FastRandom::from_seed([9; 32]);
    let server = match TlsCryptV2ServerKey::generate(&mut random) {
        Ok(server) => server,
        Err(error) => panic!("a server key: {error}"),
    };
    let client = StaticKey::from(block());
    let mut input = Input(data);
    let made_up = input.0;
    assert!(server.split_and_unwrap(made_up).is_err(), "a made-up client key is accepted");

    let length = usize::from(input.u16()) % 800;
    let metadata = Metadata::User(input.bytes(length).to_vec());
    let Ok(wrapped) = server.wrap_client_key(&client, &metadata) else { return };
    let mut packet = vec![0x50];
    let inner_len = usize::from(input.u8());
    packet.extend_from_slice(input.bytes(inner_len));
    let inner = packet.clone();
    packet.extend_from_slice(&wrapped);
    match server.split_and_unwrap(&packet) {
        Ok((key, found, before)) => {
            assert!(key.ct_eq(&client) && found == metadata && before == inner);
        }
        Err(error) => panic!("an authentic client key is refused: {error}"),
    }
    let (_, tail) = packet.split_at_mut(inner.len());
    damage(tail, &mut input);
    assert!(server.split_and_unwrap(&packet).is_err(), "a damaged client key is accepted");
}

/// What holds for every wrapping with a MAC.
fn wrapped(mut input: Input<'_>, mut sender: ControlWrap, mut receiver: ControlWrap) {
    let mut plain = Vec::new();
    let length = usize::from(input.u16()) % 1200;
    let mut packet = input.bytes(length).to_vec();
    packet.resize(packet.len().max(HEAD_LEN), 0x38);
    let mut wire = Vec::new();
    if let Err(error) = sender.wrap(&packet, 1_700_000_000, &mut wire) {
        panic!("{} bytes cannot be wrapped: {error}", packet.len());
    }
    assert_eq!(wire.len(), packet.len() + sender.overhead());

    let mut damaged = wire.clone();
    damage(&mut damaged, &mut input);
    assert!(receiver.unwrap(&damaged, &mut plain).is_err(), "a damaged packet is accepted");
    assert!(plain.is_empty());
    let cut = usize::from(input.u16()) % wire.len();
    let short = wire.get(..cut).unwrap_or_default();
    assert!(receiver.unwrap(short, &mut plain).is_err(), "a cut packet is accepted");
    assert!(receiver.unwrap(input.rest(), &mut plain).is_err(), "a made-up packet is accepted");

    let mut bytes = Vec::new();
    receiver.export(&mut bytes);
    let mut receiver = match ControlWrap::import(&mut bytes.as_slice()) {
        Ok(receiver) => receiver,
        Err(error) => panic!("an export cannot be read back: {error}"),
    };
    if let Err(error) = receiver.unwrap(&wire, &mut plain) {
        panic!("an authentic packet is refused: {error}");
    }
    assert_eq!(plain, packet);
    assert!(receiver.unwrap(&wire, &mut plain).is_err(), "a packet is accepted twice");
}

/// Any key will do, if its slots differ.
fn block() -> KeyBlock {
    let mut bytes = [0; 256];
    for (number, byte) in (0_u8..=255).zip(bytes.iter_mut()) {
        *byte = number.wrapping_mul(167).wrapping_add(13);
    }
    KeyBlock::from_bytes(bytes)
}

/// Opcode byte and session id. Source: docs/PROTOCOL.md, control packets.
const HEAD_LEN: usize = 9;
