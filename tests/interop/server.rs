//! The server's side of the interop tests: the only file here that knows how a server is started.

use std::net::SocketAddr;

use crate::support::keys::{Keys, Wrap};
use crate::support::stock::{IDLE_DEVICE, Options, Stock};

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
    #[expect(dead_code, reason = "the stock server has a listener per kind of login instead")]
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
