//! `[authenticator]`: who decides about logins, if not the accounts of the store alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tunnelhead_crypto::SecretBytes;
use zeroize::Zeroizing;

use super::read::text_file;
use super::section::Section;
use super::values;

/// Largest accepted file with the secret.
const MAX_SECRET_BYTES: u64 = 4096;

/// How logins are judged from outside.
#[derive(Clone, Debug)]
pub struct AuthenticatorConfig {
    /// The HTTP endpoint that is asked. None: the accounts of the store decide.
    pub endpoint: Option<Endpoint>,
    /// Sent to the endpoint as `Authorization: Bearer`.
    pub secret: Option<Arc<SecretBytes>>,
    /// From a question to its answer, waiting for a free connection included.
    pub timeout: Duration,
    /// Connections to the endpoint at once.
    pub connections: usize,
    /// Questions that may wait for a connection; further logins are refused.
    pub queue: usize,
    /// True: the accounts of the store have to accept a login as well.
    pub accounts: bool,
    /// True: rekeys are shown to the authenticator too, and a refusal ends the tunnel.
    pub rekeys: bool,
}

/// Where questions go: always on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix:/run/auth.sock:/login`
    Unix {
        /// The socket.
        socket: PathBuf,
        /// Path and query of the requests.
        path: String,
    },
    /// `http://127.0.0.1:8090/login`
    Loopback {
        /// A loopback address.
        address: SocketAddr,
        /// Path and query of the requests.
        path: String,
    },
}

impl PartialEq for AuthenticatorConfig {
    fn eq(&self, other: &Self) -> bool {
        // Every field is named, so that a new one is not forgotten.
        let Self { endpoint, secret, timeout, connections, queue, accounts, rekeys } = self;
        let same_secret = match (secret, &other.secret) {
            (Some(ours), Some(theirs)) => ours.ct_eq(theirs),
            (None, None) => true,
            _ => false,
        };
        same_secret
            && *endpoint == other.endpoint
            && *timeout == other.timeout
            && (*connections, *queue) == (other.connections, other.queue)
            && (*accounts, *rekeys) == (other.accounts, other.rekeys)
    }
}

impl Endpoint {
    /// Path and query of the requests.
    pub fn path(&self) -> &str {
        match self {
            Self::Unix { path, .. } | Self::Loopback { path, .. } => path,
        }
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let (socket, path) = rest.split_once(":/").map_or((rest, ""), |(socket, _)| {
                (socket, rest.get(socket.len().saturating_add(1)..).unwrap_or_default())
            });
            if !socket.starts_with('/') || socket.contains('\0') {
                return Err(form(text));
            }
            return Ok(Self::Unix { socket: socket.into(), path: path_of(path)? });
        }
        let Some(rest) = text.strip_prefix("http://") else { return Err(form(text)) };
        let split = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(split);
        let address: SocketAddr = host.parse().map_err(|_| {
            format!(
                "\"{}\" is not a loopback address with a port; write \"http://127.0.0.1:8090/login\"",
                values::show(host)
            )
        })?;
        if !address.ip().to_canonical().is_loopback() {
            return Err(format!(
                "{address} is not an address of this host's loopback; passwords are never sent \
                 over a network: put a proxy on this host in front of it"
            ));
        }
        Ok(Self::Loopback { address, path: path_of(path)? })
    }
}

fn form(text: &str) -> String {
    format!(
        "\"{}\" is not an endpoint; write \"unix:/run/auth.sock:/login\" or \
         \"http://127.0.0.1:8090/login\"",
        values::show(text)
    )
}

fn path_of(path: &str) -> Result<String, String> {
    let fine = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    match path {
        "" => Ok("/".to_owned()),
        path if fine && path.starts_with('/') && path.len() <= 1024 => Ok(path.to_owned()),
        _ => Err(format!("\"{}\" is not the path of a request", values::show(path))),
    }
}

impl AuthenticatorConfig {
    pub(super) fn read(mut section: Section<'_>, base: &Path) -> Self {
        let second = Duration::from_secs(1);
        let endpoint = section.optional_text("url", Endpoint::parse);
        let secret = section.file("secret_file", base).and_then(|path| match secret(&path) {
            Ok(secret) => Some(Arc::new(secret)),
            Err(reason) => {
                section.problem("secret_file", reason);
                None
            }
        });
        let timeout = section.duration("timeout", 5 * second, second..=60 * second);
        let mut count = |key, default, range| {
            usize::try_from(section.integer(key, default, range)).unwrap_or(usize::MAX)
        };
        let connections = count("connections", 32, 1..=1024);
        let queue = count("queue", 1024, 1..=65_536);
        let accounts = section.boolean("accounts", false);
        let rekeys = section.boolean("rekeys", false);
        section.finish();
        Self { endpoint, secret, timeout, connections, queue, accounts, rekeys }
    }
}

fn secret(path: &Path) -> Result<SecretBytes, String> {
    let text = text_file(path, MAX_SECRET_BYTES)
        .map(Zeroizing::new)
        .map_err(|reason| format!("cannot read {}: {reason}", path.display()))?;
    let line = text.trim_end_matches(['\n', '\r']);
    if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{} does not hold one line of visible ASCII characters without blanks",
            path.display()
        ));
    }
    Ok(SecretBytes::from(line.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        let unix = |socket: &str, path: &str| {
            Ok(Endpoint::Unix { socket: socket.into(), path: path.to_owned() })
        };
        assert_eq!(
            Endpoint::parse("unix:/run/x.sock:/login?a=1"),
            unix("/run/x.sock", "/login?a=1")
        );
        assert_eq!(Endpoint::parse("unix:/run/x.sock"), unix("/run/x.sock", "/"));
        assert_eq!(Endpoint::parse("unix:/run/x.sock:/"), unix("/run/x.sock", "/"));
        for (text, address, path) in [
            ("http://127.0.0.1:8090/a/b", "127.0.0.1:8090", "/a/b"),
            ("http://127.1.2.3:80", "127.1.2.3:80", "/"),
            ("http://[::1]:8090/", "[::1]:8090", "/"),
        ] {
            let address = address.parse().unwrap();
            let expected = Endpoint::Loopback { address, path: path.to_owned() };
            assert_eq!(Endpoint::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_every_other_host_and_form() {
        for text in [
            "http://192.0.2.1:80/login",
            "http://0.0.0.0:80/login",
            "http://[::]:80/login",
            "http://localhost:80/login",
            "http://127.0.0.1/login",
            "http://127.0.0.1@192.0.2.1:80/",
            "http://user@127.0.0.1:80/",
            "https://127.0.0.1:443/login",
            "http://127.0.0.1:80/a b",
            "http://127.0.0.1:80/a\r\nX: y",
            "unix:run/x.sock:/login",
            "unix:",
            "unix::/login",
            "ftp://127.0.0.1:80/",
            "/run/x.sock",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
