//! One client of a fleet: its connection, its TLS engines and its share of the traffic.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tunnelhead_crypto::{FastRandom, SecretBytes};

use crate::net::icmp;
use crate::proto::client::{Client, ClientEvent};
use crate::proto::negotiate::ParsedPush;
use crate::proto::session::{EngineId, TlsOp, TlsTask};
use crate::telemetry::clock;
use crate::tls::{OpensslContext, TlsContext as _, TlsEngine};

use super::inner::{self, Kind};
use super::{Command, Happening, Member, MemberId, View};

/// Bytes of a ping's payload.
const PING_PAYLOAD: usize = 56;
/// Identifier of pings to the gateway, and to the management address.
const GATEWAY_PING: u16 = 1;
const MANAGEMENT_PING: u16 = 2;
/// The member's own port for datagrams.
const DATAGRAM_PORT: u16 = 20_000;
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(86_400);
/// The management address when nothing was pushed.
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// What the fleet's thread lends to a member.
pub(super) struct Tools<'a> {
    pub(super) now: Instant,
    pub(super) rng: &'a mut FastRandom,
    pub(super) scratch: &'a mut [u8],
    /// Connections that were abandoned: open, and nobody's.
    pub(super) abandoned: &'a mut Vec<TcpStream>,
}

/// A client with its connection.
pub(super) struct Link {
    pub(super) socket: TcpStream,
    client: Client,
    engines: Vec<(EngineId, Box<dyn TlsEngine>)>,
    out: Vec<u8>,
    /// The TCP connection is made.
    open: bool,
    /// What the epoll set holds: reading and writing.
    pub(super) watched: Option<(bool, bool)>,
}

/// One member.
pub(super) struct State {
    id: MemberId,
    spec: Member,
    tls: OpensslContext,
    pub(super) link: Option<Link>,
    /// Counts and what has happened since the last publication.
    pub(super) view: View,
    reading: bool,
    redial_at: Option<Instant>,
    ping_every: Option<Duration>,
    ping_at: Option<Instant>,
    sequence: u16,
    number: u64,
    management: Ipv4Addr,
    key_exchange_done: bool,
    /// The earliest entry of the timer heap.
    pub(super) planned: Option<Instant>,
}

impl State {
    pub(super) fn new(id: MemberId, spec: Member, tls: OpensslContext) -> Self {
        Self {
            id,
            spec,
            tls,
            link: None,
            view: View::default(),
            reading: true,
            redial_at: None,
            ping_every: None,
            ping_at: None,
            sequence: 0,
            number: 0,
            management: NOBODY,
            key_exchange_done: false,
            planned: None,
        }
    }

    pub(super) fn wants_to_dial(&self) -> bool {
        !self.spec.idle
    }

    /// When [`Self::on_time`] is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let client = self.link.as_ref().and_then(|link| link.client.poll_timeout());
        [client, self.redial_at, self.ping_at].into_iter().flatten().min()
    }

    /// What to watch the socket for.
    pub(super) fn interest(&self) -> Option<(bool, bool)> {
        let link = self.link.as_ref()?;
        Some((self.reading && link.open, !link.open || !link.out.is_empty()))
    }

    // --- connections ------------------------------------------------------------------------------

    pub(super) fn dial(&mut self, tools: &mut Tools<'_>) {
        self.redial_at = None;
        if self.link.is_some() {
            return;
        }
        self.view.dials += 1;
        self.key_exchange_done = false;
        let mut config = self.spec.profile.client(&self.spec.username, &self.spec.password);
        if self.spec.never_asks {
            config.push_delay = NEVER;
        }
        let unix = u32::try_from(clock::unix_seconds()).unwrap_or(u32::MAX);
        let made = Client::new(config, tools.now, unix, tools.rng)
            .map_err(|error| error.to_string())
            .and_then(|client| {
                let socket = connect(&self.spec).map_err(|error| error.to_string())?;
                Ok((client, socket))
            });
        match made {
            Ok((client, socket)) => {
                self.view.connected = true;
                self.link = Some(Link {
                    socket,
                    client,
                    engines: Vec::new(),
                    out: self.spec.preamble.clone(),
                    open: false,
                    watched: None,
                });
            }
            Err(why) => self.ended(tools.now, format!("can't dial: {why}")),
        }
    }

    /// The connection is over; what is left of it goes with it.
    fn ended(&mut self, now: Instant, why: String) {
        if let Some(link) = self.link.take() {
            self.view.client = link.client.stats();
        }
        self.view.up = false;
        self.view.connected = false;
        self.view.closes += 1;
        self.view.log.push(Happening::Closed(why));
        self.redial_at = self.spec.redial.map(|delay| now + delay);
        self.ping_at = None;
    }

    pub(super) fn on_socket(&mut self, tools: &mut Tools<'_>, readable: bool, writable: bool) {
        let Some(link) = self.link.as_mut() else { return };
        if writable && !link.open {
            match link.socket.take_error() {
                Ok(None) => link.open = true,
                Ok(Some(error)) | Err(error) => return self.ended(tools.now, error.to_string()),
            }
        }
        if readable && self.reading {
            self.read(tools);
        }
        self.pump(tools);
    }

    fn read(&mut self, tools: &mut Tools<'_>) {
        let Some(link) = self.link.as_mut() else { return };
        let read = match link.socket.read(tools.scratch) {
            Ok(0) => return self.ended(tools.now, "the server closed the connection".to_owned()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return self.ended(tools.now, error.to_string()),
        };
        self.view.link_rx_bytes += read as u64;
        let bytes = tools.scratch.get_mut(..read).unwrap_or_default();
        let mut packets = Vec::new();
        link.client.handle_link(tools.now, bytes, &mut |packet| packets.push(packet.to_vec()));
        for packet in packets {
            self.receive(tools, packet);
        }
    }

    /// Does what the client asks for until it asks for nothing, then writes.
    pub(super) fn pump(&mut self, tools: &mut Tools<'_>) {
        loop {
            let Some(link) = self.link.as_mut() else { return };
            let mut busy = link.client.poll_transmit(tools.now, &mut link.out);
            while let Some(event) = self.link.as_mut().and_then(|link| link.client.poll_event()) {
                busy = true;
                self.on_event(tools, event);
            }
            if !busy {
                break;
            }
        }
        if self.key_exchange_done && self.spec.die_after_key_exchange > 0 {
            self.spec.die_after_key_exchange -= 1;
            return self.ended(tools.now, "it gave up after the key exchange".to_owned());
        }
        self.flush(tools.now);
        if let Some(link) = &self.link {
            self.view.client = link.client.stats();
        }
    }

    fn on_event(&mut self, tools: &mut Tools<'_>, event: ClientEvent) {
        match event {
            ClientEvent::Tls(task) => self.on_task(tools, task),
            ClientEvent::Connected { .. } if self.spec.dies_at_push_reply => {
                self.ended(tools.now, "it did not like the push reply".to_owned());
            }
            ClientEvent::Connected { push, cipher } => {
                let Some(address) = push.ifconfig.map(|(address, _)| address) else {
                    return self.view.violations.push("no address was pushed".to_owned());
                };
                self.configure(&push);
                self.view.up = true;
                self.view.logins += 1;
                self.view.address = Some(address);
                self.ping_at = self.ping_every.map(|every| tools.now + every);
                self.view.log.push(Happening::Connected { address, cipher: cipher.name() });
                self.drop_engines();
            }
            ClientEvent::AuthFailed(text) => {
                self.view.refusals += 1;
                self.view.log.push(Happening::AuthFailed(text));
            }
            ClientEvent::Restart(text) | ClientEvent::Halt(text) => {
                self.view.log.push(Happening::Restart(text));
            }
            ClientEvent::Exit => {}
            ClientEvent::KeysChanged { key_id } => {
                self.view.rekeys += 1;
                self.view.log.push(Happening::KeysChanged(key_id));
                self.drop_engines();
            }
            ClientEvent::ProtocolViolation(what) => self.view.violations.push(what),
            ClientEvent::Close(why) => {
                self.flush(tools.now);
                self.ended(tools.now, why);
            }
        }
    }

    fn on_task(&mut self, tools: &mut Tools<'_>, TlsTask { engine, op }: TlsTask) {
        let Some(link) = self.link.as_mut() else { return };
        match &op {
            TlsOp::Open => match self.tls.open() {
                Ok(made) => link.engines.push((engine, made)),
                Err(error) => return self.view.violations.push(error.to_string()),
            },
            TlsOp::Close => return link.engines.retain(|(id, _)| *id != engine),
            TlsOp::Input(_) | TlsOp::Write(_) => {}
        }
        // Without an engine: it was dropped when its work was done.
        let found = link.engines.iter_mut().find(|(id, _)| *id == engine);
        let Some((_, tls)) = found else { return };
        let answer = tls.handle(op);
        self.key_exchange_done |= !answer.plaintext.is_empty();
        if !answer.is_nothing() {
            let answer = answer.for_engine(engine);
            link.client.handle_tls_answer(tools.now, answer, tools.rng);
        }
    }

    fn drop_engines(&mut self) {
        if let Some(link) = self.link.as_mut().filter(|_| !self.spec.keep_engines) {
            link.engines.clear();
        }
    }

    fn configure(&mut self, push: &ParsedPush) {
        self.view.gateway = push.route_gateway;
        self.management = push.routes.first().map_or(NOBODY, |route| route.network);
    }

    fn flush(&mut self, now: Instant) {
        let Some(link) = self.link.as_mut().filter(|link| link.open) else { return };
        let step = if self.spec.one_byte_segments { 1 } else { usize::MAX };
        let mut written = 0;
        while let Some(rest) = link.out.get(written..).filter(|rest| !rest.is_empty()) {
            let chunk = rest.get(..rest.len().min(step)).unwrap_or_default();
            match link.socket.write(chunk) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return self.ended(now, error.to_string()),
            }
        }
        link.out.drain(..written);
    }

    // --- packets ----------------------------------------------------------------------------------

    fn receive(&mut self, tools: &mut Tools<'_>, mut packet: Vec<u8>) {
        self.view.rx_packets += 1;
        self.view.rx_bytes += packet.len() as u64;
        let seen = match inner::read(&packet) {
            Ok(seen) => seen,
            Err(what) => return self.view.violations.push(what),
        };
        if Some(seen.destination) != self.view.address {
            let what = format!("a packet for {} came to {:?}", seen.destination, self.view.address);
            return self.view.violations.push(what);
        }
        match seen.kind {
            Kind::EchoRequest if icmp::echo_reply_in_place(&mut packet) => {
                self.view.host_pings += 1;
                self.send(tools, &packet);
            }
            Kind::EchoReply { id: GATEWAY_PING, .. } => self.view.gateway_pings.1 += 1,
            Kind::EchoReply { id: MANAGEMENT_PING, .. } => self.view.management_pings.1 += 1,
            Kind::Datagram { payload, .. } => {
                self.view.datagrams += 1;
                self.view.datagram_bytes += payload as u64;
            }
            Kind::EchoRequest | Kind::EchoReply { .. } | Kind::Other => {}
        }
    }

    fn send(&mut self, tools: &mut Tools<'_>, packet: &[u8]) {
        let Some(link) = self.link.as_mut() else { return };
        if link.client.send_packet(tools.now, packet, tools.rng, &mut link.out).is_ok() {
            self.view.tx_packets += 1;
            self.view.tx_bytes += packet.len() as u64;
        }
    }

    fn ping(&mut self, tools: &mut Tools<'_>, id: u16) {
        if !self.view.up {
            return;
        }
        let (target, count) = match id {
            GATEWAY_PING => (self.view.gateway, &mut self.view.gateway_pings.0),
            _ => (Some(self.management), &mut self.view.management_pings.0),
        };
        *count += 1;
        self.sequence = self.sequence.wrapping_add(1);
        let (source, target) = (self.view.address.unwrap_or(NOBODY), target.unwrap_or(NOBODY));
        let packet = inner::echo_request(source, target, id, self.sequence, PING_PAYLOAD);
        self.send(tools, &packet);
    }

    // --- orders and time --------------------------------------------------------------------------

    pub(super) fn obey(&mut self, tools: &mut Tools<'_>, command: Command) {
        match command {
            Command::Dial => self.dial(tools),
            Command::HangUp => {
                if self.link.is_some() {
                    self.ended(tools.now, "it hung up".to_owned());
                }
            }
            Command::Abandon => {
                if let Some(link) = self.link.take() {
                    self.view.client = link.client.stats();
                    tools.abandoned.push(link.socket);
                    self.ended(tools.now, "it was abandoned".to_owned());
                }
            }
            Command::PingGateway => self.ping(tools, GATEWAY_PING),
            Command::PingManagement => self.ping(tools, MANAGEMENT_PING),
            Command::PingBoth => {
                self.ping(tools, GATEWAY_PING);
                self.ping(tools, MANAGEMENT_PING);
            }
            Command::PingEvery(every) => {
                self.ping_every = every;
                self.ping_at = every.filter(|_| self.view.up).map(|_| tools.now);
            }
            Command::Datagrams { count, payload, port } => {
                let source = SocketAddrV4::new(self.view.address.unwrap_or(NOBODY), DATAGRAM_PORT);
                let target = SocketAddrV4::new(self.management, port);
                for _ in 0..count {
                    self.number += 1;
                    let packet = inner::udp(source, target, self.number, payload);
                    self.send(tools, &packet);
                }
            }
            Command::Packet(packet) => self.send(tools, &packet),
            Command::Rekey => {
                let started =
                    self.link.as_mut().is_some_and(|link| link.client.start_rekey(tools.now));
                if started {
                    self.view.rekeys_started += 1;
                } else {
                    self.view.violations.push("a rekey could not be started".to_owned());
                }
            }
            Command::Credentials(username, password) => {
                self.spec.username = username.into_bytes();
                self.spec.password = password.into_bytes();
                let (username, password) =
                    (self.spec.username.clone(), SecretBytes::from(self.spec.password.clone()));
                if let Some(link) = self.link.as_mut() {
                    link.client.set_credentials(username, password);
                }
            }
            Command::Message(message) => {
                if let Some(link) = self.link.as_mut() {
                    link.client.send_message(&message);
                }
            }
            Command::Raw(bytes) => {
                if let Some(link) = self.link.as_mut() {
                    link.out.extend_from_slice(&bytes);
                }
            }
            Command::StopReading => self.reading = false,
            Command::ResumeReading => self.reading = true,
        }
        self.pump(tools);
    }

    pub(super) fn on_time(&mut self, tools: &mut Tools<'_>) {
        if self.redial_at.is_some_and(|at| at <= tools.now) {
            self.dial(tools);
        }
        if self.ping_at.is_some_and(|at| at <= tools.now) {
            self.ping_at = self.ping_every.map(|every| tools.now + every);
            self.ping(tools, MANAGEMENT_PING);
        }
        if let Some(link) = self.link.as_mut()
            && link.client.poll_timeout().is_some_and(|at| at <= tools.now)
        {
            link.client.handle_timeout(tools.now, tools.rng);
        }
        self.pump(tools);
    }

    pub(super) fn id(&self) -> MemberId {
        self.id
    }
}

/// Begins to connect without waiting for it.
fn connect(spec: &Member) -> io::Result<TcpStream> {
    let target = spec.target;
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = spec.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = spec.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
