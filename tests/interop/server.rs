//! The server's side of the interop tests: the only file here that knows how a server is started.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tempfile::TempDir;
use tunnelhead::concentrator::{Concentrator, TunSource};
use tunnelhead::config::Config;
use tunnelhead::control_api::Scope;
use tunnelhead::control_api::types::{self, NewRouter, SecretText};
use tunnelhead::tun::Queue;
use tunnelhead::tun::memory::{self, MemoryHost};

use crate::support::client::write_private;
use crate::support::keys::{Keys, Wrap};
use crate::support::stock::{IDLE_DEVICE, Options, Stock};

/// A router that has pinged is dead after this long without a packet.
pub(crate) const RESTART_SECONDS: usize = 4;

/// What an account has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    Password,
    Certificate,
    Both,
}

impl Login {
    pub(crate) const ALL: [Self; 3] = [Self::Password, Self::Certificate, Self::Both];

    pub(crate) fn wants_password(self) -> bool {
        self != Self::Certificate
    }

    pub(crate) fn wants_certificate(self) -> bool {
        self != Self::Password
    }
}

/// One router account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) login: Login,
}

/// One listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) wrap: Wrap,
    /// The digest of tls-auth.
    pub(crate) digest: &'static str,
    /// How clients of this listener log in, for a server that can't mix them.
    pub(crate) login: Login,
    pub(crate) legacy: bool,
}

impl Listener {
    pub(crate) const PLAIN: Self =
        Self { wrap: Wrap::None, digest: "SHA1", login: Login::Password, legacy: false };
}

/// What a server is started with.
pub(crate) struct Spec {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) accounts: Vec<Account>,
    /// `[data] ciphers`.
    pub(crate) ciphers: Vec<&'static str>,
}

/// A running server.
pub(crate) trait Server: Sync {
    /// Where a listener of the specification is.
    fn address(&self, listener: &Listener) -> SocketAddr;
    /// Something to read when a case fails.
    fn diagnosis(&self) -> String;
}

/// The stock server in the same place, to know that a failure is not the harness's.
pub(crate) struct StockServer(Vec<(Listener, Stock)>);

impl StockServer {
    pub(crate) fn start(keys: &Keys, spec: &Spec) -> Self {
        let passwords: Vec<(&str, &str)> =
            spec.accounts.iter().map(|a| (a.name.as_str(), a.password.as_str())).collect();
        let ciphers = spec.ciphers.join(":");
        let start = |listener: &Listener| {
            let mut lines = IDLE_DEVICE.to_vec();
            if listener.legacy {
                lines.extend(["tls-version-min 1.0", "tls-cipher DEFAULT:@SECLEVEL=0"]);
            }
            let options = Options {
                wrap: listener.wrap,
                digest: listener.digest,
                ciphers: &ciphers,
                passwords: if listener.login.wants_password() { &passwords } else { &[] },
                certificate_required: listener.login.wants_certificate(),
                lines: &lines,
            };
            (*listener, Stock::start(keys, &options))
        };
        Self(spec.listeners.iter().map(start).collect())
    }
}

impl Server for StockServer {
    fn address(&self, listener: &Listener) -> SocketAddr {
        let found = self.0.iter().find(|(of, _)| of == listener);
        found.expect("a listener of the specification").1.address()
    }

    fn diagnosis(&self) -> String {
        self.0.iter().map(|(_, stock)| stock.process.tail(30) + "\n").collect()
    }
}

/// The concentrator under test, embedded, with a device that has no kernel behind it.
pub(crate) struct Tunnelhead {
    runtime: tokio::runtime::Runtime,
    head: Concentrator,
    _host: MemoryHost,
    _folder: TempDir,
    listeners: Vec<(Listener, SocketAddr)>,
}

impl Tunnelhead {
    pub(crate) fn start(keys: &Keys, spec: &Spec) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut listeners: Vec<Listener> = Vec::new();
        for listener in spec.listeners.iter().map(Self::shared) {
            if !listeners.contains(&listener) {
                listeners.push(listener);
            }
        }
        let text = configuration(keys, &folder, &listeners, &spec.ciphers);
        let config = Config::parse(&text, folder.path(), &[]).expect("a valid configuration");
        let (queues, host) = memory::pair(2).expect("a memory device");
        let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect();
        let tun = TunSource::Queues(queues);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let head = runtime
            .block_on(Concentrator::builder().config(config).tun(tun).start())
            .expect("a running concentrator");
        let handle = head.handle();
        let addresses = head.local_addresses().iter().copied();
        let listeners = listeners.into_iter().zip(addresses).collect();
        for account in &spec.accounts {
            let new = NewRouter {
                password: Some(SecretText(account.password.clone())),
                login: match account.login {
                    Login::Password => types::Login::Password,
                    Login::Certificate => types::Login::Certificate,
                    Login::Both => types::Login::Both,
                },
                ..NewRouter::named(&account.name)
            };
            runtime.block_on(handle.add_router(&Scope::All, new)).expect("a new router");
        }
        Self { runtime, head, _host: host, _folder: folder, listeners }
    }

    /// One of our listeners takes every kind of login, and needs the digest for tls-auth alone.
    fn shared(listener: &Listener) -> Listener {
        let digest = if listener.wrap == Wrap::TlsAuth { listener.digest } else { "SHA1" };
        Listener { digest, login: Login::Both, ..*listener }
    }
}

fn configuration(
    keys: &Keys,
    folder: &TempDir,
    listeners: &[Listener],
    ciphers: &[&str],
) -> String {
    let file = |name: &str, text: &str| write_private(&folder.path().join(name), text);
    file("client-ca.pem", &keys.authority.pem());
    let mut text = format!(
        "listen = []\nstate_dir = \"state\"\n\
         [data]\nciphers = {ciphers:?}\n[keepalive]\nping = \"1s\"\nrestart = \"{RESTART_SECONDS}s\"\n\
         [tls]\nclient_ca = \"client-ca.pem\"\n"
    );
    for (index, identity) in keys.server.iter().enumerate() {
        file(&format!("server-{index}.pem"), &identity.certificate);
        file(&format!("server-{index}.key"), &identity.key);
        let _ = write!(
            text,
            "[[tls.certificates]]\ncertificate = \"server-{index}.pem\"\nkey = \"server-{index}.key\"\n"
        );
    }
    for (index, listener) in listeners.iter().enumerate() {
        let _ = write!(
            text,
            "[[listener]]\naddress = \"127.0.0.1:0\"\nwrap = \"{}\"\nlegacy = {}\n\
             client_certificate = \"optional\"\n",
            listener.wrap.name(),
            listener.legacy
        );
        if let Some(key) = keys.server_key(listener.wrap) {
            file(&format!("wrap-{index}.key"), key);
            let _ = writeln!(text, "wrap_key = \"wrap-{index}.key\"");
        }
        if listener.wrap == Wrap::TlsAuth {
            let _ = writeln!(text, "wrap_digest = \"{}\"", listener.digest);
        }
    }
    text
}

impl Server for Tunnelhead {
    fn address(&self, listener: &Listener) -> SocketAddr {
        let wanted = Self::shared(listener);
        let found = self.listeners.iter().find(|(of, _)| *of == wanted);
        found.expect("a listener of the specification").1
    }

    fn diagnosis(&self) -> String {
        let status = self.runtime.block_on(self.head.handle().status());
        status.map_or_else(|error| error.to_string(), |status| format!("{status:#?}"))
    }
}
