//! The stock `openvpn` server, one process per listener: the harness is proved against it, and
//! whatever the product is compared with is started here.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::client::write_private;
use super::eventually;
use super::keys::{Keys, Wrap};
use super::process::Process;

/// What a stock server is started with.
pub(crate) struct Options<'a> {
    pub(crate) wrap: Wrap,
    /// `auth`: the digest of CBC data packets and of tls-auth.
    pub(crate) digest: &'a str,
    /// `data-ciphers`.
    pub(crate) ciphers: &'a str,
    /// Name and password pairs; none: no password is asked for.
    pub(crate) passwords: &'a [(&'a str, &'a str)],
    pub(crate) certificate_required: bool,
    /// Device lines and anything else.
    pub(crate) lines: &'a [&'a str],
}

/// The lines of a stock server on this host that moves no packets. Unlike a client it insists on
/// a device, so it needs root; nothing is configured on that device.
pub(crate) const IDLE_DEVICE: &[&str] = &[
    "dev tun",
    "ifconfig-noexec",
    "route-noexec",
    "server 100.64.0.0 255.255.0.0",
    "local 127.0.0.1",
    "port 0",
];

/// A running stock server.
pub(crate) struct Stock {
    pub(crate) process: Process,
    _folder: TempDir,
}

impl Stock {
    /// Starts a server on this host.
    pub(crate) fn start(keys: &Keys, options: &Options<'_>) -> Self {
        Self::start_by(keys, options, |program| Command::new(program))
    }

    /// Starts a server through a command of the caller's (`ip netns exec ...`).
    pub(crate) fn start_by(
        keys: &Keys,
        options: &Options<'_>,
        command: impl FnOnce(&str) -> Command,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let server = keys.server.first().expect("a server certificate");
        let mut text = String::from(
            "proto tcp-server\ntopology subnet\ndh none\nkeepalive 1 10\nverb 4\n\
             script-security 2\n",
        );
        let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a string");
        for extra in options.lines {
            line(extra);
        }
        line(&format!("auth {}\ndata-ciphers {}", options.digest, options.ciphers));
        for (tag, body) in
            [("ca", &keys.authority.pem()), ("cert", &server.certificate), ("key", &server.key)]
        {
            line(&format!("<{tag}>\n{body}</{tag}>"));
        }
        if let Some(key) = keys.server_key(options.wrap) {
            let tag = options.wrap.name();
            line(&format!("<{tag}>\n{}\n</{tag}>", key.trim_end()));
        }
        if options.wrap == Wrap::TlsAuth {
            line("key-direction 0");
        }
        line(if options.certificate_required {
            "verify-client-cert require"
        } else {
            "verify-client-cert none"
        });
        if !options.passwords.is_empty() {
            let list: String = options
                .passwords
                .iter()
                .map(|(name, password)| format!("{name}\n{password}\n--\n"))
                .collect();
            write_private(&at("passwords"), &list);
            write_private(&at("check"), CHECK);
            let (check, list) = (at("check"), at("passwords"));
            let script = format!("/bin/sh {} {}", check.display(), list.display());
            line(&format!("auth-user-pass-verify \"{script}\" via-file"));
            line("username-as-common-name");
        }
        write_private(&at("server.conf"), &text);
        let mut command = command(super::client::OPENVPN);
        command.arg("--config").arg(at("server.conf"));
        let process = Process::spawn("the stock server", &mut command);
        process.expect_line(0, Duration::from_secs(10), "Initialization Sequence Completed");
        Self { process, _folder: folder }
    }

    /// Where it listens, as the kernel says: it was told to take any port.
    pub(crate) fn address(&self) -> SocketAddr {
        eventually("listening socket", Duration::from_secs(10), || listener_of(self.process.id()))
    }
}

/// Compares the two lines of the file that OpenVPN writes with the list.
const CHECK: &str = r#"
{ read -r name; read -r password; } < "$2"
while read -r n && read -r p && read -r end; do
    [ "$n" = "$name" ] && [ "$p" = "$password" ] && exit 0
done < "$1"
exit 1
"#;

/// The address of the first listening TCP socket of a process.
pub(crate) fn listener_of(process: u32) -> Option<SocketAddr> {
    let mut inodes = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let name = target.to_string_lossy().into_owned();
        inodes.extend(name.strip_prefix("socket:[").map(|rest| rest.trim_matches(']').to_owned()));
    }
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).ok()?;
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let listening = words.get(3) == Some(&"0A");
        let ours = inodes.iter().any(|inode| words.get(9) == Some(&inode.as_str()));
        let (ip, port) = words.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        // The kernel prints the address as a number in the host's byte order.
        let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
        (listening && ours && port != 0).then(|| SocketAddr::from((ip, port)))
    })
}
