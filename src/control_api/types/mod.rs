//! The documents of the control socket. Field names are stable; times are RFC 3339 UTC, durations
//! are whole seconds, sizes are bytes, addresses carry no prefix length. "rx" is what the
//! concentrator received from the router, "tx" what it sent to it.

mod audit;
mod doctor;
mod event;
mod health;
mod history;
mod login;
mod page;
mod router;
mod status;
mod store;
mod transfer;
mod tunnel;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::ApiError;

pub use audit::{AuditCheck, AuditEntry, AuditQuery, AuditSegment};
pub use doctor::{Finding, FindingState};
#[cfg(feature = "control-api")]
pub(crate) use event::EventDocument;
pub use event::{Event, EventFilter, EventGap, EventRecord, Moment, TunnelEvent};
pub use health::{Health, LogLevel};
pub use history::{DirectoryEntry, SessionFilter, SessionView};
pub use login::{
    IncidentView, LoginAnswer, LoginAttempt, LoginFilter, LoginOffer, LoginReport, LoginStep,
    SharedProperty,
};
pub use page::{MAX_PAGE, Page, PageQuery, name_matches};
pub(crate) use router::check_pair;
pub use router::{
    CreatedRouter, Login, NewRouter, RotateRouter, RotationView, RouterFilter, RouterPatch,
    RouterView,
};
pub use status::{
    CertificateStatus, CrlStatus, Degraded, ListenerStatus, PoolStatus, ReloadReport, ShardStatus,
    Status, StoreStatus, TunStatus,
};
pub use store::{BackupView, NewBackup, SNAPSHOT_PREFIX, StoreCheck};
pub use transfer::{ImportRefused, ImportedRouter, LineError, MAX_LINE_ERRORS, RouterRecord};
pub use tunnel::{
    BanView, DialQuery, DialTo, DisconnectQuery, MAX_BAN_SECONDS, NewBan, TunnelFilter,
    TunnelQuery, TunnelView, check_ban,
};

/// Longest accepted router NAME, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest user name that is accepted on the wire; RouterOS takes 27 at most.
pub const MAX_USERNAME_BYTES: usize = 128;
/// Longest password that is accepted on the wire; RouterOS before 7.18 takes 233 at most.
pub const MAX_PASSWORD_BYTES: usize = 1000;
/// Longest common name in an X.509 subject. Source: RFC 5280 `ub-common-name`.
pub const MAX_COMMON_NAME_BYTES: usize = 64;
/// Longest tag of a router, in bytes.
pub const MAX_TAG_BYTES: usize = 63;
/// Most tags of one router.
pub const MAX_TAGS: usize = 32;
/// Longest note of a router, in bytes.
pub const MAX_NOTE_BYTES: usize = 1000;

/// Ciphers as the command line and the API spell them; input may have any case.
pub const CIPHERS: [&str; 6] =
    ["AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "AES-128-CBC", "AES-192-CBC", "AES-256-CBC"];
/// Digests as the API spells them; input may have any case.
pub const DIGESTS: [&str; 4] = ["SHA1", "SHA256", "SHA384", "SHA512"];

/// A moment, whole seconds since 1970-01-01 UTC; RFC 3339 in documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "control-api", schema(value_type = String, format = DateTime))]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 9999-12-31T23:59:59Z: what RFC 3339 can still write.
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX).min(253_402_300_799);
        let text = OffsetDateTime::from_unix_timestamp(seconds)
            .ok()
            .and_then(|moment| moment.format(&Rfc3339).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment = OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)?;
        u64::try_from(moment.unix_timestamp()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Text that is never printed by `Debug`: a password, or a script that holds one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "control-api", schema(value_type = String, format = Password))]
#[serde(transparent)]
pub struct SecretText(pub String);

impl SecretText {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// One field of a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Absent: it stays as it is.
    #[default]
    Keep,
    /// Null: it is cleared.
    Clear,
    /// It becomes this.
    Set(T),
}

impl<T> Patch<T> {
    /// True if the field stays as it is.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// Changes what is set.
    ///
    /// # Errors
    /// What `change` says.
    pub fn try_map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<Patch<U>, E> {
        Ok(match self {
            Self::Keep => Patch::Keep,
            Self::Clear => Patch::Clear,
            Self::Set(value) => Patch::Set(change(value)?),
        })
    }

    /// What the field becomes if it was `old`.
    pub fn apply(self, old: Option<T>) -> Option<T> {
        match self {
            Self::Keep => old,
            Self::Clear => None,
            Self::Set(new) => Some(new),
        }
    }
}

impl<T: Serialize> Serialize for Patch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // Left out with `skip_serializing_if`.
            Self::Keep | Self::Clear => serializer.serialize_none(),
            Self::Set(value) => serializer.serialize_some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

/// A list over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct List<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page starts; null: this is the last one.
    pub next: Option<String>,
    /// `GET /v1/events?after=` this id tells everything that has changed since; read before `items`.
    pub event_id: u64,
}

impl<T> List<T> {
    /// A list that is complete.
    pub fn complete(event_id: u64, items: Vec<T>) -> Self {
        Self { items, next: None, event_id }
    }
}

/// Checks the form of a router NAME.
///
/// # Errors
/// [`ErrorCode::Invalid`](super::ErrorCode::Invalid) for the field `name`.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    if is_name(name) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "name",
        "a router name has 1 to 63 characters of a-z, 0-9, \".\", \"_\" and \"-\" and starts with \
         a letter or a digit",
    ))
}

/// True for `[a-z0-9][a-z0-9._-]{0,62}`.
pub(crate) fn is_name(name: &str) -> bool {
    let head = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(head)
        && name.bytes().all(|byte| head(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

pub(crate) fn check_text(field: &str, text: &str, max_bytes: usize) -> Result<(), ApiError> {
    if text.is_empty() {
        return Err(ApiError::invalid(field, "must not be empty"));
    }
    if text.len() > max_bytes {
        return Err(ApiError::invalid(field, format!("must not be longer than {max_bytes} bytes")));
    }
    if text.chars().any(is_unprintable) {
        return Err(ApiError::invalid(field, "must not hold control or direction characters"));
    }
    Ok(())
}

/// True for characters that must not reach a terminal or a log: control characters, and those that
/// change the direction of text or are invisible.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

pub(crate) fn known(field: &str, value: &str, all: &[&str]) -> Result<String, ApiError> {
    all.iter()
        .find(|name| name.eq_ignore_ascii_case(value))
        .map(|name| (*name).to_owned())
        .ok_or_else(|| {
            ApiError::invalid(
                field,
                format!("\"{}\" is not one of {}", value.escape_default(), all.join(", ")),
            )
        })
}

/// Folds an IPv4-mapped IPv6 address, so that a dual-stack listener shows what an operator knows.
pub fn plain_address(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_api::ErrorCode;

    fn refused(new: NewRouter, field: &str) {
        let error = new.check().unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::Invalid, Some(field)));
    }

    #[test]
    fn names_have_one_form() {
        for good in ["a", "0", "branch-42", "a.b_c-d", &"x".repeat(63)] {
            check_name(good).unwrap();
        }
        for bad in [
            "",
            "A",
            "-a",
            ".a",
            "_a",
            "..",
            "../x",
            "a/b",
            "a b",
            "a\n",
            "\u{e4}",
            "a\u{202e}",
            &"x".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ciphers_and_digests_get_one_spelling() {
        let mut new = NewRouter::named("a");
        new.cipher = Some("aes-256-cbc".into());
        new.auth = Some("Sha512".into());
        let new = new.check().unwrap();
        assert_eq!(
            (new.cipher.as_deref(), new.auth.as_deref()),
            (Some("AES-256-CBC"), Some("SHA512"))
        );
    }

    #[test]
    fn unknown_algorithms_are_refused() {
        for (cipher, auth, field) in [
            (Some("bf-cbc"), None, "cipher"),
            (Some("none"), None, "cipher"),
            (None, Some("md5"), "auth"),
            (None, Some("null"), "auth"),
            (Some("aes-256-cbc"), Some("null"), "auth"),
        ] {
            let mut new = NewRouter::named("a");
            new.cipher = cipher.map(str::to_owned);
            new.auth = auth.map(str::to_owned);
            refused(new, field);
        }
        let mut new = NewRouter::named("a");
        (new.cipher, new.auth) = (Some("aes-128-gcm".into()), Some("NULL".into()));
        assert_eq!(new.check().unwrap().auth.as_deref(), Some("null"));
    }

    #[test]
    fn text_fields_are_bounded_and_printable() {
        for bad in [String::new(), "a\nb".into(), "a\u{202e}b".into(), "x".repeat(129)] {
            let mut new = NewRouter::named("a");
            new.username = Some(bad);
            refused(new, "username");
        }
        for bad in [String::new(), "a\0b".into(), "x".repeat(1001)] {
            let mut new = NewRouter::named("a");
            new.password = Some(SecretText(bad));
            refused(new, "password");
        }
        let mut new = NewRouter::named("a");
        new.certificate_cn = Some("a".into());
        refused(new, "certificate_cn");
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_refused() {
        for bad in [
            r#"{"name":"a","colour":"red"}"#,
            r#"{"name":1}"#,
            r#"{}"#,
            r#"{"name":"a","address":"10.0.0.01"}"#,
            r#"{"name":"a","address":"10.0.0.1/32"}"#,
            r#"{"name":"a","login":"Password"}"#,
        ] {
            assert!(serde_json::from_str::<NewRouter>(bad).is_err(), "{bad} was accepted");
        }
        assert!(serde_json::from_str::<RouterPatch>(r#"{"name":"b"}"#).is_err());
    }

    #[test]
    fn times_are_rfc_3339_utc() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(1_795_305_600).to_string(), "2026-11-22T00:00:00Z");
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
        let read: Timestamp = serde_json::from_str(r#""2026-11-22T01:00:00+01:00""#).unwrap();
        assert_eq!(read, Timestamp(1_795_305_600));
        assert!(serde_json::from_str::<Timestamp>(r#""1969-12-31T23:59:59Z""#).is_err());
    }

    #[test]
    fn secrets_are_not_printed_by_debug() {
        let mut new = NewRouter::named("a");
        new.password = Some(SecretText("canary-7Q2".into()));
        assert!(!format!("{new:?}").contains("canary"));
        assert!(serde_json::to_string(&new).unwrap().contains("canary-7Q2"));
    }

    #[test]
    fn mapped_addresses_are_shown_plainly() {
        let shown = |text: &str| plain_address(text.parse().unwrap()).to_string();
        assert_eq!(shown("[::ffff:192.0.2.1]:1000"), "192.0.2.1:1000");
        assert_eq!(shown("[2001:db8::1]:1000"), "[2001:db8::1]:1000");
    }
}
