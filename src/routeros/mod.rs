//! RouterOS provisioning scripts and OpenVPN client files: text in, text out, no effects.
//!
//! A script is pasted into a terminal, so every line stands alone: no line continuation and no
//! text over several lines (both break when a clipboard turns LF into CRLF), no tab and no "?"
//! (both are keys of the console). Objects are found by their comment, never by position, and are
//! added only if missing and then set, so that a script can be pasted twice, even through the
//! tunnel that it describes. The rules and their sources stand in `docs/ROUTEROS.md`.

mod ca;
mod ovpn;
mod quote;
mod script;

use std::net::Ipv4Addr;

pub use quote::quote;

/// What all routers of a concentrator share.
#[derive(Clone, Debug)]
pub struct Endpoint<'a> {
    /// Name or address that routers dial.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// The address that the platform speaks from.
    pub management: Ipv4Addr,
    /// Allowed data ciphers in order of preference, OpenVPN's spelling.
    pub ciphers: &'a [&'a str],
    /// Control-channel wrapping of the listener.
    pub wrap: Wrap<'a>,
    /// The CA of the server's certificate, PEM. None: a .ovpn file has to be completed by hand.
    pub ca_pem: Option<&'a str>,
    /// The common name of the server's certificate, for clients that can check it.
    pub server_name: Option<&'a str>,
}

/// Control-channel wrapping as a client file needs it.
#[derive(Clone)]
pub enum Wrap<'a> {
    /// None.
    None,
    /// A static key V1 as text, and the digest that `auth` must name.
    TlsAuth(&'a str, &'a str),
    /// A static key V1 as text.
    TlsCrypt(&'a str),
    /// This client's own key, PEM.
    TlsCryptV2(&'a str),
}

impl std::fmt::Debug for Wrap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::TlsAuth(..) => "tls-auth",
            Self::TlsCrypt(_) => "tls-crypt",
            Self::TlsCryptV2(_) => "tls-crypt-v2",
        })
    }
}

/// One router.
#[derive(Clone)]
pub struct Login<'a> {
    /// NAME.
    pub name: &'a str,
    /// User name.
    pub username: &'a str,
    /// Password.
    pub password: &'a str,
    /// The account's data cipher, OpenVPN's spelling.
    pub cipher: Option<&'a str>,
    /// The account's digest, or "null".
    pub auth: Option<&'a str>,
    /// The common name of its certificate, if it logs in with one.
    pub certificate_cn: Option<&'a str>,
}

impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Three ways to make a client.
#[derive(Clone)]
pub struct Provision {
    /// For RouterOS 7.9 and later.
    pub script: String,
    /// For RouterOS 6.45 and later, and for 7.1 to 7.7.
    pub script_v6: String,
    /// For OpenVPN 2.6 and later, OpenVPN 3, and RouterOS' import of .ovpn files.
    pub ovpn: String,
}

/// Writes all three. `verify_server` puts the CA and the check of the server into the scripts; the
/// .ovpn file always has them.
pub fn provision(endpoint: &Endpoint<'_>, login: &Login<'_>, verify_server: bool) -> Provision {
    Provision {
        script: script::v7(endpoint, login, verify_server),
        script_v6: script::v6(endpoint, login, verify_server),
        ovpn: ovpn::file(endpoint, login),
    }
}

/// The cipher that a client is told to use: the account's, else AES-256-CBC where it is allowed
/// (what every RouterOS has), else the first that is.
fn cipher<'a>(endpoint: &Endpoint<'a>, login: &Login<'a>) -> &'a str {
    const COMMON: &str = "AES-256-CBC";
    login
        .cipher
        .or_else(|| endpoint.ciphers.iter().copied().find(|name| *name == COMMON))
        .or_else(|| endpoint.ciphers.iter().copied().find(|name| name.ends_with("-CBC")))
        .or_else(|| endpoint.ciphers.first().copied())
        .unwrap_or(COMMON)
}

#[cfg(test)]
mod tests;
