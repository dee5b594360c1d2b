//! The wire format: TCP framing, the first byte, control packets. Pure codecs over byte slices; no
//! state beyond a partial frame, no allocation sized by what a peer announces, total on any input.
//!
//! Every multi-byte number on the wire is big endian. Source: `docs/PROTOCOL.md`, "Framing" and
//! "Packets".

mod control_packet;
mod frame;
mod opcode;
mod reader;
mod writer;

pub use control_packet::{AckList, ControlPacket, ControlPacketError, MAX_ACKS};
pub use frame::{FrameDecoder, FrameError, MAX_FRAME, MIN_FRAME, PushFrameError, push_frame};
pub use opcode::{FirstByte, KeyId, MessageId, Opcode, SessionId, WireError};
pub use reader::{Reader, Truncated};
pub use writer::{put_block, put_u8, put_u16, put_u24, put_u32, put_u64, read_block};
