//! tls-crypt-v2: every client has a tls-crypt key of its own, which it brings along wrapped with a
//! key that only the server has.
//!
//! ```text
//! WKc  tag (32) | AES-256-CTR(Ke, IV = tag[0..16], Kc (256) | metadata) | u16 length of WKc
//! tag  HMAC-SHA256(Ka, u16 length | Kc | metadata)
//! ```

use std::fmt;

use zeroize::Zeroizing;

use crate::credential::ct_eq;
use crate::error::{CryptoError, KeyFileError, RandomError, UnwrapError};
use crate::key_block::{KEY_BLOCK_LEN, KeyBlock};
use crate::pem;
use crate::random::SecureRandom;
use crate::secret::Secret;
use crate::static_key::StaticKey;

use super::tls_crypt::{DirectionKeys, TAG_LEN};

/// Longest wrapped client key in bytes. Source: OpenVPN 2 TLS_CRYPT_V2_MAX_WKC_LEN.
pub const MAX_WRAPPED_KEY_LEN: usize = 1024;

/// Longest metadata in bytes, with its type byte.
pub const MAX_METADATA_LEN: usize = MAX_WRAPPED_KEY_LEN - MIN_WRAPPED_KEY_LEN;

/// A wrapped key without metadata: tag, key, length.
const MIN_WRAPPED_KEY_LEN: usize = TAG_LEN + KEY_BLOCK_LEN + LEN_LEN;

/// Length of the length at the end.
const LEN_LEN: usize = 2;

/// Length of a server key in bytes: one slot.
const SERVER_KEY_LEN: usize = 128;

const SERVER_LABEL: &str = "OpenVPN tls-crypt-v2 server key";
const CLIENT_LABEL: &str = "OpenVPN tls-crypt-v2 client key";

/// Type byte of user metadata. Source: OpenVPN 2 TLS_CRYPT_METADATA_TYPE_USER.
const TYPE_USER: u8 = 0;
/// Type byte of a time stamp. Source: OpenVPN 2 TLS_CRYPT_METADATA_TYPE_TIMESTAMP.
const TYPE_TIMESTAMP: u8 = 1;

/// What the maker of a client key wrote into it; authenticated by the server key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// None at all, not even a type.
    Empty,
    /// Type 0: bytes of the maker's choice.
    User(Vec<u8>),
    /// Type 1: unix time of making, in seconds.
    Timestamp(u64),
    /// Any other type, or a time stamp that is not 8 bytes long.
    Other {
        /// The type byte.
        kind: u8,
        /// What follows it.
        value: Vec<u8>,
    },
}

impl Metadata {
    fn decode(bytes: &[u8]) -> Self {
        let Some((&kind, value)) = bytes.split_first() else { return Self::Empty };
        match (kind, <[u8; 8]>::try_from(value)) {
            (TYPE_TIMESTAMP, Ok(time)) => Self::Timestamp(u64::from_be_bytes(time)),
            (TYPE_USER, _) => Self::User(value.to_vec()),
            _ => Self::Other { kind, value: value.to_vec() },
        }
    }

    fn encode(&self) -> Vec<u8> {
        let with_type = |kind: u8, value: &[u8]| [&[kind], value].concat();
        match self {
            Self::Empty => Vec::new(),
            Self::User(value) => with_type(TYPE_USER, value),
            Self::Timestamp(time) => with_type(TYPE_TIMESTAMP, &time.to_be_bytes()),
            Self::Other { kind, value } => with_type(*kind, value),
        }
    }
}

/// The server's key, which wraps and unwraps client keys.
pub struct TlsCryptV2ServerKey {
    raw: Secret<SERVER_KEY_LEN>,
    keys: Box<DirectionKeys>,
}

impl TlsCryptV2ServerKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`RandomError`] if the source failed.
    pub fn generate(random: &mut dyn SecureRandom) -> Result<Self, RandomError> {
        let mut outcome = Ok(());
        let raw = Secret::filled(|out| outcome = random.fill(out));
        outcome.map(|()| Self::from_raw(raw))
    }

    /// Reads the PEM form, label `OpenVPN tls-crypt-v2 server key`.
    ///
    /// # Errors
    /// [`KeyFileError`]; it says what to mend and holds nothing of the key.
    pub fn parse_pem(text: &str) -> Result<Self, KeyFileError> {
        let bytes = pem::decode(text, SERVER_LABEL)?;
        if bytes.len() != SERVER_KEY_LEN {
            return Err(KeyFileError::Length { found: bytes.len(), expected: SERVER_KEY_LEN });
        }
        let raw = Secret::prefix(&bytes);
        if raw.expose().iter().take(32).all(|byte| *byte == 0) {
            return Err(KeyFileError::ZeroKey);
        }
        Ok(Self::from_raw(raw))
    }

    /// The PEM form; as secret as the key.
    pub fn to_pem(&self) -> String {
        pem::encode(self.raw.expose(), SERVER_LABEL)
    }

    fn from_raw(raw: Secret<SERVER_KEY_LEN>) -> Self {
        let bytes = raw.expose();
        let keys = DirectionKeys::new(Secret::prefix(&bytes[..32]), Secret::prefix(&bytes[64..96]));
        Self { raw, keys: Box::new(keys) }
    }

    /// Wraps a client key.
    ///
    /// # Errors
    /// [`CryptoError::MetadataTooLong`] over [`MAX_METADATA_LEN`] bytes with the type byte.
    pub fn wrap_client_key(
        &self,
        key: &StaticKey,
        metadata: &Metadata,
    ) -> Result<Vec<u8>, CryptoError> {
        let metadata = metadata.encode();
        let too_long = CryptoError::MetadataTooLong { len: metadata.len(), max: MAX_METADATA_LEN };
        if metadata.len() > MAX_METADATA_LEN {
            return Err(too_long);
        }
        let total = MIN_WRAPPED_KEY_LEN.saturating_add(metadata.len());
        let len = u16::try_from(total).map_err(|_| too_long)?.to_be_bytes();
        let kc = key.key_block().expose();
        let tag = self.keys.tag(&[&len, kc, &metadata]);
        let mut wrapped = Vec::with_capacity(total);
        wrapped.extend_from_slice(&tag);
        wrapped.extend_from_slice(kc);
        wrapped.extend_from_slice(&metadata);
        self.keys.apply_keystream(&tag, wrapped.get_mut(TAG_LEN..).unwrap_or_default());
        wrapped.extend_from_slice(&len);
        Ok(wrapped)
    }

    /// Takes a packet that ends in a wrapped client key (opcodes 10 and 11) apart: the client's key,
    /// its metadata, and the packet before it, which is in tls-crypt with that key.
    ///
    /// # Errors
    /// [`UnwrapError::WrappedKeyLength`] if the key can't lie in the packet,
    /// [`UnwrapError::Authentication`] if it was not made with this server key.
    pub fn split_and_unwrap<'a>(
        &self,
        packet: &'a [u8],
    ) -> Result<(StaticKey, Metadata, &'a [u8]), UnwrapError> {
        let len = packet.last_chunk::<LEN_LEN>().ok_or(UnwrapError::TooShort)?;
        let len = usize::from(u16::from_be_bytes(*len));
        // At least the opcode byte comes before it.
        let inner_len = packet.len().checked_sub(len).filter(|inner| *inner >= 1);
        let (inner, wrapped) = inner_len
            .and_then(|inner| packet.split_at_checked(inner))
            .ok_or(UnwrapError::WrappedKeyLength)?;
        let (key, metadata) = self.unwrap_client_key(wrapped)?;
        Ok((key, metadata, inner))
    }

    fn unwrap_client_key(&self, wrapped: &[u8]) -> Result<(StaticKey, Metadata), UnwrapError> {
        if !(MIN_WRAPPED_KEY_LEN..=MAX_WRAPPED_KEY_LEN).contains(&wrapped.len()) {
            return Err(UnwrapError::WrappedKeyLength);
        }
        let (tag, rest) =
            wrapped.split_first_chunk::<TAG_LEN>().ok_or(UnwrapError::WrappedKeyLength)?;
        let (text, len) =
            rest.split_last_chunk::<LEN_LEN>().ok_or(UnwrapError::WrappedKeyLength)?;
        let mut plain = Zeroizing::new(text.to_vec());
        self.keys.apply_keystream(tag, &mut plain);
        if !ct_eq(&self.keys.tag(&[len, &plain]), tag) {
            return Err(UnwrapError::Authentication);
        }
        let (kc, metadata) =
            plain.split_first_chunk::<KEY_BLOCK_LEN>().ok_or(UnwrapError::WrappedKeyLength)?;
        let key = StaticKey::from(KeyBlock::filled(|out| *out = *kc));
        Ok((key, Metadata::decode(metadata)))
    }

    /// Compares in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.raw.ct_eq(&other.raw)
    }

    /// A second copy, wiped on its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_raw(self.raw.duplicate())
    }
}

impl fmt::Debug for TlsCryptV2ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsCryptV2ServerKey(..)")
    }
}

/// A client's key with its wrapped form, as a client keeps it.
pub struct TlsCryptV2ClientKey {
    /// The client's own tls-crypt key.
    pub key: StaticKey,
    /// The same key as only the server can read it; sent with the first packet.
    pub wrapped: Vec<u8>,
}

impl TlsCryptV2ClientKey {
    /// Draws a new client key and wraps it.
    ///
    /// # Errors
    /// [`CryptoError::Random`] or [`CryptoError::MetadataTooLong`].
    pub fn generate(
        server: &TlsCryptV2ServerKey,
        metadata: &Metadata,
        random: &mut dyn SecureRandom,
    ) -> Result<Self, CryptoError> {
        let key = StaticKey::generate(random)?;
        let wrapped = server.wrap_client_key(&key, metadata)?;
        Ok(Self { key, wrapped })
    }

    /// Reads the PEM form, label `OpenVPN tls-crypt-v2 client key`.
    ///
    /// # Errors
    /// [`KeyFileError`]; it says what to mend and holds nothing of the key.
    pub fn parse_pem(text: &str) -> Result<Self, KeyFileError> {
        let bytes = pem::decode(text, CLIENT_LABEL)?;
        let length = KeyFileError::Length {
            found: bytes.len(),
            expected: KEY_BLOCK_LEN + MIN_WRAPPED_KEY_LEN,
        };
        let (kc, wrapped) =
            bytes.split_first_chunk::<KEY_BLOCK_LEN>().ok_or_else(|| length.clone())?;
        let stated =
            wrapped.last_chunk::<LEN_LEN>().map(|len| usize::from(u16::from_be_bytes(*len)));
        if stated != Some(wrapped.len())
            || !(MIN_WRAPPED_KEY_LEN..=MAX_WRAPPED_KEY_LEN).contains(&wrapped.len())
        {
            return Err(length);
        }
        Ok(Self {
            key: StaticKey::from(KeyBlock::filled(|out| *out = *kc)),
            wrapped: wrapped.to_vec(),
        })
    }

    /// The PEM form; as secret as the key.
    pub fn to_pem(&self) -> String {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BLOCK_LEN + MAX_WRAPPED_KEY_LEN));
        bytes.extend_from_slice(self.key.key_block().expose());
        bytes.extend_from_slice(&self.wrapped);
        pem::encode(&bytes, CLIENT_LABEL)
    }
}

impl fmt::Debug for TlsCryptV2ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCryptV2ClientKey")
            .field("key", &self.key)
            .field("wrapped_len", &self.wrapped.len())
            .finish_non_exhaustive()
    }
}
