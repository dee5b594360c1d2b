//! Text as a RouterOS string.

use std::fmt::Write as _;

/// `text` in double quotes, safe to paste into a RouterOS terminal.
///
/// Escapes quote, backslash, dollar (variables), question mark (a help key of the console), and by
/// their UTF-8 bytes everything that is not printable ASCII. Source: RouterOS manual, Scripting,
/// "Constant Escape Sequences".
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | b'$' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            // `\?` is not in the manual's table, and the key acts before the string is parsed.
            b'?' => out.push_str("\\3F"),
            b' '..=b'~' => out.push(char::from(byte)),
            other => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\{other:02X}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a RouterOS string; the opposite of `quote`, written from the manual.
    fn unquote(text: &str) -> Option<Vec<u8>> {
        let inner = text.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
        let mut out = Vec::new();
        let mut rest = inner.iter().copied();
        while let Some(byte) = rest.next() {
            match byte {
                b'"' | b'$' | b'?' => return None,
                b'\\' => match rest.next()? {
                    b'n' => out.push(b'\n'),
                    b'r' => out.push(b'\r'),
                    b't' => out.push(b'\t'),
                    c @ (b'"' | b'\\' | b'$') => out.push(c),
                    high => {
                        let pair = [high, rest.next()?];
                        let pair = std::str::from_utf8(&pair).ok()?;
                        if pair != pair.to_ascii_uppercase() {
                            return None;
                        }
                        out.push(u8::from_str_radix(pair, 16).ok()?);
                    }
                },
                byte => out.push(byte),
            }
        }
        Some(out)
    }

    #[test]
    fn plain_text_is_only_put_in_quotes() {
        assert_eq!(quote("branch-42 a.b;c"), "\"branch-42 a.b;c\"");
    }

    #[test]
    fn what_the_console_would_act_on_is_escaped() {
        assert_eq!(quote("a\"b\\c$d?e"), r#""a\"b\\c\$d\3Fe""#);
        assert_eq!(quote("a\r\n\t\u{1b}\u{e4}"), r#""a\r\n\t\1B\C3\A4""#);
        assert_eq!(quote("$[/system reset]"), r#""\$[/system reset]""#);
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives_and_stays_on_one_printable_line(text in ".*") {
            let quoted = quote(&text);
            proptest::prop_assert!(quoted.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'?'));
            proptest::prop_assert_eq!(unquote(&quoted), Some(text.into_bytes()));
        }
    }
}
