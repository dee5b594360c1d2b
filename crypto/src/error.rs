//! The errors of this crate, one enum per operation.

use thiserror::Error;

/// The source of randomness failed; nothing that needs it may go on.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the source of randomness failed")]
pub struct RandomError;

/// Keys could not be made, or a value handed in by our own code does not fit.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CryptoError {
    /// A cipher key of zero bytes only; a sign of uninitialised key material.
    #[error("the cipher key is all zero")]
    ZeroKey,
    /// A key of a length that the cipher does not have; our own mistake.
    #[error("the cipher key has an impossible length")]
    KeyLength,
    /// Metadata of a tls-crypt-v2 client key over [`crate::MAX_METADATA_LEN`] bytes.
    #[error("the metadata of the client key is {len} bytes long, at most {max} are possible")]
    MetadataTooLong {
        /// Its length in bytes, with the type byte.
        len: usize,
        /// The longest possible.
        max: usize,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// An exported state was refused.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// An exported state can't be read back. The bytes are not trusted: they may be damaged or hostile.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportError {
    /// The bytes end too early.
    #[error("the exported state is cut off")]
    Truncated,
    /// Written by another version of this crate.
    #[error("the exported state has format {0}, which this version can't read")]
    Version(u8),
    /// A field holds a value that no export writes.
    #[error("the exported state has an impossible {0}")]
    Field(&'static str),
}

/// A data packet was not sealed. Nothing was appended and no packet id was used.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealError {
    /// The packet ids or the block limit of this key are used up: stop sending until a new key.
    #[error("the key is used up")]
    Exhausted,
    /// A key id over 7 or a peer id over 24 bits; our own mistake.
    #[error("key id or peer id out of range")]
    Header,
    /// More than [`crate::MAX_PAYLOAD`] bytes.
    #[error("the payload is too long")]
    TooLong,
    /// No randomness for the IV.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A data packet was refused. On TCP this ends the connection, whatever the reason; no reason may
/// be told to the peer.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Not an opcode of a data packet.
    #[error("not a data packet")]
    NotData,
    /// Shorter than header, packet id and tag, or not a whole number of cipher blocks.
    #[error("the packet is too short or of an impossible length")]
    TooShort,
    /// Tag or MAC is wrong.
    #[error("the packet is not authentic")]
    Authentication,
    /// Authentic, but with wrong padding or without a packet id: the peer is broken.
    #[error("the padding is wrong")]
    Padding,
    /// Authentic, but with packet id 0.
    #[error("packet id 0")]
    ZeroId,
    /// Authentic, but seen before or older than the window.
    #[error("the packet is a replay")]
    Replay,
}

/// A control packet was not wrapped. Nothing was appended.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrapError {
    /// The packet lacks opcode or session id; our own mistake.
    #[error("the packet is too short to wrap")]
    TooShort,
    /// The replay ids are used up and the clock has not advanced since they began.
    #[error("the replay ids of the control channel are used up")]
    Exhausted,
}

/// A control packet or a wrapped client key was refused.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnwrapError {
    /// Shorter than the fields of this wrapping.
    #[error("the packet is too short for its wrapping")]
    TooShort,
    /// Tag or MAC is wrong: another key, another direction, or a forgery.
    #[error("the packet is not authentic")]
    Authentication,
    /// Authentic, but with replay id 0.
    #[error("replay id 0")]
    ZeroId,
    /// Authentic, but seen before or older than the window.
    #[error("the packet is a replay")]
    Replay,
    /// The wrapped client key has an impossible length.
    #[error("the wrapped client key has an impossible length")]
    WrappedKeyLength,
}

/// The text form of a key can't be read. Never holds any of the text.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFileError {
    /// No BEGIN line.
    #[error("no line \"-----BEGIN {label}-----\"")]
    NoBegin {
        /// The label that was looked for.
        label: &'static str,
    },
    /// No END line after the key.
    #[error("no line \"-----END {label}-----\" after the key")]
    NoEnd {
        /// The label that was looked for.
        label: &'static str,
    },
    /// A character that is neither part of the encoding nor white space.
    #[error("line {line} holds something that is not part of a key")]
    BadCharacter {
        /// Line number in the text, from 1.
        line: usize,
    },
    /// Not base64.
    #[error("the text between the BEGIN and END lines is not base64")]
    NotBase64,
    /// Too few or too many bytes.
    #[error("the key is {found} bytes long, {expected} are needed")]
    Length {
        /// Bytes found.
        found: usize,
        /// Bytes needed (the least number, where several are possible).
        expected: usize,
    },
    /// The cipher key is zero.
    #[error("the key is all zero")]
    ZeroKey,
}
