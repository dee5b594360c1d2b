//! Control messages on their way to the peer.

use std::collections::VecDeque;

use thiserror::Error;

use crate::proto::wire::{
    MAX_FRAME, MessageId, Opcode, Reader, Truncated, put_block, put_u8, put_u16, put_u32,
    read_block,
};

/// Messages that may be under way unacknowledged. Clients before 2.6 drop what is further ahead.
pub const SEND_WINDOW: u32 = 4;
/// Bytes that may wait. A handshake flight with a long certificate chain is below 16 KiB.
pub const SEND_QUEUE_BYTES: usize = 64 * 1024;
/// Messages that may wait.
const SEND_QUEUE_MESSAGES: usize = 1024;

/// The queue is at its bound: the peer does not acknowledge; close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the peer does not acknowledge control messages")]
pub struct QueueFull;

/// A message to put on the wire, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its number.
    pub id: MessageId,
    /// What it is.
    pub opcode: Opcode,
    /// TLS bytes; empty for resets.
    pub payload: Vec<u8>,
}

/// Messages of one key: waiting, then under way, then acknowledged. Nothing is sent twice, because
/// TCP loses nothing; so a payload leaves with its first sending and only its id is kept.
#[derive(Debug, Default)]
pub struct SendQueue {
    next: MessageId,
    waiting: VecDeque<(Opcode, Vec<u8>)>,
    waiting_bytes: usize,
    /// Ids sent and not acknowledged, rising.
    in_flight: VecDeque<MessageId>,
    foreign_acks: u64,
}

impl SendQueue {
    /// An empty queue; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message; its id is given when it is sent.
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was added.
    pub fn push(&mut self, opcode: Opcode, payload: Vec<u8>) -> Result<(), QueueFull> {
        let bytes = self.waiting_bytes.saturating_add(payload.len());
        if bytes > SEND_QUEUE_BYTES || self.waiting.len() >= SEND_QUEUE_MESSAGES {
            return Err(QueueFull);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back((opcode, payload));
        Ok(())
    }

    /// The next message, if the window lets it go; it counts as sent from now on.
    pub fn next_to_send(&mut self) -> Option<Outgoing> {
        if !self.window_open() {
            return None;
        }
        let (opcode, payload) = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(payload.len());
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        self.in_flight.push_back(id);
        Some(Outgoing { id, opcode, payload })
    }

    /// True if [`Self::next_to_send`] would give a message.
    pub fn can_send(&self) -> bool {
        self.window_open() && !self.waiting.is_empty()
    }

    /// Notes the peer's acknowledgement. False for an id that is not under way: clients repeat old
    /// ones, so it is only counted.
    pub fn handle_ack(&mut self, id: MessageId) -> bool {
        let Some(index) = self.in_flight.iter().position(|sent| *sent == id) else {
            self.foreign_acks = self.foreign_acks.saturating_add(1);
            return false;
        };
        self.in_flight.remove(index);
        if self.in_flight.is_empty() {
            self.in_flight = VecDeque::new();
        }
        true
    }

    /// True if every message that was pushed has been sent and acknowledged.
    pub fn all_acked(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Messages sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// True if `id` was sent and is not acknowledged.
    pub fn is_in_flight(&self, id: MessageId) -> bool {
        self.in_flight.contains(&id)
    }

    /// Bytes that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The id that the next message will get.
    pub fn next_id(&self) -> MessageId {
        self.next
    }

    /// Acknowledgements of ids that were not under way.
    pub fn foreign_acks(&self) -> u64 {
        self.foreign_acks
    }

    /// The window counts from the oldest message under way, since the peer's does.
    fn window_open(&self) -> bool {
        self.in_flight.front().is_none_or(|oldest| self.next.wrapping_sub(*oldest) < SEND_WINDOW)
    }

    /// Appends the state.
    pub fn export(&self, out: &mut Vec<u8>) {
        put_u32(out, self.next);
        #[expect(clippy::cast_possible_truncation, reason = "at most SEND_WINDOW ids")]
        put_u8(out, self.in_flight.len() as u8);
        for id in &self.in_flight {
            put_u32(out, *id);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most SEND_QUEUE_MESSAGES")]
        put_u16(out, self.waiting.len() as u16);
        for (opcode, payload) in &self.waiting {
            put_u8(out, opcode.number());
            put_block(out, payload);
        }
    }

    /// Reads what [`Self::export`] wrote; the count of foreign acknowledgements starts anew.
    ///
    /// # Errors
    /// [`Truncated`] if the input is damaged.
    pub fn import(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let mut queue = Self { next: reader.u32()?, ..Self::default() };
        for _ in 0..reader.u8()? {
            let id = reader.u32()?;
            let rising = queue.in_flight.back().is_none_or(|last| {
                let step = id.wrapping_sub(*last);
                step > 0 && step < SEND_WINDOW
            });
            let behind = queue.next.wrapping_sub(id);
            if !rising || behind == 0 || behind > SEND_WINDOW {
                return Err(Truncated);
            }
            queue.in_flight.push_back(id);
        }
        for _ in 0..reader.u16()? {
            let opcode = Opcode::from_number(reader.u8()?).ok_or(Truncated)?;
            let payload = read_block(reader, MAX_FRAME)?.to_vec();
            queue.push(opcode, payload).map_err(|QueueFull| Truncated)?;
        }
        Ok(queue)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn four_are_under_way_and_an_acknowledgement_lets_the_next_go() {
        let mut queue = SendQueue::new();
        for byte in 0..6 {
            queue.push(Opcode::ControlV1, vec![byte]).unwrap();
        }
        let sent: Vec<u32> = std::iter::from_fn(|| queue.next_to_send()).map(|o| o.id).collect();
        assert_eq!(sent, [0, 1, 2, 3]);
        assert!(queue.handle_ack(2));
        assert_eq!(queue.next_to_send(), None, "the oldest holds the window");
        assert!(queue.handle_ack(0));
        let next = Outgoing { id: 4, opcode: Opcode::ControlV1, payload: vec![4] };
        assert_eq!(queue.next_to_send(), Some(next));
        assert_eq!((queue.in_flight(), queue.queued_bytes()), (3, 1));
        assert!(!queue.all_acked());
        for id in [1, 3, 4] {
            assert!(queue.handle_ack(id));
        }
        assert_eq!(queue.next_to_send().map(|o| o.id), Some(5));
        assert!(queue.handle_ack(5) && queue.all_acked());
    }

    #[test]
    fn a_million_forged_acknowledgements_change_nothing() {
        let mut queue = SendQueue::new();
        queue.push(Opcode::ControlV1, vec![1]).unwrap();
        assert!(queue.next_to_send().is_some());
        for id in 1..=1_000_000 {
            assert!(!queue.handle_ack(id));
        }
        assert_eq!((queue.in_flight(), queue.foreign_acks()), (1, 1_000_000));
    }

    #[test]
    fn a_full_queue_refuses_and_keeps_what_it_has() {
        let mut queue = SendQueue::new();
        for _ in 0..64 {
            queue.push(Opcode::ControlV1, vec![0; 1024]).unwrap();
        }
        assert_eq!(queue.push(Opcode::ControlV1, vec![0]), Err(QueueFull));
        assert_eq!(queue.queued_bytes(), SEND_QUEUE_BYTES);
        let mut many = SendQueue::new();
        let pushed = (0..2000).filter(|_| many.push(Opcode::ControlV1, vec![]).is_ok()).count();
        assert_eq!(pushed, SEND_QUEUE_MESSAGES);
    }

    #[test]
    fn imports_that_break_the_window_are_refused() {
        for (next, ids) in [(5_u32, vec![5_u32]), (9, vec![4]), (5, vec![3, 3]), (5, vec![3, 2])] {
            let mut bytes = next.to_be_bytes().to_vec();
            bytes.push(u8::try_from(ids.len()).unwrap());
            bytes.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
            bytes.extend([0, 0]);
            assert!(SendQueue::import(&mut Reader::new(&bytes)).is_err(), "{next} {ids:?}");
        }
    }

    proptest! {
        /// The model: a list of payloads, a count of those sent, a set of those acknowledged.
        #[test]
        fn agrees_with_a_naive_model(
            steps in prop::collection::vec((0..4_u8, 0..40_u32), 0..300)
        ) {
            let mut queue = SendQueue::new();
            let (mut pushed, mut sent) = (Vec::new(), 0_u32);
            let mut acked = BTreeSet::new();
            for (step, number) in steps {
                match step {
                    0 => {
                        pushed.push(number.to_be_bytes().to_vec());
                        queue.push(Opcode::ControlV1, number.to_be_bytes().to_vec()).unwrap();
                    }
                    1 => {
                        let oldest = (0..sent).find(|id| !acked.contains(id)).unwrap_or(sent);
                        let may = (sent as usize) < pushed.len() && sent - oldest < 4;
                        prop_assert_eq!(queue.can_send(), may);
                        let got = queue.next_to_send();
                        prop_assert_eq!(got.is_some(), may);
                        if let Some(out) = got {
                            prop_assert_eq!(out.id, sent);
                            prop_assert_eq!(&out.payload, &pushed[sent as usize]);
                            sent += 1;
                        }
                    }
                    2 => {
                        let known = number < sent && !acked.contains(&number);
                        prop_assert_eq!(queue.handle_ack(number), known);
                        if known {
                            acked.insert(number);
                        }
                    }
                    _ => {
                        let mut bytes = Vec::new();
                        queue.export(&mut bytes);
                        queue = SendQueue::import(&mut Reader::new(&bytes)).unwrap();
                    }
                }
                prop_assert_eq!(queue.in_flight(), sent as usize - acked.len());
                prop_assert_eq!(queue.all_acked(), acked.len() == pushed.len());
                prop_assert_eq!(queue.queued_bytes(), (pushed.len() - sent as usize) * 4);
            }
        }

        #[test]
        fn any_bytes_import_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = SendQueue::import(&mut Reader::new(&bytes));
        }
    }
}
