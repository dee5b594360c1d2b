//! PEM texts as files hold them: whole, or not at all.
//!
//! The library reads blocks until it meets something that is none, and takes a file that was cut
//! off between two marks for one with fewer blocks. A file that somebody is just writing must not
//! silently trust fewer CAs or revoke fewer certificates, so the marks are checked here first.

/// The blocks of a text whose label is `label`, each with its marks, in order.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence that begins with its file: a mark that
/// is broken, a block without an end, or no block of this kind.
pub fn blocks<'a>(text: &'a str, label: &str) -> Result<Vec<&'a str>, String> {
    let mut found = Vec::new();
    let mut open: Option<(usize, &str)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let mark = line.trim_end();
        if !mark.starts_with('-') {
            continue;
        }
        let inner = mark.strip_prefix(DASHES).and_then(|rest| rest.strip_suffix(DASHES));
        match (inner.and_then(|inner| inner.split_once(' ')), open) {
            (Some(("BEGIN", kind)), None) => open = Some((start, kind)),
            (Some(("END", kind)), Some((begun, of))) if kind == of => {
                if kind == label {
                    found.extend(text.get(begun..at));
                }
                open = None;
            }
            _ => return Err(format!("is damaged at the line \"{}\"", shown(mark))),
        }
    }
    match open {
        Some((_, kind)) => Err(format!("ends in the middle of a {}", kind.to_ascii_lowercase())),
        None if found.is_empty() => Err(format!("holds no {} in PEM form", name_of(label))),
        None => Ok(found),
    }
}

/// Label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// Label of a certificate revocation list.
pub const CRL: &str = "X509 CRL";

fn name_of(label: &str) -> String {
    if label == CRL { "CRL".to_owned() } else { label.to_ascii_lowercase() }
}

fn shown(line: &str) -> String {
    line.chars().take(40).flat_map(char::escape_default).collect()
}

const DASHES: &str = "-----";

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "a comment\n-----BEGIN A-----\nxx\n-----END A-----\n\
                       -----BEGIN B C-----\r\nyy\r\n-----END B C-----\r\n\
                       -----BEGIN A-----\nzz\n-----END A-----";

    #[test]
    fn blocks_of_a_kind_are_found_in_order() {
        assert_eq!(
            blocks(TWO, "A").unwrap(),
            ["-----BEGIN A-----\nxx\n-----END A-----\n", "-----BEGIN A-----\nzz\n-----END A-----"]
        );
        assert_eq!(blocks(TWO, "B C").unwrap().len(), 1);
        assert!(blocks(TWO, "D").unwrap_err().contains("holds no d"));
        assert!(blocks("", CRL).unwrap_err().contains("holds no CRL"));
    }

    #[test]
    fn a_text_that_was_cut_off_is_found_but_between_two_blocks() {
        let between: Vec<usize> = TWO
            .match_indices("-----BEGIN")
            .map(|(at, _)| at)
            .chain(TWO.match_indices("-----END A-----").map(|(at, end)| at + end.len()))
            .chain(TWO.match_indices("-----END B C-----").map(|(at, end)| at + end.len()))
            .collect();
        for length in 11..TWO.len() {
            let cut = blocks(&TWO[..length], "A");
            // Line ends after a block belong to nobody.
            let allowed = between
                .iter()
                .any(|at| TWO[*at.min(&length)..length].trim().is_empty() && *at <= length);
            assert_eq!(cut.is_ok(), allowed, "{length}: {cut:?}");
        }
    }

    #[test]
    fn mixed_up_marks_are_damage() {
        for text in [
            "-----END A-----\n",
            "-----BEGIN A-----\n-----BEGIN A-----\n-----END A-----\n",
            "-----BEGIN A-----\n-----END B-----\n",
            "-----BEGIN A----\n-----END A-----\n",
            "-----MIDDLE A-----\n",
        ] {
            assert!(blocks(text, "A").unwrap_err().contains("damaged"), "{text}");
        }
    }
}
