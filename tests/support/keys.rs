//! Control-channel keys, made by the real `openvpn`: what it writes, we must read.

use std::path::Path;
use std::process::Command;

use super::{pki::Authority, pki::Identity, run};

/// Every key and certificate of a test binary, made once.
pub(crate) struct Keys {
    pub(crate) authority: Authority,
    pub(crate) server: Vec<Identity>,
    pub(crate) static_key: String,
    pub(crate) v2_server: String,
    pub(crate) v2_client: String,
}

/// How the control channel is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrap {
    None,
    TlsAuth,
    TlsCrypt,
    TlsCryptV2,
}

impl Wrap {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::TlsAuth, Self::TlsCrypt, Self::TlsCryptV2];

    /// The name that the configuration uses.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::TlsAuth => "tls-auth",
            Self::TlsCrypt => "tls-crypt",
            Self::TlsCryptV2 => "tls-crypt-v2",
        }
    }
}

impl Keys {
    pub(crate) fn make() -> Self {
        let authority = Authority::new("test authority");
        let server = vec![authority.rsa_server("server"), authority.ecdsa_server("server")];
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (static_key, v2_server, v2_client) =
            (folder.path().join("s"), folder.path().join("v2s"), folder.path().join("v2c"));
        genkey(&["secret"], &static_key);
        genkey(&["tls-crypt-v2-server"], &v2_server);
        run(Command::new("openvpn")
            .arg("--tls-crypt-v2")
            .arg(&v2_server)
            .args(["--genkey", "tls-crypt-v2-client"])
            .arg(&v2_client));
        let read = |path: &Path| std::fs::read_to_string(path).expect("a key file");
        Self {
            authority,
            server,
            static_key: read(&static_key),
            v2_server: read(&v2_server),
            v2_client: read(&v2_client),
        }
    }

    /// The key that the server's side of `wrap` is configured with.
    pub(crate) fn server_key(&self, wrap: Wrap) -> Option<&str> {
        match wrap {
            Wrap::None => None,
            Wrap::TlsAuth | Wrap::TlsCrypt => Some(&self.static_key),
            Wrap::TlsCryptV2 => Some(&self.v2_server),
        }
    }

    /// The key that the client's side of `wrap` is configured with.
    pub(crate) fn client_key(&self, wrap: Wrap) -> Option<&str> {
        match wrap {
            Wrap::None => None,
            Wrap::TlsAuth | Wrap::TlsCrypt => Some(&self.static_key),
            Wrap::TlsCryptV2 => Some(&self.v2_client),
        }
    }
}

fn genkey(kind: &[&str], path: &Path) {
    run(Command::new("openvpn").arg("--genkey").args(kind).arg(path));
}
