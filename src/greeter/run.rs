//! The greeter's event loop.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;
use tunnelhead_crypto::FastRandom;

use crate::net::admission::Admission;
use crate::net::proxy_protocol;
use crate::proto::ClientId;
use crate::proto::session::{
    AuthRequest, Disposition, Event, Session, SessionConfig, SessionError, TlsAnswer, TlsOp,
    TlsTask, WrapConfig,
};
use crate::sys::epoll::{self, Epoll, Interest};
use crate::sys::mailbox::Mailbox;
use crate::sys::sched;
use crate::telemetry::clock;
use crate::telemetry::flight::{Certificate, Flight, KeyExchange};
use crate::tls::TlsContext;

use super::conn::{Conn, Login, Stage};
use super::engines::Engines;
use super::listener::{self, Accepted};
use super::parked::Parked;
use super::{
    Asker, Departure, GreeterLimits, GreeterMessage, GreeterServices, GreeterShared, Listener,
    LoginEnd,
};

const MAILBOX: u64 = u64::MAX;
const LISTENERS: u64 = 1 << 40;
/// Most events taken from one wait.
const EVENTS: usize = 256;
/// Connections accepted in one turn.
const ACCEPTS_A_TURN: usize = 16;
/// Bytes read from one connection in one turn.
const READ_BYTES: usize = 16 * 1024;
/// A handshake that has heard nothing for so long doesn't hold its place.
const STALLED_AFTER: Duration = Duration::from_secs(2);
/// Connections that may wait for a place; beyond it newcomers stay in the kernel's backlog.
const MAX_WAITING: usize = 64;
/// How long a connection waits for a place at most.
const WAIT_AT_MOST: Duration = Duration::from_secs(2);
/// Places are given back by other greeters too: look again after this time.
const RETRY_WAITING: Duration = Duration::from_millis(10);
/// Time between looks at stalled handshakes, summaries and the like.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A greeter thread's state.
pub(super) struct Greeter {
    index: usize,
    listeners: Vec<Listener>,
    limits: GreeterLimits,
    shared: Arc<GreeterShared>,
    mailbox: Arc<Mailbox<GreeterMessage>>,
    services: Arc<dyn GreeterServices>,
    epoll: Epoll,
    conns: Slab<Conn>,
    by_client: HashMap<ClientId, usize>,
    parked: Parked,
    timers: BinaryHeap<Reverse<(Instant, usize, ClientId)>>,
    /// Connections with unread bytes that wait for a place among the handshakes in progress.
    waiting: VecDeque<ClientId>,
    accepting: bool,
    accept_again: Option<Instant>,
    sweep_at: Instant,
    rng: FastRandom,
    scratch: Vec<u8>,
    stopping: bool,
}

impl Greeter {
    pub(super) fn new(
        index: usize,
        listeners: Vec<Listener>,
        limits: GreeterLimits,
        shared: Arc<GreeterShared>,
        mailbox: Arc<Mailbox<GreeterMessage>>,
        services: Arc<dyn GreeterServices>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(mailbox.as_fd(), MAILBOX, Interest::READ)?;
        let rng = FastRandom::from_os().map_err(|_| io::Error::other("no randomness"))?;
        let parked = Parked::new(limits.rekeys);
        Ok(Self {
            index,
            listeners,
            limits,
            shared,
            mailbox,
            services,
            epoll,
            conns: Slab::new(),
            by_client: HashMap::new(),
            parked,
            timers: BinaryHeap::new(),
            waiting: VecDeque::new(),
            accepting: false,
            accept_again: None,
            sweep_at: clock::now() + SWEEP_EVERY,
            rng,
            scratch: vec![0; READ_BYTES],
            stopping: false,
        })
    }

    pub(super) fn run(&mut self) {
        if let Err(error) = sched::set_batch_priority(self.limits.nice) {
            tracing::warn!(%error, "greeter threads run at normal priority");
        }
        let mut events = vec![epoll::Event::EMPTY; EVENTS];
        let mut messages = Vec::new();
        while !self.stopping {
            if let Some(turns) = self.shared.turns.get(self.index) {
                turns.fetch_add(1, Ordering::Relaxed);
            }
            let now = clock::now();
            self.update_accepting(now);
            let wait = self.next_deadline(now).saturating_duration_since(now);
            let count = match self.epoll.wait(&mut events, Some(wait)) {
                Ok(count) => count,
                Err(error) => {
                    tracing::error!(%error, "the greeter can't wait for events");
                    return;
                }
            };
            let now = clock::now();
            // Messages first: they are about clients that are further along than any newcomer.
            self.mailbox.drain(&mut messages);
            for message in messages.drain(..) {
                self.on_message(now, message);
            }
            for event in events.iter().take(count) {
                self.on_event(now, event);
            }
            self.resume_waiting(now);
            self.on_timers(now);
        }
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let pressed = !self.accepting || !self.waiting.is_empty();
        let retry = pressed.then(|| now + RETRY_WAITING);
        [timer, self.accept_again, retry].into_iter().flatten().fold(self.sweep_at, Instant::min)
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_event(&mut self, now: Instant, event: &epoll::Event) {
        match event.token() {
            MAILBOX => {}
            token if token >= LISTENERS => {
                self.accept(now, usize::try_from(token - LISTENERS).unwrap_or(usize::MAX));
            }
            token => {
                let key = usize::try_from(token).unwrap_or(usize::MAX);
                if event.writable() {
                    self.flush(key);
                }
                if event.closed() && self.conns.get(key).is_some_and(|conn| conn.paused) {
                    // Nobody reads it, so nothing else would silence the report.
                    self.close(key, "connection_reset", "the connection was reset");
                } else if event.readable() {
                    self.on_readable(now, key);
                }
            }
        }
    }

    fn on_message(&mut self, now: Instant, message: GreeterMessage) {
        match message {
            GreeterMessage::Verdict(client, ticket, verdict) => {
                self.note(client, |flight| flight.verdict(now));
                self.with_login(client, |login| login.session.handle_verdict(now, ticket, verdict));
                self.drive_client(now, client);
            }
            GreeterMessage::Assignment(client, ticket, assignment) => {
                let address = assignment.as_ref().ok().map(|assigned| assigned.address);
                self.note(client, |flight| flight.address(now, address));
                self.with_login(client, |login| {
                    login.assignment = assignment.ok();
                    login.session.handle_assignment(now, ticket, assignment);
                });
                self.drive_client(now, client);
            }
            GreeterMessage::TlsTask(client, task) => {
                let services = Arc::clone(&self.services);
                self.parked.task(client, task, &mut |client, address, answer| {
                    services.tls_answer(client, address, answer);
                });
            }
            GreeterMessage::Forget(client) => {
                let services = Arc::clone(&self.services);
                self.parked.forget(client, &mut |client, address, answer| {
                    services.tls_answer(client, address, answer);
                });
            }
            GreeterMessage::Settings(listeners, limits) => self.change(listeners, limits),
            GreeterMessage::Stop => self.stopping = true,
        }
    }

    fn with_login(&mut self, client: ClientId, act: impl FnOnce(&mut Login)) {
        let Some(&key) = self.by_client.get(&client) else { return };
        if let Some(Conn { stage: Stage::Session(login), .. }) = self.conns.get_mut(key) {
            act(login);
        }
    }

    /// Writes something down about a connection.
    fn note(&mut self, client: ClientId, write: impl FnOnce(&mut Flight)) {
        let conn = self.by_client.get(&client).and_then(|&key| self.conns.get_mut(key));
        if let Some(conn) = conn {
            write(&mut conn.flight);
        }
    }

    fn drive_client(&mut self, now: Instant, client: ClientId) {
        if let Some(&key) = self.by_client.get(&client) {
            self.drive(now, key);
        }
    }

    // --- accepting ---------------------------------------------------------------------------

    fn update_accepting(&mut self, now: Instant) {
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
        }
        let want = self.accept_again.is_none()
            && self.waiting.len() < MAX_WAITING
            && self.admission().has_room();
        self.set_accepting(want);
    }

    /// Other listeners, which are watched from the next turn on.
    fn change(&mut self, listeners: Vec<Listener>, limits: GreeterLimits) {
        self.set_accepting(false);
        self.listeners = listeners;
        self.parked.set_limit(limits.rekeys);
        self.limits = limits;
    }

    fn set_accepting(&mut self, want: bool) {
        if want == self.accepting {
            return;
        }
        let exclusive = Interest { exclusive: true, ..Interest::READ };
        for (token, listener) in (LISTENERS..).zip(&self.listeners) {
            let fd = listener.socket.as_fd();
            let changed =
                if want { self.epoll.add(fd, token, exclusive) } else { self.epoll.remove(fd) };
            if let Err(error) = changed {
                tracing::error!(%error, "a listener can't be watched");
            }
        }
        self.accepting = want;
    }

    fn accept(&mut self, now: Instant, index: usize) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(listener) = self.listeners.get(index) else { return };
            match listener::accept(listener, now) {
                Accepted::Connection(socket, address) => {
                    listener.accepted.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = self.admit(now, index, socket, address) {
                        tracing::debug!(%error, "a connection could not be set up");
                    }
                }
                Accepted::Nobody => return,
                Accepted::PauseUntil(at) => {
                    self.shared.closed.note("no_descriptors");
                    self.accept_again = Some(at);
                    return;
                }
            }
        }
    }

    fn admit(
        &mut self,
        now: Instant,
        index: usize,
        socket: std::net::TcpStream,
        address: std::net::SocketAddr,
    ) -> io::Result<()> {
        let Some(listener) = self.listeners.get(index) else { return Ok(()) };
        if let Err(refused) = self.admission().admit(now, address.ip()) {
            self.shared.closed.note(refused.code());
            return Ok(());
        }
        let client = ClientId(self.shared.next_client.fetch_add(1, Ordering::Relaxed));
        let (settings, tls) = (Arc::clone(&listener.session), Arc::clone(&listener.tls));
        let dialled = listener.socket.local_addr().ok();
        let proxied = listener.proxies.iter().any(|net| net.contains(&address.ip()));
        let stage = if proxied {
            Stage::ProxyHeader(Vec::new())
        } else {
            self.begin(now, &settings, &tls)?
        };
        let deadline = now + self.limits.login_deadline;
        let wrapped = !matches!(settings.wrap, WrapConfig::None);
        let mut flight = Flight::new(client.0, now, clock::unix_millis(), address, index, wrapped);
        flight.served_with(self.shared.certificates.load(Ordering::Relaxed));
        let key = self.conns.insert(Conn {
            client,
            socket,
            source: address,
            admitted_as: address.ip(),
            dialled,
            settings,
            tls,
            stage,
            accepted_at: now,
            deadline,
            next_timer: Some(deadline),
            out: Vec::new(),
            in_handshake: false,
            last_heard: now,
            buffered: 0,
            username: None,
            flight,
            wants_write: false,
            paused: false,
            paused_at: now,
        });
        self.shared.in_progress.fetch_add(1, Ordering::Relaxed);
        self.by_client.insert(client, key);
        self.timers.push(Reverse((deadline, key, client)));
        if let Some(conn) = self.conns.get(key) {
            self.epoll.add(conn.socket.as_fd(), key as u64, Interest::READ)?;
        }
        Ok(())
    }

    fn begin(
        &mut self,
        now: Instant,
        settings: &Arc<SessionConfig>,
        tls: &Arc<dyn TlsContext>,
    ) -> io::Result<Stage> {
        let unix = u32::try_from(clock::unix_seconds()).unwrap_or(u32::MAX);
        let session = Session::new(Arc::clone(settings), now, unix, &mut self.rng)
            .map_err(|_| io::Error::other("no randomness"))?;
        let engines = Engines::new(Arc::clone(tls));
        Ok(Stage::Session(Box::new(Login { session, engines, identity: None, assignment: None })))
    }

    // --- reading and driving -------------------------------------------------------------------

    fn on_readable(&mut self, now: Instant, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.paused {
            return;
        }
        if !conn.in_handshake {
            let mut admission =
                self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
            if !admission.begin_handshake(now, conn.source.ip()) {
                // The bytes stay in the kernel until a place is free.
                conn.paused = true;
                conn.paused_at = now;
                self.waiting.push_back(conn.client);
                set_interest(&self.epoll, key, conn);
                return;
            }
            conn.in_handshake = true;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = conn.read(&mut scratch);
        match read {
            Ok(None) => {}
            Ok(Some(0)) => self.lost(key, "peer_closed", "the peer closed the connection"),
            Err(_) => self.lost(key, "connection_reset", "the connection was reset"),
            Ok(Some(n)) => {
                conn.last_heard = now;
                self.on_bytes(now, key, scratch.get_mut(..n).unwrap_or_default());
            }
        }
        self.scratch = scratch;
    }

    fn on_bytes(&mut self, now: Instant, key: usize, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        match &mut conn.stage {
            Stage::ProxyHeader(held) => {
                held.extend_from_slice(bytes);
                match proxy_protocol::parse(held) {
                    Ok(None) => {}
                    Ok(Some((header, used))) => {
                        let mut rest = held.split_off(used.min(held.len()));
                        if let Some(source) = header.source {
                            conn.source = super::canonical(source);
                            conn.flight.proxied(now, conn.source);
                        }
                        let settings = Arc::clone(&conn.settings);
                        let tls = Arc::clone(&conn.tls);
                        match self.begin(now, &settings, &tls) {
                            Ok(stage) => {
                                if let Some(conn) = self.conns.get_mut(key) {
                                    conn.stage = stage;
                                }
                                if self.readmit(now, key) && !rest.is_empty() {
                                    self.on_bytes(now, key, &mut rest);
                                }
                            }
                            Err(_) => self.close(key, "no_randomness", "no randomness is left"),
                        }
                    }
                    Err(error) => self.close(key, "proxy_header", &error.to_string()),
                }
            }
            Stage::Session(login) => {
                // Before the session decrypts in place.
                conn.flight.received(now, bytes);
                // No data keys exist before the push reply, so nothing can reach the sink.
                match login.session.handle_link(now, bytes, &mut |_| {}) {
                    Ok(()) => self.drive(now, key),
                    Err(error) => self.fail(now, key, &error),
                }
            }
        }
    }

    /// The session has ended with an error: what it has to say first, if the peer has earned it.
    fn fail(&mut self, now: Instant, key: usize, error: &SessionError) {
        let reason = error.reason();
        if let Some(conn) = self.conns.get_mut(key)
            && let Stage::Session(login) = &mut conn.stage
            && reason.disposition() == Disposition::Drain
        {
            transmit(now, &mut login.session, &mut conn.out, &mut conn.flight);
            let _ = conn.flush();
        }
        self.close(key, reason.code(), &format!("{reason} ({error})"));
    }

    /// Counts a proxied connection under the address that its header names. False: closed.
    fn readmit(&mut self, now: Instant, key: usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let mut admission = self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
        match admission.admit(now, conn.source.ip()) {
            Ok(()) => {
                let proxy = std::mem::replace(&mut conn.admitted_as, conn.source.ip());
                admission.released(proxy);
                true
            }
            Err(refused) => {
                drop(admission);
                self.close(key, refused.code(), &refused.to_string());
                false
            }
        }
    }

    /// Does what the session asks for until it asks for nothing.
    fn drive(&mut self, now: Instant, key: usize) {
        let mut established = false;
        let mut close = None;
        loop {
            let Some(conn) = self.conns.get_mut(key) else { return };
            let Stage::Session(login) = &mut conn.stage else { return };
            transmit(now, &mut login.session, &mut conn.out, &mut conn.flight);
            let Some(event) = login.session.poll_event() else { break };
            let asker = |ticket| Asker {
                greeter: self.index,
                client: conn.client,
                ticket,
                source: conn.source,
                listener: conn.dialled,
            };
            match event {
                Event::Tls(task) => {
                    note_task(&mut conn.flight, now, &task);
                    let Some(answer) = login.engines.execute(task) else { continue };
                    note_answer(&mut conn.flight, now, &answer);
                    let result = login.session.handle_tls_answer(now, answer, &mut self.rng);
                    if let Err(error) = result {
                        return self.fail(now, key, &error);
                    }
                }
                Event::AuthNeeded { ticket, request } => {
                    conn.username = Some(request.username.clone());
                    note_request(&mut conn.flight, now, &request);
                    self.services.authenticate(asker(ticket), request);
                }
                Event::AssignmentNeeded { ticket, identity } => {
                    login.identity = Some(identity.clone());
                    conn.flight.allowed(Arc::clone(&identity.0));
                    self.services.assign(asker(ticket), identity);
                }
                Event::Established => {
                    established = true;
                    if login.session.push_requested() {
                        conn.flight.push_requested(now);
                    }
                    let info = login.session.info();
                    let cipher = info.cipher.map_or("", |cipher| cipher.name());
                    let digest = info.digest.map_or("", |digest| digest.name());
                    conn.flight.push_reply(now, cipher, digest);
                }
                Event::Up | Event::KeysChanged { .. } | Event::RekeyPresented { .. } => {}
                Event::Close(reason) => {
                    close = Some((reason.code(), reason.to_string()));
                    break;
                }
            }
        }
        if let Some(Conn { stage: Stage::Session(login), flight, .. }) = self.conns.get_mut(key)
            && login.session.push_requested()
        {
            flight.push_requested(now);
        }
        if let Some((code, detail)) = close {
            // Whatever the session has said last (an alert, AUTH_FAILED) goes out first.
            if let Some(conn) = self.conns.get_mut(key) {
                let _ = conn.flush();
            }
            self.close(key, code, &detail);
        } else if established {
            self.depart(now, key);
        } else {
            self.flush(key);
            self.watch_session_timer(key);
        }
    }

    fn watch_session_timer(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::Session(login) = &conn.stage else { return };
        let Some(at) = login.session.poll_timeout() else { return };
        if conn.next_timer.is_none_or(|next| at < next) {
            conn.next_timer = Some(at);
            self.timers.push(Reverse((at, key, conn.client)));
        }
    }

    fn flush(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.flush().is_err() {
            self.lost(key, "connection_reset", "the connection was reset");
            return;
        }
        self.shared.buffered.fetch_sub(conn.buffered, Ordering::Relaxed);
        conn.buffered = conn.out.len() + conn.session_buffered();
        let total = self.shared.buffered.fetch_add(conn.buffered, Ordering::Relaxed);
        if conn.buffered > self.limits.buffered_each * 2 {
            self.close(key, "not_reading", "the peer sends but reads nothing");
            return;
        }
        if total + conn.buffered > self.limits.buffered_in_all {
            self.close(key, "buffers_full", "too many bytes wait for unauthenticated sessions");
            return;
        }
        let wants_write = !conn.out.is_empty();
        if wants_write != conn.wants_write {
            conn.wants_write = wants_write;
            set_interest(&self.epoll, key, conn);
        }
    }

    // --- endings -------------------------------------------------------------------------------

    fn depart(&mut self, now: Instant, key: usize) {
        let Some(mut conn) = self.remove(key) else { return };
        let source = conn.source;
        let Stage::Session(login) = conn.stage else { return };
        let (Some(identity), Some(assignment)) = (login.identity, login.assignment) else {
            debug_assert!(false, "a session can't be established without identity and address");
            return;
        };
        self.admission().succeeded(now, source.ip());
        self.parked.insert(conn.client, login.engines, assignment.address);
        let (record, trace) = conn.flight.logged_in();
        self.services.depart(Box::new(Departure {
            client: conn.client,
            identity,
            assignment,
            socket: conn.socket,
            real_address: source,
            session: login.session,
            unsent: std::mem::take(&mut conn.out),
            greeter: self.index,
            accepted_at: conn.accepted_at,
            record,
            trace,
        }));
    }

    /// The connection is gone. A client that has read why it was refused hangs up: then that, and
    /// not the hanging up, is how the login ended.
    fn lost(&mut self, key: usize, code: &'static str, detail: &str) {
        let reason = self.conns.get(key).and_then(|conn| match &conn.stage {
            Stage::Session(login) => login.session.close_reason().cloned(),
            Stage::ProxyHeader(_) => None,
        });
        match reason {
            Some(reason) => self.close(key, reason.code(), &reason.to_string()),
            None => self.close(key, code, detail),
        }
    }

    fn close(&mut self, key: usize, code: &'static str, detail: &str) {
        let Some(conn) = self.remove(key) else { return };
        self.shared.closed.note(code);
        let (record, trace) = conn.flight.failed(clock::now(), code, detail);
        self.services.login_failed(LoginEnd {
            client: conn.client,
            source: conn.source,
            username: conn.username,
            reason: code,
            detail: detail.to_owned(),
            record,
            trace,
        });
    }

    fn remove(&mut self, key: usize) -> Option<Conn> {
        let conn = self.conns.try_remove(key)?;
        let _ = self.epoll.remove(conn.socket.as_fd());
        self.by_client.remove(&conn.client);
        self.shared.in_progress.fetch_sub(1, Ordering::Relaxed);
        self.shared.buffered.fetch_sub(conn.buffered, Ordering::Relaxed);
        let mut admission = self.admission();
        admission.released(conn.admitted_as);
        if conn.in_handshake {
            admission.end_handshake();
        }
        drop(admission);
        Some(conn)
    }

    /// Lets connections that wait for a place read on, as far as there are places.
    fn resume_waiting(&mut self, now: Instant) {
        for _ in 0..self.waiting.len() {
            let Some(client) = self.waiting.pop_front() else { return };
            let Some(&key) = self.by_client.get(&client) else { continue };
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let mut admission =
                self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
            if admission.begin_handshake(now, conn.source.ip()) {
                drop(admission);
                conn.in_handshake = true;
                conn.paused = false;
                conn.last_heard = now;
                set_interest(&self.epoll, key, conn);
            } else if now.saturating_duration_since(conn.paused_at) > WAIT_AT_MOST {
                // Handshakes take milliseconds: somebody sits on the places. Whoever waits here
                // without one makes room for a source that has a reserved place.
                drop(admission);
                self.close(key, "no_place", "too many handshakes are in progress");
            } else {
                // A source that has logged in before may still find a place: look at the rest.
                self.waiting.push_back(client);
            }
        }
    }

    // --- time ------------------------------------------------------------------------------------

    fn on_timers(&mut self, now: Instant) {
        while let Some(&Reverse((at, key, client))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.client == client) else {
                continue;
            };
            if conn.deadline <= now {
                self.close(key, "login_deadline", "the login took too long");
                continue;
            }
            conn.next_timer = Some(conn.deadline);
            let deadline = conn.deadline;
            if let Stage::Session(login) = &mut conn.stage {
                if let Err(error) = login.session.handle_timeout(now, &mut self.rng) {
                    self.fail(now, key, &error);
                    continue;
                }
                self.drive(now, key);
            }
            self.timers.push(Reverse((deadline, key, client)));
        }
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP_EVERY;
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let mut admission = self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, conn) in &mut self.conns {
            if conn.in_handshake && now.saturating_duration_since(conn.last_heard) > STALLED_AFTER {
                conn.in_handshake = false;
                admission.end_handshake();
            }
        }
        drop(admission);
        if let Some(summary) = self.shared.closed.summary(now) {
            tracing::info!(%summary, "connections closed before they were tunnels");
        }
    }
}

fn set_interest(epoll: &Epoll, key: usize, conn: &Conn) {
    let interest = Interest { read: !conn.paused, write: conn.wants_write, ..Interest::NONE };
    if let Err(error) = epoll.modify(conn.socket.as_fd(), key as u64, interest) {
        tracing::debug!(%error, "a connection can't be watched");
    }
}

/// Lets the session write, and the flight recorder read along.
fn transmit(now: Instant, session: &mut Session, out: &mut Vec<u8>, flight: &mut Flight) {
    let start = out.len();
    while session.poll_transmit(now, out) {}
    flight.sent(now, out.get(start..).unwrap_or_default());
}

fn note_task(flight: &mut Flight, now: Instant, task: &TlsTask) {
    if let TlsOp::Input(bytes) = &task.op {
        flight.tls_input(now, bytes);
    }
}

fn note_answer(flight: &mut Flight, now: Instant, answer: &TlsAnswer) {
    if let Some(sentence) = &answer.error {
        flight.tls_failed(sentence);
    } else if !answer.ciphertext.is_empty() {
        flight.tls_output(now);
    }
    if let Some(facts) = &answer.established {
        let certificate = facts.client_certificate.as_ref().map(|certificate| Certificate {
            common_name: certificate.common_name.clone().into(),
            fingerprint: certificate.fingerprint,
            serial: certificate.serial.clone().into(),
            issuer: certificate.issuer_hash,
        });
        flight.tls_established(now, &facts.version, &facts.suite, certificate);
    }
}

/// The password stays where it is.
fn note_request(flight: &mut Flight, now: Instant, request: &AuthRequest) {
    flight.key_exchange(
        now,
        KeyExchange {
            username: &request.username,
            options: request.options.raw(),
            peer_info: request.peer_info.raw(),
        },
    );
}
