//! An established session as bytes: written out by one process, read back by its successor.
//!
//! Points in time travel as distances from "now", so that both processes may have clocks of their
//! own. The TLS engine does not travel: its work is done, and a session without one only can't say
//! RESTART. Whoever reads bytes back takes over: the session that wrote them must not be used again,
//! since both would number packets alike under one key.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tunnelhead_crypto::{AuthDigest, ControlWrap, DataCipher, DataKeys, MAX_PEER_ID};

use super::error::{ExportRefused, ImportError};
use super::established::Established;
use super::event::{Assignment, CertificateId, ClientCertificate, Identity};
use super::key_slots::{Key, KeySlots, Previous};
use super::key_state::Channel;
use super::link::Link;
use super::shared::Shared;
use super::state::State;
use super::stats::SessionStats;
use super::timers::{Linger, Liveness, RekeyFlood};
use super::tunnel::{DataParams, Tunnel};
use super::{Core, Session, SessionConfig};
use crate::proto::reliable::{AckQueue, RecvQueue, SendQueue};
use crate::proto::wire::{
    FrameDecoder, KeyId, Reader, SessionId, Truncated, put_block, put_u8, put_u32, put_u64,
    read_block,
};

/// Rises with every change of the layout.
const VERSION: u8 = 2;

/// Longest text that a session keeps.
const MAX_TEXT: usize = 8 * 1024;
/// CAs between a client's certificate and the trusted one; the handshake allows fewer.
const MAX_INTERMEDIATES: usize = 8;
/// Longest sealed bytes that wait.
const MAX_SEALED: usize = 64 * 1024;
/// No deadline is further away.
const MAX_DISTANCE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

impl Session {
    /// Appends the session. Only when it is up, not during a rekey, and with no TLS operation or
    /// event outstanding. Drop the session once another has read the bytes.
    ///
    /// # Errors
    /// [`ExportRefused`]: nothing was appended; try again later.
    pub fn export(&self, now: Instant, out: &mut Vec<u8>) -> Result<(), ExportRefused> {
        let Core { state: State::Established(session), shared, .. } = &self.core else {
            return Err(ExportRefused::NotUp);
        };
        if !session.up || session.exhausted {
            return Err(ExportRefused::NotUp);
        }
        if session.keys.rekey.is_some() {
            return Err(ExportRefused::Rekeying);
        }
        if !shared.events.is_empty() || !session.keys.current.channel.is_idle() {
            return Err(ExportRefused::Busy);
        }
        put_u8(out, VERSION);
        put_u64(out, self.core.generation);
        put_past(out, now, self.core.since);
        put_u32(out, self.core.unix_time);
        put_u32(out, shared.next_engine());
        self.frames.export(out);
        put_link(out, &session.link);
        put_tunnel(out, &session.tunnel);
        put_key(out, &session.keys.current);
        put_option(out, session.keys.previous.as_ref(), |out, previous| {
            put_future(out, now, previous.expires);
            put_key(out, &previous.key);
        });
        put_past(out, now, session.live.last_sent);
        put_past(out, now, session.live.last_heard);
        put_u8(out, u8::from(session.live.pinged));
        put_past(out, now, session.since);
        put_option(out, session.rekey_at.as_ref(), |out, at| put_future(out, now, *at));
        put_option(out, session.rekey_hold.as_ref(), |out, at| put_future(out, now, *at));
        put_option(out, session.failed_key.as_ref(), |out, key| put_u8(out, key.get()));
        put_block(out, &session.sealed);
        let values = shared.stats.values();
        put_u32(out, u32::try_from(values.len()).unwrap_or(u32::MAX));
        values.iter().for_each(|value| put_u64(out, *value));
        Ok(())
    }

    /// Reads back what [`Self::export`] wrote. The configuration may differ from the writer's:
    /// intervals follow the new one, keys and the pushed address stay.
    ///
    /// # Errors
    /// [`ImportError`]: not an exported session, or one of an unknown version; nothing is trusted.
    pub fn import(
        config: Arc<SessionConfig>,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Self, ImportError> {
        let mut reader = Reader::new(bytes);
        let input = &mut reader;
        match input.u8()? {
            VERSION => {}
            version => return Err(ImportError::Version(version)),
        }
        let generation = input.u64()?;
        let since = past(input, now)?;
        let unix_time = input.u32()?;
        let next_engine = input.u32()?;
        let frames = FrameDecoder::import(input)?.limited(config.frame_bytes);
        let link = link(input, unix_time)?;
        let tunnel = tunnel(input)?;
        let current = key(input)?;
        let previous = option(input, |input| {
            let expires = future(input, now)?;
            Ok(Box::new(Previous { key: key(input)?, expires }))
        })?;
        if previous.as_ref().is_some_and(|old| old.key.channel.key_id == current.channel.key_id) {
            return Err(ImportError::Damaged("two keys with one id"));
        }
        let live = Liveness {
            last_sent: past(input, now)?,
            last_heard: past(input, now)?,
            pinged: flag(input)?,
        };
        let established_at = past(input, now)?;
        let rekey_at = option(input, |input| future(input, now))?;
        let rekey_hold = option(input, |input| future(input, now))?;
        let failed_key = option(input, key_id)?;
        let sealed = read_block(input, MAX_SEALED)?.to_vec();
        let stats = stats(input)?;
        if !input.is_empty() {
            return Err(ImportError::Damaged("bytes after the end"));
        }
        let own = link.own;
        let session = Established {
            link,
            tunnel,
            keys: KeySlots { current, previous, rekey: None },
            live,
            since: established_at,
            up: true,
            up_by: now,
            push: None,
            linger: Linger::Over,
            rekey_at,
            rekey_hold,
            failed_key,
            flood: RekeyFlood::default(),
            sealed,
            exhausted: false,
        };
        let core = Core {
            state: State::Established(Box::new(session)),
            shared: Shared::new(config, stats, next_engine),
            own,
            unix_time,
            since,
            generation,
            push_requested: false,
        };
        Ok(Self { frames, core })
    }
}

impl From<Truncated> for ImportError {
    fn from(_: Truncated) -> Self {
        Self::Damaged("a field is cut off or out of range")
    }
}

fn put_link(out: &mut Vec<u8>, link: &Link) {
    out.extend_from_slice(link.own.bytes());
    out.extend_from_slice(link.peer.bytes());
    link.wrap.export(out);
    put_option(out, link.dynamic.as_ref(), |out, wrap| wrap.export(out));
}

fn link(input: &mut Reader<'_>, unix_time: u32) -> Result<Link, ImportError> {
    let own = session_id(input)?;
    let peer = session_id(input)?;
    let wrap = crypto(input, ControlWrap::import)?;
    let dynamic = option(input, |input| crypto(input, ControlWrap::import))?;
    Ok(Link { own, peer, unix_time, wrap, base: None, dynamic })
}

fn put_tunnel(out: &mut Vec<u8>, tunnel: &Tunnel) {
    put_block(out, tunnel.identity.0.as_bytes());
    out.extend_from_slice(&tunnel.assignment.address.octets());
    put_u8(out, tunnel.assignment.prefix_len);
    out.extend_from_slice(&tunnel.assignment.gateway.octets());
    put_block(out, tunnel.params.cipher.name().as_bytes());
    put_block(out, tunnel.params.digest.name().as_bytes());
    put_option(out, tunnel.params.peer_id.as_ref(), |out, id| put_u32(out, *id));
    put_u8(out, u8::from(tunnel.params.key_export));
    out.extend_from_slice(&tunnel.credential_tag);
    put_option(out, tunnel.certificate.as_ref(), |out, certificate| {
        put_block(out, &certificate.common_name);
        out.extend_from_slice(&certificate.fingerprint);
        put_block(out, certificate.serial.as_bytes());
        out.extend_from_slice(&certificate.issuer_hash);
        let intermediates = certificate.intermediates.iter().take(MAX_INTERMEDIATES);
        put_u8(out, u8::try_from(intermediates.len()).unwrap_or(0));
        for id in intermediates {
            put_block(out, id.serial.as_bytes());
            out.extend_from_slice(&id.issuer_hash);
        }
    });
    for text in [&tunnel.options, &tunnel.peer_info, &tunnel.tls_version, &tunnel.tls_suite] {
        put_block(out, text.as_bytes());
    }
}

fn tunnel(input: &mut Reader<'_>) -> Result<Tunnel, ImportError> {
    let identity = Identity(text(input)?.into());
    let address = Ipv4Addr::from(input.array::<4>()?);
    let prefix_len = input.u8()?;
    if prefix_len > 32 {
        return Err(ImportError::Damaged("a prefix longer than an address"));
    }
    let gateway = Ipv4Addr::from(input.array::<4>()?);
    let cipher = DataCipher::from_name(text(input)?).ok_or(ImportError::Damaged("the cipher"))?;
    let digest = AuthDigest::from_name(text(input)?).ok_or(ImportError::Damaged("the digest"))?;
    let peer_id = option(input, |input| Ok(input.u32()?))?;
    if peer_id.is_some_and(|id| id > MAX_PEER_ID) {
        return Err(ImportError::Damaged("the peer id"));
    }
    let params = DataParams { cipher, digest, peer_id, key_export: flag(input)? };
    let credential_tag = input.array()?;
    let certificate = option(input, |input| {
        Ok(ClientCertificate {
            common_name: read_block(input, MAX_TEXT)?.to_vec(),
            fingerprint: input.array()?,
            serial: text(input)?.to_owned(),
            issuer_hash: input.array()?,
            intermediates: intermediates(input)?,
        })
    })?;
    Ok(Tunnel {
        identity,
        assignment: Assignment { address, prefix_len, gateway },
        params,
        credential_tag,
        certificate,
        options: text(input)?.into(),
        peer_info: text(input)?.into(),
        tls_version: text(input)?.into(),
        tls_suite: text(input)?.into(),
    })
}

fn intermediates(input: &mut Reader<'_>) -> Result<Vec<CertificateId>, ImportError> {
    let count = usize::from(input.u8()?);
    if count > MAX_INTERMEDIATES {
        return Err(ImportError::Damaged("the certificate chain"));
    }
    (0..count)
        .map(|_| Ok(CertificateId { serial: text(input)?.to_owned(), issuer_hash: input.array()? }))
        .collect()
}

fn put_key(out: &mut Vec<u8>, key: &Key) {
    put_u8(out, key.channel.key_id.get());
    key.channel.send.export(out);
    key.channel.recv.export(out);
    key.channel.acks.export(out);
    key.data.export(out);
}

fn key(input: &mut Reader<'_>) -> Result<Key, ImportError> {
    let mut channel = Channel::parked(key_id(input)?);
    channel.send = SendQueue::import(input)?;
    channel.recv = RecvQueue::import(input)?;
    channel.acks = AckQueue::import(input)?;
    Ok(Key { channel, data: crypto(input, DataKeys::import)? })
}

fn stats(input: &mut Reader<'_>) -> Result<SessionStats, ImportError> {
    let count = input.u32()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(input.u64()?);
    }
    Ok(SessionStats::from_values(values))
}

/// Lets a part of the crypto package read from the front of `input`.
fn crypto<T, E: Into<ImportError>>(
    input: &mut Reader<'_>,
    import: impl FnOnce(&mut &[u8]) -> Result<T, E>,
) -> Result<T, ImportError> {
    let mut rest = input.rest();
    let value = import(&mut rest).map_err(Into::into)?;
    *input = Reader::new(rest);
    Ok(value)
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    put_u8(out, u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn option<T>(
    input: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, ImportError>,
) -> Result<Option<T>, ImportError> {
    if flag(input)? { read(input).map(Some) } else { Ok(None) }
}

fn flag(input: &mut Reader<'_>) -> Result<bool, ImportError> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ImportError::Damaged("a flag is neither 0 nor 1")),
    }
}

fn text<'a>(input: &mut Reader<'a>) -> Result<&'a str, ImportError> {
    std::str::from_utf8(read_block(input, MAX_TEXT)?)
        .map_err(|_| ImportError::Damaged("a text is not UTF-8"))
}

fn session_id(input: &mut Reader<'_>) -> Result<SessionId, ImportError> {
    SessionId::new(input.array()?).ok_or(ImportError::Damaged("a session id of zeros"))
}

fn key_id(input: &mut Reader<'_>) -> Result<KeyId, ImportError> {
    KeyId::new(input.u8()?).ok_or(ImportError::Damaged("a key id"))
}

/// Nanoseconds from `then` to now.
fn put_past(out: &mut Vec<u8>, now: Instant, then: Instant) {
    put_distance(out, now.saturating_duration_since(then));
}

/// Nanoseconds from now to `then`; 0 if that is over.
fn put_future(out: &mut Vec<u8>, now: Instant, then: Instant) {
    put_distance(out, then.saturating_duration_since(now));
}

fn put_distance(out: &mut Vec<u8>, distance: Duration) {
    put_u64(out, u64::try_from(distance.as_nanos()).unwrap_or(u64::MAX));
}

fn past(input: &mut Reader<'_>, now: Instant) -> Result<Instant, ImportError> {
    let distance = Duration::from_nanos(input.u64()?).min(MAX_DISTANCE);
    // A clock that began later than the session can't name its begin; "now" is the next best.
    Ok(now.checked_sub(distance).unwrap_or(now))
}

fn future(input: &mut Reader<'_>, now: Instant) -> Result<Instant, ImportError> {
    let distance = Duration::from_nanos(input.u64()?).min(MAX_DISTANCE);
    now.checked_add(distance).ok_or(ImportError::Damaged("a deadline beyond the clock"))
}
