//! Text from strangers, key files and the configuration.

use std::path::Path;

use tunnelhead_crypto::{StaticKey, TlsCryptV2ClientKey, TlsCryptV2ServerKey};

use super::Input;
use crate::config::Config;
use crate::proto::control::{
    KeyMethod2, MAX_MESSAGE, Message, MessageReader, OptionsString, PeerInfo,
};
use crate::proto::negotiate::push_parse as parse_push;

/// Peer info: bounded, and every question has an answer.
pub fn peer_info(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let info = PeerInfo::parse(&text);
    assert!(info.raw().len() <= MAX_KEPT && info.raw().is_ascii());
    for (name, value) in info.iter() {
        assert!(!name.is_empty() && text.contains(name), "{name:?} was not sent");
        assert_eq!(info.get(name), Some(value), "the first of each name is the one that counts");
    }
    let _ = info.iv_ciphers();
    let _ = (info.iv_proto(), info.iv_ncp(), info.iv_mtu(), info.negotiates());
    assert_eq!(PeerInfo::parse(info.raw()).raw(), info.raw(), "what is kept is stable");
}

/// Options strings: the reply to any of them is one that parses, echoing cipher and digest.
pub fn options_string(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let options = OptionsString::parse(&text);
    let reply = OptionsString::parse(&OptionsString::server_reply(&options));
    assert!(!reply.is_empty());
    if options.cipher().is_some() && options.auth().is_some() {
        assert_eq!((reply.cipher(), reply.auth()), (options.cipher(), options.auth()));
    }
    let _ = (options.dev_type(), options.link_mtu(), options.tun_mtu(), options.keydir());
    let _ = (options.keysize(), options.comp_lzo());
}

/// Control messages: any chunking gives the same messages, nothing grows, and what parses is
/// written back as it was.
pub fn control_message(data: &[u8]) {
    let mut input = Input(data);
    let chunk = usize::from(input.u8()).max(1);
    let stream = input.rest();
    let read = |chunk: usize| {
        let mut reader = MessageReader::new();
        let mut messages = Vec::new();
        for piece in stream.chunks(chunk) {
            reader.push(piece, &mut |message| messages.push(message));
            assert!(reader.buffered() <= MAX_MESSAGE);
        }
        (messages, reader.bad())
    };
    let whole = read(stream.len().max(1));
    let pieces = read(chunk);
    // That one message counts without its end too, as soon as it is there.
    if !stream.windows(PUSH_REQUEST.len()).any(|window| window == PUSH_REQUEST) {
        assert_eq!(whole, pieces, "chunks of {chunk}");
    }
    for message in whole.0 {
        assert_eq!(Message::parse(&message.to_text()), message);
    }
}

/// Key method 2: what is whole without the end of the record is the same with it and with more
/// bytes after it, and what was read is written to bytes that read the same.
pub fn key_method2(data: &[u8]) {
    for decode in [KeyMethod2::decode_client, KeyMethod2::decode_server] {
        let whole = decode(data, true);
        if let Ok(Some((message, taken))) = decode(data, false) {
            assert!(taken <= data.len());
            let again = decode(data.get(..taken).unwrap_or_default(), true);
            assert!(matches!(&again, Ok(Some((_, same))) if *same == taken), "{again:?}");
            assert!(matches!(&whole, Ok(Some((_, same))) if *same == taken), "{whole:?}");
            drop(message);
        }
    }
    let Ok(Some((message, _))) = KeyMethod2::decode_client(data, true) else { return };
    let Ok(bytes) = message.encode_client() else { return };
    match KeyMethod2::decode_client(bytes.expose(), true) {
        Ok(Some((again, taken))) => {
            assert_eq!(taken, bytes.len());
            assert_eq!(again.source.random1.expose(), message.source.random1.expose());
            assert_eq!(again.options, message.options);
            assert_eq!(again.username.unwrap_or_default(), message.username.unwrap_or_default());
            let word = |password: &Option<tunnelhead_crypto::SecretBytes>| {
                password.as_ref().map(|word| word.expose().to_vec()).unwrap_or_default()
            };
            assert_eq!(word(&again.password), word(&message.password));
            assert_eq!(again.peer_info.unwrap_or_default(), message.peer_info.unwrap_or_default());
        }
        other => panic!("what was written cannot be read: {other:?}"),
    }
}

/// Push replies, as the client role reads them.
pub fn push_parse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse_push(&text) {
        Ok(push) => {
            assert!(push.names.len() <= 512 && push.routes.len() <= push.names.len());
            assert!(push.peer_id.is_none_or(|id| id < 1 << 24));
            let _ = (push.key_export(), push.dyn_tls_crypt());
            let names = push.names.len();
            let mut twice = push.clone();
            twice.merge(push);
            assert_eq!(twice.names.len(), 2 * names);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Key files: what parses is written to text that parses to the same key.
pub fn static_key(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(key) = StaticKey::parse(&text) {
        let again = StaticKey::parse(&key.to_text());
        assert!(again.is_ok_and(|again| again.ct_eq(&key)));
    }
    if let Ok(key) = TlsCryptV2ServerKey::parse_pem(&text) {
        let pem = key.to_pem();
        assert!(TlsCryptV2ServerKey::parse_pem(&pem).is_ok_and(|again| again.to_pem() == pem));
    }
    if let Ok(key) = TlsCryptV2ClientKey::parse_pem(&text) {
        let pem = key.to_pem();
        assert!(TlsCryptV2ClientKey::parse_pem(&pem).is_ok_and(|again| again.to_pem() == pem));
    }
}

/// The configuration file: an answer or a sentence.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text, Path::new("/etc/tunnelhead"), &[]) {
        Ok(config) => assert!(config.check(&[]).is_ok()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

const PUSH_REQUEST: &[u8] = b"PUSH_REQUEST";

/// More than all lines that are kept can have: 64 with a name of 32 and a value of 512 bytes.
const MAX_KEPT: usize = 40_000;
