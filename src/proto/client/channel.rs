//! The client's own reliability layer for one key. TCP keeps the order, so the server's messages
//! must come in order, each once; anything else is a violation.

use std::collections::VecDeque;

use crate::proto::wire::{MessageId, Opcode};

/// Acknowledgements in a packet that carries a message.
const ACKS_WITH_MESSAGE: usize = 4;
/// How many sent acknowledgements are remembered for repetition.
const REMEMBERED: usize = 8;
/// Messages that the server may have unacknowledged.
const SERVER_WINDOW: usize = 4;

/// A packet to send: a message with acknowledgements, or acknowledgements alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) opcode: Opcode,
    pub(super) id: Option<MessageId>,
    pub(super) payload: Vec<u8>,
    pub(super) acks: Vec<MessageId>,
}

/// Control messages of one key in both directions.
#[derive(Debug, Default)]
pub(super) struct Channel {
    next_out: MessageId,
    queue: VecDeque<(Opcode, Vec<u8>)>,
    unacked: Vec<MessageId>,
    next_in: MessageId,
    due: Vec<MessageId>,
    sent_acks: VecDeque<MessageId>,
}

impl Channel {
    pub(super) fn push(&mut self, opcode: Opcode, payload: Vec<u8>) {
        self.queue.push_back((opcode, payload));
    }

    /// Takes in the server's acknowledgements; a sentence for each that must not be.
    pub(super) fn handle_acks(&mut self, ids: &[MessageId]) -> Vec<String> {
        let mut violations = Vec::new();
        if ids.len() > ACKS_WITH_MESSAGE {
            violations.push(format!("{} acknowledgements in one packet", ids.len()));
        }
        for id in ids {
            match self.unacked.iter().position(|sent| sent == id) {
                Some(index) => {
                    self.unacked.remove(index);
                }
                None if *id < self.next_out => {
                    violations.push(format!("message {id} was acknowledged twice"));
                }
                None => violations.push(format!("message {id} was acknowledged and never sent")),
            }
        }
        violations
    }

    /// Takes in a message id; an error if it is not the next.
    pub(super) fn receive(&mut self, id: MessageId) -> Result<Option<String>, String> {
        if id != self.next_in {
            return Err(format!("message {id} came where {} was due", self.next_in));
        }
        self.next_in = self.next_in.wrapping_add(1);
        self.due.push(id);
        let over = self.due.len() > SERVER_WINDOW;
        Ok(over.then(|| format!("{} messages are unacknowledged at once", self.due.len())))
    }

    /// The next packet, if there is something to say.
    pub(super) fn next_packet(
        &mut self,
        window: usize,
        max_acks: usize,
        repeat: bool,
    ) -> Option<Packet> {
        let oldest = self.unacked.first().copied().unwrap_or(self.next_out);
        let open = (self.next_out.wrapping_sub(oldest) as usize) < window;
        if open && let Some((opcode, payload)) = self.queue.pop_front() {
            let id = self.next_out;
            self.next_out = id.wrapping_add(1);
            self.unacked.push(id);
            let acks = self.take_acks(ACKS_WITH_MESSAGE, repeat);
            return Some(Packet { opcode, id: Some(id), payload, acks });
        }
        if self.due.is_empty() {
            return None;
        }
        let acks = self.take_acks(max_acks, repeat);
        Some(Packet { opcode: Opcode::AckV1, id: None, payload: Vec::new(), acks })
    }

    /// Due acknowledgements, then, with `repeat`, earlier ones, newest first.
    fn take_acks(&mut self, max: usize, repeat: bool) -> Vec<MessageId> {
        let count = self.due.len().min(max);
        let mut acks: Vec<MessageId> = self.due.drain(..count).collect();
        if repeat {
            for id in &acks {
                self.sent_acks.push_front(*id);
            }
            self.sent_acks.truncate(REMEMBERED);
            acks = self.sent_acks.iter().copied().take(max).collect();
        }
        acks
    }

    pub(super) fn all_acked(&self) -> bool {
        self.queue.is_empty() && self.unacked.is_empty()
    }

    /// True once the reset, message 0, was sent and acknowledged.
    pub(super) fn reset_acked(&self) -> bool {
        self.next_out > 0 && !self.unacked.contains(&0)
    }

    /// True once the peer's reset, message 0, has come.
    pub(super) fn peer_reset_seen(&self) -> bool {
        self.next_in > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(channel: &mut Channel, repeat: bool) -> Option<(Option<u32>, Vec<u32>)> {
        channel.next_packet(4, 8, repeat).map(|packet| (packet.id, packet.acks))
    }

    #[test]
    fn keeps_to_its_window_and_piggybacks() {
        let mut channel = Channel::default();
        for _ in 0..5 {
            channel.push(Opcode::ControlV1, vec![]);
        }
        assert_eq!(channel.receive(0), Ok(None));
        assert_eq!(packet(&mut channel, false), Some((Some(0), vec![0])));
        for id in 1..4 {
            assert_eq!(packet(&mut channel, false), Some((Some(id), vec![])));
        }
        assert_eq!(packet(&mut channel, false), None);
        assert_eq!(channel.handle_acks(&[0, 1]), Vec::<String>::new());
        assert!(channel.reset_acked());
        assert_eq!(packet(&mut channel, false), Some((Some(4), vec![])));
        assert_eq!(channel.handle_acks(&[2, 3, 4]).len(), 0);
        assert!(channel.all_acked());
    }

    #[test]
    fn repeats_what_it_acknowledged_if_it_is_that_kind() {
        let mut channel = Channel::default();
        for id in 0..3 {
            assert_eq!(channel.receive(id), Ok(None));
        }
        assert_eq!(packet(&mut channel, true), Some((None, vec![2, 1, 0])));
        assert_eq!(channel.receive(3), Ok(None));
        channel.push(Opcode::ControlV1, vec![]);
        assert_eq!(packet(&mut channel, true), Some((Some(0), vec![3, 2, 1, 0])));
        assert_eq!(packet(&mut channel, true), None, "nothing new, nothing repeated");
    }

    #[test]
    fn names_what_a_server_must_not_do() {
        let mut channel = Channel::default();
        channel.push(Opcode::ControlV1, vec![]);
        assert!(packet(&mut channel, false).is_some());
        assert_eq!(channel.handle_acks(&[1]), ["message 1 was acknowledged and never sent"]);
        assert_eq!(channel.handle_acks(&[0]).len(), 0);
        assert_eq!(channel.handle_acks(&[0]), ["message 0 was acknowledged twice"]);
        assert_eq!(channel.handle_acks(&[9; 5]).len(), 6);
        assert!(channel.receive(1).is_err(), "a gap");
        for id in 0..4 {
            assert_eq!(channel.receive(id), Ok(None));
        }
        assert!(channel.receive(3).is_err(), "a repetition");
        assert!(matches!(channel.receive(4), Ok(Some(_))), "the fifth unacknowledged");
    }
}
