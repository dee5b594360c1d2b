//! The text form of tls-crypt-v2 keys: base64 between BEGIN and END lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::error::KeyFileError;

/// Characters of base64 a line.
const LINE: usize = 64;

/// The text between the BEGIN and END lines of `label`, and the number of its first line; text
/// before and after is ignored.
pub(crate) fn body<'a>(
    text: &'a str,
    label: &'static str,
) -> Result<impl Iterator<Item = (usize, &'a str)>, KeyFileError> {
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let mut lines = text.lines().enumerate();
    if !lines.any(|(_, line)| line.trim() == begin) {
        return Err(KeyFileError::NoBegin { label });
    }
    let mut rest = lines.clone();
    if !rest.any(|(_, line)| line.trim() == end) {
        return Err(KeyFileError::NoEnd { label });
    }
    Ok(lines
        .map(|(number, line)| (number.saturating_add(1), line.trim()))
        .take_while(move |(_, line)| *line != end))
}

pub(crate) fn decode(text: &str, label: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let mut base64 = Zeroizing::new(String::with_capacity(text.len()));
    for (_, line) in body(text, label)? {
        base64.push_str(line);
    }
    STANDARD.decode(base64.as_bytes()).map(Zeroizing::new).map_err(|_| KeyFileError::NotBase64)
}

pub(crate) fn encode(bytes: &[u8], label: &str) -> String {
    let base64 = Zeroizing::new(STANDARD.encode(bytes));
    // Room for everything at once: growing would leave copies of the key behind.
    let mut text = String::with_capacity(base64.len().saturating_mul(2).saturating_add(200));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for (i, character) in base64.chars().enumerate() {
        if i > 0 && i % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_both_ways_with_other_text_around() {
        for len in [0, 1, 47, 48, 49, 555] {
            let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
            let text = encode(&bytes, "A KEY");
            assert!(text.lines().all(|line| line.len() <= LINE));
            let around = format!("# a remark\n\n{}trailing\n", text.replace('\n', "\r\n"));
            assert_eq!(*decode(&around, "A KEY").unwrap(), bytes);
        }
    }

    #[test]
    fn refuses_other_labels_cut_texts_and_other_characters() {
        let text = encode(&[1; 100], "A KEY");
        assert_eq!(decode(&text, "B").unwrap_err(), KeyFileError::NoBegin { label: "B" });
        let cut = &text[..text.len() - 5];
        assert_eq!(decode(cut, "A KEY").unwrap_err(), KeyFileError::NoEnd { label: "A KEY" });
        let bad = text.replacen('A', "!", 5);
        assert!(decode(&bad, "A KEY").is_err());
        let bad = text.replace("AQEB", "AQ=B");
        assert_eq!(decode(&bad, "A KEY").unwrap_err(), KeyFileError::NotBase64);
    }
}
