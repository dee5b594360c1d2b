//! The 256-byte static key of tls-auth and tls-crypt and its text form.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::{KeyFileError, RandomError};
use crate::key_block::{KEY_BLOCK_LEN, KeyBlock};
use crate::pem;
use crate::random::SecureRandom;

const LABEL: &str = "OpenVPN Static key V1";

/// Which slots of a static key a side of tls-auth uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyDirection {
    /// `key-direction 0`: send with slot 0, receive with slot 1. The usual choice of a server.
    Normal,
    /// `key-direction 1`: send with slot 1, receive with slot 0. The usual choice of a client.
    Inverse,
    /// No direction: slot 0 both ways.
    Bidirectional,
}

impl KeyDirection {
    /// The direction of the other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Normal => Self::Inverse,
            Self::Inverse => Self::Normal,
            Self::Bidirectional => Self::Bidirectional,
        }
    }
}

/// A static key: 256 bytes in the slots of a [`KeyBlock`].
pub struct StaticKey(KeyBlock);

impl StaticKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`RandomError`] if the source failed.
    pub fn generate(random: &mut dyn SecureRandom) -> Result<Self, RandomError> {
        let mut outcome = Ok(());
        let block = KeyBlock::filled(|out| outcome = random.fill(out));
        outcome.map(|()| Self(block))
    }

    /// Reads an "OpenVPN Static key V1" file: text before the BEGIN line is ignored, then come
    /// hexadecimal digits with white space anywhere, then the END line.
    ///
    /// # Errors
    /// [`KeyFileError`]; it says what to mend and holds nothing of the key.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BLOCK_LEN));
        let mut high: Option<u8> = None;
        for (number, line) in pem::body(text, LABEL)? {
            for character in line.chars().filter(|c| !c.is_ascii_whitespace()) {
                let digit = character
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
                    .ok_or(KeyFileError::BadCharacter { line: number })?;
                match high.take() {
                    None => high = Some(digit),
                    Some(high) => bytes.push(high << 4 | digit),
                }
            }
        }
        let array: Result<&[u8; KEY_BLOCK_LEN], _> = bytes.as_slice().try_into();
        match array {
            Ok(array) if high.is_none() => Ok(Self(KeyBlock::filled(|out| *out = *array))),
            _ => Err(KeyFileError::Length { found: bytes.len(), expected: KEY_BLOCK_LEN }),
        }
    }

    /// The file form that [`Self::parse`] and OpenVPN read. The text is as secret as the key.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(700);
        text.push_str(&format!("#\n# 2048 bit OpenVPN static key\n#\n-----BEGIN {LABEL}-----\n"));
        for (i, byte) in self.0.expose().iter().enumerate() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
            if i % 16 == 15 {
                text.push('\n');
            }
        }
        text.push_str(&format!("-----END {LABEL}-----\n"));
        text
    }

    /// The 256 bytes.
    pub const fn key_block(&self) -> &KeyBlock {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0)
    }

    /// A second copy, wiped on its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }
}

impl From<KeyBlock> for StaticKey {
    fn from(block: KeyBlock) -> Self {
        Self(block)
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::FastRandom;

    fn sample() -> StaticKey {
        StaticKey::generate(&mut FastRandom::from_seed([1; 32])).unwrap()
    }

    #[test]
    fn text_goes_both_ways() {
        let text = sample().to_text();
        assert!(StaticKey::parse(&text).unwrap().ct_eq(&sample()));
        assert_eq!(text.lines().count(), 21);
        assert!(text.lines().skip(4).take(16).all(|line| line.len() == 32));
    }

    #[test]
    fn reads_windows_line_ends_upper_case_and_odd_breaks() {
        let text = sample().to_text();
        let (head, rest) = text.split_at(text.find("V1-----\n").unwrap() + 8);
        let (key, tail) = rest.split_at(rest.find("-----END").unwrap());
        let odd = key.replace('\n', "").to_uppercase();
        let odd = format!("{}\n \t{}", &odd[..101], &odd[101..]);
        let odd = format!("junk before\n{head}{odd}\n{tail}").replace('\n', "\r\n");
        assert!(StaticKey::parse(&odd).unwrap().ct_eq(&sample()));
    }

    #[test]
    fn refuses_damaged_files() {
        let text = sample().to_text();
        let err = |text: &str| StaticKey::parse(text).unwrap_err();
        assert_eq!(err(""), KeyFileError::NoBegin { label: LABEL });
        assert_eq!(
            err(&text.replace("-----END", "-----FIN")),
            KeyFileError::NoEnd { label: LABEL }
        );
        let lines: Vec<&str> = text.lines().collect();
        let short = [&lines[..4], &lines[5..]].concat().join("\n");
        assert_eq!(err(&short), KeyFileError::Length { found: 240, expected: 256 });
        let long = [&lines[..5], &lines[4..]].concat().join("\n");
        assert_eq!(err(&long), KeyFileError::Length { found: 272, expected: 256 });
        let mut half = lines.clone();
        half[4] = &half[4][..31];
        assert_eq!(err(&half.join("\n")), KeyFileError::Length { found: 255, expected: 256 });
        let mut foreign = lines;
        let line = format!("g{}", &foreign[6][1..]);
        foreign[6] = &line;
        assert_eq!(err(&foreign.join("\n")), KeyFileError::BadCharacter { line: 7 });
    }
}
