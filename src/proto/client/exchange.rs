//! What goes through TLS: the key exchange, the push reply, and the server's messages.

use std::time::{Duration, Instant};

use tunnelhead_crypto::{
    AuthDigest, ControlWrap, DataCipher, DataKeys, KeySource, Role, SecureRandom, derive_key_block,
};

use super::config::{ClientWrap, SwitchPolicy};
use super::event::ClientEvent;
use super::key::Data;
use super::machine::{Agreed, Client, Push};
use super::push::{self, Reading};
use crate::proto::control::{KeyMethod2, Message, iv_proto};
use crate::proto::negotiate::{ParsedPush, push_parse};
use crate::proto::session::{TlsAnswer, TlsFacts, TlsOp};
use crate::proto::wire::{KeyId, Opcode};

/// Bytes of TLS plaintext that a server's key method 2 may take.
const MAX_EXCHANGE: usize = 8192;

impl Client {
    /// Takes what a TLS engine has to say. Answers of engines that are gone are ignored.
    pub fn handle_tls_answer(
        &mut self,
        now: Instant,
        answer: TlsAnswer,
        rng: &mut dyn SecureRandom,
    ) {
        let Some(index) = self.keys.iter().position(|key| key.engine == answer.engine) else {
            return;
        };
        if self.closed {
            return;
        }
        let chunk = self.config.max_control_payload.max(1);
        let mut key_id = KeyId::FIRST;
        if let Some(key) = self.keys.get_mut(index) {
            key_id = key.id;
            for part in answer.ciphertext.chunks(chunk) {
                key.channel.push(Opcode::ControlV1, part.to_vec());
            }
        }
        if let Some(facts) = answer.established {
            self.write_key_method2(index, facts, rng);
        }
        if !answer.plaintext.is_empty() {
            self.handle_plaintext(now, index, answer.plaintext.expose());
        }
        if let Some(error) = answer.error {
            self.close(format!("TLS failed: {error}"));
        }
        self.progress(now, key_id);
    }

    fn write_key_method2(
        &mut self,
        index: usize,
        facts: Box<TlsFacts>,
        rng: &mut dyn SecureRandom,
    ) {
        let Ok(source) = KeySource::generate(rng) else {
            return self.close("no randomness");
        };
        let message = KeyMethod2 {
            source: source.duplicate(),
            options: self.config.options_text(),
            username: self.config.username.clone(),
            password: self.config.password.as_ref().map(|password| password.duplicate()),
            too_long: false,
            peer_info: self.config.peer_info.clone(),
        };
        let Ok(bytes) = message.encode_client() else {
            return self.close("the credentials can't be sent");
        };
        let Some(key) = self.keys.get_mut(index) else { return };
        key.facts = Some(facts);
        key.own = Some(source);
        let engine = key.engine;
        self.task(engine, TlsOp::Write(bytes));
    }

    fn handle_plaintext(&mut self, now: Instant, index: usize, bytes: &[u8]) {
        let Some(key) = self.keys.get_mut(index) else { return };
        if key.server.is_some() {
            return self.handle_messages(now, index, bytes);
        }
        if key.own.is_none() {
            return self.fatal("the server spoke before the client's key method 2");
        }
        key.plaintext.extend_from_slice(bytes);
        match KeyMethod2::decode_server(&key.plaintext, false) {
            Ok(None) if key.plaintext.len() > MAX_EXCHANGE => {
                self.fatal("the server's key method 2 has no end");
            }
            Ok(None) => {}
            Ok(Some((message, consumed))) => {
                let plaintext = std::mem::take(&mut key.plaintext);
                if message.options.is_empty() {
                    self.violation("the server's options string is empty");
                }
                self.exchange_done(now, index, message);
                let rest = plaintext.get(consumed..).unwrap_or_default();
                if !rest.is_empty() && !self.closed {
                    self.handle_messages(now, index, rest);
                }
            }
            Err(error) => self.fatal(format!("the server's key method 2: {error}")),
        }
    }

    /// Both messages are through. The first key waits for the push reply, later ones do not.
    fn exchange_done(&mut self, now: Instant, index: usize, message: KeyMethod2) {
        let Some(key) = self.keys.get_mut(index) else { return };
        key.server = Some(message);
        let key_id = key.id.get();
        if let Some(agreed) = self.agreed
            && self.make_data_keys(now, index, agreed)
        {
            self.stats.rekeys += 1;
            self.events.push_back(ClientEvent::KeysChanged { key_id });
        }
    }

    fn handle_messages(&mut self, now: Instant, index: usize, bytes: &[u8]) {
        let mut messages = Vec::new();
        let Some(key) = self.keys.get_mut(index) else { return };
        let bad = key.messages.bad();
        key.messages.push(bytes, &mut |message| messages.push(message));
        if key.messages.bad() > bad {
            self.violation("a control message that can't be read");
        }
        for message in messages {
            if !self.closed {
                self.handle_message(now, message);
            }
        }
    }

    fn handle_message(&mut self, now: Instant, message: Message) {
        match message {
            Message::PushReply(text) => self.handle_push(now, &text),
            Message::AuthFailed(text) => {
                self.events.push_back(ClientEvent::AuthFailed(text));
                self.close("the login failed");
            }
            Message::Restart(text) => {
                self.events.push_back(ClientEvent::Restart(text));
                self.close("the server asked to reconnect");
            }
            Message::Halt(text) => {
                self.events.push_back(ClientEvent::Halt(text));
                self.close("the server asked to stop");
            }
            Message::Exit => {
                self.events.push_back(ClientEvent::Exit);
                self.close("the server left");
            }
            Message::Info(_) | Message::InfoPre(_) | Message::AuthPending(_) => {}
            other => self.violation(format!("the server sent {other:?}")),
        }
    }

    fn handle_push(&mut self, now: Instant, text: &str) {
        let asked = self.stats.push_requests > 0;
        if !asked && !self.announced.supports(iv_proto::REQUEST_PUSH) {
            self.violation("a push reply that was not asked for");
        }
        if matches!(self.push, Push::Done) {
            // The answer to a request that crossed the first reply.
            return;
        }
        let push = match push_parse(text) {
            Ok(push) => push,
            Err(error) => return self.fatal(error.to_string()),
        };
        let len = text.len() + "PUSH_REPLY,".len();
        for what in push::violations(&push, len, &self.announced) {
            self.violation(what);
        }
        match push::read(&push, self.config.quirks) {
            Reading::Fine => self.connect(now, push),
            // Our server never splits a reply, which the length check above reports; the next
            // part may still come.
            Reading::Partial => self.violation("the push reply is split"),
            Reading::Stall => self.push = Push::Done,
            Reading::GiveUp(reason) => self.close(reason),
        }
    }

    fn connect(&mut self, now: Instant, push: ParsedPush) {
        let cipher = match &push.cipher {
            None => self.config.cipher,
            Some(name) => match DataCipher::from_name(name).filter(|c| self.accepts(*c)) {
                Some(cipher) => cipher,
                None => return self.fatal(format!("the pushed cipher {name} was not offered")),
            },
        };
        if !cipher.is_aead() && self.config.digest.is_none() {
            return self.close("a cipher without authentication");
        }
        let seconds = |value: Option<u32>| {
            value.filter(|seconds| *seconds > 0).map(|s| Duration::from_secs(u64::from(s)))
        };
        let agreed = Agreed {
            cipher,
            digest: self.config.digest.unwrap_or(AuthDigest::Sha1),
            key_export: push.key_export(),
            peer_id: push.peer_id.filter(|_| self.config.data_v2),
            ping: seconds(push.ping),
            ping_restart: seconds(push.ping_restart),
        };
        if push.dyn_tls_crypt() {
            self.use_dynamic_wrap();
        }
        if self.make_data_keys(now, 0, agreed) {
            self.connected(agreed, push);
        }
    }

    /// True if this client offered the cipher.
    fn accepts(&self, cipher: DataCipher) -> bool {
        match self.announced.iv_ciphers() {
            Some(names) => names.contains(&cipher.name()),
            None => matches!(cipher, DataCipher::Aes256Gcm | DataCipher::Aes128Gcm),
        }
    }

    fn use_dynamic_wrap(&mut self) {
        let original = match &self.config.wrap {
            ClientWrap::None => None,
            ClientWrap::TlsAuth { key, .. } | ClientWrap::TlsCrypt { key } => Some(key),
            ClientWrap::TlsCryptV2 { key } => Some(&key.key),
        };
        let first = self.keys.iter().find(|key| key.id == KeyId::FIRST);
        if let Some(facts) = first.and_then(|key| key.facts.as_ref()) {
            let exported = &facts.dynamic_wrap;
            self.dynamic = Some(ControlWrap::dynamic_tls_crypt(exported, original, Role::Client));
        }
    }

    /// Derives the data keys of a key whose exchange is done; false after a failure.
    fn make_data_keys(&mut self, now: Instant, index: usize, agreed: Agreed) -> bool {
        let (own_id, remote_id) = (self.own, self.remote);
        let switch = self.config.switch;
        let rekey_after = self.config.rekey_after;
        let made = self.keys.get_mut(index).and_then(|key| {
            let (own, server) = (key.own.as_ref()?, key.server.as_ref()?);
            let facts = key.facts.as_ref()?;
            let block = if agreed.key_export {
                facts.data_keys.duplicate()
            } else {
                derive_key_block(own, &server.source, own_id.bytes(), remote_id?.bytes())
            };
            let keys = DataKeys::new(agreed.cipher, agreed.digest, &block, Role::Client).ok()?;
            let send_from = match switch {
                SwitchPolicy::Immediately => now,
                SwitchPolicy::After(delay) => key.created + delay,
            };
            let rekey_at = rekey_after.map(|after| now + after);
            key.data = Some(Data { keys, send_from, rekey_at, received: 0 });
            Some(())
        });
        if made.is_none() {
            self.close("no data keys can be derived");
        }
        made.is_some()
    }
}
