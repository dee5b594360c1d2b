//! TCP framing: `u16 length || packet`, back to back, the length counts only the packet.

use std::ops::ControlFlow;

use thiserror::Error;

use super::reader::{Reader, Truncated};
use super::writer::{put_block, read_block};

/// Shortest frame that is accepted, bytes after the length.
pub const MIN_FRAME: usize = 1;
/// Longest frame that is accepted or sent, bytes after the length. Stock clients send at most about
/// 1,770; a frame beyond this is a stranger or a broken stream, and a stream can't be resynchronised.
pub const MAX_FRAME: usize = 2048;
/// Bytes of the length field.
const PREFIX: usize = 2;
/// Most bytes that an imported decoder may hold: one partial frame, or one read that a stop left.
const MAX_IMPORT: usize = 1 << 20;

/// The stream is no OpenVPN stream; close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame of length 0.
    #[error("a frame of length 0")]
    Zero,
    /// A frame beyond [`MAX_FRAME`] or a lower limit.
    #[error("a frame of {len} bytes{}", looks_like.map(|what| format!(", which looks like {what}")).unwrap_or_default())]
    TooLong {
        /// The length as announced.
        len: usize,
        /// What the first bytes look like, if they are those of a known protocol.
        looks_like: Option<&'static str>,
    },
}

/// Cuts a byte stream into frames. Owns nothing but a partial frame, and no memory without one.
#[derive(Debug)]
pub struct FrameDecoder {
    /// The length field and the bytes of an unfinished frame; after a stop also what followed it.
    held: Vec<u8>,
    /// Longest accepted frame, at most [`MAX_FRAME`].
    longest: usize,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self { held: Vec::new(), longest: MAX_FRAME }
    }
}

impl FrameDecoder {
    /// An empty decoder; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same decoder with a lower limit than [`MAX_FRAME`].
    #[must_use]
    pub fn limited(self, longest: usize) -> Self {
        Self { longest: longest.min(MAX_FRAME), ..self }
    }

    /// Gives each finished frame, without its length, to `each`: in place where a frame lies whole
    /// in `input`. `Break` stops after that frame; the rest of `input` is kept, and a later call
    /// (with empty input if need be) goes on. So at most one `input` beyond a partial frame is held.
    ///
    /// # Errors
    /// [`FrameError`]: frames before the bad one were given; the decoder is of no further use.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        each: &mut dyn FnMut(&mut [u8]) -> ControlFlow<()>,
    ) -> Result<(), FrameError> {
        let mut rest = input;
        if !self.held.is_empty() && self.feed_held(&mut rest, each)?.is_break() {
            self.held.extend_from_slice(rest);
            return Ok(());
        }
        while let Some(len) = frame_len(rest, self.longest)?
            && rest.len() >= PREFIX + len
        {
            let (frame, after) = std::mem::take(&mut rest).split_at_mut(PREFIX + len);
            let stop = frame.get_mut(PREFIX..).is_some_and(|packet| each(packet).is_break());
            rest = after;
            if stop {
                break;
            }
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }

    /// Finishes frames that began in earlier input. `Break`: stopped by `each`; `Continue` with
    /// something held means that `rest` is used up.
    fn feed_held(
        &mut self,
        rest: &mut &mut [u8],
        each: &mut dyn FnMut(&mut [u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, FrameError> {
        let mut at = 0;
        let mut flow = ControlFlow::Continue(());
        while at < self.held.len() {
            if !self.fill(at, PREFIX, rest) {
                break;
            }
            let Some(len) = frame_len(self.held.get(at..).unwrap_or_default(), self.longest)?
            else {
                break;
            };
            if !self.fill(at, PREFIX + len, rest) {
                break;
            }
            let packet = at + PREFIX..at + PREFIX + len;
            at = packet.end;
            flow = self.held.get_mut(packet).map_or(flow, &mut *each);
            if flow.is_break() {
                break;
            }
        }
        self.held.drain(..at);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Ok(flow)
    }

    /// Moves bytes from `rest` until `want` bytes are held from `at` on; false if there are too few.
    fn fill(&mut self, at: usize, want: usize, rest: &mut &mut [u8]) -> bool {
        let missing = (at + want).saturating_sub(self.held.len());
        let available = missing.min(rest.len());
        let (taken, after) = std::mem::take(rest).split_at_mut(available);
        self.held.extend_from_slice(taken);
        let enough = taken.len() == missing;
        *rest = after;
        enough
    }

    /// Bytes held between calls.
    pub fn buffered(&self) -> usize {
        self.held.len()
    }

    /// Appends what is held.
    pub fn export(&self, out: &mut Vec<u8>) {
        put_block(out, &self.held);
    }

    /// Reads what [`Self::export`] wrote.
    ///
    /// # Errors
    /// [`Truncated`] if the input is damaged.
    pub fn import(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        Ok(Self { held: read_block(reader, MAX_IMPORT)?.to_vec(), ..Self::default() })
    }
}

/// The length of the frame at the front of `bytes`; `None` if even the length is unfinished.
fn frame_len(bytes: &[u8], longest: usize) -> Result<Option<usize>, FrameError> {
    let Ok(len) = Reader::new(bytes).u16() else { return Ok(None) };
    match usize::from(len) {
        0 => Err(FrameError::Zero),
        len if len > longest => Err(FrameError::TooLong { len, looks_like: looks_like(bytes) }),
        len => Ok(Some(len)),
    }
}

/// Names the protocol whose greeting starts with these bytes, for the operator's log.
fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    const GREETINGS: [(&[u8], &str); 17] = [
        (b"\x16\x03", "a TLS client"),
        (b"GET", "an HTTP request"),
        (b"POST", "an HTTP request"),
        (b"HEAD", "an HTTP request"),
        (b"PUT", "an HTTP request"),
        (b"DELETE", "an HTTP request"),
        (b"OPTIONS", "an HTTP request"),
        (b"PATCH", "an HTTP request"),
        (b"CONNECT", "an HTTP request"),
        (b"TRACE", "an HTTP request"),
        (b"PRI *", "an HTTP/2 client"),
        (b"SSH-", "an SSH client"),
        (b"PROXY ", "a PROXY protocol header"),
        (b"\r\n\r\n\0\r\nQUIT\n", "a PROXY protocol header"),
        (b"EHLO", "a mail client"),
        (b"HELO", "a mail client"),
        (b"RFB ", "a VNC client"),
    ];
    // A greeting may have been cut by the stream; two bytes are enough to name most.
    GREETINGS.iter().find_map(|(greeting, name)| {
        let seen = bytes.len().min(greeting.len());
        (seen >= PREFIX && bytes.get(..seen) == greeting.get(..seen)).then_some(*name)
    })
}

/// A frame that was not written; the output is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushFrameError<E> {
    /// The body could not be made.
    #[error(transparent)]
    Body(E),
    /// The body is empty or longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes can't be sent")]
    Size(usize),
}

/// Appends one frame: the length field, then whatever `body` appends.
///
/// # Errors
/// [`PushFrameError`]; `out` is truncated to where it was.
pub fn push_frame<E>(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), PushFrameError<E>> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let result = body(out).map_err(PushFrameError::Body).and_then(|()| {
        let len = out.len().saturating_sub(start + PREFIX);
        let wire_len = u16::try_from(len).ok().filter(|_| (MIN_FRAME..=MAX_FRAME).contains(&len));
        let field = out.get_mut(start..start + PREFIX);
        match (wire_len, field) {
            (Some(wire_len), Some(field)) => {
                field.copy_from_slice(&wire_len.to_be_bytes());
                Ok(())
            }
            _ => Err(PushFrameError::Size(len)),
        }
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `stream` in chunks that end at `cuts` and collects the frames.
    fn collect(stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Result<(), FrameError>, usize) {
        let mut decoder = FrameDecoder::new();
        let mut frames = Vec::new();
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        bounds.push(stream.len());
        bounds.sort_unstable();
        let mut start = 0;
        for end in bounds {
            let mut chunk = stream[start..end].to_vec();
            start = end;
            let result = decoder.feed(&mut chunk, &mut |frame| {
                frames.push(frame.to_vec());
                ControlFlow::Continue(())
            });
            if result.is_err() {
                return (frames, result, 0);
            }
        }
        (frames, Ok(()), decoder.buffered())
    }

    fn stream_of(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            push_frame(&mut out, |out| {
                out.extend_from_slice(frame);
                Ok::<(), Truncated>(())
            })
            .unwrap();
        }
        out
    }

    #[test]
    fn every_length_is_accepted_or_refused_by_the_table() {
        for len in 0..=u16::MAX {
            for following in [0, 1, usize::from(len).min(MAX_FRAME + 1)] {
                let mut stream = len.to_be_bytes().to_vec();
                stream.resize(PREFIX + following, 0x38);
                let (frames, result, held) = collect(&stream, &[]);
                match usize::from(len) {
                    0 => assert_eq!(result, Err(FrameError::Zero)),
                    len if len > MAX_FRAME => {
                        assert!(
                            matches!(result, Err(FrameError::TooLong { len: l, .. }) if l == len)
                        );
                    }
                    len if following >= len => {
                        // With one byte following, length 1 is whole.
                        assert_eq!(frames.len(), 1, "length {len}");
                        assert_eq!(held, 0);
                    }
                    _ => {
                        assert!(frames.is_empty());
                        assert_eq!(held, PREFIX + following);
                    }
                }
            }
        }
    }

    #[test]
    fn one_byte_at_a_time_and_nothing_stays_allocated() {
        let stream = stream_of(&[vec![1], vec![2; 300], vec![3; MAX_FRAME]]);
        let cuts: Vec<usize> = (0..stream.len()).collect();
        let (frames, result, held) = collect(&stream, &cuts);
        assert!(frames == [vec![1], vec![2; 300], vec![3; MAX_FRAME]]);
        assert_eq!((result, held), (Ok(()), 0));
        let mut decoder = FrameDecoder::new();
        for byte in stream {
            decoder.feed(&mut [byte], &mut |_| ControlFlow::Continue(())).unwrap();
        }
        assert_eq!(decoder.held.capacity(), 0);
    }

    #[test]
    fn a_stop_keeps_the_rest_and_goes_on_later() {
        let mut stream = stream_of(&[vec![1], vec![2, 2], vec![3], vec![4]]);
        stream.extend_from_slice(&[0, 9, 5]);
        let mut decoder = FrameDecoder::new();
        let mut seen = Vec::new();
        let mut stop_at_each = |frame: &mut [u8]| {
            seen.push(frame.to_vec());
            ControlFlow::Break(())
        };
        decoder.feed(&mut stream, &mut stop_at_each).unwrap();
        decoder.feed(&mut [], &mut stop_at_each).unwrap();
        decoder.feed(&mut [], &mut stop_at_each).unwrap();
        decoder.feed(&mut [6], &mut stop_at_each).unwrap();
        decoder.feed(&mut [], &mut stop_at_each).unwrap();
        assert_eq!(seen, [vec![1], vec![2, 2], vec![3], vec![4]]);
        assert_eq!(decoder.held, [0, 9, 5, 6]);
    }

    #[test]
    fn an_error_in_the_middle_leaves_the_frames_before_it() {
        let mut stream = stream_of(&[vec![1]]);
        stream.extend_from_slice(&[0, 0, 7]);
        let (frames, result, _) = collect(&stream, &[]);
        assert_eq!((frames.len(), result), (1, Err(FrameError::Zero)));
    }

    #[test]
    fn strangers_are_named() {
        for (greeting, name) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], Some("a TLS client")),
            (b"GET / HTTP/1.1\r\n", Some("an HTTP request")),
            (b"GE", Some("an HTTP request")),
            (b"PRI * HTTP/2.0", Some("an HTTP/2 client")),
            (b"SSH-2.0-x", Some("an SSH client")),
            (b"PROXY TCP4 ", Some("a PROXY protocol header")),
            (b"\r\n\r\n\0\r\nQUIT\n", Some("a PROXY protocol header")),
            (b"\xff\xff\xff", None),
            (b"GO", None),
        ] {
            let (_, result, _) = collect(greeting, &[]);
            let Err(FrameError::TooLong { looks_like, .. }) = result else {
                panic!("{greeting:?} was accepted")
            };
            assert_eq!(looks_like, name, "{greeting:?}");
        }
        let error = FrameError::TooLong { len: 5635, looks_like: Some("a TLS client") };
        assert_eq!(error.to_string(), "a frame of 5635 bytes, which looks like a TLS client");
    }

    #[test]
    fn a_frame_that_fails_leaves_the_output_alone() {
        let mut out = vec![9];
        let failed = push_frame(&mut out, |out| {
            out.push(1);
            Err(Truncated)
        });
        assert_eq!(failed, Err(PushFrameError::Body(Truncated)));
        for len in [0, MAX_FRAME + 1, 70_000] {
            let result = push_frame(&mut out, |out| {
                out.resize(out.len() + len, 0);
                Ok::<(), Truncated>(())
            });
            assert_eq!(result, Err(PushFrameError::Size(len)));
        }
        assert_eq!(out, [9]);
    }

    #[test]
    fn an_export_continues_where_it_stopped() {
        let mut decoder = FrameDecoder::new();
        decoder.feed(&mut [0, 3, 1], &mut |_| ControlFlow::Continue(())).unwrap();
        let mut bytes = Vec::new();
        decoder.export(&mut bytes);
        let mut imported = FrameDecoder::import(&mut Reader::new(&bytes)).unwrap();
        let mut seen = Vec::new();
        imported
            .feed(&mut [2, 3], &mut |frame| {
                seen.extend_from_slice(frame);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, [1, 2, 3]);
        bytes.pop();
        assert!(FrameDecoder::import(&mut Reader::new(&bytes)).is_err());
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 0..8),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
            tail in prop::sample::select(vec![vec![], vec![0], vec![0, 5], vec![7, 255, 1, 2]]),
        ) {
            let mut stream = stream_of(&frames);
            stream.extend_from_slice(&tail);
            let (seen, result, held) = collect(&stream, &cuts);
            prop_assert_eq!(seen, frames);
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(held, tail.len());
        }

        #[test]
        fn any_chunking_of_any_bytes_gives_the_same_result(
            stream in prop::collection::vec(prop_oneof![Just(0_u8), 0..8_u8, any::<u8>()], 0..600),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            prop_assume!(!stream.is_empty());
            let whole = collect(&stream, &[]);
            let cut = collect(&stream, &cuts);
            prop_assert_eq!(&whole.0, &cut.0);
            prop_assert_eq!(whole.1.is_err(), cut.1.is_err());
            prop_assert_eq!(whole.2, cut.2);
        }
    }
}
