//! Received control messages, put in order.

use std::collections::VecDeque;

use crate::proto::wire::{
    MAX_FRAME, MessageId, Reader, Truncated, put_block, put_u8, put_u32, read_block,
};

/// How far ahead of the next expected id a message may be. Source: OpenVPN 2.6 receive window.
pub const RECV_WINDOW: usize = 12;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// It is the next one: [`RecvQueue::pop_in_order`] gives it. Acknowledge.
    Deliver,
    /// Kept until the ones before it come. Acknowledge.
    Buffered,
    /// Seen before; nothing was stored. Acknowledge again.
    Duplicate,
    /// Too far ahead; nothing was stored. Do not acknowledge.
    OutOfWindow,
}

/// Messages of one key by id. Holds at most [`RECV_WINDOW`] payloads, each of at most one frame.
#[derive(Debug, Default)]
pub struct RecvQueue {
    next: MessageId,
    /// Slot `i` is the message with id `next + i`.
    slots: VecDeque<Option<Vec<u8>>>,
}

impl RecvQueue {
    /// An empty queue that expects id 0; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the message `id`. Give an empty payload for resets: theirs is not TLS.
    pub fn accept(&mut self, id: MessageId, payload: &[u8]) -> Accept {
        let ahead = id.wrapping_sub(self.next);
        if ahead > u32::MAX / 2 {
            return Accept::Duplicate;
        }
        let Some(index) = usize::try_from(ahead).ok().filter(|index| *index < RECV_WINDOW) else {
            return Accept::OutOfWindow;
        };
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        let Some(slot) = self.slots.get_mut(index) else { return Accept::OutOfWindow };
        if slot.is_some() {
            return Accept::Duplicate;
        }
        *slot = Some(payload.to_vec());
        if index == 0 { Accept::Deliver } else { Accept::Buffered }
    }

    /// The payload of the next message in order, if it is there.
    pub fn pop_in_order(&mut self) -> Option<Vec<u8>> {
        self.slots.front()?.as_ref()?;
        let payload = self.slots.pop_front().flatten();
        self.next = self.next.wrapping_add(1);
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
        payload
    }

    /// The id that is delivered next.
    pub fn next_expected(&self) -> MessageId {
        self.next
    }

    /// Bytes held.
    pub fn buffered_bytes(&self) -> usize {
        self.slots.iter().flatten().map(Vec::len).sum()
    }

    /// Appends the state.
    pub fn export(&self, out: &mut Vec<u8>) {
        put_u32(out, self.next);
        #[expect(clippy::cast_possible_truncation, reason = "at most RECV_WINDOW slots")]
        put_u8(out, self.slots.len() as u8);
        for slot in &self.slots {
            put_u8(out, u8::from(slot.is_some()));
            put_block(out, slot.as_deref().unwrap_or_default());
        }
    }

    /// Reads what [`Self::export`] wrote.
    ///
    /// # Errors
    /// [`Truncated`] if the input is damaged.
    pub fn import(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let next = reader.u32()?;
        let count = usize::from(reader.u8()?);
        if count > RECV_WINDOW {
            return Err(Truncated);
        }
        let mut slots = VecDeque::new();
        for _ in 0..count {
            let present = reader.u8()? == 1;
            let payload = read_block(reader, MAX_FRAME)?.to_vec();
            slots.push_back(present.then_some(payload));
        }
        Ok(Self { next, slots })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delivers_in_order_and_names_each_case() {
        let mut queue = RecvQueue::new();
        assert_eq!(queue.accept(1, b"b"), Accept::Buffered);
        assert_eq!(queue.pop_in_order(), None);
        assert_eq!(queue.accept(1, b"x"), Accept::Duplicate);
        assert_eq!(queue.accept(0, b"a"), Accept::Deliver);
        assert_eq!(queue.accept(0, b"x"), Accept::Duplicate);
        assert_eq!(queue.pop_in_order(), Some(b"a".to_vec()));
        assert_eq!(queue.pop_in_order(), Some(b"b".to_vec()));
        assert_eq!(queue.accept(0, b"x"), Accept::Duplicate);
        assert_eq!(queue.accept(13, b"n"), Accept::Buffered);
        assert_eq!(queue.accept(14, b"o"), Accept::OutOfWindow);
        assert_eq!(queue.accept(u32::MAX, b"o"), Accept::Duplicate);
        assert_eq!((queue.next_expected(), queue.buffered_bytes()), (2, 1));
    }

    #[test]
    fn an_empty_message_consumes_its_id() {
        let mut queue = RecvQueue::new();
        assert_eq!(queue.accept(0, b""), Accept::Deliver);
        assert_eq!(queue.accept(1, b""), Accept::Buffered);
        assert_eq!((queue.pop_in_order(), queue.pop_in_order()), (Some(vec![]), Some(vec![])));
        assert_eq!(queue.next_expected(), 2);
    }

    #[test]
    fn an_import_with_too_many_slots_is_refused() {
        let mut bytes = vec![0, 0, 0, 0, 13];
        bytes.resize(200, 0);
        assert!(RecvQueue::import(&mut Reader::new(&bytes)).is_err());
    }

    proptest! {
        /// The model keeps every message ever seen in a map.
        #[test]
        fn agrees_with_a_naive_model(
            ids in prop::collection::vec((0..40_u32, any::<bool>(), any::<bool>()), 0..200)
        ) {
            let mut queue = RecvQueue::new();
            let mut seen = BTreeMap::new();
            let mut next = 0_u32;
            for (id, pop, move_over) in ids {
                let payload = id.to_be_bytes().to_vec();
                let expected = if id < next || seen.contains_key(&id) {
                    Accept::Duplicate
                } else if id >= next + 12 {
                    Accept::OutOfWindow
                } else if id == next {
                    Accept::Deliver
                } else {
                    Accept::Buffered
                };
                prop_assert_eq!(queue.accept(id, &payload), expected);
                if matches!(expected, Accept::Deliver | Accept::Buffered) {
                    seen.insert(id, payload);
                }
                if pop {
                    while let Some(payload) = queue.pop_in_order() {
                        prop_assert_eq!(Some(payload), seen.get(&next).cloned());
                        next += 1;
                    }
                    prop_assert!(!seen.contains_key(&next));
                }
                if move_over {
                    let mut bytes = Vec::new();
                    queue.export(&mut bytes);
                    queue = RecvQueue::import(&mut Reader::new(&bytes)).unwrap();
                }
                prop_assert_eq!(queue.next_expected(), next);
                prop_assert!(queue.buffered_bytes() <= RECV_WINDOW * 4);
            }
        }

        #[test]
        fn any_bytes_import_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = RecvQueue::import(&mut Reader::new(&bytes));
        }
    }
}
