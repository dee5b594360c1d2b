//! The key exchange inside TLS: the client's message, and ours.

use tunnelhead_crypto::{KeySource, SecretBytes, SecureRandom, credential_tag};

use super::error::{CloseReason, SessionError};
use super::event::{AuthRequest, ClientCertificate};
use super::shared::Shared;
use crate::proto::control::{KeyMethod2, OptionsString, PeerInfo};

/// A client's message is far below this; OpenVPN itself reads no more than 2,048.
const MAX_MESSAGE: usize = 8 * 1024;

/// Collects the client's message.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    received: zeroize::Zeroizing<Vec<u8>>,
}

/// Both sides' messages.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: KeySource,
    pub(super) server: KeySource,
    pub(super) options: OptionsString,
    pub(super) peer_info: PeerInfo,
    /// Keyed hash of user name, password and certificate.
    pub(super) credential_tag: [u8; 32],
    /// Spreads our rekeys; 0..=65535 stands for 0 to 10 % of the period.
    pub(super) jitter: u16,
    username: Vec<u8>,
    password: SecretBytes,
    too_long: bool,
}

impl Inbox {
    /// Adds decrypted bytes; gives the exchange once the message is complete, and what followed it.
    ///
    /// # Errors
    /// The message is malformed or too long; no randomness for ours.
    pub(super) fn take(
        &mut self,
        plain: &[u8],
        certificate: Option<&ClientCertificate>,
        shared: &Shared,
        rng: &mut dyn SecureRandom,
    ) -> Result<Option<(Exchange, Vec<u8>)>, SessionError> {
        if self.received.len().saturating_add(plain.len()) > MAX_MESSAGE {
            return Err(SessionError::Closed(CloseReason::ControlFlood));
        }
        if self.received.capacity() == 0 {
            // Room for any usual message, so that no copy of the secrets stays in a smaller block.
            self.received.reserve_exact(MAX_MESSAGE);
        }
        self.received.extend_from_slice(plain);
        let Some((message, consumed)) = KeyMethod2::decode_client(&self.received, true)? else {
            return Ok(None);
        };
        let rest = self.received.get(consumed..).unwrap_or_default().to_vec();
        let mut jitter = [0; 2];
        rng.fill(&mut jitter)?;
        let fingerprint = certificate.map(|certificate| certificate.fingerprint);
        let username = message.username.unwrap_or_default();
        let password = message.password.unwrap_or_else(|| SecretBytes::from(Vec::new()));
        let exchange = Exchange {
            server: KeySource::generate(rng)?,
            credential_tag: credential_tag(
                &shared.config.credential_key,
                &[
                    &username,
                    password.expose(),
                    fingerprint.as_ref().map_or(&[][..], |print| &print[..]),
                ],
            ),
            client: message.source,
            options: OptionsString::parse(&message.options),
            peer_info: PeerInfo::parse(message.peer_info.as_deref().unwrap_or_default()),
            jitter: u16::from_be_bytes(jitter),
            username,
            password,
            too_long: message.too_long,
        };
        Ok(Some((exchange, rest)))
    }
}

impl Exchange {
    /// Our message: randoms and the client's options with the roles swapped.
    pub(super) fn reply(&self) -> Result<SecretBytes, SessionError> {
        let options = OptionsString::server_reply(&self.options);
        Ok(KeyMethod2::encode_server(&self.server, &options)?)
    }

    /// Hands the credential to whom it concerns; nothing of it stays here.
    pub(super) fn request(&mut self, certificate: Option<ClientCertificate>) -> Box<AuthRequest> {
        Box::new(AuthRequest {
            username: std::mem::take(&mut self.username),
            password: std::mem::replace(&mut self.password, SecretBytes::from(Vec::new())),
            too_long: self.too_long,
            certificate,
            options: self.options.clone(),
            peer_info: self.peer_info.clone(),
        })
    }
}
