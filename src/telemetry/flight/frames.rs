//! Reads along with a stream: sizes and heads of frames, and alerts between TLS records. Holds a
//! few bytes and no payload.

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The router.
    Client,
    /// We.
    Server,
}

/// What is kept of one frame: everything but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Milliseconds since accept.
    pub at_ms: u32,
    /// Who sent it.
    pub from: Direction,
    /// The packet's opcode, 0..=31.
    pub opcode: u8,
    /// Its key id, 0..=7.
    pub key_id: u8,
    /// Its length without the length field, bytes.
    pub size: u16,
    /// Its message id; `None` in acknowledgements and where the control channel is wrapped.
    pub message_id: Option<u32>,
    /// Message ids that it acknowledges.
    pub acks: u8,
    /// Bytes of the TLS stream in it, likewise.
    pub payload: u16,
}

/// The head of a frame that `Frames` has come across.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) size: u16,
    pub(super) bytes: &'a [u8],
}

impl Head<'_> {
    pub(super) fn opcode(&self) -> u8 {
        self.bytes.first().map_or(0, |byte| byte >> 3)
    }

    pub(super) fn key_id(&self) -> u8 {
        self.bytes.first().map_or(0, |byte| byte & 7)
    }

    /// The sender's session id; in the clear whatever the wrapping.
    pub(super) fn session_id(&self) -> Option<[u8; 8]> {
        self.bytes.get(1..9)?.try_into().ok()
    }

    /// Number of acknowledgements, message id and length of the payload of a packet in the clear.
    /// Source: `proto::wire::control_packet`.
    pub(super) fn control(&self) -> Option<(u8, Option<u32>, u16)> {
        let acks = *self.bytes.get(9)?;
        let mut at = 10 + usize::from(acks) * 4;
        if acks > 8 {
            return None;
        }
        if acks > 0 {
            at += 8;
        }
        if self.opcode() == ACK_V1 {
            return Some((acks, None, 0));
        }
        let id = u32::from_be_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?);
        let payload = usize::from(self.size).checked_sub(at + 4)?;
        Some((acks, Some(id), u16::try_from(payload).ok()?))
    }
}

/// Opcode of an acknowledgement.
pub(super) const ACK_V1: u8 = 5;
/// Opcodes of the client's hard resets.
pub(super) const CLIENT_RESETS: [u8; 3] = [1, 7, 10];
/// Opcode of ours.
pub(super) const SERVER_RESET: u8 = 8;

/// Walks over frames `u16 length || packet`.
#[derive(Debug, Default)]
pub(super) struct Frames {
    prefix: Vec<u8>,
    /// Of the frame under way: its length, the bytes still to come, its first bytes.
    size: u16,
    left: usize,
    head: Vec<u8>,
}

impl Frames {
    pub(super) fn feed(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Head<'_>)) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let wanted = 2 - self.prefix.len();
                let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
                self.prefix.extend_from_slice(taken);
                bytes = rest;
                let [high, low] = *self.prefix.as_slice() else { return };
                self.size = u16::from_be_bytes([high, low]);
                self.left = usize::from(self.size);
                self.prefix.clear();
                self.head.clear();
                if self.left == 0 {
                    continue;
                }
            }
            let (taken, rest) = bytes.split_at(self.left.min(bytes.len()));
            let room = HEAD.saturating_sub(self.head.len());
            self.head.extend_from_slice(taken.get(..room.min(taken.len())).unwrap_or_default());
            self.left -= taken.len();
            bytes = rest;
            if self.left == 0 {
                each(Head { size: self.size, bytes: &self.head });
            }
        }
    }
}

/// Finds the alerts between the records of a TLS stream that is not encrypted yet.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    header: Vec<u8>,
    left: usize,
    body: Vec<u8>,
}

impl Alerts {
    /// The last readable alert in these bytes: level and description.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Option<(u8, u8)> {
        let mut found = None;
        while !bytes.is_empty() {
            if self.left == 0 {
                let wanted = 5 - self.header.len();
                let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
                self.header.extend_from_slice(taken);
                bytes = rest;
                let [_, _, _, high, low] = *self.header.as_slice() else { return found };
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.body.clear();
                if self.left == 0 {
                    self.header.clear();
                }
                continue;
            }
            let (taken, rest) = bytes.split_at(self.left.min(bytes.len()));
            let alert = self.header.first() == Some(&ALERT);
            if alert && self.body.len() + taken.len() <= 2 {
                self.body.extend_from_slice(taken);
            }
            self.left -= taken.len();
            bytes = rest;
            if self.left == 0 {
                // An encrypted alert is longer.
                if let ([level @ 1..=2, description], true) = (self.body.as_slice(), alert) {
                    found = Some((*level, *description));
                }
                self.header.clear();
            }
        }
        found
    }
}

/// A control packet's head with eight acknowledgements.
const HEAD: usize = 54;
const ALERT: u8 = 21;

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(stream: &[u8], chunk: usize) -> Vec<(u16, Vec<u8>)> {
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        for part in stream.chunks(chunk) {
            frames.feed(part, &mut |head| seen.push((head.size, head.bytes.to_vec())));
        }
        seen
    }

    #[test]
    fn frames_are_seen_the_same_in_any_chunking() {
        let mut stream = vec![0, 14, 0x38];
        stream.extend([1; 13]);
        stream.extend([0, 100, 0x20]);
        stream.extend([2; 99]);
        stream.extend([0, 0, 0, 1, 0x28]);
        let whole = walk(&stream, stream.len());
        let sizes: Vec<u16> = whole.iter().map(|(size, _)| *size).collect();
        assert_eq!(sizes, [14, 100, 1]);
        assert_eq!(whole[1].1.len(), HEAD);
        for chunk in 1..stream.len() {
            assert_eq!(walk(&stream, chunk), whole, "{chunk}");
        }
    }

    #[test]
    fn the_head_of_a_control_packet_is_read() {
        let mut packet = vec![0x20];
        packet.extend([9; 8]);
        packet.extend([1, 0, 0, 0, 0]);
        packet.extend([8; 8]);
        packet.extend([0, 0, 0, 3]);
        let head = Head { size: 26 + 100, bytes: &packet };
        assert_eq!((head.opcode(), head.key_id(), head.session_id()), (4, 0, Some([9; 8])));
        assert_eq!(head.control(), Some((1, Some(3), 100)));
        for end in 0..packet.len() {
            assert_eq!(Head { size: 126, bytes: &packet[..end] }.control(), None);
        }
        let nine = [[0x20].as_slice(), &[9; 8], &[9]].concat();
        assert_eq!(Head { size: 90, bytes: &nine }.control(), None);
    }

    #[test]
    fn an_alert_is_found_in_any_chunking_and_encrypted_ones_are_not() {
        let mut stream = vec![22, 3, 1, 0, 3, 21, 21, 21];
        stream.extend([21, 3, 3, 0, 2, 2, 48]);
        for chunk in 1..=stream.len() {
            let mut alerts = Alerts::default();
            let found = stream.chunks(chunk).filter_map(|part| alerts.feed(part)).last();
            assert_eq!(found, Some((2, 48)), "{chunk}");
        }
        assert_eq!(Alerts::default().feed(&[21, 3, 3, 0, 4, 2, 48, 2, 48]), None);
        assert_eq!(Alerts::default().feed(&[21, 3, 3, 0, 2, 9, 48]), None);
    }
}
