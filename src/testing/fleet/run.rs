//! The fleet's event loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tunnelhead_crypto::FastRandom;

use crate::sys::epoll::{self, Epoll, Interest};
use crate::sys::mailbox::Mailbox;
use crate::sys::rlimit;
use crate::telemetry::clock;
use crate::testing::profiles::Profile;
use crate::tls::OpensslContext;

use super::member::{State, Tools};
use super::{Member, MemberId, Order, Shared};

const MAILBOX: u64 = u64::MAX;
/// Most events taken from one wait.
const EVENTS: usize = 256;
/// Bytes read from one socket in one turn.
const READ_BYTES: usize = 64 * 1024;
/// Descriptors for the largest fleet and a server in the same process.
const DESCRIPTORS: u64 = 20_000;
/// Connections begun in one turn: the rest waits until those before have been written to.
const DIALS_A_TURN: usize = 128;

pub(super) struct Driver {
    shared: Arc<Shared>,
    orders: Arc<Mailbox<Order>>,
    epoll: Epoll,
    members: Vec<State>,
    timers: BinaryHeap<Reverse<(Instant, MemberId)>>,
    to_dial: std::collections::VecDeque<MemberId>,
    contexts: Vec<(Profile, OpensslContext)>,
    abandoned: Vec<TcpStream>,
    touched: Vec<MemberId>,
    rng: FastRandom,
    scratch: Vec<u8>,
    stopping: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, orders: Arc<Mailbox<Order>>) -> io::Result<Self> {
        // Fewer are enough for most fleets; the first socket too many says so.
        let _ = rlimit::raise_nofile(DESCRIPTORS);
        let epoll = Epoll::new()?;
        epoll.add(orders.as_fd(), MAILBOX, Interest::READ)?;
        Ok(Self {
            shared,
            orders,
            epoll,
            members: Vec::new(),
            timers: BinaryHeap::new(),
            to_dial: std::collections::VecDeque::new(),
            contexts: Vec::new(),
            abandoned: Vec::new(),
            touched: Vec::new(),
            rng: FastRandom::from_os().map_err(|_| io::Error::other("no randomness"))?,
            scratch: vec![0; READ_BYTES],
            stopping: false,
        })
    }

    pub(super) fn run(&mut self) {
        let mut events = vec![epoll::Event::EMPTY; EVENTS];
        let mut orders = Vec::new();
        while !self.stopping {
            let now = clock::now();
            let due = self.timers.peek().map(|Reverse((at, _))| at.saturating_duration_since(now));
            let wait = if self.to_dial.is_empty() { due } else { Some(Duration::ZERO) };
            let Ok(count) = self.epoll.wait(&mut events, wait) else { return };
            let now = clock::now();
            self.orders.drain(&mut orders);
            for order in orders.drain(..) {
                self.on_order(now, order);
            }
            for event in events.iter().take(count).filter(|event| event.token() != MAILBOX) {
                let id = usize::try_from(event.token()).unwrap_or(usize::MAX);
                let (readable, writable) = (event.readable(), event.writable());
                self.with(now, id, |member, tools| member.on_socket(tools, readable, writable));
            }
            for _ in 0..DIALS_A_TURN {
                let Some(id) = self.to_dial.pop_front() else { break };
                self.with(now, id, State::dial);
            }
            self.on_timers(now);
            self.publish();
        }
    }

    fn on_order(&mut self, now: Instant, order: Order) {
        match order {
            Order::Add(member) => self.add(*member),
            Order::Tell(Some(id), command) => {
                self.with(now, id, |member, tools| member.obey(tools, command));
            }
            Order::Tell(None, command) => {
                for id in 0..self.members.len() {
                    let command = command.clone();
                    self.with(now, id, |member, tools| member.obey(tools, command));
                }
            }
            Order::Stop => self.stopping = true,
        }
    }

    fn add(&mut self, spec: Member) {
        let id = self.members.len();
        let tls = spec.tls.clone().or_else(|| self.context_of(&spec.profile));
        let Some(tls) = tls else {
            // The views keep the numbers in step: a member without TLS can't be made at all.
            panic!("the TLS context of {} can't be made", spec.profile.name);
        };
        let state = State::new(id, spec, tls);
        if state.wants_to_dial() {
            self.to_dial.push_back(id);
        }
        self.members.push(state);
    }

    fn context_of(&mut self, profile: &Profile) -> Option<OpensslContext> {
        if let Some((_, context)) = self.contexts.iter().find(|(of, _)| of == profile) {
            return Some(context.clone());
        }
        let context = profile.tls_context(None).ok()?;
        self.contexts.push((profile.clone(), context.clone()));
        Some(context)
    }

    /// Lets a member act, then watches what it waits for.
    fn with(&mut self, now: Instant, id: MemberId, act: impl FnOnce(&mut State, &mut Tools<'_>)) {
        let Some(member) = self.members.get_mut(id) else { return };
        let mut tools = Tools {
            now,
            rng: &mut self.rng,
            scratch: &mut self.scratch,
            abandoned: &mut self.abandoned,
        };
        act(member, &mut tools);
        self.touched.push(id);
        let wanted = member.interest();
        if let Some(link) = member.link.as_mut()
            && let Some((read, write)) = wanted
            && link.watched != wanted
        {
            let interest = Interest { read, write, ..Interest::NONE };
            let fd = link.socket.as_fd();
            let result = if link.watched.is_none() {
                self.epoll.add(fd, id as u64, interest)
            } else {
                self.epoll.modify(fd, id as u64, interest)
            };
            match result {
                Ok(()) => link.watched = wanted,
                Err(error) => member.view.violations.push(format!("epoll: {error}")),
            }
        }
        if let Some(at) = member.next_deadline()
            && member.planned.is_none_or(|planned| at < planned)
        {
            member.planned = Some(at);
            self.timers.push(Reverse((at, id)));
        }
    }

    fn on_timers(&mut self, now: Instant) {
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(member) = self.members.get_mut(id) else { continue };
            if member.planned != Some(at) {
                // An earlier entry has taken its place.
                continue;
            }
            member.planned = None;
            self.with(now, id, State::on_time);
        }
    }

    /// Shows what has changed.
    fn publish(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        let mut views = self.shared.views();
        for id in self.touched.drain(..) {
            let Some(member) = self.members.get_mut(id) else { continue };
            let Some(shown) = views.get_mut(member.id()) else { continue };
            let new = &mut member.view;
            let mut log = std::mem::take(&mut shown.log);
            log.append(&mut new.log);
            let mut violations = std::mem::take(&mut shown.violations);
            violations.append(&mut new.violations);
            *shown = super::View { log, violations, ..new.clone() };
        }
        drop(views);
        self.shared.changed.notify_all();
    }
}
