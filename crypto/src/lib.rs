//! The cryptographic formats of the OpenVPN protocol, for peers over TCP.
//!
//! It owns: data-channel sealing and opening ([`DataKeys`]), control-channel wrapping
//! ([`ControlWrap`], [`TlsCryptV2ServerKey`]), key derivation ([`derive_key_block`]), packet-id
//! counters and replay windows, and the types that hold secrets. It does **not** own: sockets,
//! clocks, files, TLS, framing, or the decision what to do after an error.
//!
//! Rules that hold everywhere in it:
//! - nothing is changed by a packet before the packet has been authenticated;
//! - a packet id is taken before it is used and never twice for one key; it never wraps;
//! - secrets are wiped when dropped and have no printable form. What can't be wiped: the expanded
//!   AES-GCM keys inside `ring` (128 and 256 bit), which offers no way to do it;
//! - no allocation per data packet beyond growing the caller's buffer.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod algorithm;
#[cfg(feature = "testing")]
mod audit;
mod codec;
mod credential;
mod data;
mod error;
mod exporter;
mod key_block;
mod mac;
mod packet_id;
mod pem;
mod prf;
mod random;
mod replay;
mod secret;
mod static_key;
#[cfg(test)]
mod testutil;
mod wrap;

pub use crate::algorithm::{AuthDigest, DataCipher};
#[cfg(feature = "testing")]
pub use crate::audit::{IsolatedAudit, NonceAuditor};
pub use crate::credential::{credential_tag, ct_eq};
pub use crate::data::{
    DataHeader, DataKeys, DataOpener, DataSealer, MAX_BATCH, MAX_PAYLOAD, MAX_PEER_ID,
};
pub use crate::error::{
    CryptoError, ImportError, KeyFileError, OpenError, RandomError, SealError, UnwrapError,
    WrapError,
};
pub use crate::exporter::{EXPORTER_DATA_KEYS, EXPORTER_DYNAMIC_TLS_CRYPT, EXPORTER_LEN};
pub use crate::key_block::{KEY_BLOCK_LEN, KeyBlock, Role};
pub use crate::prf::{KeySource, derive_key_block, tls1_prf};
pub use crate::random::{FastRandom, SecureRandom, SystemRandom};
pub use crate::secret::{Secret, SecretBytes};
pub use crate::static_key::{KeyDirection, StaticKey};
pub use crate::wrap::{
    ControlWrap, MAX_METADATA_LEN, MAX_WRAPPED_KEY_LEN, Metadata, TlsCryptV2ClientKey,
    TlsCryptV2ServerKey,
};
