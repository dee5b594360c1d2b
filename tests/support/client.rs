//! The real `openvpn` as a client: its configuration, and what its log says.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::keys::{Keys, Wrap};
use super::process::{NoLine, Process};

/// A login is decided within this time, on a busy machine too.
pub(crate) const LOGIN: Duration = Duration::from_secs(30);

/// How a connection attempt ended, from the client's point of view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// `Initialization Sequence Completed`.
    Up,
    /// The server's AUTH_FAILED, with its text.
    AuthFailed(String),
    /// The client does not trust the server's certificate.
    ServerNotTrusted,
    /// The server ended the connection or the handshake.
    Closed,
    /// The client gave up for a reason of its own.
    Exited,
    /// Nothing decisive happened.
    Silence,
}

/// An OpenVPN client configuration in the making.
#[derive(Clone)]
pub(crate) struct Config {
    text: String,
}

impl Config {
    /// A client that has no device and sets nothing up: it needs no right at all.
    pub(crate) fn null(remote: SocketAddr) -> Self {
        Self { text: String::new() }
            .line("client")
            .line("dev null")
            .line("ifconfig-noexec")
            .line("route-noexec")
            .line("proto tcp-client")
            .line(&format!("remote {} {}", remote.ip(), remote.port()))
            // Verbosity 7 names every packet and ping: that is how a client without a device shows
            // that data flows, and under which key.
            .line("verb 7")
            .common()
    }

    /// A configuration as the product hands it out, used as it is.
    pub(crate) fn given(ovpn: &str) -> Self {
        // The last line of a kind wins: the level that names pushes and key changes.
        Self { text: format!("{ovpn}\n") }.line("verb 4").common()
    }

    fn common(self) -> Self {
        self.line("nobind").line("disable-dco").line("connect-retry 1 2")
    }

    /// Adds one line.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.text.push_str(line);
        self.text.push('\n');
        self
    }

    /// Adds lines.
    pub(crate) fn lines(self, lines: &[&str]) -> Self {
        lines.iter().fold(self, |config, line| config.line(line))
    }

    /// Adds an inline file.
    pub(crate) fn inline(self, tag: &str, body: &str) -> Self {
        self.line(&format!("<{tag}>\n{}\n</{tag}>", body.trim_end()))
    }

    /// Wraps the control channel.
    pub(crate) fn wrap(self, wrap: Wrap, keys: &Keys) -> Self {
        let Some(key) = keys.client_key(wrap) else { return self };
        let config = self.inline(wrap.name(), key);
        if wrap == Wrap::TlsAuth { config.line("key-direction 1") } else { config }
    }

    /// Logs in with a name and a password.
    pub(crate) fn password(self, username: &str, password: &str) -> Self {
        self.inline("auth-user-pass", &format!("{username}\n{password}"))
    }

    /// Presents a certificate.
    pub(crate) fn certificate(self, identity: &super::pki::Identity) -> Self {
        self.inline("cert", &identity.certificate).inline("key", &identity.key)
    }

    /// Ends the process at the first lost connection instead of dialling again.
    pub(crate) fn once(self) -> Self {
        self.line("remap-usr1 SIGTERM").line("connect-retry-max 1")
    }

    /// Starts the client.
    pub(crate) fn start(self, name: &str) -> Client {
        self.start_by(name, |program| Command::new(program))
    }

    /// Starts the client through a command of the caller's (`ip netns exec ...`).
    pub(crate) fn start_by(self, name: &str, command: impl FnOnce(&str) -> Command) -> Client {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("client.conf");
        write_private(&path, &self.text);
        let mut command = command(OPENVPN);
        command.arg("--config").arg(&path);
        Client { process: Process::spawn(name, &mut command), _folder: folder }
    }
}

/// A name that is found in `/usr/sbin` too, which a user's PATH may lack.
pub(crate) const OPENVPN: &str = "openvpn";

/// A running client.
pub(crate) struct Client {
    pub(crate) process: Process,
    _folder: TempDir,
}

impl Client {
    /// How the first attempt ended.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome_after(0).0
    }

    /// How the first attempt whose lines come at or after `from` ended, and the place behind the
    /// deciding line.
    pub(crate) fn outcome_after(&self, from: usize) -> (Outcome, usize) {
        match self.process.line_after(from, LOGIN, |line| decide(line).is_some()) {
            Ok((next, line)) => (decide(&line).unwrap_or(Outcome::Silence), next),
            Err(NoLine::Ended) => (Outcome::Exited, self.process.mark()),
            Err(NoLine::Deadline) => (Outcome::Silence, self.process.mark()),
        }
    }

    /// Waits until the client is up; panics with its log otherwise.
    pub(crate) fn expect_up(&self, from: usize) -> usize {
        let (outcome, next) = self.outcome_after(from);
        assert_eq!(outcome, Outcome::Up, "\n{}", self.process.tail(80));
        next
    }

    /// The options of the last push reply.
    pub(crate) fn pushed(&self) -> Vec<String> {
        let lines = self.process.lines_with("PUSH: Received control message: 'PUSH_REPLY,");
        let line = lines.last().expect("a push reply in the client's log");
        let (_, options) = line.split_once("PUSH_REPLY,").expect("just searched for");
        options.trim_end_matches('\'').split(',').map(str::to_owned).collect()
    }

    /// The address that was pushed last.
    pub(crate) fn address(&self) -> Ipv4Addr {
        let pushed = self.pushed();
        let words = pushed.iter().find_map(|option| option.strip_prefix("ifconfig "));
        let word = words.and_then(|words| words.split(' ').next()).expect("an ifconfig push");
        word.parse().expect("an IPv4 address")
    }

    /// The gateway that was pushed last.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        let pushed = self.pushed();
        let word = pushed.iter().find_map(|option| option.strip_prefix("route-gateway "));
        word.expect("a route-gateway push").parse().expect("an IPv4 address")
    }

    /// The data cipher in use, and the digest unless the cipher needs none.
    pub(crate) fn data_channel(&self) -> (String, Option<String>) {
        let lines = self.process.lines_with("Data Channel: cipher '");
        let line = lines.last().expect("the data channel's line");
        let quoted = |after: &str| {
            let (_, rest) = line.split_once(after)?;
            Some(rest.split('\'').next().unwrap_or_default().to_owned())
        };
        (quoted("Data Channel: cipher '").expect("a cipher"), quoted(", auth '"))
    }

    /// Waits until pings have gone both ways at least `rounds` times after `from` and the
    /// connection has outlived them: on TCP either side ends it at the first packet that it can't
    /// open.
    pub(crate) fn expect_pings(&self, from: usize, rounds: usize, limit: Duration) -> usize {
        let mut next = from;
        for _ in 0..rounds {
            next = self.process.expect_line(next, limit, "SENT PING");
            next = self.process.expect_line(next, limit, "RECEIVED PING PACKET");
        }
        let lost = self.process.count(from, "Connection reset");
        assert_eq!(lost, 0, "the connection was lost\n{}", self.process.tail(80));
        next
    }
}

fn decide(line: &str) -> Option<Outcome> {
    if line.contains("Initialization Sequence Completed") {
        return Some(Outcome::Up);
    }
    if let Some((_, text)) = line.split_once("Received control message: AUTH_FAILED") {
        return Some(Outcome::AuthFailed(text.trim_start_matches(',').to_owned()));
    }
    if line.contains("VERIFY ERROR") {
        return Some(Outcome::ServerNotTrusted);
    }
    let ended = ["Connection reset, restarting", "TLS handshake failed", "TLS Error: TLS key"];
    ended.iter().any(|text| line.contains(text)).then_some(Outcome::Closed)
}

/// Writes a file that only its owner may read, as OpenVPN asks for.
pub(crate) fn write_private(path: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .unwrap_or_else(|error| panic!("can't write {}: {error}", path.display()));
}
