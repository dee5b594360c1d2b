//! Plays the client's side of a captured login to a session, as far as it can be known: the resets
//! and the ClientHello byte for byte, then the choice of a data cipher from what the client said in
//! its key exchange. What lies between them is protected by TLS and not in a capture.

use std::ops::ControlFlow;
use std::sync::Arc;

use tunnelhead_crypto::{DataCipher, SecureRandom as _};

use super::world::{origin, random, server_config};
use crate::proto::control::{OptionsString, PeerInfo};
use crate::proto::negotiate::{CipherInput, choose_cipher};
use crate::proto::session::{EngineId, Event, Session, TlsOp, TlsTask, WrapConfig};
use crate::proto::wire::{
    AckList, ControlPacket, FrameDecoder, KeyId, Opcode, PushFrameError, SessionId, push_frame,
};
use crate::telemetry::flight::Direction;
use crate::telemetry::flight::capture::Capture;
use crate::tls::{TlsContext, TlsEngine};

/// What became of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Frames of the client that were played.
    pub frames: usize,
    /// The session answered the ClientHello with a TLS flight of its own.
    pub answered: bool,
    /// Why the session ended, if it did: the stable name of the reason.
    pub closed: Option<&'static str>,
    /// The data cipher that the client's texts lead to, or the stable name of the refusal; `None`
    /// if it never got that far.
    pub cipher: Option<Result<&'static str, &'static str>>,
}

/// Plays a capture to a session that allows `ciphers`, with TLS engines of `tls`.
///
/// # Errors
/// One sentence: the capture can't be played.
pub fn replay(
    capture: &Capture,
    tls: &dyn TlsContext,
    ciphers: &[DataCipher],
) -> Result<Replayed, String> {
    if capture.head.wrapped {
        return Err("a wrapped control channel can't be made again without its key".to_owned());
    }
    let mut stage = Stage::new(tls)?;
    let own = capture.head.client_session.as_deref().and_then(session_id);
    let own = own.ok_or("the capture has no session id")?;
    let mut hello = capture.hello.as_slice();
    let client = capture.frames.iter().filter(|frame| frame.from == Direction::Client);
    for frame in client {
        let Some(opcode) = Opcode::from_number(frame.opcode) else { break };
        let payload = hello.get(..usize::from(frame.payload).min(hello.len())).unwrap_or_default();
        if opcode == Opcode::ControlV1 && payload.is_empty() {
            // Beyond the ClientHello.
            break;
        }
        if opcode == Opcode::ControlV1 {
            hello = hello.get(payload.len()..).unwrap_or_default();
        }
        let acks = stage.acks(usize::from(frame.acks));
        let packet = ControlPacket {
            opcode,
            key_id: KeyId::new(frame.key_id).ok_or("a key id out of range")?,
            session_id: own,
            acks,
            message_id: frame.message_id,
            payload: if opcode == Opcode::ControlV1 { payload } else { &[] },
        };
        stage.play(&packet)?;
        if stage.closed.is_some() {
            break;
        }
    }
    Ok(Replayed {
        frames: stage.frames,
        answered: stage.answered,
        closed: stage.closed,
        cipher: chosen(capture, ciphers),
    })
}

/// What the texts of the key exchange lead to, without an account.
fn chosen(capture: &Capture, ciphers: &[DataCipher]) -> Option<Result<&'static str, &'static str>> {
    let options = OptionsString::parse(capture.head.options.as_deref()?);
    let peer_info = PeerInfo::parse(capture.head.peer_info.as_deref().unwrap_or_default());
    let chosen = choose_cipher(CipherInput {
        server: ciphers,
        peer_info: &peer_info,
        options: &options,
        account_cipher: None,
        account_auth: None,
    });
    Some(chosen.map(|chosen| chosen.cipher.name()).map_err(|refusal| refusal.code()))
}

/// A session with its engines.
struct Stage<'a> {
    session: Session,
    now: std::time::Instant,
    rng: tunnelhead_crypto::FastRandom,
    tls: &'a dyn TlsContext,
    engines: Vec<(EngineId, Box<dyn TlsEngine>)>,
    /// Messages of the session that are not acknowledged.
    unacked: Vec<u32>,
    server: Option<SessionId>,
    frames: usize,
    answered: bool,
    closed: Option<&'static str>,
}

impl<'a> Stage<'a> {
    fn new(tls: &'a dyn TlsContext) -> Result<Self, String> {
        let mut rng = random(1, 1);
        let now = origin();
        let config = Arc::new(server_config(WrapConfig::None));
        let session = Session::new(config, now, 0, &mut rng).map_err(|error| error.to_string())?;
        // Two runs must not share what was drawn so far.
        let _ = rng.fill(&mut [0; 8]);
        Ok(Self {
            session,
            now,
            rng,
            tls,
            engines: Vec::new(),
            unacked: Vec::new(),
            server: None,
            frames: 0,
            answered: false,
            closed: None,
        })
    }

    /// Acknowledges the oldest messages.
    fn acks(&mut self, count: usize) -> AckList {
        let ids: Vec<u32> = self.unacked.drain(..count.min(self.unacked.len())).collect();
        self.server.map_or_else(AckList::none, |server| AckList::new(&ids, server))
    }

    fn play(&mut self, packet: &ControlPacket<'_>) -> Result<(), String> {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, |out| {
            packet.encode(out);
            Ok::<(), PushFrameError<std::convert::Infallible>>(())
        })
        .map_err(|_| "a frame that is too long".to_owned())?;
        self.frames += 1;
        if let Err(error) = self.session.handle_link(self.now, &mut bytes, &mut |_| {}) {
            self.closed = Some(error.reason().code());
        }
        self.drive();
        Ok(())
    }

    fn drive(&mut self) {
        loop {
            let mut out = Vec::new();
            while self.session.poll_transmit(self.now, &mut out) {}
            self.read(&mut out);
            let Some(event) = self.session.poll_event() else { return };
            match event {
                Event::Tls(task) => self.task(task),
                Event::Close(reason) => self.closed = Some(reason.code()),
                _ => {}
            }
        }
    }

    fn task(&mut self, TlsTask { engine: id, op }: TlsTask) {
        match &op {
            TlsOp::Open => {
                if let Ok(engine) = self.tls.open() {
                    self.engines.push((id, engine));
                }
                return;
            }
            TlsOp::Close => return self.engines.retain(|(known, _)| *known != id),
            TlsOp::Input(_) | TlsOp::Write(_) => {}
        }
        let Some((_, engine)) = self.engines.iter_mut().find(|(known, _)| *known == id) else {
            return;
        };
        let answer = engine.handle(op);
        self.answered |= !answer.ciphertext.is_empty() && answer.error.is_none();
        let answer = answer.for_engine(id);
        if let Err(error) = self.session.handle_tls_answer(self.now, answer, &mut self.rng) {
            self.closed = Some(error.reason().code());
        }
    }

    /// Notes what the session has sent.
    fn read(&mut self, bytes: &mut [u8]) {
        let Self { unacked, server, .. } = self;
        let _ = FrameDecoder::new().feed(bytes, &mut |frame| {
            if let Ok(packet) = ControlPacket::decode(frame) {
                *server = Some(packet.session_id);
                unacked.extend(packet.message_id);
            }
            ControlFlow::Continue(())
        });
    }
}

fn session_id(text: &str) -> Option<SessionId> {
    let mut bytes = [0; 8];
    let mut pairs = text.as_bytes().chunks_exact(2);
    for byte in &mut bytes {
        *byte = u8::from_str_radix(std::str::from_utf8(pairs.next()?).ok()?, 16).ok()?;
    }
    SessionId::new(bytes)
}
