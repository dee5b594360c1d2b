//! The documents of the control socket. Field names are stable; times are RFC 3339 UTC, durations
//! are whole seconds, sizes are bytes, addresses carry no prefix length. "rx" is what the
//! concentrator received from the router, "tx" what it sent to it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::ApiError;

/// Longest accepted router NAME, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest user name that is accepted on the wire; RouterOS takes 27 at most.
pub const MAX_USERNAME_BYTES: usize = 128;
/// Longest password that is accepted on the wire; RouterOS before 7.18 takes 233 at most.
pub const MAX_PASSWORD_BYTES: usize = 1000;
/// Longest common name in an X.509 subject. Source: RFC 5280 `ub-common-name`.
pub const MAX_COMMON_NAME_BYTES: usize = 64;

/// Ciphers as the command line and the API spell them; input may have any case.
pub const CIPHERS: [&str; 6] =
    ["AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "AES-128-CBC", "AES-192-CBC", "AES-256-CBC"];
/// Digests as the API spells them; input may have any case.
pub const DIGESTS: [&str; 4] = ["SHA1", "SHA256", "SHA384", "SHA512"];

/// A moment, whole seconds since 1970-01-01 UTC; RFC 3339 in documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// A list over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page starts; null: this is the last one.
    pub next: Option<String>,
    /// The event after which `items` is what it is; null: this version keeps no events.
    pub event_id: Option<u64>,
}

impl<T> List<T> {
    /// A list that is complete.
    pub fn complete(items: Vec<T>) -> Self {
        Self { items, next: None, event_id: None }
    }
}

/// How a router proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Login {
    /// User name and password.
    #[default]
    Password,
    /// A client certificate; the password is not looked at.
    Certificate,
    /// Both, of the same router.
    Both,
}

/// What `POST /v1/routers` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRouter {
    /// `[a-z0-9][a-z0-9._-]{0,62}`.
    pub name: String,
    /// Absent: NAME if it has at most 27 characters, else generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Absent: generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretText>,
    /// A static address. Absent: the pool gives one at the first login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The data cipher for a router that does not negotiate and names none; see [`CIPHERS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<String>,
    /// The digest likewise; see [`DIGESTS`], or "null", which only GCM allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// How it logs in.
    #[serde(default)]
    pub login: Login,
    /// The common name of its certificate, byte for byte. Absent: NAME, where a certificate counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_cn: Option<String>,
    /// Put the CA and the check of the server's certificate into the script.
    #[serde(default)]
    pub verify_server: bool,
}

impl NewRouter {
    /// A router with nothing but a name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            username: None,
            password: None,
            address: None,
            cipher: None,
            auth: None,
            login: Login::Password,
            certificate_cn: None,
            verify_server: false,
        }
    }

    /// Checks every field that can be checked alone and brings ciphers and digests into the one
    /// spelling of [`CIPHERS`] and [`DIGESTS`] ("null" for no digest).
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`](super::ErrorCode::Invalid) with the first field at fault.
    pub fn check(mut self) -> Result<Self, ApiError> {
        check_name(&self.name)?;
        if let Some(username) = &self.username {
            check_text("username", username, MAX_USERNAME_BYTES)?;
        }
        if let Some(password) = &self.password {
            check_text("password", password.expose(), MAX_PASSWORD_BYTES)?;
        }
        if let Some(name) = &self.certificate_cn {
            check_text("certificate_cn", name, MAX_COMMON_NAME_BYTES)?;
            if self.login == Login::Password {
                return Err(ApiError::invalid(
                    "certificate_cn",
                    "a certificate counts only with login \"certificate\" or \"both\"",
                ));
            }
        }
        if let Some(cipher) = &self.cipher {
            self.cipher = Some(known("cipher", cipher, &CIPHERS)?);
        }
        if let Some(auth) = &self.auth {
            self.auth = Some(if auth.eq_ignore_ascii_case("null") {
                if !self.cipher.as_deref().is_some_and(|name| name.ends_with("-GCM")) {
                    return Err(ApiError::invalid(
                        "auth",
                        "\"null\" is only possible with a GCM cipher; set cipher too",
                    ));
                }
                "null".to_owned()
            } else {
                known("auth", auth, &DIGESTS)?
            });
        }
        Ok(self)
    }
}

/// Checks the form of a router NAME.
///
/// # Errors
/// [`ErrorCode::Invalid`](super::ErrorCode::Invalid) for the field `name`.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    let head = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(head)
        && name.bytes().all(|byte| head(byte) || matches!(byte, b'.' | b'_' | b'-'));
    if good {
        return Ok(());
    }
    Err(ApiError::invalid(
        "name",
        "a router name has 1 to 63 characters of a-z, 0-9, \".\", \"_\" and \"-\" and starts with \
         a letter or a digit",
    ))
}

fn check_text(field: &str, text: &str, max_bytes: usize) -> Result<(), ApiError> {
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

fn known(field: &str, value: &str, all: &[&str]) -> Result<String, ApiError> {
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

/// What `PATCH /v1/routers/{name}` takes; an absent field stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterPatch {
    /// True cuts the tunnel and refuses further logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A router account; never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterView {
    /// NAME.
    pub name: String,
    /// What the router sends as user name.
    pub username: String,
    /// How it logs in.
    pub login: Login,
    /// The common name that its certificate must have.
    pub certificate_cn: Option<String>,
    /// The account's data cipher; null: none prescribed.
    pub cipher: Option<String>,
    /// The account's digest, or "null" for `auth=null`; null: none prescribed.
    pub auth: Option<String>,
    /// The tunnel address it has or will have; null: not yet given.
    pub address: Option<Ipv4Addr>,
    /// True: the address was set by hand.
    pub address_static: bool,
    /// True: it may not log in.
    pub disabled: bool,
    /// True: it has a tunnel now.
    pub connected: bool,
    /// When the account was made.
    pub created: Timestamp,
    /// When it was last connected; now, if it is; null: never, or not known.
    pub last_seen: Option<Timestamp>,
}

/// The answer to `POST /v1/routers`: the only one that holds the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedRouter {
    /// The account.
    #[serde(flatten)]
    pub router: RouterView,
    /// The password, generated or as given.
    pub password: SecretText,
    /// To be pasted into a RouterOS v7 terminal.
    pub script: SecretText,
    /// To be pasted into a RouterOS v6 terminal.
    pub script_v6: SecretText,
    /// A file for the standard OpenVPN clients.
    pub ovpn: SecretText,
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelView {
    /// NAME of the router.
    pub router: String,
    /// Its tunnel address.
    pub address: Ipv4Addr,
    /// Where it dials from, "address:port"; behind a load balancer: what the PROXY header says.
    pub real_address: SocketAddr,
    /// "up"; later versions also "suspect".
    pub state: String,
    /// Since when packets can flow.
    pub since: Timestamp,
    /// When an authentic packet last came; null: none yet.
    pub last_heard: Option<Timestamp>,
    /// The data cipher in use, OpenVPN's spelling.
    pub cipher: String,
    /// The digest in use ("SHA1", "null"); a GCM cipher does not need one.
    pub auth: String,
    /// TLS version of the last key exchange.
    pub tls_version: Option<String>,
    /// TLS suite of the last key exchange.
    pub tls_suite: Option<String>,
    /// Age of the key that packets to the router are sealed with.
    pub key_age_seconds: u64,
    /// Inner bytes from the router.
    pub rx_bytes: u64,
    /// Inner bytes to the router.
    pub tx_bytes: u64,
    /// Inner packets from the router.
    pub rx_packets: u64,
    /// Inner packets to the router.
    pub tx_packets: u64,
    /// Packets that were dropped, by reason; reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
    /// Inner bytes that wait for the outer connection.
    pub queued_bytes: u64,
    /// Round-trip time of the outer connection, microseconds; null: not known.
    pub rtt_us: Option<u64>,
    /// Retransmitted segments of the outer connection; null: not known.
    pub retransmits: Option<u64>,
}

/// How things are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running concentrator.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it was started.
    pub started: Timestamp,
    /// How long it runs.
    pub uptime_seconds: u64,
    /// True: the TUN device and every listener are up.
    pub ready: bool,
    /// The TUN device.
    pub tun: TunStatus,
    /// What routers dial.
    pub listeners: Vec<ListenerStatus>,
    /// The address that the platform speaks from.
    pub management_address: Ipv4Addr,
    /// Router accounts.
    pub routers: u64,
    /// Tunnels that are up.
    pub tunnels: u64,
    /// Connections that have not logged in yet.
    pub logins_in_progress: u64,
    /// The address pool.
    pub pool: PoolStatus,
    /// The packet threads.
    pub shards: Vec<ShardStatus>,
    /// The store.
    pub store: StoreStatus,
    /// The server's certificates.
    pub certificates: Vec<CertificateStatus>,
    /// What does not work as it should; empty is good.
    pub degraded: Vec<Degraded>,
    /// Plain counters since the start by stable name: logins by result, closes and drops by reason.
    pub counters: BTreeMap<String, u64>,
}

/// The TUN device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunStatus {
    /// Its name.
    pub name: String,
    /// True: it exists, has its address and passes packets.
    pub up: bool,
    /// Bytes.
    pub mtu: u16,
    /// Number of queues.
    pub queues: u32,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Where it listens; with the real port if the configuration says 0.
    pub address: SocketAddr,
    /// "none", "tls-auth", "tls-crypt" or "tls-crypt-v2".
    pub wrap: String,
    /// True: it accepts connections.
    pub up: bool,
    /// Connections accepted since the start.
    pub accepted: u64,
}

/// The address pool, in addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The network, "100.64.0.0/10".
    pub network: String,
    /// What can be given to routers in all.
    pub capacity: u64,
    /// Given to routers.
    pub in_use: u64,
    /// Given back of late, not yet given again.
    pub quarantined: u64,
}

/// One packet thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Number, from 0.
    pub shard: u32,
    /// Its tunnels.
    pub tunnels: u64,
    /// Inner bytes from routers.
    pub rx_bytes: u64,
    /// Inner bytes to routers.
    pub tx_bytes: u64,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// True: it takes changes.
    pub ok: bool,
    /// Why it does not.
    pub reason: Option<String>,
}

/// One certificate of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its subject, for people.
    pub subject: String,
    /// "RSA 2048", "ECDSA P-256".
    pub key: String,
    /// Its end.
    pub not_after: Timestamp,
}

/// Something that does not work as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// "store", "listener", "tun", "steering", "public_host", ...
    pub part: String,
    /// One sentence.
    pub reason: String,
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
