//! From the text of a file to values; what goes wrong is noted and replaced by the default.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use toml::Table;
use tunnelhead_crypto::{AuthDigest, DataCipher, StaticKey, TlsCryptV2ServerKey};
use zeroize::Zeroizing;

use super::error::ConfigError;
use super::section::{Notes, Section};
use super::{
    Audit, AuthenticatorConfig, CertificateFiles, CertificatePolicy, Config, Control, Data,
    History, Keepalive, Limits, Listener, Metrics, Pool, StoreKeeping, Threads, Tls, Tun, Wrap,
    values,
};

/// Largest accepted key or certificate file.
const MAX_KEY_FILE_BYTES: u64 = 1 << 20;
/// The same for a revocation list: one of a hundred thousand certificates has about 4 MiB.
const MAX_CRL_FILE_BYTES: u64 = 16 << 20;
const DEFAULT_LISTEN: [&str; 2] = ["0.0.0.0:8443", "[::]:8443"];
const DEFAULT_MANAGEMENT: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);
const DEFAULT_NETWORK: &str = "100.64.0.0/10";
const DEFAULT_EXCLUDED: [&str; 2] = ["100.64.0.0/24", "100.100.100.0/24"];

/// What an empty file gives.
pub(super) fn defaults() -> Config {
    let mut notes = Notes::default();
    from_table(Table::new(), Path::new("/"), &mut notes)
}

/// What the text of a file gives; relative paths are taken from `base`.
pub(super) fn config(text: &str, base: &Path) -> Result<(Config, Notes), ConfigError> {
    let table: Table = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        ConfigError::Syntax {
            line: before.matches('\n').count().saturating_add(1),
            reason: values::show(&error.message().replace('\n', ", ")),
        }
    })?;
    let mut notes = Notes::default();
    let config = from_table(table, base, &mut notes);
    Ok((config, notes))
}

fn from_table(table: Table, base: &Path, notes: &mut Notes) -> Config {
    let mut root = Section::new("", table, notes);
    let path = |section: &mut Section<'_>, key, default: &str| {
        section.file(key, base).unwrap_or_else(|| default.into())
    };
    let config = Config {
        listeners: listeners(&mut root, base),
        public_host: root.optional_text("public_host", values::host),
        public_addresses: root
            .texts("public_addresses", |text| {
                text.parse().map_err(|_| format!("\"{}\" is not an address", values::show(text)))
            })
            .unwrap_or_default(),
        state_dir: path(&mut root, "state_dir", "/var/lib/tunnelhead"),
        control_socket: path(&mut root, "control_socket", "/run/tunnelhead/control.sock"),
        management_address: root
            .text("management_address", |text| {
                text.parse().map_err(|_| {
                    format!(
                        "\"{}\" is not an IPv4 address; write \"{DEFAULT_MANAGEMENT}\"",
                        values::show(text)
                    )
                })
            })
            .unwrap_or(DEFAULT_MANAGEMENT),
        pool: pool(root.section("pool")),
        tun: tun(root.section("tun")),
        tls: tls(root.section("tls"), base),
        data: data(root.section("data")),
        keepalive: keepalive(root.section("keepalive")),
        allow: isolation(root.section("isolation")),
        authenticator: AuthenticatorConfig::read(root.section("authenticator"), base),
        metrics: metrics(root.section("metrics")),
        threads: threads(root.section("threads")),
        control: Control::read(root.section("control"), base),
        audit: Audit::read(root.section("audit")),
        limits: Limits::read(root.section("limits")),
        store: StoreKeeping::read(root.section("store")),
        history: History::read(root.section("history")),
    };
    root.finish();
    config
}

fn listeners(root: &mut Section<'_>, base: &Path) -> Vec<Listener> {
    let explicit = root.has("listen") || root.has("listener");
    let mut made: Vec<Listener> =
        root.texts("listen", address).unwrap_or_default().into_iter().map(Listener::new).collect();
    made.extend(root.sections("listener", |section| listener(section, base)));
    if !explicit {
        made.extend(
            DEFAULT_LISTEN.iter().filter_map(|text| Some(Listener::new(text.parse().ok()?))),
        );
    }
    made
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "\"{}\" is not an address with a port; write \"0.0.0.0:8443\" or \"[::]:8443\"",
            values::show(text)
        )
    })
}

fn listener(section: &mut Section<'_>, base: &Path) -> Option<Listener> {
    let absent = !section.has("address");
    let address = section.text("address", address);
    if absent {
        section.problem("address", "is missing; write address = \"0.0.0.0:8443\"");
    }
    let wrap = wrap(section, base);
    let client_certificate = section.word(
        "client_certificate",
        &[
            ("no", CertificatePolicy::No),
            ("optional", CertificatePolicy::Optional),
            ("required", CertificatePolicy::Required),
        ],
        CertificatePolicy::No,
    );
    let proxy_protocol = section.texts("proxy_protocol", values::peers).unwrap_or_default();
    let legacy = section.boolean("legacy", false);
    Some(Listener { address: address?, wrap, client_certificate, proxy_protocol, legacy })
}

#[derive(Clone, Copy, PartialEq)]
enum WrapWord {
    None,
    Auth,
    Crypt,
    CryptV2,
}

fn wrap(section: &mut Section<'_>, base: &Path) -> Wrap {
    let word = section.word(
        "wrap",
        &[
            ("none", WrapWord::None),
            ("tls-auth", WrapWord::Auth),
            ("tls-crypt", WrapWord::Crypt),
            ("tls-crypt-v2", WrapWord::CryptV2),
        ],
        WrapWord::None,
    );
    let digest_given = section.has("wrap_digest");
    let digest = section.text("wrap_digest", |text| {
        AuthDigest::ALL.iter().copied().find(|digest| digest.name() == text).ok_or_else(|| {
            let all: Vec<_> = AuthDigest::ALL.iter().map(|d| format!("\"{}\"", d.name())).collect();
            format!("\"{}\" is not one of {}", values::show(text), all.join(", "))
        })
    });
    let file = section.file("wrap_key", base);
    if digest_given && word != WrapWord::Auth {
        section.problem("wrap_digest", "belongs to wrap = \"tls-auth\"; remove it");
    }
    let file = match (word, file) {
        (WrapWord::None, None) => return Wrap::None,
        (WrapWord::None, Some(_)) => {
            section.problem("wrap_key", "is set but wrap is \"none\"; set wrap or remove the key");
            return Wrap::None;
        }
        (_, None) => {
            section.problem("wrap_key", "is missing; name the file that holds the key");
            return Wrap::None;
        }
        (_, Some(file)) => file,
    };
    let text = match text_file(&file, MAX_KEY_FILE_BYTES) {
        Ok(text) => Zeroizing::new(text),
        Err(reason) => {
            section.problem("wrap_key", format!("cannot read {}: {reason}", file.display()));
            return Wrap::None;
        }
    };
    let made = if word == WrapWord::CryptV2 {
        TlsCryptV2ServerKey::parse_pem(&text)
            .map(|key| Wrap::TlsCryptV2 { key: Arc::new(key) })
            .map_err(|_| "an OpenVPN tls-crypt-v2 server key")
    } else {
        StaticKey::parse(&text)
            .map(Arc::new)
            .map(|key| match word {
                WrapWord::Auth => Wrap::TlsAuth { key, digest: digest.unwrap_or(AuthDigest::Sha1) },
                _ => Wrap::TlsCrypt { key },
            })
            .map_err(|_| "an OpenVPN static key V1")
    };
    made.unwrap_or_else(|what| {
        section.problem("wrap_key", format!("{} does not hold {what}", file.display()));
        Wrap::None
    })
}

fn pool(mut section: Section<'_>) -> Pool {
    let network = section.text("network", values::network);
    let network: Ipv4Net = network.or_else(|| DEFAULT_NETWORK.parse().ok()).unwrap_or_default();
    // The defaults concern the default network only.
    let excluded = section.texts("excluded", values::network).unwrap_or_else(|| {
        let all = DEFAULT_EXCLUDED.iter().filter_map(|text| text.parse::<Ipv4Net>().ok());
        all.filter(|part| network.contains(part)).collect()
    });
    section.finish();
    Pool { network, excluded }
}

fn tun(mut section: Section<'_>) -> Tun {
    let name = section.text("name", values::interface).unwrap_or_else(|| "tunnelhead0".to_owned());
    let mtu = u16::try_from(section.integer("mtu", 1500, 1280..=1500)).unwrap_or(1500);
    section.finish();
    Tun { name, mtu }
}

fn tls(mut section: Section<'_>, base: &Path) -> Tls {
    let certificates = section.sections("certificates", |entry| {
        let mut file = |key: &'static str, mark: &str| {
            let path = entry.file(key, base);
            match &path {
                None => entry.problem(key, "is missing; name a PEM file"),
                Some(path) => pem(entry, key, path, mark, MAX_KEY_FILE_BYTES),
            }
            path
        };
        let certificate = file("certificate", "CERTIFICATE-----");
        let key = file("key", "PRIVATE KEY-----");
        Some(CertificateFiles { certificate: certificate?, key: key? })
    });
    let client_ca = section.file("client_ca", base);
    if let Some(path) = &client_ca {
        pem(&mut section, "client_ca", path, "CERTIFICATE-----", MAX_KEY_FILE_BYTES);
    }
    let crl = section.files("crl", base);
    for (index, path) in crl.iter().enumerate() {
        pem(&mut section, &format!("crl[{index}]"), path, "X509 CRL-----", MAX_CRL_FILE_BYTES);
    }
    section.finish();
    Tls { certificates, client_ca, crl }
}

fn pem(section: &mut Section<'_>, key: &str, path: &Path, mark: &str, max_bytes: u64) {
    match text_file(path, max_bytes).map(Zeroizing::new) {
        Err(reason) => section.problem(key, format!("cannot read {}: {reason}", path.display())),
        Ok(text) if !text.contains("-----BEGIN ") || !text.contains(mark) => {
            let what = mark.trim_end_matches('-').to_ascii_lowercase();
            section.problem(key, format!("{} does not hold a {what} in PEM form", path.display()));
        }
        Ok(_) => {}
    }
}

fn data(mut section: Section<'_>) -> Data {
    let given = section.has("ciphers");
    let before = section.problems();
    let ciphers = section.texts("ciphers", |text| {
        DataCipher::from_name(&text.to_ascii_uppercase()).ok_or_else(|| {
            let all: Vec<_> = DataCipher::ALL.iter().map(|cipher| cipher.name()).collect();
            format!("\"{}\" is not one of {}", values::show(text), all.join(", "))
        })
    });
    let empty = ciphers.as_ref().is_some_and(Vec::is_empty);
    if given && empty && section.problems() == before {
        section.problem("ciphers", "must name at least one cipher");
    }
    let ciphers = ciphers
        .filter(|list| !list.is_empty())
        .unwrap_or_else(|| vec![DataCipher::Aes256Gcm, DataCipher::Aes256Cbc]);
    let shortest = Duration::from_secs(2);
    let longest = Duration::from_secs(365 * 86_400);
    let rekey_after = section
        .text("rekey_after", |text| match text {
            "never" => Ok(None),
            text => match values::duration(text)? {
                time if time < shortest => Err("must be at least 2s, or \"never\"".to_owned()),
                time if time > longest => Err("must be at most 365d, or \"never\"".to_owned()),
                time => Ok(Some(time)),
            },
        })
        .flatten();
    section.finish();
    Data { ciphers, rekey_after }
}

fn keepalive(mut section: Section<'_>) -> Keepalive {
    let seconds = Duration::from_secs;
    let ping = section.duration("ping", seconds(20), seconds(1)..=seconds(3600));
    let restart = section.duration("restart", seconds(90), seconds(2)..=seconds(86_400));
    let suspect = section.duration("suspect", seconds(10), seconds(3)..=seconds(3600));
    section.finish();
    Keepalive { ping, restart, suspect }
}

fn isolation(mut section: Section<'_>) -> Vec<super::Allow> {
    let allow = section.texts("allow", values::allow).unwrap_or_default();
    section.finish();
    allow
}

fn metrics(mut section: Section<'_>) -> Metrics {
    let metrics = Metrics { per_router: section.boolean("per_router", false) };
    section.finish();
    metrics
}

fn threads(mut section: Section<'_>) -> Threads {
    let most = Threads::MAX as u64;
    let mut count =
        |key| usize::try_from(section.integer(key, 0, 0..=most)).ok().filter(|count| *count != 0);
    let threads = Threads { shards: count("shards"), greeters: count("greeters") };
    section.finish();
    threads
}

/// Reads a file of at most `max_bytes`; the reason is one sentence without the path.
pub(super) fn text_file(path: &Path, max_bytes: u64) -> Result<String, String> {
    let file = File::open(path).map_err(|error| reason(&error))?;
    if file.metadata().map_err(|error| reason(&error))?.is_dir() {
        return Err("it is a folder".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| reason(&error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > max_bytes) {
        return Err(format!("it is longer than {max_bytes} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "no permission to read it".to_owned(),
        _ => error.to_string(),
    }
}
