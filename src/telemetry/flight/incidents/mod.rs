//! What many routers that are in trouble at once have in common.
//!
//! Routers in trouble are split by cause. For each cause, every property that its routers share
//! (listener, source network, client settings, kind of ClientHello, server certificates, issuer of
//! their own certificate) is weighed: how many of the routers in trouble have it (recall), and how
//! many of those that have it are in trouble (precision). A property is named only if it explains
//! clearly more than the cause alone does. The group that explains most goes first, its routers
//! are taken out, and the search goes on with the rest.

mod fleet;
mod sentence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

pub use fleet::{Entry, Facts, Fleet, Trouble, What};

/// What is known beside the fleet.
#[derive(Clone, Debug, Default)]
pub struct Context<'a> {
    /// Milliseconds since 1970-01-01 UTC.
    pub now_ms: u64,
    /// The window begins here.
    pub from_ms: u64,
    /// Listeners and their wrapping, by index.
    pub listeners: &'a [(SocketAddr, &'a str)],
    /// End of the server certificate that ends first, seconds since 1970-01-01 UTC, and whom it
    /// names.
    pub certificate: Option<(u64, &'a str)>,
    /// When the server certificates were last changed, milliseconds since 1970-01-01 UTC.
    pub certificates_changed_ms: Option<u64>,
    /// Allowed data ciphers.
    pub ciphers: &'a [&'a str],
    /// True if the asker may see strangers.
    pub strangers: bool,
}

/// A group of routers with one trouble, or of strangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// How many.
    pub count: usize,
    /// Of how many that could be.
    pub of: usize,
    /// One sentence.
    pub sentence: String,
    /// The next command to type.
    pub command: String,
    /// Stable name of the cause.
    pub cause: &'static str,
    /// The property that sets them apart, and its value; empty: nothing does.
    pub shared: Vec<(&'static str, String)>,
    /// First and last time: milliseconds since 1970-01-01 UTC.
    pub first_ms: u64,
    /// Last time.
    pub last_ms: u64,
    /// How many of them are up again.
    pub recovered: usize,
    /// A few of them, by NAME.
    pub examples: Vec<Arc<str>>,
}

/// Incidents that are given at most.
const MAX_INCIDENTS: usize = 20;
/// Names given with each.
const EXAMPLES: usize = 5;
/// How much more a property has to explain than the cause alone.
const MARGIN: f64 = 0.05;
/// A property that fewer routers share is a coincidence.
const MIN_GROUP: usize = 3;

/// A property that routers can share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Property {
    Listener(usize),
    /// A /16, or a /32 of IPv6.
    Wide(IpAddr),
    /// A /24, or a /48 of IPv6.
    Narrow(IpAddr),
    Settings(Arc<str>),
    Hello(u32),
    Certificates(u32),
    Issuer(u32),
}

/// A router in trouble.
#[derive(Clone, Debug)]
struct Subject {
    name: Arc<str>,
    family: &'static str,
    cause: &'static str,
    /// The end of its tunnel, if it had one in the window.
    fell_ms: Option<u64>,
    first_ms: u64,
    last_ms: u64,
    recovered: bool,
    properties: Vec<Property>,
}

/// Finds what troubles the fleet; the group that explains most comes first. `may_see` leaves out
/// routers that the asker must not know of.
pub fn find(fleet: &Fleet, context: &Context<'_>, may_see: &dyn Fn(&str) -> bool) -> Vec<Incident> {
    let mut population: HashMap<Property, usize> = HashMap::new();
    let mut subjects = Vec::new();
    let mut healthy = 0;
    let mut names: Vec<(&Arc<str>, &Entry)> =
        fleet.routers.iter().filter(|(name, _)| may_see(name)).collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    for (name, entry) in names {
        let subject = subject(fleet, context, name, entry);
        let properties = match (&subject, &entry.facts) {
            (Some(subject), _) => subject.properties.clone(),
            (None, Some(facts)) if entry.up_ms.is_some() => {
                healthy += 1;
                properties(facts, None)
            }
            // Down for longer than anybody asked about: it neither is in trouble nor is it well.
            (None, _) => continue,
        };
        for property in properties {
            *population.entry(property).or_default() += 1;
        }
        subjects.extend(subject);
    }
    let total = healthy + subjects.len();
    let mut incidents = Vec::new();
    while !subjects.is_empty() && incidents.len() < MAX_INCIDENTS {
        let Some(best) = best_group(&subjects, &population, total) else { break };
        let (group, rest): (Vec<Subject>, Vec<Subject>) =
            subjects.into_iter().partition(|subject| best.holds(subject));
        incidents.push(sentence::incident(&best, &group, total, context));
        subjects = rest;
    }
    if context.strangers {
        incidents.extend(strangers(fleet, context));
        incidents.truncate(MAX_INCIDENTS);
    }
    incidents
}

/// A cause, and what its routers share.
#[derive(Clone, Debug)]
struct Group {
    family: &'static str,
    property: Option<Property>,
    /// How many have the property, in trouble or not.
    population: usize,
}

impl Group {
    fn holds(&self, subject: &Subject) -> bool {
        subject.family == self.family
            && self.property.as_ref().is_none_or(|shared| subject.properties.contains(shared))
    }
}

/// The group that explains most of what is left.
fn best_group(
    subjects: &[Subject],
    population: &HashMap<Property, usize>,
    total: usize,
) -> Option<Group> {
    let mut families: BTreeMap<&'static str, Vec<&Subject>> = BTreeMap::new();
    for subject in subjects {
        families.entry(subject.family).or_default().push(subject);
    }
    let mut best: Option<(u64, Group)> = None;
    for (family, members) in families {
        let group = narrow(family, &members, population, total);
        let weight = members
            .iter()
            .filter(|subject| group.holds(subject))
            .map(|subject| weight(subject))
            .sum();
        if best.as_ref().is_none_or(|(most, _)| weight > *most) {
            best = Some((weight, group));
        }
    }
    best.map(|(_, group)| group)
}

/// Who is still in trouble counts for ten of those who are back.
fn weight(subject: &Subject) -> u64 {
    if subject.recovered { 1 } else { 10 }
}

/// The property that tells the members of one cause from everybody else, if one clearly does.
fn narrow(
    family: &'static str,
    members: &[&Subject],
    population: &HashMap<Property, usize>,
    total: usize,
) -> Group {
    let mut counts: BTreeMap<&Property, usize> = BTreeMap::new();
    for subject in members {
        for property in &subject.properties {
            *counts.entry(property).or_default() += 1;
        }
    }
    let alone = harmonic(1.0, ratio(members.len(), total));
    let mut best = (alone + MARGIN, Group { family, property: None, population: total });
    for (property, count) in counts {
        let having = population.get(property).copied().unwrap_or(count).max(count);
        // Shared by everybody: it tells nobody apart.
        if count < MIN_GROUP || having == total {
            continue;
        }
        let score = harmonic(ratio(count, members.len()), ratio(count, having));
        if score > best.0 {
            let group = Group { family, property: Some(property.clone()), population: having };
            best = (score, group);
        }
    }
    best.1
}

/// The harmonic mean of recall and precision.
fn harmonic(recall: f64, precision: f64) -> f64 {
    if recall + precision == 0.0 { 0.0 } else { 2.0 * recall * precision / (recall + precision) }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of routers are far below 2^52")]
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What troubles one router within the window.
fn subject(
    fleet: &Fleet,
    context: &Context<'_>,
    name: &Arc<str>,
    entry: &Entry,
) -> Option<Subject> {
    let place = entry.facts.as_ref().map(|facts| facts.source).or_else(|| fleet.home(name));
    let place = place.and_then(|source| fleet.places.get(&source));
    // Nameless failures at its address are its own if it is not up.
    let nameless = place.filter(|_| entry.up_ms.is_none()).map(|place| &place.troubles);
    let since_healed = |trouble: &&Trouble| trouble.last_ms >= entry.healed_ms;
    let nameless = nameless.into_iter().flatten().filter(since_healed);
    let in_window = |trouble: &&Trouble| {
        trouble.last_ms >= context.from_ms && trouble.first_ms <= context.now_ms
    };
    let troubles: Vec<&Trouble> = entry.troubles.iter().chain(nameless).filter(in_window).collect();
    let fell = troubles.iter().filter(|t| t.what == What::Fell).max_by_key(|t| t.last_ms);
    // A refusal says why it does not come back; a fall only that it went.
    let refused = troubles.iter().filter(|t| t.what == What::Refused).max_by_key(|t| t.last_ms);
    let recovered = entry.up_ms.is_some();
    let main = match (refused, fell) {
        (Some(refused), Some(fell)) if refused.last_ms < fell.last_ms => fell,
        (Some(refused), _) => refused,
        (None, fell) => fell?,
    };
    let mut seen = BTreeSet::new();
    let mut properties = properties(&main.facts, entry.facts.as_ref());
    properties.retain(|property| seen.insert(property.clone()));
    Some(Subject {
        name: Arc::clone(name),
        family: family(main),
        cause: main.cause,
        fell_ms: fell.map(|trouble| trouble.first_ms),
        first_ms: fell.map_or(main.first_ms, |fell| fell.first_ms.min(main.first_ms)),
        last_ms: main.last_ms,
        recovered,
        properties,
    })
}

/// Causes that are one thing to whoever has to mend it.
fn family(trouble: &Trouble) -> &'static str {
    match (trouble.what, trouble.cause) {
        (
            What::Fell,
            "peer_closed" | "connection_reset" | "tcp_timeout" | "peer_dead" | "peer_exit",
        ) => "lost",
        (_, "disabled" | "account_disabled" | "revoked_meanwhile") => "disabled",
        (
            _,
            "server_certificate_not_trusted"
            | "server_certificate_taken_for_expired"
            | "server_certificate_not_accepted"
            | "left_after_server_certificate",
        ) => "server_certificate",
        (_, "wrap_mismatch" | "left_after_reset" | "deadline_client_hello") => "wrap_mismatch",
        (_, "authenticator_unavailable" | "deadline_verdict" | "left_before_verdict") => {
            "authenticator_unavailable"
        }
        (_, "store_degraded" | "deadline_address") => "store_degraded",
        (
            _,
            "no_shared_cipher"
            | "cipher_unsupported"
            | "cipher_not_allowed"
            | "cipher_not_the_accounts",
        ) => "cipher",
        (_, "auth_unsupported" | "auth_missing" | "auth_not_the_accounts") => "auth",
        (_, cause) => cause,
    }
}

/// What a router shares with others; what the failed attempt did not tell comes from its last login.
fn properties(facts: &Facts, before: Option<&Facts>) -> Vec<Property> {
    let mut all = vec![
        Property::Listener(facts.listener),
        Property::Wide(network(facts.source, 16, 32)),
        Property::Narrow(network(facts.source, 24, 48)),
        Property::Certificates(facts.certificates),
    ];
    let earlier = |of: fn(&Facts) -> Option<Property>| of(facts).or_else(|| of(before?));
    all.extend(earlier(|facts| facts.settings.clone().map(Property::Settings)));
    all.extend(earlier(|facts| facts.hello.map(Property::Hello)));
    all.extend(earlier(|facts| facts.issuer.map(Property::Issuer)));
    all
}

/// The address with all but its first bits cleared.
fn network(address: IpAddr, bits_v4: u32, bits_v6: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits_v4).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits_v6).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// Strangers, by what they did.
fn strangers(fleet: &Fleet, context: &Context<'_>) -> Vec<Incident> {
    let mut seen: Vec<Incident> = fleet
        .strangers
        .iter()
        .filter(|(_, strangers)| strangers.last_ms >= context.from_ms)
        .map(|(cause, strangers)| sentence::strangers(cause, strangers))
        .collect();
    seen.sort_by_key(|incident| std::cmp::Reverse(incident.count));
    seen.truncate(3);
    seen
}
