//! What is kept of one login attempt.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::fault::TlsFault;
use super::hello::Hello;
use super::recording::Certificate;

/// Something that was seen of a login, in the order in which a good one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The TCP connection.
    Accepted,
    /// The balancer's PROXY header.
    ProxyHeader,
    /// The first byte.
    FirstBytes,
    /// The client's hard reset.
    HardReset,
    /// Ours.
    ResetAnswered,
    /// The client's first TLS message.
    ClientHello,
    /// Our side of the TLS handshake began to leave, the certificate included.
    ServerHello,
    /// The client said in TLS what it does not like.
    Alert,
    /// TLS stands.
    Tls,
    /// The client's key exchange: options string, peer info, credentials.
    KeyExchange,
    /// The authenticator has answered.
    Verdict,
    /// The address pool has answered.
    Address,
    /// The client asked for its configuration.
    PushRequest,
    /// It was sent.
    PushReply,
    /// Packets can flow both ways.
    Up,
    /// It was over.
    End,
}

impl Step {
    /// Stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::ProxyHeader => "proxy_header",
            Self::FirstBytes => "first_bytes",
            Self::HardReset => "hard_reset",
            Self::ResetAnswered => "reset_answered",
            Self::ClientHello => "client_hello",
            Self::ServerHello => "server_hello",
            Self::Alert => "tls_alert",
            Self::Tls => "tls_established",
            Self::KeyExchange => "key_exchange",
            Self::Verdict => "verdict",
            Self::Address => "address",
            Self::PushRequest => "push_request",
            Self::PushReply => "push_reply",
            Self::Up => "up",
            Self::End => "end",
        }
    }
}

/// A step and when it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What.
    pub step: Step,
    /// Milliseconds since the connection was accepted.
    pub at_ms: u32,
}

/// How an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Logged in; packets have not flowed both ways yet.
    LoggedIn,
    /// A tunnel.
    Up,
    /// No tunnel came of it.
    Failed {
        /// Stable name of the reason, the same as in events and counters.
        reason: &'static str,
        /// What exactly: one sentence.
        detail: Box<str>,
    },
}

impl Outcome {
    /// Stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::LoggedIn => "logged_in",
            Self::Up => "up",
            Self::Failed { .. } => "failed",
        }
    }

    /// The reason of a failure.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Failed { reason, .. } => Some(reason),
            Self::LoggedIn | Self::Up => None,
        }
    }
}

/// One login attempt. Small: texts that a fleet has in common are shared between records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The connection's number, unique for the life of the process.
    pub id: u64,
    /// When it was accepted: milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// The router's real address.
    pub source: SocketAddr,
    /// The balancer that it came through.
    pub proxy: Option<IpAddr>,
    /// Index of the listener.
    pub listener: usize,
    /// Which set of server certificates it was served with; rises with each change.
    pub certificates: u32,
    /// What was seen.
    pub marks: Vec<Mark>,
    /// What the first bytes look like, if they are those of another protocol.
    pub looks_like: Option<&'static str>,
    /// Number of hard resets that the client sent.
    pub resets: u8,
    /// The client's session id.
    pub session_id: Option<[u8; 8]>,
    /// Its ClientHello.
    pub hello: Option<Arc<Hello>>,
    /// Level and description of the client's alert, if it was readable.
    pub alert: Option<(u8, u8)>,
    /// What is wrong with TLS, if that is what failed.
    pub tls_fault: Option<TlsFault>,
    /// Agreed TLS version and suite.
    pub tls: Option<(Arc<str>, Arc<str>)>,
    /// The client's verified certificate.
    pub certificate: Option<Arc<Certificate>>,
    /// User name as sent, at most 128 bytes of it.
    pub username: Option<Box<[u8]>>,
    /// The options string, printable.
    pub options: Option<Arc<str>>,
    /// The peer info, printable lines; empty: none was sent.
    pub peer_info: Option<Arc<str>>,
    /// Who it is, once the authenticator said so.
    pub router: Option<Arc<str>>,
    /// Data cipher and digest, once agreed.
    pub data: Option<(&'static str, &'static str)>,
    /// The tunnel address, once assigned.
    pub address: Option<Ipv4Addr>,
    /// How it stands.
    pub outcome: Outcome,
}

impl Record {
    /// When a step was first seen: milliseconds since accept.
    pub fn at(&self, step: Step) -> Option<u32> {
        self.marks.iter().find(|mark| mark.step == step).map(|mark| mark.at_ms)
    }

    /// True if the step was seen.
    pub fn saw(&self, step: Step) -> bool {
        self.at(step).is_some()
    }

    /// The furthest step of a login that was seen, in the order of a good one.
    pub fn furthest(&self) -> Step {
        let steps = self.marks.iter().map(|mark| mark.step);
        steps
            .filter(|step| !matches!(step, Step::End | Step::Alert))
            .max()
            .unwrap_or(Step::Accepted)
    }

    /// When it was over, or last heard of: milliseconds since 1970-01-01 UTC.
    pub fn ended_ms(&self) -> u64 {
        let last = self.marks.iter().map(|mark| mark.at_ms).max().unwrap_or(0);
        self.started_ms.saturating_add(u64::from(last))
    }

    /// An element of the options string, such as `cipher`.
    pub fn option(&self, name: &str) -> Option<&str> {
        let elements = self.options.as_deref()?.split(',').map(str::trim);
        let mut found =
            elements.filter_map(|element| element.strip_prefix(name)?.strip_prefix(' '));
        found.next().map(str::trim).filter(|value| !value.is_empty())
    }

    /// True if the options string has this element without a value.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.as_deref().is_some_and(|text| text.split(',').any(|e| e.trim() == name))
    }

    /// A value of the peer info.
    pub fn peer(&self, name: &str) -> Option<&str> {
        let lines = self.peer_info.as_deref()?.lines();
        let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.next()
    }

    /// What the client's options string and peer info say about its software and settings: a short
    /// text that all clients of one firmware and configuration share.
    pub fn settings(&self) -> Option<String> {
        self.options.as_ref()?;
        let mut text = match (self.peer("IV_VER"), self.peer("IV_PROTO")) {
            (Some(version), _) => format!("OpenVPN {version}"),
            (None, Some(proto)) => format!("IV_PROTO={proto}"),
            (None, None) => "no peer info".to_owned(),
        };
        let cipher = self.peer("IV_CIPHERS").or_else(|| self.option("cipher"));
        text.push_str(", cipher ");
        text.push_str(cipher.unwrap_or("not named"));
        if let Some(auth) = self.option("auth") {
            text.push_str(", auth ");
            text.push_str(auth);
        }
        Some(text.chars().take(160).collect())
    }

    /// Bytes that this record takes, shared texts not counted.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + self.marks.capacity() * size_of::<Mark>()
            + self.username.as_deref().map_or(0, <[u8]>::len)
            + match &self.outcome {
                Outcome::Failed { detail, .. } => detail.len(),
                Outcome::LoggedIn | Outcome::Up => 0,
            }
    }
}
