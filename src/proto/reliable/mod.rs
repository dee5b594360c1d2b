//! The reliability layer of one key: what to send, what was received, what to acknowledge. It also
//! runs over TCP, without retransmission.
//!
//! Message ids start at 0 for each key and direction. Source: `docs/PROTOCOL.md`, "Reliability".

mod acks;
mod recv;
mod send;

pub use acks::{ACK_QUEUE, AckQueue};
pub use recv::{Accept, RECV_WINDOW, RecvQueue};
pub use send::{Outgoing, QueueFull, SEND_QUEUE_BYTES, SEND_WINDOW, SendQueue};
