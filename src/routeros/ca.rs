//! Bringing a CA certificate into a router as text.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::quote::quote;

/// Base64 lines of a PEM in one line of the script.
const LINES_AT_ONCE: usize = 3;

/// The lines that make `pem` a trusted certificate named "tunnelhead-ca", if it is not there yet.
/// None: `pem` holds no certificate.
///
/// A router of v7 makes a file from text with `/file add`; v6 only through `/file print file=`,
/// which appends ".txt" and needs a moment. The text goes into a global variable piece by piece,
/// since a local one ends with its line in a terminal.
pub(super) fn import(pem: &str, v6: bool) -> Option<String> {
    let (lines, der) = first_certificate(pem)?;
    let mut fingerprint = String::new();
    for byte in Sha256::digest(&der) {
        let _ = write!(fingerprint, "{byte:02x}");
    }
    let mut text = String::from(":global tunnelheadCa \"\"\n");
    for piece in lines.chunks(LINES_AT_ONCE) {
        let mut piece = piece.join("\n");
        piece.push('\n');
        let _ = writeln!(
            text,
            ":global tunnelheadCa; :set tunnelheadCa (\u{24}tunnelheadCa . {})",
            quote(&piece)
        );
    }
    let missing =
        format!(":if ([:len [/certificate find where fingerprint=\"{fingerprint}\"]] = 0) do=");
    if v6 {
        let file = "tunnelhead-ca.txt";
        let _ = writeln!(text, "{missing}{{ /file print file=tunnelhead-ca; :delay 2s }}");
        let _ = writeln!(
            text,
            ":global tunnelheadCa; {missing}{{ /file set [find where name=\"{file}\"] contents=$tunnelheadCa; :delay 1s }}"
        );
        let _ =
            writeln!(text, "{missing}{{ /certificate import file-name={file} passphrase=\"\" }}");
        let _ = writeln!(text, "/file remove [find where name=\"{file}\"]");
    } else {
        let file = "tunnelhead-ca.pem";
        let _ = writeln!(text, "/file remove [find where name=\"{file}\"]");
        let _ = writeln!(
            text,
            ":global tunnelheadCa; {missing}{{ /file add name={file} contents=$tunnelheadCa; :delay 1s }}"
        );
        let _ = writeln!(
            text,
            "{missing}{{ /certificate import file-name={file} name=tunnelhead-ca passphrase=\"\" }}"
        );
        let _ = writeln!(text, "/file remove [find where name=\"{file}\"]");
    }
    text.push_str(":global tunnelheadCa; :set tunnelheadCa\n");
    Some(text)
}

/// The lines of the first certificate, with its borders, and its DER form.
fn first_certificate(pem: &str) -> Option<(Vec<&str>, Vec<u8>)> {
    let mut lines = Vec::new();
    let mut base64 = String::new();
    for line in pem.lines().map(str::trim).skip_while(|line| *line != "-----BEGIN CERTIFICATE-----")
    {
        lines.push(line);
        if line == "-----END CERTIFICATE-----" {
            return decode(&base64).map(|der| (lines, der));
        }
        if !line.starts_with('-') {
            base64.push_str(line);
        }
    }
    None
}

/// Base64 of RFC 4648 section 4.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte.wrapping_sub(b'A'),
            b'a'..=b'z' => byte.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => byte.wrapping_sub(b'0').wrapping_add(52),
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count = count.wrapping_add(6);
        if count >= 8 {
            count = count.wrapping_sub(8);
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        assert_eq!(decode("Zm9vYmFy").as_deref(), Some(b"foobar".as_slice()));
        assert_eq!(decode("Zm9vYg==").as_deref(), Some(b"foob".as_slice()));
        assert_eq!(decode("+/8=").as_deref(), Some([0xfb, 0xff].as_slice()));
        assert_eq!(decode("a b"), None);
        assert_eq!(decode(""), None);
    }

    #[test]
    fn text_without_a_certificate_gives_nothing() {
        for bad in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nZm9v\n",
            "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
        ] {
            assert!(import(bad, false).is_none(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_guard_names_the_digest_of_the_der_form() {
        let pem = "-----BEGIN CERTIFICATE-----\r\nZm9v\r\n-----END CERTIFICATE-----\r\n";
        let text = import(pem, false).unwrap();
        // SHA-256 of "foo".
        let digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        assert!(text.contains(digest), "{text}");
        assert!(!text.contains('\r'));
    }
}
