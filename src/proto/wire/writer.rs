//! Big-endian fields appended to a byte vector, and the length-prefixed block used by exports.

use super::reader::{Reader, Truncated};

/// Appends one byte.
pub fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

/// Appends two bytes.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends the low three bytes of `value`; the top byte is not sent.
pub fn put_u24(out: &mut Vec<u8>, value: u32) {
    let [_, a, b, c] = value.to_be_bytes();
    out.extend_from_slice(&[a, b, c]);
}

/// Appends four bytes.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends eight bytes.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a u32 length and the bytes. For our own exports, never for the wire.
pub fn put_block(out: &mut Vec<u8>, bytes: &[u8]) {
    // Our queues are bounded far below this; a longer block would be cut, not misread.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    put_u32(out, len);
    out.extend(bytes.iter().take(len as usize));
}

/// Reads what [`put_block`] wrote, refusing anything longer than `max` bytes.
///
/// # Errors
/// [`Truncated`] if the block is longer than `max` or than the input.
pub fn read_block<'a>(reader: &mut Reader<'a>, max: usize) -> Result<&'a [u8], Truncated> {
    let len = usize::try_from(reader.u32()?).map_err(|_| Truncated)?;
    if len > max {
        return Err(Truncated);
    }
    reader.bytes(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_width_is_big_endian() {
        let mut out = Vec::new();
        put_u8(&mut out, 1);
        put_u16(&mut out, 0x0203);
        put_u24(&mut out, 0xff04_0506);
        put_u32(&mut out, 0x0708_090a);
        put_u64(&mut out, 0x0b0c_0d0e_0f10_1112);
        assert_eq!(out, (1..=18).collect::<Vec<u8>>());
    }

    #[test]
    fn a_block_reads_back_and_an_oversized_one_is_refused() {
        let mut out = Vec::new();
        put_block(&mut out, b"abc");
        assert_eq!(read_block(&mut Reader::new(&out), 3), Ok(&b"abc"[..]));
        assert_eq!(read_block(&mut Reader::new(&out), 2), Err(Truncated));
        out.pop();
        assert_eq!(read_block(&mut Reader::new(&out), 3), Err(Truncated));
    }
}
