//! What a completed login fixes for the life of the session.

use tunnelhead_crypto::{AuthDigest, DataCipher, DataKeys, Role, derive_key_block};

use super::error::SessionError;
use super::event::{Assignment, ClientCertificate, Identity, TlsFacts};
use super::exchange::Exchange;
use super::link::Link;

/// How data packets are sealed; the same for all keys of a session.
/// Source: OpenVPN ssl.c: ciphers and flags are inherited by renegotiations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataParams {
    pub(super) cipher: DataCipher,
    pub(super) digest: AuthDigest,
    /// The pushed peer id; with one, packets to the client are `P_DATA_V2`.
    pub(super) peer_id: Option<u32>,
    /// Data keys come from the TLS exporter instead of the PRF.
    pub(super) key_export: bool,
}

impl DataParams {
    /// Makes the data keys of one TLS session.
    pub(super) fn derive(
        &self,
        facts: &TlsFacts,
        exchange: &Exchange,
        link: &Link,
    ) -> Result<DataKeys, SessionError> {
        let derived;
        let block = if self.key_export {
            &facts.data_keys
        } else {
            derived = derive_key_block(
                &exchange.client,
                &exchange.server,
                link.peer.bytes(),
                link.own.bytes(),
            );
            &derived
        };
        Ok(DataKeys::new(self.cipher, self.digest, block, Role::Server)?)
    }
}

/// The facts of a login that was allowed.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) identity: Identity,
    pub(super) assignment: Assignment,
    pub(super) params: DataParams,
    /// Keyed hash of the credential; a rekey must present the same one.
    pub(super) credential_tag: [u8; 32],
    pub(super) certificate: Option<ClientCertificate>,
    pub(super) options: Box<str>,
    pub(super) peer_info: Box<str>,
    pub(super) tls_version: Box<str>,
    pub(super) tls_suite: Box<str>,
}

impl Tunnel {
    pub(super) fn new(
        identity: Identity,
        assignment: Assignment,
        params: DataParams,
        facts: TlsFacts,
        exchange: &Exchange,
    ) -> Self {
        Self {
            identity,
            assignment,
            params,
            credential_tag: exchange.credential_tag,
            certificate: facts.client_certificate,
            options: exchange.options.raw().into(),
            peer_info: exchange.peer_info.raw().into(),
            tls_version: facts.version.into(),
            tls_suite: facts.suite.into(),
        }
    }
}
