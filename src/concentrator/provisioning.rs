//! What a new router is told: scripts and client file, from the running configuration.

use std::net::SocketAddr;

use tunnelhead_crypto::{Metadata, StaticKey, SystemRandom, TlsCryptV2ClientKey};

use crate::config::{Config, Listener, Wrap as ListenerWrap};
use crate::control_api::types::SecretText;
use crate::control_api::{ApiError, ErrorCode};
use crate::identity::Account;
use crate::routeros::{self, Endpoint, Login, Provision, Wrap};
use crate::telemetry::clock;

/// The facts that go into every script.
pub(super) struct Provisioning {
    host: String,
    port: u16,
    management: std::net::Ipv4Addr,
    ciphers: Vec<&'static str>,
    wrap: ListenerWrap,
    ca_pem: Option<String>,
    server_name: Option<String>,
}

impl Provisioning {
    /// `host` is what routers dial, `first` the first listener and its address as it is bound.
    pub(super) fn new(
        config: &Config,
        host: String,
        first: Option<(&Listener, SocketAddr)>,
        ca_pem: Option<String>,
        server_name: Option<String>,
    ) -> Self {
        Self {
            host,
            port: first.map_or(8443, |(_, address)| address.port()),
            management: config.management_address,
            ciphers: config.data.ciphers.iter().map(|cipher| cipher.name()).collect(),
            wrap: first.map_or(ListenerWrap::None, |(listener, _)| listener.wrap.clone()),
            ca_pem,
            server_name,
        }
    }

    /// Writes the texts for one account.
    ///
    /// # Errors
    /// No randomness for a client key of its own.
    pub(super) fn texts(
        &self,
        account: &Account,
        password: &SecretText,
        verify_server: bool,
    ) -> Result<Provision, ApiError> {
        let static_text = |key: &StaticKey| key.to_text();
        let key_text = match &self.wrap {
            ListenerWrap::None => None,
            ListenerWrap::TlsAuth { key, .. } | ListenerWrap::TlsCrypt { key } => {
                Some(static_text(key))
            }
            ListenerWrap::TlsCryptV2 { key } => {
                let client = TlsCryptV2ClientKey::generate(
                    key,
                    &Metadata::Timestamp(clock::unix_seconds()),
                    &mut SystemRandom,
                )
                .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
                Some(client.to_pem())
            }
        };
        let key_text = key_text.as_deref().unwrap_or_default();
        let wrap = match &self.wrap {
            ListenerWrap::None => Wrap::None,
            ListenerWrap::TlsAuth { digest, .. } => Wrap::TlsAuth(key_text, digest.name()),
            ListenerWrap::TlsCrypt { .. } => Wrap::TlsCrypt(key_text),
            ListenerWrap::TlsCryptV2 { .. } => Wrap::TlsCryptV2(key_text),
        };
        let endpoint = Endpoint {
            host: &self.host,
            port: self.port,
            management: self.management,
            ciphers: &self.ciphers,
            wrap,
            ca_pem: self.ca_pem.as_deref(),
            server_name: self.server_name.as_deref(),
        };
        let login = Login {
            name: &account.name,
            username: &account.username,
            password: password.expose(),
            cipher: account.cipher.as_deref(),
            auth: account.auth.as_deref(),
            certificate_cn: account.certificate_cn.as_deref(),
        };
        Ok(routeros::provision(&endpoint, &login, verify_server))
    }
}
