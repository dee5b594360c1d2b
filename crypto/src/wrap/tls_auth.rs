//! tls-auth: control packets with an HMAC.
//!
//! ```text
//! wire       opcode (1) | session id (8) | HMAC | replay id (8) | rest
//! HMAC over  replay id (8) | opcode (1) | session id (8) | rest
//! ```

use crate::algorithm::AuthDigest;
use crate::codec::Reader;
use crate::error::{ImportError, UnwrapError, WrapError};
use crate::key_block::Slot;
use crate::mac::{MAX_MAC_LEN, MacKey};
use crate::secret::Secret;
use crate::static_key::{KeyDirection, StaticKey};

use super::HEAD_LEN;
use super::replay_id::ReplayIds;

/// tls-auth for one session.
pub(super) struct TlsAuth {
    digest: AuthDigest,
    send_material: Secret<MAX_MAC_LEN>,
    receive_material: Secret<MAX_MAC_LEN>,
    send: MacKey,
    receive: MacKey,
    ids: ReplayIds,
}

impl TlsAuth {
    pub(super) fn new(key: &StaticKey, direction: KeyDirection, digest: AuthDigest) -> Self {
        let (send, receive) = match direction {
            KeyDirection::Normal => (Slot::Zero, Slot::One),
            KeyDirection::Inverse => (Slot::One, Slot::Zero),
            KeyDirection::Bidirectional => (Slot::Zero, Slot::Zero),
        };
        let block = key.key_block();
        Self::from_material(
            digest,
            Secret::prefix(block.mac_material(send)),
            Secret::prefix(block.mac_material(receive)),
            ReplayIds::new(),
        )
    }

    fn from_material(
        digest: AuthDigest,
        send_material: Secret<MAX_MAC_LEN>,
        receive_material: Secret<MAX_MAC_LEN>,
        ids: ReplayIds,
    ) -> Self {
        let send_material = send_material.keep(digest.output_len());
        let receive_material = receive_material.keep(digest.output_len());
        Self {
            digest,
            send: MacKey::new(digest, &send_material),
            receive: MacKey::new(digest, &receive_material),
            send_material,
            receive_material,
            ids,
        }
    }

    pub(super) fn wrap(
        &mut self,
        plain: &[u8],
        unix_time: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), WrapError> {
        let (head, rest) = plain.split_at_checked(HEAD_LEN).ok_or(WrapError::TooShort)?;
        let id = self.ids.next(unix_time)?;
        out.reserve(plain.len().saturating_add(self.overhead()));
        out.extend_from_slice(head);
        out.extend_from_slice(self.send.compute(&[&id, head, rest]).as_slice());
        out.extend_from_slice(&id);
        out.extend_from_slice(rest);
        Ok(())
    }

    pub(super) fn unwrap(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<(), UnwrapError> {
        let (head, body) = wire.split_at_checked(HEAD_LEN).ok_or(UnwrapError::TooShort)?;
        let (tag, body) =
            body.split_at_checked(self.digest.output_len()).ok_or(UnwrapError::TooShort)?;
        let (id, rest) = body.split_first_chunk::<8>().ok_or(UnwrapError::TooShort)?;
        if !self.receive.verify(&[id, head, rest], tag) {
            return Err(UnwrapError::Authentication);
        }
        self.ids.accept(*id)?;
        plain.extend_from_slice(head);
        plain.extend_from_slice(rest);
        Ok(())
    }

    pub(super) const fn overhead(&self) -> usize {
        self.digest.output_len() + 8
    }

    pub(super) fn export(&self, out: &mut Vec<u8>) {
        out.push(self.digest.code());
        out.extend_from_slice(self.send_material.expose());
        out.extend_from_slice(self.receive_material.expose());
        self.ids.export(out);
    }

    pub(super) fn import(reader: &mut Reader<'_>) -> Result<Self, ImportError> {
        let digest = AuthDigest::from_code(reader.u8()?).ok_or(ImportError::Field("digest"))?;
        let (send, receive) = (reader.secret()?, reader.secret()?);
        Ok(Self::from_material(digest, send, receive, ReplayIds::import(reader)?))
    }
}
