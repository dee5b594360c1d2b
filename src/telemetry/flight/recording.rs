//! One attempt while it goes on. Owned by the thread that serves the connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::capture::Trace;
use super::fault::TlsFault;
use super::frames::{Alerts, CLIENT_RESETS, Direction, Frame, Frames, Head, SERVER_RESET};
use super::hello::{self, Hello, MAX_HELLO};
use super::record::{Mark, Outcome, Record, Step};

/// Most frames of one attempt that are kept; a good login takes about twenty.
const MAX_FRAMES: usize = 64;
/// Longest user name that is kept; longer ones are cut.
const MAX_USERNAME: usize = 128;
/// Longest detail of a failure that is kept.
const MAX_DETAIL: usize = 400;

/// A client's verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The common name, raw.
    pub common_name: Box<[u8]>,
    /// SHA-256 of the DER form.
    pub fingerprint: [u8; 32],
    /// Serial number, hexadecimal.
    pub serial: Box<str>,
    /// SHA-256 of the issuer's name.
    pub issuer: [u8; 32],
}

/// What a key exchange says, without its secrets.
#[derive(Clone, Copy, Debug)]
pub struct KeyExchange<'a> {
    /// User name, raw.
    pub username: &'a [u8],
    /// Options string, printable.
    pub options: &'a str,
    /// Peer info, printable lines.
    pub peer_info: &'a str,
}

/// Writes down what happens to one connection. Memory: at most [`MAX_HELLO`] bytes and
/// a bounded number of short entries; nothing of it grows with what the peer sends.
#[derive(Debug)]
pub struct Flight {
    accepted: Instant,
    record: Record,
    wrapped: bool,
    first: Vec<u8>,
    incoming: Frames,
    outgoing: Frames,
    alerts: Alerts,
    trace: Trace,
    hello_done: bool,
}

impl Flight {
    /// A connection was accepted. `unix_ms` is that moment; `wrapped` says that the listener wraps
    /// its control channel, so that only the outside of packets can be read.
    pub fn new(
        id: u64,
        now: Instant,
        unix_ms: u64,
        source: SocketAddr,
        listener: usize,
        wrapped: bool,
    ) -> Self {
        Self {
            accepted: now,
            record: Record {
                id,
                started_ms: unix_ms,
                source,
                proxy: None,
                listener,
                certificates: 0,
                marks: vec![Mark { step: Step::Accepted, at_ms: 0 }],
                looks_like: None,
                resets: 0,
                session_id: None,
                hello: None,
                alert: None,
                tls_fault: None,
                tls: None,
                certificate: None,
                username: None,
                options: None,
                peer_info: None,
                router: None,
                data: None,
                address: None,
                outcome: Outcome::LoggedIn,
            },
            wrapped,
            first: Vec::new(),
            incoming: Frames::default(),
            outgoing: Frames::default(),
            alerts: Alerts::default(),
            trace: Trace::default(),
            hello_done: false,
        }
    }

    /// Which set of server certificates it is served with.
    pub fn served_with(&mut self, certificates: u32) {
        self.record.certificates = certificates;
    }

    /// A balancer's header names the real source.
    pub fn proxied(&mut self, now: Instant, source: SocketAddr) {
        self.record.proxy = Some(self.record.source.ip());
        self.record.source = source;
        self.mark(now, Step::ProxyHeader);
    }

    /// Bytes of the stream have come; call it before they are handed to the session.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.mark(now, Step::FirstBytes);
        let room = FIRST.saturating_sub(self.first.len());
        self.first.extend(bytes.iter().take(room));
        let at_ms = self.offset(now);
        let Self { incoming, record, trace, wrapped, .. } = self;
        incoming.feed(bytes, &mut |head| {
            if CLIENT_RESETS.contains(&head.opcode()) {
                if record.resets == 0 {
                    record.session_id = head.session_id();
                    trace.client_session = head.session_id();
                    record.marks.push(Mark { step: Step::HardReset, at_ms });
                }
                record.resets = record.resets.saturating_add(1);
            }
            note(trace, at_ms, Direction::Client, *wrapped, head);
        });
    }

    /// Frames were queued for the client.
    pub fn sent(&mut self, now: Instant, bytes: &[u8]) {
        let at_ms = self.offset(now);
        let mut reset = false;
        let Self { outgoing, trace, wrapped, .. } = self;
        outgoing.feed(bytes, &mut |head| {
            if head.opcode() == SERVER_RESET {
                reset = true;
                trace.server_session = head.session_id();
            }
            note(trace, at_ms, Direction::Server, *wrapped, head);
        });
        if reset {
            self.mark(now, Step::ResetAnswered);
        }
    }

    /// Bytes of the client's TLS stream go to the engine.
    pub fn tls_input(&mut self, now: Instant, bytes: &[u8]) {
        if self.record.saw(Step::Tls) {
            return;
        }
        if !self.hello_done {
            let room = MAX_HELLO.saturating_sub(self.trace.hello.len());
            self.trace.hello.extend(bytes.iter().take(room));
            self.mark(now, Step::ClientHello);
            if hello::is_complete(&self.trace.hello) {
                self.hello_done = true;
                self.record.hello = Hello::parse(&self.trace.hello).map(Arc::new);
                self.trace.hello.shrink_to_fit();
            }
        }
        if let Some(alert) = self.alerts.feed(bytes) {
            self.record.alert = Some(alert);
            self.mark(now, Step::Alert);
        }
    }

    /// The engine has given bytes for the client.
    pub fn tls_output(&mut self, now: Instant) {
        if !self.record.saw(Step::Tls) {
            self.mark(now, Step::ServerHello);
        }
    }

    /// The TLS handshake is done.
    pub fn tls_established(
        &mut self,
        now: Instant,
        version: &str,
        suite: &str,
        certificate: Option<Certificate>,
    ) {
        self.mark(now, Step::Tls);
        self.record.tls = Some((version.into(), suite.into()));
        self.record.certificate = certificate.map(Arc::new);
    }

    /// The engine has failed, in its own words.
    pub fn tls_failed(&mut self, sentence: &str) {
        let from_alert = self.record.alert.and_then(|(_, what)| TlsFault::from_alert(what));
        let fault = match from_alert {
            Some(fault) if fault != TlsFault::Alert => fault,
            _ => TlsFault::from_sentence(sentence),
        };
        self.record.tls_fault = Some(fault);
    }

    /// The client's side of the key exchange was read.
    pub fn key_exchange(&mut self, now: Instant, said: KeyExchange<'_>) {
        self.mark(now, Step::KeyExchange);
        let username = said.username.get(..MAX_USERNAME).unwrap_or(said.username);
        self.record.username = Some(username.into());
        self.record.options = Some(said.options.into());
        self.record.peer_info = Some(said.peer_info.into());
    }

    /// The authenticator has answered.
    pub fn verdict(&mut self, now: Instant) {
        self.mark(now, Step::Verdict);
    }

    /// The authenticator let it in as this router, and a cipher was agreed on.
    pub fn allowed(&mut self, router: Arc<str>) {
        self.record.router = Some(router);
    }

    /// The address pool has answered.
    pub fn address(&mut self, now: Instant, address: Option<Ipv4Addr>) {
        self.mark(now, Step::Address);
        self.record.address = address;
    }

    /// The client asked for its configuration.
    pub fn push_requested(&mut self, now: Instant) {
        self.mark(now, Step::PushRequest);
    }

    /// The configuration is on its way.
    pub fn push_reply(&mut self, now: Instant, cipher: &'static str, digest: &'static str) {
        self.mark(now, Step::PushReply);
        self.record.data = Some((cipher, digest));
    }

    /// Where it dials from.
    pub fn source(&self) -> SocketAddr {
        self.record.source
    }

    /// It leaves for its shard.
    pub fn logged_in(mut self) -> (Record, Trace) {
        self.record.marks.shrink_to_fit();
        (self.record, self.trace)
    }

    /// It is over without a tunnel.
    pub fn failed(mut self, now: Instant, reason: &'static str, detail: &str) -> (Record, Trace) {
        if !self.record.saw(Step::HardReset) || reason == "not_openvpn" {
            self.record.looks_like = looks_like(&self.first);
        }
        self.mark(now, Step::End);
        let detail: String = detail.chars().take(MAX_DETAIL).collect();
        self.record.outcome = Outcome::Failed { reason, detail: detail.into_boxed_str() };
        self.logged_in()
    }

    fn offset(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.accepted).as_millis();
        u32::try_from(passed).unwrap_or(u32::MAX)
    }

    fn mark(&mut self, now: Instant, step: Step) {
        if !self.record.saw(step) {
            let at_ms = self.offset(now);
            self.record.marks.push(Mark { step, at_ms });
        }
    }
}

fn note(trace: &mut Trace, at_ms: u32, from: Direction, wrapped: bool, head: Head<'_>) {
    if trace.frames.len() >= MAX_FRAMES {
        trace.frames_left_out = trace.frames_left_out.saturating_add(1);
        return;
    }
    let inside = if wrapped { None } else { head.control() };
    let (acks, message_id, payload) = inside.unwrap_or((0, None, 0));
    trace.wrapped = wrapped;
    trace.frames.push(Frame {
        at_ms,
        from,
        opcode: head.opcode(),
        key_id: head.key_id(),
        size: head.size,
        message_id,
        acks,
        payload,
    });
}

/// What the first bytes of a stream look like, if they are not OpenVPN's.
fn looks_like(first: &[u8]) -> Option<&'static str> {
    const METHODS: [&[u8]; 8] =
        [b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTIONS", b"CONNECT", b"DELETE", b"PRI * "];
    if METHODS.iter().any(|method| first.starts_with(method)) {
        return Some("HTTP");
    }
    if first.starts_with(b"PROXY ") || first.starts_with(b"\r\n\r\n\0\r\nQUIT") {
        return Some("PROXY");
    }
    if first.starts_with(b"SSH-") {
        return Some("SSH");
    }
    match first {
        [22, 3, 0..=4, ..] => Some("TLS"),
        [3, 0, 0, ..] => Some("RDP"),
        // A bare packet without its length: what OpenVPN sends over UDP.
        [0x38 | 0x50, ..] => Some("OpenVPN over UDP"),
        _ => None,
    }
}

/// First bytes that tell protocols apart.
const FIRST: usize = 12;

/// The source of a connection that has not told who it is.
pub(super) fn source_of(record: &Record) -> IpAddr {
    record.source.ip().to_canonical()
}
