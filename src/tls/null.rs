//! A deterministic stand-in for TLS: the same shape, no secrecy.
//!
//! For simulations and fuzzing of the layers above. A client hello, a server hello and a client
//! finish of configurable sizes, then records. Both sides derive the same exported keys from the
//! two hellos, so data channels work; the same seeds give the same bytes. A record carries a
//! checksum over its number, so lost, repeated or swapped bytes are noticed as real TLS would.
//!
//! ```text
//! record:  kind u8 | length u16 big-endian | body | tag 8 bytes (first of SHA-256 over all before)
//! hello:   random 32 | certificate flag u8 [| CN length u8 | CN] | padding
//! finish:  SHA-256 over both hellos | padding
//! data:    the message as it is
//! ```

use sha2::{Digest, Sha256};
use tunnelhead_crypto::{EXPORTER_DATA_KEYS, EXPORTER_DYNAMIC_TLS_CRYPT, KeyBlock, SecretBytes};

use crate::proto::session::{ClientCertificate, TlsFacts, TlsOp};
use crate::tls::engine::{EngineAnswer, TlsContext, TlsEngine, TlsError};

/// Which side an engine plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullRole {
    /// Waits for a hello.
    Server,
    /// Sends the first hello.
    Client,
}

/// The properties of an engine.
#[derive(Clone, Debug)]
pub struct NullConfig {
    /// The side it plays.
    pub role: NullRole,
    /// Everything random comes from here.
    pub seed: u64,
    /// Bytes of padding in this side's hello: a certificate chain, for the server.
    pub hello_padding: usize,
    /// Bytes of padding in the client's finish.
    pub finish_padding: usize,
    /// The common name of the client's certificate; ignored for a server.
    pub common_name: Option<Vec<u8>>,
}

impl NullConfig {
    /// Sizes like those of a TLS 1.2 handshake with an RSA certificate.
    pub fn new(role: NullRole, seed: u64) -> Self {
        let hello_padding = match role {
            NullRole::Server => 1300,
            NullRole::Client => 200,
        };
        Self { role, seed, hello_padding, finish_padding: 90, common_name: None }
    }
}

impl TlsContext for NullConfig {
    fn open(&self) -> Result<Box<dyn TlsEngine>, TlsError> {
        Ok(Box::new(NullEngine::new(self.clone())))
    }
}

/// The stand-in engine.
#[derive(Debug)]
pub struct NullEngine {
    config: NullConfig,
    state: State,
    incoming: Vec<u8>,
    received: u64,
    sent: u64,
    client_hello: Vec<u8>,
    server_hello: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Hello,
    Finish,
    Established,
    Failed,
}

impl NullEngine {
    /// Makes an engine that has not started.
    pub fn new(config: NullConfig) -> Self {
        let state = match config.role {
            NullRole::Server => State::Hello,
            NullRole::Client => State::Idle,
        };
        Self {
            config,
            state,
            incoming: Vec::new(),
            received: 0,
            sent: 0,
            client_hello: Vec::new(),
            server_hello: Vec::new(),
        }
    }

    fn execute(&mut self, op: TlsOp, answer: &mut EngineAnswer) -> Result<(), &'static str> {
        match op {
            TlsOp::Close => {
                self.state = State::Failed;
                Ok(())
            }
            TlsOp::Open => self.start(answer),
            TlsOp::Write(message) => {
                if self.state != State::Established {
                    return Err("a message was written before the handshake was complete");
                }
                self.push_record(DATA, message.expose(), answer)
            }
            TlsOp::Input(bytes) => {
                self.start(answer)?;
                self.incoming.extend_from_slice(&bytes);
                let mut plaintext = Vec::new();
                let result = self.read_records(&mut plaintext, answer);
                answer.plaintext = SecretBytes::from(plaintext);
                result
            }
        }
    }

    /// The client's first flight, once.
    fn start(&mut self, answer: &mut EngineAnswer) -> Result<(), &'static str> {
        if self.state == State::Idle {
            self.client_hello = self.hello();
            let hello = self.client_hello.clone();
            self.push_record(CLIENT_HELLO, &hello, answer)?;
            self.state = State::Hello;
        }
        Ok(())
    }

    fn read_records(
        &mut self,
        plaintext: &mut Vec<u8>,
        answer: &mut EngineAnswer,
    ) -> Result<(), &'static str> {
        loop {
            let Some((&[kind, high, low], rest)) = self.incoming.split_first_chunk() else {
                return Ok(());
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if !(CLIENT_HELLO..=DATA).contains(&kind) || length > MAX_BODY {
                return Err("what the peer sent is not the stand-in protocol");
            }
            let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(()) };
            let Some((given, rest)) = rest.split_first_chunk::<TAG_LEN>() else { return Ok(()) };
            if *given != tag(kind, self.received, body) {
                return Err("a record of the stand-in protocol is damaged or out of order");
            }
            let body = body.to_vec();
            self.incoming = rest.to_vec();
            self.received += 1;
            self.take_record(kind, body, plaintext, answer)?;
        }
    }

    fn take_record(
        &mut self,
        kind: u8,
        body: Vec<u8>,
        plaintext: &mut Vec<u8>,
        answer: &mut EngineAnswer,
    ) -> Result<(), &'static str> {
        match (self.config.role, self.state, kind) {
            (_, State::Established, DATA) => plaintext.extend_from_slice(&body),
            (NullRole::Server, State::Hello, CLIENT_HELLO) => {
                parse_hello(&body)?;
                self.client_hello = body;
                self.server_hello = self.hello();
                let hello = self.server_hello.clone();
                self.push_record(SERVER_HELLO, &hello, answer)?;
                self.state = State::Finish;
            }
            (NullRole::Client, State::Hello, SERVER_HELLO) => {
                parse_hello(&body)?;
                self.server_hello = body;
                let mut finish = self.transcript().to_vec();
                finish.resize(finish.len() + self.config.finish_padding, FILLER);
                self.push_record(FINISH, &finish, answer)?;
                self.establish(answer)?;
            }
            (NullRole::Server, State::Finish, FINISH) => {
                if !body.starts_with(&self.transcript()) {
                    return Err("the peer's finish does not match the hellos");
                }
                self.establish(answer)?;
            }
            _ => return Err("a record of the stand-in protocol does not fit the state"),
        }
        Ok(())
    }

    fn establish(&mut self, answer: &mut EngineAnswer) -> Result<(), &'static str> {
        self.state = State::Established;
        let client_certificate = match self.config.role {
            NullRole::Client => None,
            NullRole::Server => parse_hello(&self.client_hello)?.map(|common_name| {
                let fingerprint = Sha256::digest(common_name).into();
                ClientCertificate {
                    common_name: common_name.to_vec(),
                    fingerprint,
                    serial: "01".to_owned(),
                    issuer_hash: [0; 32],
                    intermediates: Vec::new(),
                }
            }),
        };
        answer.established = Some(Box::new(TlsFacts {
            version: "null".to_owned(),
            suite: "NULL".to_owned(),
            client_certificate,
            data_keys: self.export(EXPORTER_DATA_KEYS),
            dynamic_wrap: self.export(EXPORTER_DYNAMIC_TLS_CRYPT),
        }));
        Ok(())
    }

    fn hello(&self) -> Vec<u8> {
        let mut random = Sha256::new();
        random.update(match self.config.role {
            NullRole::Server => b"server",
            NullRole::Client => b"client",
        });
        random.update(self.config.seed.to_be_bytes());
        let mut hello = random.finalize().to_vec();
        let name = match self.config.role {
            NullRole::Server => None,
            NullRole::Client => self.config.common_name.as_deref(),
        };
        match name.and_then(|name| Some((u8::try_from(name.len()).ok()?, name))) {
            Some((length, name)) => {
                hello.extend_from_slice(&[1, length]);
                hello.extend_from_slice(name);
            }
            None => hello.push(0),
        }
        hello.resize(hello.len() + self.config.hello_padding, FILLER);
        hello
    }

    fn transcript(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(&self.client_hello);
        hash.update(&self.server_hello);
        hash.finalize().into()
    }

    fn export(&self, label: &str) -> KeyBlock {
        let transcript = self.transcript();
        let mut block = [0; 256];
        for (number, chunk) in (0_u8..).zip(block.chunks_mut(32)) {
            let mut hash = Sha256::new();
            hash.update(label);
            hash.update(transcript);
            hash.update([number]);
            chunk.copy_from_slice(&hash.finalize());
        }
        KeyBlock::from_bytes(block)
    }

    fn push_record(
        &mut self,
        kind: u8,
        body: &[u8],
        answer: &mut EngineAnswer,
    ) -> Result<(), &'static str> {
        let length =
            u16::try_from(body.len()).ok().filter(|length| usize::from(*length) <= MAX_BODY);
        let length = length.ok_or("a message is too long for one record")?;
        answer.ciphertext.push(kind);
        answer.ciphertext.extend_from_slice(&length.to_be_bytes());
        answer.ciphertext.extend_from_slice(body);
        answer.ciphertext.extend_from_slice(&tag(kind, self.sent, body));
        self.sent += 1;
        Ok(())
    }
}

impl TlsEngine for NullEngine {
    fn handle(&mut self, op: TlsOp) -> EngineAnswer {
        if self.state == State::Failed {
            return EngineAnswer::failed("the TLS engine has already ended");
        }
        let mut answer = EngineAnswer::nothing();
        if let Err(sentence) = self.execute(op, &mut answer) {
            self.state = State::Failed;
            self.incoming = Vec::new();
            answer.error = Some(sentence.to_owned());
        }
        answer
    }
}

/// Checks a hello; gives the common name in it.
fn parse_hello(hello: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    const SHORT: &str = "a hello of the stand-in protocol is too short";
    let rest = hello.get(32..).ok_or(SHORT)?;
    match rest.split_first().ok_or(SHORT)? {
        (0, _) => Ok(None),
        (_, rest) => {
            let (length, rest) = rest.split_first().ok_or(SHORT)?;
            Ok(Some(rest.get(..usize::from(*length)).ok_or(SHORT)?))
        }
    }
}

fn tag(kind: u8, number: u64, body: &[u8]) -> [u8; TAG_LEN] {
    let mut hash = Sha256::new();
    hash.update([kind]);
    hash.update(number.to_be_bytes());
    hash.update(body);
    let [tag @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _]: [u8;
        32] = hash.finalize().into();
    tag
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const FINISH: u8 = 3;
const DATA: u8 = 4;
const TAG_LEN: usize = 8;
const MAX_BODY: usize = 1 << 14;
const FILLER: u8 = 0x5a;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(client: NullConfig, server_seed: u64) -> (NullEngine, NullEngine) {
        (NullEngine::new(client), NullEngine::new(NullConfig::new(NullRole::Server, server_seed)))
    }

    fn shake(client: &mut NullEngine, server: &mut NullEngine) -> (Box<TlsFacts>, Box<TlsFacts>) {
        let hello = client.handle(TlsOp::Open);
        assert!(server.handle(TlsOp::Open).is_nothing());
        let reply = server.handle(TlsOp::Input(hello.ciphertext));
        let finish = client.handle(TlsOp::Input(reply.ciphertext));
        let done = server.handle(TlsOp::Input(finish.ciphertext));
        assert!(done.ciphertext.is_empty());
        (finish.established.unwrap(), done.established.unwrap())
    }

    #[test]
    fn both_sides_export_the_same_keys_and_pass_messages() {
        let mut config = NullConfig::new(NullRole::Client, 1);
        config.common_name = Some(b"branch-42".to_vec());
        let (mut client, mut server) = pair(config, 2);
        let (ours, theirs) = shake(&mut client, &mut server);
        assert_eq!(ours.data_keys.expose(), theirs.data_keys.expose());
        assert_eq!(ours.dynamic_wrap.expose(), theirs.dynamic_wrap.expose());
        assert_ne!(ours.data_keys.expose(), ours.dynamic_wrap.expose());
        assert_eq!(theirs.client_certificate.unwrap().common_name, b"branch-42");
        for (from, to) in [(&mut client, &mut server)] {
            let sent = from.handle(TlsOp::Write(SecretBytes::from(b"hello".to_vec())));
            for byte in sent.ciphertext.iter().take(sent.ciphertext.len() - 1) {
                assert!(to.handle(TlsOp::Input(vec![*byte])).is_nothing());
            }
            let got =
                to.handle(TlsOp::Input(sent.ciphertext.last().copied().into_iter().collect()));
            assert_eq!(got.plaintext.expose(), b"hello");
        }
    }

    #[test]
    fn the_same_seeds_give_the_same_bytes_and_others_do_not() {
        let keys = |client, server| {
            let (mut a, mut b) = pair(NullConfig::new(NullRole::Client, client), server);
            shake(&mut a, &mut b).0.data_keys.expose().to_vec()
        };
        assert_eq!(keys(1, 2), keys(1, 2));
        assert_ne!(keys(1, 2), keys(1, 3));
        assert_ne!(keys(1, 2), keys(3, 2));
    }

    #[test]
    fn refuses_damage_repetition_and_disorder() {
        let (mut client, mut server) = pair(NullConfig::new(NullRole::Client, 1), 2);
        let hello = client.handle(TlsOp::Open).ciphertext;
        let mut damaged = hello.clone();
        if let Some(byte) = damaged.get_mut(20) {
            *byte ^= 1;
        }
        assert!(server.handle(TlsOp::Input(damaged)).error.is_some());
        assert!(server.handle(TlsOp::Input(hello.clone())).error.is_some(), "stays failed");

        let (_, mut server) = pair(NullConfig::new(NullRole::Client, 1), 2);
        let mut twice = hello.clone();
        twice.extend_from_slice(&hello);
        assert!(server.handle(TlsOp::Input(twice)).error.is_some());

        let (_, mut server) = pair(NullConfig::new(NullRole::Client, 1), 2);
        assert!(server.handle(TlsOp::Input(vec![0xff; 3])).error.is_some());
        let (_, mut server) = pair(NullConfig::new(NullRole::Client, 1), 2);
        assert!(server.handle(TlsOp::Write(SecretBytes::from(vec![1]))).error.is_some());
    }
}
