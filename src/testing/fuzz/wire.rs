//! Framing and control packets.

use std::ops::ControlFlow;

use super::Input;
use crate::proto::wire::{
    ControlPacket, FrameDecoder, FrameError, MAX_ACKS, MAX_FRAME, MIN_FRAME, Reader,
};

/// A stream of frames gives the same frames and the same end in any chunking, also when the
/// decoder is written out and read back between two chunks.
pub fn frames(data: &[u8]) {
    let mut input = Input(data);
    let chunk = usize::from(input.u8()).max(1);
    let stream = input.rest();
    let whole = decode(stream, stream.len().max(1), false);
    let pieces = decode(stream, chunk, false);
    let moved = decode(stream, chunk, true);
    assert_eq!(whole, pieces, "chunks of {chunk}");
    assert_eq!(whole, moved, "chunks of {chunk}, moved between processes");
    for frame in &whole.0 {
        assert!((MIN_FRAME..=MAX_FRAME).contains(&frame.len()));
    }
}

fn decode(stream: &[u8], chunk: usize, export: bool) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut found = Vec::new();
    for piece in stream.chunks(chunk) {
        let mut piece = piece.to_vec();
        let result = decoder.feed(&mut piece, &mut |frame| {
            found.push(frame.to_vec());
            ControlFlow::Continue(())
        });
        if let Err(error) = result {
            return (found, Some(error));
        }
        assert!(decoder.buffered() < 2 + MAX_FRAME, "more than one partial frame is kept");
        if export {
            let mut bytes = Vec::new();
            decoder.export(&mut bytes);
            let mut reader = Reader::new(&bytes);
            decoder = match FrameDecoder::import(&mut reader) {
                Ok(decoder) => decoder,
                Err(error) => panic!("an export cannot be read back: {error}"),
            };
            assert!(reader.is_empty());
        }
    }
    (found, None)
}

/// What decodes is encoded to bytes that decode to the same packet.
pub fn control_packet(data: &[u8]) {
    let Ok(packet) = ControlPacket::decode(data) else { return };
    assert!(packet.acks.ids().len() <= MAX_ACKS);
    assert!(packet.opcode.is_control() && !packet.opcode.is_data());
    let mut again = Vec::new();
    packet.encode(&mut again);
    assert_eq!(ControlPacket::decode(&again), Ok(packet));
    assert!(data.starts_with(&again), "only bytes after an acknowledgement are left out");
}
