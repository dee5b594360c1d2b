//! What happens, as it is told over the control socket and to embedders.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Timestamp;

/// A moment, milliseconds since 1970-01-01 UTC; RFC 3339 with milliseconds in documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "control-api", schema(value_type = String, format = DateTime))]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Timestamp(self.0 / 1000).to_string();
        write!(f, "{}.{:03}Z", seconds.trim_end_matches('Z'), self.0 % 1000)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something that happened to a router or to the concentrator. The serialised form has the stable
/// name of the kind and the fields of the variant; the router stands in [`Event`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(tag = "kind")]
#[non_exhaustive]
pub enum TunnelEvent {
    /// Packets can flow both ways.
    #[serde(rename = "tunnel.up")]
    Up {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Its tunnel address.
        #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
        address: Ipv4Addr,
        /// Where it dials from.
        #[cfg_attr(feature = "control-api", schema(value_type = String))]
        real_address: SocketAddr,
        /// Name of the data cipher.
        cipher: &'static str,
    },
    /// A tunnel that was up has ended.
    #[serde(rename = "tunnel.down")]
    Down {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Its tunnel address.
        #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
        address: Ipv4Addr,
        /// Stable name of the reason.
        reason: &'static str,
        /// How long it lived, in seconds.
        seconds: u64,
        /// Inner bytes received from the router; null: not known yet, it was replaced a moment ago.
        rx_bytes: Option<u64>,
        /// Inner bytes sent to the router; null likewise.
        tx_bytes: Option<u64>,
    },
    /// The router has not acknowledged a probe; the tunnel is still there.
    #[serde(rename = "tunnel.suspect")]
    Suspect {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Its tunnel address.
        #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
        address: Ipv4Addr,
    },
    /// A suspect router was heard again.
    #[serde(rename = "tunnel.recovered")]
    Recovered {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Its tunnel address.
        #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
        address: Ipv4Addr,
    },
    /// The keys of a tunnel were renewed.
    #[serde(rename = "tunnel.rekeyed")]
    Rekeyed {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Its tunnel address.
        #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
        address: Ipv4Addr,
    },
    /// A login attempt ended without a tunnel, at a point where a user name was known.
    #[serde(rename = "login.failed")]
    LoginFailed {
        /// The router's NAME; `None`: no router has this user name.
        #[serde(skip)]
        router: Option<Arc<str>>,
        /// The user name as it was sent, escaped.
        username: String,
        /// Where it dials from.
        #[cfg_attr(feature = "control-api", schema(value_type = String))]
        real_address: SocketAddr,
        /// Stable name of the reason.
        reason: &'static str,
    },
    /// A router was given an address for the first time, or another one.
    #[serde(rename = "address.given")]
    AddressGiven {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Its tunnel address.
        #[cfg_attr(feature = "control-api", schema(value_type = String, format = Ipv4))]
        address: Ipv4Addr,
    },
    /// Two routers fight for one identity; the incumbent stays.
    #[serde(rename = "identity.duplicate")]
    Clone {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Who holds the tunnel.
        #[cfg_attr(feature = "control-api", schema(value_type = String))]
        incumbent: IpAddr,
        /// Who was refused.
        #[cfg_attr(feature = "control-api", schema(value_type = String))]
        refused: IpAddr,
    },
    /// An account was made.
    #[serde(rename = "router.added")]
    RouterAdded {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
    },
    /// An account was changed.
    #[serde(rename = "router.changed")]
    RouterChanged {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
    },
    /// An account was deleted.
    #[serde(rename = "router.removed")]
    RouterRemoved {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Whose it was.
        #[serde(skip)]
        tenant: Option<Arc<str>>,
    },
    /// A router may not log in for a while.
    #[serde(rename = "ban.set")]
    Banned {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
        /// Until when.
        until: Timestamp,
    },
    /// A ban has ended or was lifted.
    #[serde(rename = "ban.lifted")]
    BanLifted {
        /// The router's NAME.
        #[serde(skip)]
        router: Arc<str>,
    },
    /// A certificate that is in use ends soon.
    #[serde(rename = "certificate.expiring")]
    CertificateEnds {
        /// Its subject.
        subject: String,
        /// When.
        not_after: Timestamp,
        /// It ends in at most so many days: 30, 7 or 1.
        days: u64,
    },
    /// A certificate that is in use has ended.
    #[serde(rename = "certificate.expired")]
    CertificateEnded {
        /// Its subject.
        subject: String,
        /// When.
        not_after: Timestamp,
    },
    /// The configuration was read again and applies.
    #[serde(rename = "reloaded")]
    Reloaded,
    /// Something does not work as it should.
    #[serde(rename = "degraded")]
    Degraded {
        /// What; one of the parts that `status` names.
        part: String,
        /// One sentence.
        reason: String,
    },
    /// It works again.
    #[serde(rename = "recovered")]
    Restored {
        /// What.
        part: String,
    },
}

impl TunnelEvent {
    /// The stable name of every kind.
    pub const KINDS: [&'static str; 18] = [
        "tunnel.up",
        "tunnel.down",
        "tunnel.suspect",
        "tunnel.recovered",
        "tunnel.rekeyed",
        "login.failed",
        "address.given",
        "identity.duplicate",
        "router.added",
        "router.changed",
        "router.removed",
        "ban.set",
        "ban.lifted",
        "certificate.expiring",
        "certificate.expired",
        "reloaded",
        "degraded",
        "recovered",
    ];

    /// The stable name of its kind, one of [`Self::KINDS`].
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Up { .. } => "tunnel.up",
            Self::Down { .. } => "tunnel.down",
            Self::Suspect { .. } => "tunnel.suspect",
            Self::Recovered { .. } => "tunnel.recovered",
            Self::Rekeyed { .. } => "tunnel.rekeyed",
            Self::LoginFailed { .. } => "login.failed",
            Self::AddressGiven { .. } => "address.given",
            Self::Clone { .. } => "identity.duplicate",
            Self::RouterAdded { .. } => "router.added",
            Self::RouterChanged { .. } => "router.changed",
            Self::RouterRemoved { .. } => "router.removed",
            Self::Banned { .. } => "ban.set",
            Self::BanLifted { .. } => "ban.lifted",
            Self::CertificateEnds { .. } => "certificate.expiring",
            Self::CertificateEnded { .. } => "certificate.expired",
            Self::Reloaded => "reloaded",
            Self::Degraded { .. } => "degraded",
            Self::Restored { .. } => "recovered",
        }
    }

    /// NAME of the router that it is about.
    pub const fn router(&self) -> Option<&Arc<str>> {
        match self {
            Self::Up { router, .. }
            | Self::Down { router, .. }
            | Self::Suspect { router, .. }
            | Self::Recovered { router, .. }
            | Self::Rekeyed { router, .. }
            | Self::AddressGiven { router, .. }
            | Self::Clone { router, .. }
            | Self::RouterAdded { router }
            | Self::RouterChanged { router }
            | Self::RouterRemoved { router, .. }
            | Self::Banned { router, .. }
            | Self::BanLifted { router } => Some(router),
            Self::LoginFailed { router, .. } => router.as_ref(),
            Self::CertificateEnds { .. }
            | Self::CertificateEnded { .. }
            | Self::Reloaded
            | Self::Degraded { .. }
            | Self::Restored { .. } => None,
        }
    }
}

/// Something that happened, with its place among everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rises by one from event to event of a run, and over restarts.
    pub id: u64,
    /// When it was told.
    pub at: Moment,
    /// Whose router it is about; not part of the document.
    pub tenant: Option<Arc<str>>,
    /// What happened.
    pub what: TunnelEvent,
}

/// One event: who, when, and the fields of its kind.
#[derive(Serialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "control-api", schema(as = Event))]
pub(crate) struct EventDocument<'a> {
    /// Rises from event to event, and over restarts; gaps mean nothing.
    id: u64,
    /// When it was told.
    at: Moment,
    /// NAME of the router that it is about; null: of none.
    router: Option<&'a str>,
    #[serde(flatten)]
    what: &'a TunnelEvent,
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let router = self.what.router().map(|name| &**name);
        EventDocument { id: self.id, at: self.at, router, what: &self.what }.serialize(serializer)
    }
}

/// An event as a client reads it; kinds and fields of later versions are no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its id.
    pub id: u64,
    /// When it was told, RFC 3339.
    pub at: String,
    /// The stable name of its kind.
    pub kind: String,
    /// NAME of the router that it is about.
    pub router: Option<String>,
    /// The fields of its kind.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Events that can no longer be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct EventGap {
    /// The first id that is missing.
    pub from: u64,
    /// The last one; `after=` this id is complete.
    pub to: u64,
    /// How many events are missing; null: not known.
    pub lost: Option<u64>,
}

impl fmt::Display for EventGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lost {
            Some(lost) => write!(f, "{lost} events are gone, ids {} to {}", self.from, self.to),
            None => write!(f, "the events from {} to {} are gone", self.from, self.to),
        }
    }
}

/// Which events are wanted; what is not said is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Kinds, or beginnings of kinds that end in ".".
    pub kinds: Vec<String>,
    /// Of the router of this NAME.
    pub router: Option<String>,
    /// Of routers that have this tag now.
    pub tag: Option<String>,
    /// Of routers of this tenant.
    pub tenant: Option<String>,
}

impl EventFilter {
    /// Adds the kinds of a comma-separated list.
    ///
    /// # Errors
    /// The first one that no event has.
    pub fn add_kinds<'a>(&mut self, list: &'a str) -> Result<(), &'a str> {
        for kind in list.split(',') {
            let family = kind.ends_with('.');
            let known = |name: &&str| if family { name.starts_with(kind) } else { *name == kind };
            if !TunnelEvent::KINDS.iter().any(known) {
                return Err(kind);
            }
            if !self.kinds.iter().any(|own| own == kind) {
                self.kinds.push(kind.to_owned());
            }
        }
        Ok(())
    }

    /// True if an event of this kind is wanted.
    pub fn wants_kind(&self, kind: &str) -> bool {
        let wanted =
            |own: &String| *own == kind || (own.ends_with('.') && kind.starts_with(own.as_str()));
        self.kinds.is_empty() || self.kinds.iter().any(wanted)
    }

    /// True if the event is wanted, as far as it can tell itself: not looking at tags.
    pub fn wants(&self, event: &Event) -> bool {
        let router = event.what.router().map(|name| &**name);
        self.wants_kind(event.what.kind())
            && (self.router.is_none() || self.router.as_deref() == router)
            && (self.tenant.is_none() || self.tenant.as_deref() == event.tenant.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind.
    pub(crate) fn samples() -> Vec<TunnelEvent> {
        let router: Arc<str> = "branch-42".into();
        let address = Ipv4Addr::new(100, 64, 3, 7);
        let real_address: SocketAddr = "192.0.2.9:40000".parse().unwrap();
        let (router, until) = (|| Arc::clone(&router), Timestamp(1_795_305_600));
        vec![
            TunnelEvent::Up { router: router(), address, real_address, cipher: "AES-256-GCM" },
            TunnelEvent::Down {
                router: router(),
                address,
                reason: "peer_closed",
                seconds: 60,
                rx_bytes: Some(1),
                tx_bytes: None,
            },
            TunnelEvent::Suspect { router: router(), address },
            TunnelEvent::Recovered { router: router(), address },
            TunnelEvent::Rekeyed { router: router(), address },
            TunnelEvent::LoginFailed {
                router: None,
                username: "a\\nb".to_owned(),
                real_address,
                reason: "auth_failed",
            },
            TunnelEvent::AddressGiven { router: router(), address },
            TunnelEvent::Clone {
                router: router(),
                incumbent: real_address.ip(),
                refused: "2001:db8::1".parse().unwrap(),
            },
            TunnelEvent::RouterAdded { router: router() },
            TunnelEvent::RouterChanged { router: router() },
            TunnelEvent::RouterRemoved { router: router(), tenant: Some("acme".into()) },
            TunnelEvent::Banned { router: router(), until },
            TunnelEvent::BanLifted { router: router() },
            TunnelEvent::CertificateEnds {
                subject: "CN=head".to_owned(),
                not_after: until,
                days: 7,
            },
            TunnelEvent::CertificateEnded { subject: "CN=head".to_owned(), not_after: until },
            TunnelEvent::Reloaded,
            TunnelEvent::Degraded { part: "store".to_owned(), reason: "full".to_owned() },
            TunnelEvent::Restored { part: "store".to_owned() },
        ]
    }

    fn event(what: TunnelEvent) -> Event {
        Event { id: 7, at: Moment(1_795_305_600_042), tenant: Some("acme".into()), what }
    }

    #[test]
    fn documents_are_flat_and_have_id_time_kind_and_router() {
        let mut kinds = Vec::new();
        for what in samples() {
            let kind = what.kind();
            let router = what.router().cloned();
            let document = serde_json::to_value(event(what)).unwrap();
            assert_eq!((&document["id"], &document["kind"]), (&7.into(), &kind.into()));
            assert_eq!(document["at"], "2026-11-22T00:00:00.042Z");
            assert_eq!(document.get("router"), Some(&router.as_deref().into()), "{document}");
            assert!(document.get("tenant").is_none(), "{document}");
            let fields = document.as_object().unwrap();
            assert!(fields.values().all(|value| !value.is_object() && !value.is_array()));
            let read: EventRecord = serde_json::from_value(document.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), document);
            kinds.push(kind);
        }
        assert_eq!(kinds, TunnelEvent::KINDS);
        let up = serde_json::to_string(&event(samples().remove(0))).unwrap();
        assert_eq!(
            up,
            r#"{"id":7,"at":"2026-11-22T00:00:00.042Z","router":"branch-42","kind":"tunnel.up","address":"100.64.3.7","real_address":"192.0.2.9:40000","cipher":"AES-256-GCM"}"#
        );
    }

    #[test]
    fn moments_have_milliseconds() {
        assert_eq!(Moment(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Moment(1_795_305_600_999).to_string(), "2026-11-22T00:00:00.999Z");
    }

    #[test]
    fn filters_take_kinds_and_families_and_refuse_what_no_event_is() {
        let mut filter = EventFilter::default();
        assert!(filter.wants_kind("reloaded"));
        filter.add_kinds("tunnel.,login.failed").unwrap();
        filter.add_kinds("tunnel.").unwrap();
        assert_eq!(filter.kinds, ["tunnel.", "login.failed"]);
        assert!(filter.wants_kind("tunnel.up") && filter.wants_kind("login.failed"));
        assert!(!filter.wants_kind("router.added"));
        for bad in ["", "tunnel", "tunnel.u", ".", "tunnel.,", "a.", "TUNNEL.UP", "tunnel.up "] {
            assert!(filter.add_kinds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn filters_by_router_and_tenant_take_no_events_of_nobody() {
        let up = event(samples().remove(0));
        let reloaded = Event { tenant: None, ..event(TunnelEvent::Reloaded) };
        for (router, tenant, wanted) in [
            (None, None, [true, true]),
            (Some("branch-42"), None, [true, false]),
            (Some("branch-4"), None, [false, false]),
            (None, Some("acme"), [true, false]),
            (None, Some("other"), [false, false]),
        ] {
            let filter = EventFilter {
                router: router.map(str::to_owned),
                tenant: tenant.map(str::to_owned),
                ..EventFilter::default()
            };
            assert_eq!([filter.wants(&up), filter.wants(&reloaded)], wanted, "{filter:?}");
        }
    }
}
