//! The 8-byte replay id of wrapped control packets: `u32 counter | u32 time`, big-endian.
//!
//! `time` is the sender's unix time when its counter began, and the more significant part.

use crate::codec::Reader;
use crate::error::{ImportError, UnwrapError, WrapError};
use crate::packet_id::SendCounter;
use crate::replay::{Refused, ReplayWindow};

/// Counter and window of one session and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplayIds {
    send: SendCounter,
    /// Fixed by the first packet sent.
    send_time: u32,
    receive_time: u32,
    window: ReplayWindow,
}

impl ReplayIds {
    pub(super) const fn new() -> Self {
        Self {
            send: SendCounter::new(),
            send_time: 0,
            receive_time: 0,
            window: ReplayWindow::new(),
        }
    }

    /// The id for the next packet. The counter begins anew only when it is used up and the clock
    /// has advanced since it began.
    pub(super) fn next(&mut self, unix_time: u32) -> Result<[u8; 8], WrapError> {
        if self.send.last() == 0 {
            self.send_time = unix_time;
        } else if self.send.is_exhausted() && unix_time > self.send_time {
            self.send_time = unix_time;
            self.send = SendCounter::new();
        }
        let [a, b, c, d] = self.send.take().ok_or(WrapError::Exhausted)?.to_be_bytes();
        let [e, f, g, h] = self.send_time.to_be_bytes();
        Ok([a, b, c, d, e, f, g, h])
    }

    /// Records the id of an **authentic** packet.
    pub(super) fn accept(&mut self, id: [u8; 8]) -> Result<(), UnwrapError> {
        let [a, b, c, d, e, f, g, h] = id;
        let (counter, time) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        if time < self.receive_time {
            return Err(UnwrapError::Replay);
        }
        let mut window = if time > self.receive_time { ReplayWindow::new() } else { self.window };
        window.accept(counter).map_err(|refused| match refused {
            Refused::Zero => UnwrapError::ZeroId,
            Refused::Replay => UnwrapError::Replay,
        })?;
        self.window = window;
        self.receive_time = time;
        Ok(())
    }

    pub(super) fn export(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.send.last().to_be_bytes());
        out.extend_from_slice(&self.send_time.to_be_bytes());
        out.extend_from_slice(&self.receive_time.to_be_bytes());
        out.extend_from_slice(&self.window.highest().to_be_bytes());
        out.extend_from_slice(&self.window.seen().to_be_bytes());
    }

    pub(super) fn import(reader: &mut Reader<'_>) -> Result<Self, ImportError> {
        let send = SendCounter::after(reader.u32()?).ok_or(ImportError::Field("replay id"))?;
        let (send_time, receive_time) = (reader.u32()?, reader.u32()?);
        let window = ReplayWindow::restore(reader.u32()?, reader.u64()?)
            .ok_or(ImportError::Field("replay window"))?;
        Ok(Self { send, send_time, receive_time, window })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(counter: u32, time: u32) -> [u8; 8] {
        (u64::from(counter) << 32 | u64::from(time)).to_be_bytes()
    }

    #[test]
    fn counts_from_one_and_keeps_the_first_time() {
        let mut ids = ReplayIds::new();
        assert_eq!(ids.next(500), Ok(id(1, 500)));
        assert_eq!(ids.next(501), Ok(id(2, 500)));
        assert_eq!(ids.next(0), Ok(id(3, 500)));
    }

    #[test]
    fn begins_anew_only_with_a_later_time() {
        let mut ids = ReplayIds::new();
        ids.next(500).unwrap();
        ids.send = SendCounter::after(u32::MAX - 1).unwrap();
        assert_eq!(ids.next(500), Err(WrapError::Exhausted));
        assert_eq!(ids.next(499), Err(WrapError::Exhausted));
        assert_eq!(ids.next(501), Ok(id(1, 501)));
    }

    #[test]
    fn time_is_the_more_significant_part() {
        let mut ids = ReplayIds::new();
        assert_eq!(ids.accept(id(5, 100)), Ok(()));
        assert_eq!(ids.accept(id(5, 100)), Err(UnwrapError::Replay));
        assert_eq!(ids.accept(id(4, 100)), Ok(()));
        assert_eq!(ids.accept(id(9, 99)), Err(UnwrapError::Replay));
        assert_eq!(ids.accept(id(1, 101)), Ok(()));
        assert_eq!(ids.accept(id(6, 100)), Err(UnwrapError::Replay));
    }

    #[test]
    fn a_refused_id_changes_nothing() {
        let mut ids = ReplayIds::new();
        ids.accept(id(5, 100)).unwrap();
        let before = ids;
        assert_eq!(ids.accept(id(0, 200)), Err(UnwrapError::ZeroId));
        assert_eq!(ids.accept(id(0, 100)), Err(UnwrapError::ZeroId));
        assert_eq!(ids, before);
    }

    #[test]
    fn takes_counters_that_start_high() {
        // tls-crypt-v2 clients of 2.6+ start at 0x0f000001.
        let mut ids = ReplayIds::new();
        assert_eq!(ids.accept(id(0x0f00_0001, 7)), Ok(()));
        assert_eq!(ids.accept(id(0x0f00_0002, 7)), Ok(()));
    }
}
