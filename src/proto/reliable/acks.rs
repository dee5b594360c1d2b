//! Message ids that wait to be acknowledged.

use std::collections::VecDeque;

use crate::proto::wire::{AckList, MessageId, Reader, SessionId, Truncated, put_u8, put_u32};

/// Most ids that wait at once. No client has more than 6 messages under way; a driver that takes
/// acknowledgements after each batch never comes near.
pub const ACK_QUEUE: usize = 16;

/// Ids to acknowledge, oldest first, each once.
#[derive(Debug, Default)]
pub struct AckQueue {
    ids: VecDeque<MessageId>,
}

impl AckQueue {
    /// An empty queue; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `id` is to be acknowledged. An id that already waits is not noted twice.
    /// False if the queue is full: take some first, or close, since no client has so many under way.
    #[must_use]
    pub fn note(&mut self, id: MessageId) -> bool {
        if self.ids.contains(&id) {
            return true;
        }
        if self.ids.len() >= ACK_QUEUE {
            return false;
        }
        self.ids.push_back(id);
        true
    }

    /// Takes up to `max` (at most 8) ids for a packet to the peer with session id `remote`.
    pub fn take(&mut self, max: usize, remote: SessionId) -> AckList {
        let count = max.min(crate::proto::wire::MAX_ACKS).min(self.ids.len());
        let mut ids = [0; crate::proto::wire::MAX_ACKS];
        for (slot, id) in ids.iter_mut().zip(self.ids.drain(..count)) {
            *slot = id;
        }
        if self.ids.is_empty() {
            self.ids = VecDeque::new();
        }
        AckList::new(ids.get(..count).unwrap_or_default(), remote)
    }

    /// How many ids wait.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Appends the state.
    pub fn export(&self, out: &mut Vec<u8>) {
        #[expect(clippy::cast_possible_truncation, reason = "at most ACK_QUEUE ids")]
        put_u8(out, self.ids.len() as u8);
        for id in &self.ids {
            put_u32(out, *id);
        }
    }

    /// Reads what [`Self::export`] wrote.
    ///
    /// # Errors
    /// [`Truncated`] if the input is damaged.
    pub fn import(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let mut queue = Self::new();
        for _ in 0..reader.u8()? {
            if !queue.note(reader.u32()?) {
                return Err(Truncated);
            }
        }
        Ok(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> SessionId {
        SessionId::new([1; 8]).unwrap()
    }

    #[test]
    fn each_id_is_acknowledged_once_oldest_first_and_at_most_four_at_a_time() {
        let mut queue = AckQueue::new();
        for id in [0, 1, 2, 2, 1, 3, 4] {
            assert!(queue.note(id));
        }
        let first = queue.take(4, remote());
        assert_eq!(first.ids(), [0, 1, 2, 3]);
        assert_eq!(first.remote(), Some(remote()));
        assert_eq!(queue.take(4, remote()).ids(), [4]);
        assert_eq!(queue.take(4, remote()), AckList::none());
        assert!(queue.note(1), "a repeated message is acknowledged again");
        assert_eq!(queue.take(99, remote()).ids(), [1]);
    }

    #[test]
    fn a_flood_of_ids_is_refused_at_the_bound() {
        let mut queue = AckQueue::new();
        let noted = (0..1_000_000).filter(|id| queue.note(*id)).count();
        assert_eq!((noted, queue.len()), (ACK_QUEUE, ACK_QUEUE));
        assert!(queue.note(3), "one that waits already is fine");
    }

    #[test]
    fn an_export_reads_back_and_damage_is_refused() {
        let mut queue = AckQueue::new();
        assert!(queue.note(7) && queue.note(8));
        let mut bytes = Vec::new();
        queue.export(&mut bytes);
        let mut back = AckQueue::import(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(back.take(8, remote()).ids(), [7, 8]);
        assert!(AckQueue::import(&mut Reader::new(&bytes[..8])).is_err());
        let mut flood = vec![17];
        flood.extend((0..17_u32).flat_map(u32::to_be_bytes));
        assert!(AckQueue::import(&mut Reader::new(&flood)).is_err());
    }
}
