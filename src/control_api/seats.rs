//! Places for connections: how many of each class, how many for one user, and who has to make room.
//!
//! A connection begins with a place for ordinary requests. A request that becomes a long stream
//! moves to a place of its class, so that streams never use up what ordinary requests need. When
//! the ordinary places are full, whoever of the same user was silent the longest makes room: idle
//! and slow clients keep nobody out.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Ordinary requests.
    Request,
    /// Server-sent events.
    Stream,
    /// A raw stream to a router.
    Dial,
}

impl Class {
    const ALL: [Self; 3] = [Self::Request, Self::Stream, Self::Dial];

    fn index(self) -> usize {
        usize::from(self as u8)
    }
}

/// How many places a class has. One user gets half of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) requests: usize,
    pub(super) streams: usize,
}

/// All places.
#[derive(Clone)]
pub(super) struct Seats(Arc<Shared>);

struct Shared {
    places: [usize; 3],
    began: Instant,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// Taken places by class and user.
    taken: [BTreeMap<u32, usize>; 3],
    /// Connections in the class of ordinary requests.
    requests: HashMap<u64, Arc<Facts>>,
}

/// What is known of a connection.
struct Facts {
    uid: u32,
    class: AtomicU8,
    /// A request is being answered.
    serving: AtomicBool,
    /// Milliseconds after `began` of its last sign of life.
    active: AtomicU64,
    evict: Notify,
}

/// A connection's place; given back when the last copy is dropped.
#[derive(Clone)]
pub(super) struct Seat(Arc<Held>);

struct Held {
    id: u64,
    facts: Arc<Facts>,
    seats: Arc<Shared>,
}

/// Marks the time in which a request is answered.
pub(super) struct Serving(Seat);

impl Seats {
    pub(super) fn new(places: Places, now: Instant) -> Self {
        Self(Arc::new(Shared {
            // Dials are counted by whoever makes them.
            places: [places.requests, places.streams, usize::MAX],
            began: now,
            table: Mutex::default(),
        }))
    }

    /// A place for a new connection; None: all are taken by connections that are at work.
    pub(super) fn enter(&self, uid: u32, now: Instant) -> Option<Seat> {
        let mut table = self.0.lock();
        if !table.has_place(Class::Request, uid, self.0.places) {
            table.make_room(uid, self.0.places)?;
        }
        let facts = Arc::new(Facts {
            uid,
            class: AtomicU8::new(Class::Request as u8),
            serving: AtomicBool::new(false),
            active: AtomicU64::new(self.0.millis(now)),
            evict: Notify::new(),
        });
        let id = table.next;
        table.next = id.wrapping_add(1);
        table.take(Class::Request, uid);
        table.requests.insert(id, Arc::clone(&facts));
        drop(table);
        Some(Seat(Arc::new(Held { id, facts, seats: Arc::clone(&self.0) })))
    }
}

impl Seat {
    /// A request of this class begins; None: the class is full, or it has to make room.
    pub(super) fn serve(&self, class: Class, now: Instant) -> Option<Serving> {
        let Held { id, facts, seats } = &*self.0;
        let mut table = seats.lock();
        let present = facts.class();
        if present == Class::Request && !table.requests.contains_key(id) {
            // It was told to make room.
            return None;
        }
        if present != class {
            // Back to ordinary requests it may always go: it is connected already.
            if class != Class::Request && !table.has_place(class, facts.uid, seats.places) {
                return None;
            }
            table.requests.remove(id);
            table.give_back(present, facts.uid);
            table.take(class, facts.uid);
            facts.class.store(class as u8, Ordering::Relaxed);
            if class == Class::Request {
                table.requests.insert(*id, Arc::clone(facts));
            }
        }
        facts.serving.store(true, Ordering::Relaxed);
        facts.active.store(seats.millis(now), Ordering::Relaxed);
        Some(Serving(self.clone()))
    }

    /// Bytes have moved.
    pub(super) fn touch(&self, now: Instant) {
        self.0.facts.active.store(self.0.seats.millis(now), Ordering::Relaxed);
    }

    pub(super) fn class(&self) -> Class {
        self.0.facts.class()
    }

    /// Waits until the connection has to make room.
    pub(super) async fn evicted(&self) {
        self.0.facts.evict.notified().await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.facts.serving.store(false, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.seats.lock();
        let class = self.facts.class();
        if class != Class::Request || table.requests.remove(&self.id).is_some() {
            table.give_back(class, self.facts.uid);
        }
    }
}

impl Facts {
    fn class(&self) -> Class {
        let class = usize::from(self.class.load(Ordering::Relaxed));
        Class::ALL.get(class).copied().unwrap_or(Class::Request)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Counts only; whoever panicked has left them whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Table {
    fn class(&mut self, class: Class) -> Option<&mut BTreeMap<u32, usize>> {
        self.taken.get_mut(class.index())
    }

    /// Places that are taken: in all, and by this user.
    fn count(&self, class: Class, uid: u32) -> (usize, usize) {
        let users = self.taken.get(class.index());
        let all = users.map_or(0, |users| users.values().sum());
        (all, users.and_then(|users| users.get(&uid)).copied().unwrap_or(0))
    }

    fn has_place(&self, class: Class, uid: u32, places: [usize; 3]) -> bool {
        let most = places.get(class.index()).copied().unwrap_or(0);
        let (all, own) = self.count(class, uid);
        all < most && own < (most / 2).max(1)
    }

    fn take(&mut self, class: Class, uid: u32) {
        if let Some(users) = self.class(class) {
            let own = users.entry(uid).or_default();
            *own = own.saturating_add(1);
        }
    }

    fn give_back(&mut self, class: Class, uid: u32) {
        if let Some(users) = self.class(class)
            && let Some(own) = users.get_mut(&uid)
        {
            *own = own.saturating_sub(1);
            if *own == 0 {
                users.remove(&uid);
            }
        }
    }

    /// Tells the connection that has been silent the longest to go: one of the same user if that
    /// user has his share, else one of whoever has the most.
    fn make_room(&mut self, newcomer: u32, places: [usize; 3]) -> Option<()> {
        let [most, ..] = places;
        let (_, own) = self.count(Class::Request, newcomer);
        let share = (most / 2).max(1);
        let victim = if own >= share {
            newcomer
        } else {
            let users = self.taken.first()?;
            let (uid, count) = users.iter().max_by_key(|(_, count)| **count)?;
            // Nobody is sent away for one who has as much.
            if *count <= own { newcomer } else { *uid }
        };
        let quiet = self
            .requests
            .iter()
            .filter(|(_, facts)| facts.uid == victim && !facts.serving.load(Ordering::Relaxed));
        let (id, _) =
            quiet.min_by_key(|(id, facts)| (facts.active.load(Ordering::Relaxed), **id))?;
        let id = *id;
        let facts = self.requests.remove(&id)?;
        self.give_back(Class::Request, victim);
        facts.evict.notify_one();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::clock;

    const PLACES: Places = Places { requests: 4, streams: 4 };

    fn seats() -> (Seats, Instant) {
        let now = clock::now();
        (Seats::new(PLACES, now), now)
    }

    fn evicted(seat: &Seat) -> bool {
        use std::future::Future as _;
        let mut waiting = std::pin::pin!(seat.evicted());
        let waker = std::task::Waker::noop();
        waiting.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn one_user_gets_half_and_his_most_silent_connection_makes_room() {
        let (seats, now) = seats();
        let first = seats.enter(1, now).unwrap();
        let second = seats.enter(1, now + Duration::from_secs(1)).unwrap();
        first.touch(now + Duration::from_secs(2));
        let third = seats.enter(1, now + Duration::from_secs(3)).unwrap();
        assert!(evicted(&second) && !evicted(&first) && !evicted(&third));
        // Another user is not asked to go.
        let other = seats.enter(2, now).unwrap();
        let fourth = seats.enter(1, now + Duration::from_secs(4)).unwrap();
        assert!(!evicted(&other) && evicted(&first));
        drop((first, second, third, fourth, other));
        assert!(seats.0.lock().taken.iter().all(BTreeMap::is_empty));
        assert!(seats.0.lock().requests.is_empty());
    }

    #[test]
    fn whoever_is_being_answered_keeps_his_place() {
        let (seats, now) = seats();
        let all: Vec<Seat> = (0..2).map(|_| seats.enter(1, now).unwrap()).collect();
        let at_work: Vec<Serving> =
            all.iter().map(|seat| seat.serve(Class::Request, now).unwrap()).collect();
        assert!(seats.enter(1, now).is_none());
        drop(at_work);
        assert!(seats.enter(1, now).is_some());
    }

    #[test]
    fn a_newcomer_takes_from_whoever_has_the_most() {
        let (seats, now) = seats();
        let mine: Vec<Seat> = (0..2).map(|_| seats.enter(1, now).unwrap()).collect();
        let theirs = [seats.enter(2, now).unwrap(), seats.enter(3, now).unwrap()];
        let fourth = seats.enter(4, now).unwrap();
        assert_eq!(mine.iter().filter(|seat| evicted(seat)).count(), 1);
        assert!(theirs.iter().all(|seat| !evicted(seat)) && !evicted(&fourth));
    }

    #[test]
    fn streams_take_no_place_of_requests() {
        let (seats, now) = seats();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let seat = seats.enter(1, now).unwrap();
            drop(seat.serve(Class::Stream, now).unwrap());
            assert_eq!(seat.class(), Class::Stream);
            streams.push(seat);
        }
        // The user's half of the streams is taken; nobody has to go for a further one.
        let third = seats.enter(1, now).unwrap();
        assert!(third.serve(Class::Stream, now).is_none());
        assert!(third.serve(Class::Request, now).is_some());
        let fourth = seats.enter(1, now).unwrap();
        let fifth = seats.enter(1, now).unwrap();
        assert!(streams.iter().all(|seat| !evicted(seat)));
        drop((third, fourth, fifth));
        // A stream that has ended goes back to ordinary requests.
        let ended = streams.remove(0);
        drop(ended.serve(Class::Request, now).unwrap());
        assert_eq!(ended.class(), Class::Request);
        let again = seats.enter(1, now).unwrap();
        assert!(again.serve(Class::Stream, now).is_some());
        drop((ended, again, streams));
        assert!(seats.0.lock().taken.iter().all(BTreeMap::is_empty));
    }

    #[test]
    fn an_evicted_connection_gives_its_place_back_once() {
        let (seats, now) = seats();
        let first = seats.enter(1, now).unwrap();
        let rest: Vec<Seat> = (0..2).map(|_| seats.enter(1, now).unwrap()).collect();
        assert!(evicted(&first));
        assert!(first.serve(Class::Stream, now).is_none());
        assert!(first.serve(Class::Request, now).is_none());
        drop(first);
        drop(rest);
        assert!(seats.0.lock().taken.iter().all(BTreeMap::is_empty));
    }
}
