//! The two byte queues under a TLS engine, with a guard that counts records.
//!
//! The library reads one record header, then that record's body, and never ahead. So the guard
//! sees every record before the library does, and knows whether the handshake was over at that
//! moment. It bounds what a peer can make us do with renegotiation, key updates, empty records
//! and alerts (threats T16), and what a handshake may cost at all (T20).

use std::io::{self, Read, Write};

/// Budgets of one engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of ciphertext accepted before the handshake is complete.
    pub(crate) handshake_bytes: usize,
    /// Records accepted before the handshake is complete.
    pub(crate) handshake_records: u32,
    /// Bytes of ciphertext accepted after it. An engine lives only until the push reply is
    /// acknowledged, so a well-behaved peer needs a few KiB.
    pub(crate) established_bytes: usize,
    /// Records accepted after it.
    pub(crate) established_records: u32,
}

impl Limits {
    /// A chain of four certificates with 4096-bit keys is about 8 KiB; the rest is room.
    pub(crate) const DEFAULT: Self = Self {
        handshake_bytes: 64 * 1024,
        handshake_records: 256,
        established_bytes: 256 * 1024,
        established_records: 512,
    };
}

use Violation as V;

/// A rule of ours that the peer broke. Everything else is the library's judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    NotTls,
    RecordTooLong,
    HandshakeBytes,
    HandshakeRecords,
    EstablishedBytes,
    EstablishedRecords,
    Renegotiation,
}

impl Violation {
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::NotTls => "what the peer sent is not TLS",
            Self::RecordTooLong => "the peer sent a TLS record longer than allowed",
            Self::HandshakeBytes => "the peer sent too many bytes in the TLS handshake",
            Self::HandshakeRecords => "the peer sent too many records in the TLS handshake",
            Self::EstablishedBytes => "the peer sent too many bytes after the TLS handshake",
            Self::EstablishedRecords => "the peer sent too many records after the TLS handshake",
            Self::Renegotiation => "the peer asked for TLS renegotiation, which is off",
        }
    }
}

/// The stream that the library reads from and writes to.
pub(crate) struct Wire {
    incoming: Vec<u8>,
    taken: usize,
    outgoing: Vec<u8>,
    header: [u8; HEADER_LEN],
    header_len: usize,
    body_left: usize,
    bytes: usize,
    records: u32,
    established: bool,
    limits: Limits,
    violation: Option<Violation>,
}

impl Wire {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            incoming: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            header: [0; HEADER_LEN],
            header_len: 0,
            body_left: 0,
            bytes: 0,
            records: 0,
            established: false,
            limits,
            violation: None,
        }
    }

    /// Queues bytes from the peer.
    pub(crate) fn feed(&mut self, bytes: Vec<u8>) {
        if self.taken >= self.incoming.len() {
            self.incoming = bytes;
            self.taken = 0;
        } else {
            self.incoming.extend_from_slice(&bytes);
        }
    }

    /// Takes what is to be sent to the peer.
    pub(crate) fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// From here on the budgets of an established connection hold.
    pub(crate) fn set_established(&mut self) {
        self.established = true;
        self.bytes = 0;
        self.records = 0;
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// Accounts for bytes that are about to be handed to the library; says how many of them may
    /// be, so that no more than one record border is crossed at a time.
    fn admit(&mut self, available: &[u8]) -> Result<usize, Violation> {
        let admitted = if self.body_left > 0 {
            let part = self.body_left.min(available.len());
            self.body_left -= part;
            part
        } else {
            let part = (HEADER_LEN - self.header_len).min(available.len());
            for (slot, byte) in self.header.iter_mut().skip(self.header_len).zip(available) {
                *slot = *byte;
            }
            self.header_len += part;
            if self.header_len == HEADER_LEN {
                self.header_len = 0;
                self.admit_record()?;
            }
            part
        };
        self.bytes += admitted;
        let (limit, violation) = if self.established {
            (self.limits.established_bytes, V::EstablishedBytes)
        } else {
            (self.limits.handshake_bytes, V::HandshakeBytes)
        };
        if self.bytes > limit { Err(violation) } else { Ok(admitted) }
    }

    fn admit_record(&mut self) -> Result<(), Violation> {
        let [kind, major, _minor, length @ ..] = self.header;
        if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) || major != MAJOR_VERSION {
            return Err(V::NotTls);
        }
        let length = usize::from(u16::from_be_bytes(length));
        if length > MAX_RECORD {
            return Err(V::RecordTooLong);
        }
        // TLS 1.3 hides its handshake messages in application data records; there the library
        // refuses what does not belong.
        if self.established && kind == HANDSHAKE {
            return Err(V::Renegotiation);
        }
        self.records += 1;
        let (limit, violation) = if self.established {
            (self.limits.established_records, V::EstablishedRecords)
        } else {
            (self.limits.handshake_records, V::HandshakeRecords)
        };
        if self.records > limit {
            return Err(violation);
        }
        self.body_left = length;
        Ok(())
    }
}

impl Read for Wire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let incoming = std::mem::take(&mut self.incoming);
        let result = match incoming.get(self.taken..) {
            None | Some([]) => Err(io::ErrorKind::WouldBlock.into()),
            Some(rest) => {
                let offered = rest.get(..out.len()).unwrap_or(rest);
                self.admit(offered)
                    .inspect(|count| {
                        for (slot, byte) in out.iter_mut().zip(offered.iter().take(*count)) {
                            *slot = *byte;
                        }
                    })
                    .map_err(|violation| {
                        self.violation = Some(violation);
                        io::Error::other(violation.sentence())
                    })
            }
        };
        if let Ok(count) = result {
            self.taken += count;
        }
        if self.taken < incoming.len() && self.violation.is_none() {
            self.incoming = incoming;
        } else {
            self.taken = 0;
        }
        result
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Type, version (2), length (2). Source: RFC 8446 5.1.
const HEADER_LEN: usize = 5;
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const MAJOR_VERSION: u8 = 3;
/// 2^14 bytes of plaintext and the most expansion that any version allows. Source: RFC 5246 6.2.3.
const MAX_RECORD: usize = (1 << 14) + 2048;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        handshake_bytes: 64,
        handshake_records: 3,
        established_bytes: 40,
        established_records: 2,
    };

    fn read_all(wire: &mut Wire) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut all = Vec::new();
        let mut buffer = [0; 7];
        loop {
            match wire.read(&mut buffer) {
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) => return (all, Some(error.kind())),
            }
        }
    }

    fn record(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![kind, 3, 3, 0, length];
        bytes.resize(bytes.len() + usize::from(length), 0xaa);
        bytes
    }

    #[test]
    fn hands_out_what_was_fed_in_any_chunking() {
        let mut stream = record(22, 9);
        stream.extend(record(20, 1));
        for chunk in 1..=stream.len() {
            let mut wire = Wire::new(SMALL);
            let mut all = Vec::new();
            for part in stream.chunks(chunk) {
                wire.feed(part.to_vec());
                let (bytes, end) = read_all(&mut wire);
                assert_eq!(end, Some(io::ErrorKind::WouldBlock));
                all.extend(bytes);
            }
            assert_eq!(all, stream, "chunks of {chunk}");
            assert_eq!(wire.violation(), None);
        }
    }

    #[test]
    fn stops_at_each_budget() {
        for (established, records, expected) in [
            (false, vec![record(22, 1); 4], V::HandshakeRecords),
            (false, vec![record(22, 60)], V::HandshakeBytes),
            (true, vec![record(23, 0); 3], V::EstablishedRecords),
            (true, vec![record(23, 36)], V::EstablishedBytes),
            (true, vec![record(22, 1)], V::Renegotiation),
            (false, vec![b"GET / HTTP/1.1".to_vec()], V::NotTls),
            (false, vec![vec![22, 3, 1, 0xff, 0xff]], V::RecordTooLong),
        ] {
            let mut wire = Wire::new(SMALL);
            if established {
                wire.set_established();
            }
            wire.feed(records.concat());
            let (_, end) = read_all(&mut wire);
            assert_eq!(end, Some(io::ErrorKind::Other), "{expected:?}");
            assert_eq!(wire.violation(), Some(expected));
        }
    }

    #[test]
    fn budgets_start_again_when_the_handshake_is_over() {
        let mut wire = Wire::new(SMALL);
        wire.feed(record(22, 1).repeat(3));
        assert_eq!(read_all(&mut wire).1, Some(io::ErrorKind::WouldBlock));
        wire.set_established();
        wire.feed(record(23, 1).repeat(2));
        assert_eq!(read_all(&mut wire).1, Some(io::ErrorKind::WouldBlock));
        assert_eq!(wire.violation(), None);
    }
}
