//! How every router stands, and its last troubles: one compact entry a router.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::telemetry::flight::record::Record;
use crate::telemetry::flight::recording::source_of;

/// Troubles kept of one router or address.
const TROUBLES_EACH: usize = 4;
/// Routers behind one address that are told apart.
const ROUTERS_EACH: usize = 64;
/// Routers that are kept track of.
const MAX_ROUTERS: usize = 262_144;
/// Different causes of strangers, and different client kinds.
const MAX_KINDS: usize = 4096;
const MAX_STRANGERS: usize = 1024;

/// What two routers can have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where it dials from.
    pub source: IpAddr,
    /// Index of the listener.
    pub listener: usize,
    /// What its options string and peer info say.
    pub settings: Option<Arc<str>>,
    /// The kind of its ClientHello.
    pub hello: Option<u32>,
    /// The set of server certificates it met.
    pub certificates: u32,
    /// First bytes of its certificate's issuer.
    pub issuer: Option<u32>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A tunnel ended.
    Fell,
    /// A login failed.
    Refused,
}

/// One trouble: the same thing, once or in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub what: What,
    /// Stable name of the cause.
    pub cause: &'static str,
    /// First and last time: milliseconds since 1970-01-01 UTC.
    pub first_ms: u64,
    /// Last time.
    pub last_ms: u64,
    /// How often.
    pub times: u64,
    /// What the router had in common with others at that time.
    pub facts: Facts,
}

/// One router.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since when it is up; `None`: it is not. Milliseconds since 1970-01-01 UTC.
    pub up_ms: Option<u64>,
    /// The connection's number.
    pub client: u64,
    /// The facts of its last login.
    pub facts: Option<Facts>,
    /// When a trouble ended with a login.
    pub healed_ms: u64,
    /// Its last troubles, the oldest first.
    pub troubles: VecDeque<Trouble>,
    home: Option<IpAddr>,
}

/// An address that routers are known by.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The routers, by NAME.
    pub(super) routers: Vec<Arc<str>>,
    /// Attempts from here that gave no name we know.
    pub(super) troubles: VecDeque<Trouble>,
}

/// Attempts of strangers, by cause.
#[derive(Clone, Debug)]
pub(super) struct Strangers {
    /// How many attempts.
    pub(super) times: u64,
    /// First and last time: milliseconds since 1970-01-01 UTC.
    pub(super) first_ms: u64,
    /// Last time.
    pub(super) last_ms: u64,
    /// Addresses, as far as they are counted.
    pub(super) sources: HashSet<IpAddr>,
}

/// The whole fleet.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub(super) routers: HashMap<Arc<str>, Entry>,
    pub(super) places: HashMap<IpAddr, Place>,
    pub(super) strangers: BTreeMap<&'static str, Strangers>,
    kinds: HashSet<Arc<str>>,
}

impl Fleet {
    /// A router that was seen at this address before the start.
    pub fn seed(&mut self, router: &str, home: IpAddr) {
        let Some(name) = self.entry(router) else { return };
        self.move_to(&name, home.to_canonical());
    }

    /// A tunnel carries packets.
    pub fn up(&mut self, record: &Record, now_ms: u64) {
        let Some(name) = record.router.as_deref().and_then(|router| self.entry(router)) else {
            return;
        };
        let facts = self.facts(record);
        self.move_to(&name, facts.source);
        if let Some(entry) = self.routers.get_mut(&name) {
            (entry.up_ms, entry.client) = (Some(now_ms), record.id);
            entry.healed_ms = now_ms;
            entry.facts = Some(facts);
        }
    }

    /// A tunnel has ended.
    pub fn fell(&mut self, router: &str, client: u64, now_ms: u64, cause: &'static str) {
        let Some(entry) = self.routers.get_mut(router) else { return };
        // A newer login has taken its place: the router is up.
        if entry.client != client || cause == "replaced_by_new_login" {
            return;
        }
        entry.up_ms = None;
        let Some(facts) = entry.facts.clone() else { return };
        push(&mut entry.troubles, What::Fell, cause, now_ms, facts);
    }

    /// A login has failed.
    pub fn failed(
        &mut self,
        router: Option<&str>,
        record: &Record,
        cause: &'static str,
        now_ms: u64,
    ) {
        let facts = self.facts(record);
        if let Some(router) = router {
            let Some(name) = self.entry(router) else { return };
            let Some(entry) = self.routers.get_mut(&name) else { return };
            // Somebody with its name while it is up is not the router's trouble, unless let in.
            if entry.up_ms.is_none() || record.router.is_some() {
                push(&mut entry.troubles, What::Refused, cause, now_ms, facts);
            }
        } else if let Some(place) = self.places.get_mut(&facts.source) {
            push(&mut place.troubles, What::Refused, cause, now_ms, facts);
        } else {
            let entry = self.strangers.entry(cause).or_insert_with(|| Strangers {
                times: 0,
                first_ms: now_ms,
                last_ms: now_ms,
                sources: HashSet::new(),
            });
            // After an hour of quiet it is another story.
            if now_ms.saturating_sub(entry.last_ms) > 3_600_000 {
                (entry.times, entry.first_ms) = (0, now_ms);
                entry.sources.clear();
            }
            (entry.times, entry.last_ms) = (entry.times + 1, now_ms);
            if entry.sources.len() < MAX_STRANGERS {
                entry.sources.insert(facts.source);
            }
        }
    }

    /// A router was deleted.
    pub fn forget(&mut self, router: &str) {
        if let Some(entry) = self.routers.remove(router)
            && let Some(home) = entry.home
        {
            self.leave(router, home);
        }
    }

    /// The address that a router was last seen at.
    pub fn home(&self, router: &str) -> Option<IpAddr> {
        self.routers.get(router)?.home
    }

    /// Since when a router is up: milliseconds since 1970-01-01 UTC.
    pub fn up_since(&self, router: &str) -> Option<u64> {
        self.routers.get(router)?.up_ms
    }

    /// True if a router was last seen at this address.
    pub fn is_known(&self, source: IpAddr) -> bool {
        self.places.contains_key(&source)
    }

    /// The routers that were last seen at this address.
    pub fn routers_at(&self, source: IpAddr) -> &[Arc<str>] {
        self.places.get(&source).map_or(&[], |place| &place.routers)
    }

    fn entry(&mut self, router: &str) -> Option<Arc<str>> {
        if let Some((name, _)) = self.routers.get_key_value(router) {
            return Some(Arc::clone(name));
        }
        if self.routers.len() >= MAX_ROUTERS {
            return None;
        }
        let name: Arc<str> = router.into();
        let entry = Entry {
            up_ms: None,
            client: 0,
            facts: None,
            healed_ms: 0,
            troubles: VecDeque::new(),
            home: None,
        };
        self.routers.insert(Arc::clone(&name), entry);
        Some(name)
    }

    fn move_to(&mut self, name: &Arc<str>, home: IpAddr) {
        let Some(entry) = self.routers.get_mut(name) else { return };
        let before = entry.home.replace(home);
        if before == Some(home) {
            return;
        }
        if let Some(before) = before {
            self.leave(name, before);
        }
        let place = self.places.entry(home).or_default();
        if place.routers.len() < ROUTERS_EACH {
            place.routers.push(Arc::clone(name));
        }
    }

    fn leave(&mut self, router: &str, home: IpAddr) {
        if let Some(place) = self.places.get_mut(&home) {
            place.routers.retain(|name| &**name != router);
            if place.routers.is_empty() {
                self.places.remove(&home);
            }
        }
    }

    fn facts(&mut self, record: &Record) -> Facts {
        let issuer = record.certificate.as_ref().and_then(|certificate| {
            Some(u32::from_be_bytes(certificate.issuer.get(..4)?.try_into().ok()?))
        });
        Facts {
            source: source_of(record),
            listener: record.listener,
            settings: record.settings().map(|text| self.share(text)),
            hello: record.hello.as_ref().map(|hello| hello.kind),
            certificates: record.certificates,
            issuer,
        }
    }

    fn share(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.kinds.get(text.as_str()) {
            return Arc::clone(known);
        }
        if self.kinds.len() >= MAX_KINDS {
            self.kinds.clear();
        }
        let text: Arc<str> = text.into();
        self.kinds.insert(Arc::clone(&text));
        text
    }
}

/// Adds a trouble, or makes the last one longer.
fn push(
    troubles: &mut VecDeque<Trouble>,
    what: What,
    cause: &'static str,
    now_ms: u64,
    facts: Facts,
) {
    if let Some(last) = troubles.back_mut()
        && last.what == what
        && last.cause == cause
        && what == What::Refused
    {
        (last.last_ms, last.times, last.facts) = (now_ms, last.times + 1, facts);
        return;
    }
    if troubles.len() >= TROUBLES_EACH {
        troubles.pop_front();
    }
    troubles.push_back(Trouble { what, cause, first_ms: now_ms, last_ms: now_ms, times: 1, facts });
}
