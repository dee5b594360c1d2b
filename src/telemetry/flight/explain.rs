//! Why a login failed, in one sentence, and the command that mends it.

use std::net::SocketAddr;

use super::fault::TlsFault;
use super::hello::version_name;
use super::record::{Outcome, Record, Step};

mod network;
mod router;
mod server;

/// What the sentence about a login depends on beside the login itself.
#[derive(Clone, Debug, Default)]
pub struct Setting<'a> {
    /// Seconds since 1970-01-01 UTC.
    pub now_s: u64,
    /// The account that the login is about, if it is one's.
    pub account: Option<AccountFacts<'a>>,
    /// A router whose user name begins with the one that was sent, if that one is as long as
    /// RouterOS cuts user names, and the asker may know that router.
    pub cut: Option<&'a str>,
    /// Where it came in.
    pub listener: Option<ListenerFacts<'a>>,
    /// A listener for old TLS, if there is one.
    pub legacy_listener: Option<SocketAddr>,
    /// Allowed data ciphers.
    pub ciphers: &'a [&'a str],
    /// The server's certificate that ends first.
    pub certificate: Option<CertificateFacts<'a>>,
}

/// What an account prescribes.
#[derive(Clone, Copy, Debug)]
pub struct AccountFacts<'a> {
    /// NAME.
    pub name: &'a str,
    /// Its user name.
    pub username: &'a str,
    /// Data cipher, OpenVPN's spelling.
    pub cipher: Option<&'a str>,
    /// Digest, or `null`.
    pub auth: Option<&'a str>,
    /// Common name of its certificate.
    pub certificate_cn: Option<&'a str>,
}

/// A listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerFacts<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// `none`, `tls-auth`, `tls-crypt`, `tls-crypt-v2`.
    pub wrap: &'a str,
}

/// A server certificate.
#[derive(Clone, Copy, Debug)]
pub struct CertificateFacts<'a> {
    /// Whom it names.
    pub subject: &'a str,
    /// Its end, seconds since 1970-01-01 UTC.
    pub not_after_s: u64,
}

/// What to tell people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Stable name of the cause, finer than the reason.
    pub cause: &'static str,
    /// One sentence.
    pub sentence: String,
    /// The command for a terminal of the router, in the words of RouterOS 7.9 and later.
    pub routeros: Option<String>,
    /// The same in the words of RouterOS 6 (and 7.1 to 7.7), where they differ.
    pub routeros_v6: Option<String>,
    /// The command for a shell beside the concentrator.
    pub shell: Option<String>,
}

impl Explanation {
    fn new(cause: &'static str, sentence: impl Into<String>) -> Self {
        Self { cause, sentence: sentence.into(), routeros: None, routeros_v6: None, shell: None }
    }

    fn router(mut self, command: impl Into<String>) -> Self {
        self.routeros = Some(command.into());
        self
    }

    fn router_v6(mut self, command: impl Into<String>) -> Self {
        self.routeros_v6 = Some(command.into());
        self
    }

    fn shell(mut self, command: impl Into<String>) -> Self {
        self.shell = Some(command.into());
        self
    }
}

/// Selects our interface in the way that our scripts do.
const SET: &str = "/interface ovpn-client set [find where comment=\"tunnelhead: tunnel\"]";

/// Stable name of the cause of a failure; `none` if the login has not failed.
pub fn cause(record: &Record) -> &'static str {
    let Outcome::Failed { reason, .. } = &record.outcome else { return "none" };
    let step = record.furthest();
    match *reason {
        "not_openvpn" | "first_packet" | "bad_frame" | "malformed" | "peer_closed"
        | "connection_reset" | "login_deadline" | "login_timeout"
            if let Some(what) = record.looks_like =>
        {
            match what {
                "HTTP" => "http_on_port",
                "TLS" => "tls_on_port",
                "PROXY" => "proxy_not_listed",
                "OpenVPN over UDP" => "udp_framing",
                _ => "other_protocol",
            }
        }
        "first_packet" | "control_wrap" => "wrap_mismatch",
        "tls" => record.tls_fault.map_or("tls", TlsFault::code),
        "peer_closed" | "connection_reset" | "tcp_timeout" | "peer_dead" => {
            if let Some(fault) = alert_of(record) {
                return fault.code();
            }
            match step {
                Step::Accepted => "said_nothing",
                Step::ProxyHeader | Step::FirstBytes => "left_early",
                Step::HardReset | Step::ResetAnswered => "left_after_reset",
                Step::ClientHello => "left_in_tls",
                Step::ServerHello => "left_after_server_certificate",
                Step::Tls => "left_before_key_exchange",
                Step::KeyExchange => "left_before_verdict",
                Step::Verdict | Step::Address | Step::PushRequest => "left_before_push",
                Step::PushReply | Step::Up | Step::Alert | Step::End => "left_after_push_reply",
            }
        }
        "login_deadline" | "login_timeout" => match step {
            Step::Accepted => "said_nothing",
            Step::ProxyHeader | Step::FirstBytes => "deadline_first_packet",
            Step::HardReset | Step::ResetAnswered => "deadline_client_hello",
            Step::ClientHello => "deadline_in_tls",
            Step::ServerHello => "deadline_after_server_certificate",
            Step::Tls => "deadline_key_exchange",
            Step::KeyExchange => "deadline_verdict",
            Step::Verdict => "deadline_address",
            Step::Address => "no_push_request",
            _ => "deadline_push",
        },
        other => other,
    }
}

/// The client's alert, if it says what it does not like.
fn alert_of(record: &Record) -> Option<TlsFault> {
    record.alert.and_then(|(_, what)| TlsFault::from_alert(what))
}

/// Explains an attempt; for one that has not failed, says how far it got.
pub fn explain(record: &Record, setting: &Setting<'_>) -> Explanation {
    match &record.outcome {
        Outcome::Up => Explanation::new("none", "The login succeeded and the tunnel came up."),
        Outcome::LoggedIn => Explanation::new(
            "none",
            "The login succeeded; the router has its configuration, and its first packet is awaited.",
        ),
        Outcome::Failed { reason, detail } => {
            let cause = cause(record);
            router::explain(cause, record, setting)
                .or_else(|| server::explain(cause, record, setting))
                .or_else(|| network::explain(cause, record, setting))
                .unwrap_or_else(|| {
                    let text = if detail.is_empty() { reason } else { &**detail };
                    Explanation::new(cause, text)
                })
        }
    }
}

/// True for clients that are stock OpenVPN and not RouterOS.
fn is_openvpn(record: &Record) -> bool {
    record.peer("IV_VER").is_some()
}

/// What the client calls itself for a sentence.
fn client(record: &Record) -> &'static str {
    if is_openvpn(record) { "the OpenVPN client" } else { "the router" }
}

/// The cipher that the router should be set to: the account's, else the common one, else the first.
fn wanted_cipher<'a>(setting: &Setting<'a>) -> &'a str {
    const COMMON: &str = "AES-256-CBC";
    let listed = |name: &&&str| **name == COMMON;
    setting
        .account
        .and_then(|account| account.cipher)
        .or_else(|| setting.ciphers.iter().find(listed).copied())
        .or_else(|| setting.ciphers.first().copied())
        .unwrap_or(COMMON)
}

/// The digest that goes with it. Until RouterOS 7.16 a GCM cipher demands `auth=null`.
fn wanted_auth(setting: &Setting<'_>, cipher: &str) -> String {
    let prescribed = setting.account.and_then(|account| account.auth);
    let silent = if cipher.ends_with("-GCM") { "null" } else { "sha1" };
    prescribed.unwrap_or(silent).to_ascii_lowercase()
}

/// `AES-256-CBC` in the words of RouterOS 7.8 and later.
fn v7_cipher(cipher: &str) -> String {
    cipher.to_ascii_lowercase().replacen("aes-", "aes", 1)
}

/// The same in the words of RouterOS 6, which has CBC only.
fn v6_cipher(cipher: &str) -> Option<&'static str> {
    match cipher {
        "AES-128-CBC" => Some("aes128"),
        "AES-192-CBC" => Some("aes192"),
        "AES-256-CBC" => Some("aes256"),
        _ => None,
    }
}

/// `2026-11-22 02:58` of seconds since 1970-01-01 UTC.
pub fn utc(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// Year, month and day of a number of days since 1970-01-01.
/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Name of the newest TLS version that the client offers.
fn offered(record: &Record) -> &'static str {
    record.hello.as_ref().map_or("an unknown TLS version", |hello| version_name(hello.newest))
}

#[cfg(test)]
mod tests;
