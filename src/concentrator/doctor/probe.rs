//! Logs in through a listener as a router would, with an account that exists for this one login
//! and gets no tunnel: TCP, wrapping, TLS and the exchange of keys up to the verdict.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tunnelhead_crypto::{KeyDirection, Metadata, SecretBytes, SystemRandom, TlsCryptV2ClientKey};

use crate::config;
use crate::proto::client::{Client, ClientConfig, ClientEvent, ClientWrap};
use crate::proto::session::{EngineId, TlsOp};
use crate::telemetry::clock;
use crate::tls::{ClientTlsConfig, OpensslContext, OpensslEngine, TlsEngine as _, TlsVersion};

use super::Served;

/// Longest time for one login.
const DEADLINE: Duration = Duration::from_secs(5);
/// A name that the loopback test of a load balancer's listener says: no address follows.
/// Source: PROXY protocol v1.
const PROXY_UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// Logs in. `username` is the one-time account; blocks for five seconds at most.
pub(in crate::concentrator) fn log_in(
    address: SocketAddr,
    listener: &config::Listener,
    username: &str,
) -> Result<Served, String> {
    let deadline = clock::now() + DEADLINE;
    let target = SocketAddr::new(reachable(address.ip()), address.port());
    let mut socket = TcpStream::connect_timeout(&target, DEADLINE)
        .map_err(|error| format!("no connection to {target}: {error}"))?;
    if listener.proxy_protocol.iter().any(|net| net.contains(&target.ip())) {
        socket.write_all(PROXY_UNKNOWN).map_err(text)?;
    }
    let mut probe = Probe::new(listener, username)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if let Some(end) = probe.advance()? {
            return Ok(end);
        }
        socket.write_all(&std::mem::take(&mut probe.out)).map_err(text)?;
        let now = clock::now();
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(format!("{} within {} s", probe.so_far(), DEADLINE.as_secs()));
        }
        let due = probe.client.poll_timeout().map(|at| at.saturating_duration_since(now));
        let wait = due.unwrap_or(left).min(left).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).map_err(text)?;
        match socket.read(&mut buffer) {
            Ok(0) => return probe.hung_up(),
            Ok(length) => {
                let bytes = buffer.get_mut(..length).unwrap_or_default();
                probe.client.handle_link(clock::now(), bytes, &mut |_| {});
            }
            Err(error) if waited(&error) => {
                probe.client.handle_timeout(clock::now(), &mut SystemRandom);
            }
            Err(_) => return probe.hung_up(),
        }
    }
}

struct Probe {
    client: Client,
    context: OpensslContext,
    engine: Option<(EngineId, OpensslEngine)>,
    asks_certificate: bool,
    served: Option<Served>,
    out: Vec<u8>,
}

impl Probe {
    fn new(listener: &config::Listener, username: &str) -> Result<Self, String> {
        let unix = u32::try_from(clock::unix_seconds()).unwrap_or(u32::MAX);
        let config = ClientConfig {
            username: Some(username.as_bytes().to_vec()),
            password: Some(SecretBytes::from(username.as_bytes().to_vec())),
            wrap: wrap_of(&listener.wrap)?,
            hand_window: DEADLINE,
            ..ClientConfig::default()
        };
        let client = Client::new(config, clock::now(), unix, &mut SystemRandom).map_err(text)?;
        // What the listener accepts, and nobody to verify: that is a router's affair.
        let tls = ClientTlsConfig { min_version: TlsVersion::Tls12, ..ClientTlsConfig::default() };
        Ok(Self {
            client,
            context: OpensslContext::client(&tls).map_err(text)?,
            engine: None,
            asks_certificate: listener.client_certificate == config::CertificatePolicy::Required,
            served: None,
            out: Vec::new(),
        })
    }

    /// Goes as far as the bytes at hand allow.
    fn advance(&mut self) -> Result<Option<Served>, String> {
        let now: Instant = clock::now();
        loop {
            while self.client.poll_transmit(now, &mut self.out) {}
            let Some(event) = self.client.poll_event() else { return Ok(None) };
            match event {
                ClientEvent::Tls(task) => {
                    if matches!(task.op, TlsOp::Open) {
                        self.engine = Some((task.engine, self.context.engine().map_err(text)?));
                    }
                    let Some((id, engine)) = &mut self.engine else { continue };
                    let answer = engine.handle(task.op);
                    if let Some(error) = &answer.error {
                        return match self.served.take() {
                            Some(served) if self.asks_certificate => Ok(Some(served)),
                            _ if self.asks_certificate && error.contains("certificate") => {
                                Err(format!("TLS ended before the server's certificate: {error}"))
                            }
                            _ => Err(error.clone()),
                        };
                    }
                    if let Some(facts) = &answer.established {
                        self.served = engine.peer_certificate().map(|seen| Served {
                            subject: seen.subject,
                            key: seen.key,
                            not_after: seen.not_after,
                            tls: facts.version.clone(),
                            verdict: false,
                        });
                    }
                    let answer = answer.for_engine(*id);
                    self.client.handle_tls_answer(now, answer, &mut SystemRandom);
                }
                ClientEvent::AuthFailed(_) => {
                    return match self.served.take() {
                        Some(served) => Ok(Some(Served { verdict: true, ..served })),
                        None => Err("a verdict came before the server's certificate".to_owned()),
                    };
                }
                ClientEvent::ProtocolViolation(what) => return Err(what),
                ClientEvent::Close(why) => return Err(why),
                ClientEvent::Connected { .. } => {
                    return Err("the one-time account was given a tunnel".to_owned());
                }
                ClientEvent::Restart(_)
                | ClientEvent::Halt(_)
                | ClientEvent::Exit
                | ClientEvent::KeysChanged { .. } => {}
            }
        }
    }

    /// The server has closed the connection.
    fn hung_up(&mut self) -> Result<Served, String> {
        match self.served.take() {
            // A router has a certificate at this point; this login has none.
            Some(served) if self.asks_certificate => Ok(served),
            _ => Err(format!("the connection was closed, {}", self.so_far())),
        }
    }

    fn so_far(&self) -> &'static str {
        match (&self.served, &self.engine) {
            (Some(_), _) => "TLS was complete but no verdict came",
            (None, Some(_)) => "TLS began but was not complete",
            (None, None) => "nothing was answered",
        }
    }
}

fn wrap_of(wrap: &config::Wrap) -> Result<ClientWrap, String> {
    Ok(match wrap {
        config::Wrap::None => ClientWrap::None,
        config::Wrap::TlsAuth { key, digest } => ClientWrap::TlsAuth {
            key: key.duplicate(),
            direction: KeyDirection::Inverse,
            digest: *digest,
        },
        config::Wrap::TlsCrypt { key } => ClientWrap::TlsCrypt { key: key.duplicate() },
        config::Wrap::TlsCryptV2 { key } => ClientWrap::TlsCryptV2 {
            key: TlsCryptV2ClientKey::generate(
                key,
                &Metadata::Timestamp(clock::unix_seconds()),
                &mut SystemRandom,
            )
            .map_err(text)?,
        },
    })
}

/// Where this host reaches a listener of its own.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn waited(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
