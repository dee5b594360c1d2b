//! Peer info: lines `NAME=value` in which a client says what it can do. A hint, never a proof.

use super::printable;

/// Longest peer info that is accepted on the wire, bytes; also the most lines that are looked at.
pub const MAX_PEER_INFO: usize = 4096;
/// Most lines that are kept.
const MAX_LINES: usize = 64;
/// Longest name that is kept.
const MAX_NAME: usize = 32;
/// Longest value that is kept.
const MAX_VALUE: usize = 512;

/// The bits of `IV_PROTO` that we look at. Source: draft-openvpn-protocol, "IV_PROTO".
pub mod iv_proto {
    /// Understands data packets with a peer id; we may push one.
    pub const DATA_V2: u32 = 1 << 1;
    /// Takes a push reply that it did not ask for.
    pub const REQUEST_PUSH: u32 = 1 << 2;
    /// Derives data keys with the TLS exporter, if told so.
    pub const TLS_KEY_EXPORT: u32 = 1 << 3;
    /// Understands the pushed option `protocol-flags`.
    pub const CC_EXIT_NOTIFY: u32 = 1 << 7;
    /// Can wrap the control channel of renegotiations with a key made in the first one.
    pub const DYN_TLS_CRYPT: u32 = 1 << 9;
}

/// A client's peer info: only `IV_*` and `UV_*` lines, the first of each name, bounded and printable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// `NAME=value` lines, each ended by a newline.
    text: Box<str>,
    ignored: u32,
}

impl PeerInfo {
    /// Takes any text. Lines that are malformed, foreign, repeated or beyond the bounds are left
    /// out and counted.
    pub fn parse(text: &str) -> Self {
        let mut kept: Vec<(&str, String)> = Vec::new();
        let mut ignored = 0_u32;
        let lines = text.split(['\n', '\r', '\0']).filter(|line| !line.is_empty());
        for line in lines.take(MAX_PEER_INFO) {
            match keep(line).filter(|(name, _)| {
                kept.len() < MAX_LINES && !kept.iter().any(|(seen, _)| seen == name)
            }) {
                Some(line) => kept.push(line),
                None => ignored = ignored.saturating_add(1),
            }
        }
        let text: String =
            kept.iter().flat_map(|(name, value)| [name, "=", value.as_str(), "\n"]).collect();
        Self { text: text.into_boxed_str(), ignored }
    }

    /// The kept lines as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.lines().filter_map(|line| line.split_once('='))
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The kept lines, each ended by a newline.
    pub fn raw(&self) -> &str {
        &self.text
    }

    /// How many lines were left out.
    pub fn ignored(&self) -> u32 {
        self.ignored
    }

    /// True if nothing was kept: an old or minimal client.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The bits of `IV_PROTO`, see [`iv_proto`]; 0 if absent or no number.
    pub fn iv_proto(&self) -> u32 {
        self.number("IV_PROTO").unwrap_or(0)
    }

    /// `IV_NCP`: 2 or more means that the client takes a pushed AES-GCM cipher; 0 if absent.
    pub fn iv_ncp(&self) -> u32 {
        self.number("IV_NCP").unwrap_or(0)
    }

    /// `IV_MTU`: the largest tunnel MTU that may be pushed, bytes.
    pub fn iv_mtu(&self) -> Option<u32> {
        self.number("IV_MTU")
    }

    /// `IV_CIPHERS`: the data ciphers that the client accepts.
    pub fn iv_ciphers(&self) -> Option<Vec<&str>> {
        Some(self.get("IV_CIPHERS")?.split(':').filter(|name| !name.is_empty()).collect())
    }

    /// True if the client takes a pushed cipher.
    pub fn negotiates(&self) -> bool {
        self.iv_ncp() >= 2 || self.get("IV_CIPHERS").is_some()
    }

    /// True if all of `bits` are set in `IV_PROTO`.
    pub fn supports(&self, bits: u32) -> bool {
        self.iv_proto() & bits == bits
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.get(name)?.parse().ok()
    }
}

/// A line as name and cleaned value, if it is one of ours and within the bounds.
fn keep(line: &str) -> Option<(&str, String)> {
    let (name, value) = line.split_once('=')?;
    let known = name.starts_with("IV_") || name.starts_with("UV_");
    let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (known && clean && name.len() <= MAX_NAME && value.len() <= MAX_VALUE)
        .then(|| (name, printable(value, MAX_VALUE)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_a_stock_client_says() {
        let info = PeerInfo::parse(
            "IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n\
             IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\nIV_PROTO=990\n",
        );
        assert_eq!(info.get("IV_VER"), Some("2.6.14"));
        assert_eq!((info.iv_proto(), info.iv_ncp(), info.iv_mtu()), (990, 2, Some(1600)));
        let ciphers = info.iv_ciphers().unwrap();
        assert_eq!(ciphers, ["AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"]);
        assert!(info.negotiates() && info.supports(iv_proto::DYN_TLS_CRYPT | iv_proto::DATA_V2));
        assert_eq!((info.iter().count(), info.ignored()), (7, 0));
    }

    #[test]
    fn a_router_says_one_line_or_nothing() {
        let router = PeerInfo::parse("IV_PROTO=2\n");
        assert!(router.supports(iv_proto::DATA_V2) && !router.negotiates());
        assert!(!router.supports(iv_proto::REQUEST_PUSH) && router.iv_ciphers().is_none());
        let old = PeerInfo::parse("");
        assert!(old.is_empty() && old.iv_proto() == 0 && !old.negotiates());
    }

    #[test]
    fn foreign_repeated_and_malformed_lines_are_left_out() {
        let info = PeerInfo::parse(
            "IV_PROTO=2\nIV_PROTO=990\nPATH=/bin\nIV_A B=1\nIV_X\n=1\nUV_SITE=a\tb`\u{e9}\nID=4",
        );
        assert_eq!(info.raw(), "IV_PROTO=2\nUV_SITE=a_b`_\n");
        assert_eq!(info.ignored(), 6);
    }

    #[test]
    fn numbers_that_overflow_count_as_absent() {
        let info = PeerInfo::parse("IV_PROTO=4294967296\nIV_MTU=-1\nIV_NCP=2x\n");
        assert_eq!((info.iv_proto(), info.iv_ncp(), info.iv_mtu()), (0, 0, None));
    }

    #[test]
    fn ten_thousand_keys_and_long_values_are_bounded() {
        let flood: String = (0..10_000).map(|n| format!("IV_K{n}=1\n")).collect();
        let info = PeerInfo::parse(&flood);
        assert_eq!(info.iter().count(), MAX_LINES);
        let long = PeerInfo::parse(&format!("UV_A={}\nUV_B=1", "x".repeat(MAX_VALUE + 1)));
        assert_eq!((long.raw(), long.ignored()), ("UV_B=1\n", 1));
    }

    proptest! {
        #[test]
        fn any_text_is_bounded_and_clean(
            lines in prop::collection::vec("(IV_|UV_|)[A-Z_ ]{0,4}=?.{0,20}", 0..80)
        ) {
            let info = PeerInfo::parse(&lines.join("\n"));
            prop_assert!(info.iter().count() <= MAX_LINES);
            let clean = |byte: u8| byte == b' ' || byte == b'\n' || byte.is_ascii_graphic();
            prop_assert!(info.raw().bytes().all(clean));
            let again = PeerInfo::parse(info.raw());
            prop_assert_eq!(again.raw(), info.raw());
        }
    }
}
