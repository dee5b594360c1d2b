//! Wrapping of control packets: none, tls-auth, tls-crypt; tls-crypt-v2 gives each client a
//! tls-crypt key of its own.

mod replay_id;
#[cfg(test)]
mod tests;
mod tls_auth;
mod tls_crypt;
mod tls_crypt_v2;

use std::fmt;

use crate::algorithm::AuthDigest;
use crate::codec::{EXPORT_VERSION, Reader};
use crate::error::{CryptoError, ImportError, UnwrapError, WrapError};
use crate::key_block::{KeyBlock, Role};
use crate::static_key::{KeyDirection, StaticKey};

use self::tls_auth::TlsAuth;
use self::tls_crypt::TlsCrypt;

pub use self::tls_crypt_v2::{
    MAX_METADATA_LEN, MAX_WRAPPED_KEY_LEN, Metadata, TlsCryptV2ClientKey, TlsCryptV2ServerKey,
};

/// Length of opcode and session id, the part of a control packet that is never encrypted.
const HEAD_LEN: usize = 9;

/// Upper bound of an exported value in bytes.
const EXPORT_CAPACITY: usize = 256;

/// The wrapping of one session's control packets, with its send counter (from 1) and its receive
/// window. One per session and key family: the dynamic key has its own.
pub struct ControlWrap(Kind);

enum Kind {
    None,
    TlsAuth(Box<TlsAuth>),
    TlsCrypt(Box<TlsCrypt>),
}

impl ControlWrap {
    /// No wrapping.
    pub const fn none() -> Self {
        Self(Kind::None)
    }

    /// tls-auth. `direction` is this side's own, as in its configuration: usually
    /// [`KeyDirection::Normal`] for a server and [`KeyDirection::Inverse`] for a client.
    pub fn tls_auth(key: &StaticKey, direction: KeyDirection, digest: AuthDigest) -> Self {
        Self(Kind::TlsAuth(Box::new(TlsAuth::new(key, direction, digest))))
    }

    /// tls-crypt; also tls-crypt-v2, with the client's own key. The server sends with slot 0.
    pub fn tls_crypt(key: &StaticKey, role: Role) -> Self {
        Self(Kind::TlsCrypt(Box::new(TlsCrypt::new(key, role))))
    }

    /// Dynamic tls-crypt for control packets with a key id above 0: `exported` comes from the first
    /// TLS session ([`crate::EXPORTER_DYNAMIC_TLS_CRYPT`]), `original` is the static key in use for
    /// tls-auth, tls-crypt or (the client's) tls-crypt-v2, if any.
    pub fn dynamic_tls_crypt(
        exported: &KeyBlock,
        original: Option<&StaticKey>,
        role: Role,
    ) -> Self {
        let block = match original {
            Some(key) => exported.xor(key.key_block()),
            None => exported.duplicate(),
        };
        Self::tls_crypt(&StaticKey::from(block), role)
    }

    /// Appends `plain` (opcode byte, session id, rest) in its wrapping to `out`. `unix_time` in
    /// seconds counts with the first packet only. Send the packets in the order of wrapping.
    ///
    /// # Errors
    /// [`WrapError`]; nothing is appended then.
    pub fn wrap(
        &mut self,
        plain: &[u8],
        unix_time: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), WrapError> {
        match &mut self.0 {
            Kind::None if plain.len() < HEAD_LEN => Err(WrapError::TooShort),
            Kind::None => {
                out.extend_from_slice(plain);
                Ok(())
            }
            Kind::TlsAuth(wrap) => wrap.wrap(plain, unix_time, out),
            Kind::TlsCrypt(wrap) => wrap.wrap(plain, unix_time, out),
        }
    }

    /// Clears `plain` and writes the packet without its wrapping there: opcode byte, session id,
    /// rest. Only an authentic packet changes the receive window.
    ///
    /// # Errors
    /// [`UnwrapError`]; `plain` is empty then.
    pub fn unwrap(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<(), UnwrapError> {
        plain.clear();
        match &mut self.0 {
            Kind::None if wire.len() < HEAD_LEN => Err(UnwrapError::TooShort),
            Kind::None => {
                plain.extend_from_slice(wire);
                Ok(())
            }
            Kind::TlsAuth(wrap) => wrap.unwrap(wire, plain),
            Kind::TlsCrypt(wrap) => wrap.unwrap(wire, plain),
        }
    }

    /// Bytes that the wrapping adds to a packet.
    pub const fn overhead(&self) -> usize {
        match &self.0 {
            Kind::None => 0,
            Kind::TlsAuth(wrap) => wrap.overhead(),
            Kind::TlsCrypt(wrap) => wrap.overhead(),
        }
    }

    /// Appends keys, counter and window to `out`, to be read back by [`Self::import`] in another
    /// process. The bytes are as secret as the keys. Only one of both may be used afterwards.
    pub fn export(&self, out: &mut Vec<u8>) {
        out.reserve(EXPORT_CAPACITY);
        out.push(EXPORT_VERSION);
        match &self.0 {
            Kind::None => out.push(0),
            Kind::TlsAuth(wrap) => {
                out.push(1);
                wrap.export(out);
            }
            Kind::TlsCrypt(wrap) => {
                out.push(2);
                wrap.export(out);
            }
        }
    }

    /// Reads one exported value from the front of `input` and moves `input` behind it.
    ///
    /// # Errors
    /// [`CryptoError::Import`] for bytes that no export writes; `input` stays where it was.
    pub fn import(input: &mut &[u8]) -> Result<Self, CryptoError> {
        let mut reader = Reader(input);
        reader.version()?;
        let kind = match reader.u8()? {
            0 => Kind::None,
            1 => Kind::TlsAuth(Box::new(TlsAuth::import(&mut reader)?)),
            2 => Kind::TlsCrypt(Box::new(TlsCrypt::import(&mut reader)?)),
            _ => return Err(ImportError::Field("wrapping").into()),
        };
        *input = reader.0;
        Ok(Self(kind))
    }
}

impl fmt::Debug for ControlWrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::None => "ControlWrap::None",
            Kind::TlsAuth(_) => "ControlWrap::TlsAuth(..)",
            Kind::TlsCrypt(_) => "ControlWrap::TlsCrypt(..)",
        })
    }
}
