//! A stream of bytes cut into lines, in bounded memory.

/// Cuts whatever pieces arrive into lines. Holds one unfinished line at most.
#[derive(Debug)]
pub(super) struct Lines {
    unfinished: Vec<u8>,
    /// The unfinished line is longer than allowed: its bytes are dropped up to its end.
    dropping: bool,
    number: u64,
    max_bytes: usize,
}

/// One line without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Its bytes.
    Text(&'a [u8]),
    /// It was longer than allowed.
    TooLong,
}

impl Lines {
    /// Nothing yet; a line has at most `max_bytes` without its newline.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { unfinished: Vec::new(), dropping: false, number: 0, max_bytes }
    }

    /// Takes the next piece and tells `each` every line that it ends, with its number from 1 on.
    pub(super) fn push(&mut self, mut piece: &[u8], mut each: impl FnMut(u64, Line<'_>)) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = piece.split_at(end);
            piece = rest.get(1..).unwrap_or_default();
            if !self.dropping && self.unfinished.is_empty() && line.len() <= self.max_bytes {
                // The usual case copies nothing.
                self.number = self.number.saturating_add(1);
                each(self.number, Line::Text(line));
            } else {
                self.keep(line);
                self.end(&mut each);
            }
        }
        self.keep(piece);
    }

    /// The stream has ended: a last line without a newline is one too.
    pub(super) fn finish(&mut self, mut each: impl FnMut(u64, Line<'_>)) {
        if self.dropping || !self.unfinished.is_empty() {
            self.end(&mut each);
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.dropping || self.unfinished.len().saturating_add(piece.len()) > self.max_bytes {
            self.dropping = true;
            self.unfinished.clear();
        } else {
            self.unfinished.extend_from_slice(piece);
        }
    }

    fn end(&mut self, each: &mut impl FnMut(u64, Line<'_>)) {
        self.number = self.number.saturating_add(1);
        let line = if self.dropping { Line::TooLong } else { Line::Text(&self.unfinished) };
        each(self.number, line);
        self.unfinished.clear();
        self.dropping = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 8;

    fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut got = Vec::new();
        let mut lines = Lines::new(MOST);
        let mut each = |number, line: Line<'_>| {
            got.push((
                number,
                match line {
                    Line::Text(text) => Some(text.to_vec()),
                    Line::TooLong => None,
                },
            ));
        };
        for piece in pieces {
            lines.push(piece, &mut each);
            assert!(lines.unfinished.len() <= MOST);
        }
        lines.finish(&mut each);
        got
    }

    #[test]
    fn a_last_line_needs_no_newline_and_an_empty_one_counts() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(cut([]), []);
        assert_eq!(cut([&b"a"[..]]), [(1, text("a"))]);
        assert_eq!(cut([&b"a\n"[..]]), [(1, text("a"))]);
        assert_eq!(cut([&b"a\n\nb\r\n"[..]]), [(1, text("a")), (2, text("")), (3, text("b\r"))]);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_next_one_is_whole() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(
            cut([&b"12345678\n123456789\nok"[..]]),
            [(1, text("12345678")), (2, None), (3, text("ok"))]
        );
        assert_eq!(cut([&b"1234567890"[..], b"12\nx"]), [(1, None), (2, text("x"))]);
        assert_eq!(cut([&b"123456789"[..]]), [(1, None)]);
    }

    proptest! {
        #[test]
        fn every_chunking_gives_the_same_lines(
            bytes in prop::collection::vec(prop_oneof![3 => Just(b'\n'), 7 => any::<u8>()], 0..80),
            cuts in prop::collection::vec(0..80_usize, 0..10),
        ) {
            let mut ends: Vec<usize> =
                cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            ends.sort_unstable();
            let pieces = ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            let expected: Vec<(u64, Option<Vec<u8>>)> = {
                let mut whole: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
                if whole.last().is_some_and(|last| last.is_empty()) {
                    whole.pop();
                }
                let kept = whole.into_iter()
                    .map(|line| (line.len() <= MOST).then(|| line.to_vec()));
                (1..).zip(kept).collect()
            };
            prop_assert_eq!(cut(pieces), expected);
        }
    }
}
