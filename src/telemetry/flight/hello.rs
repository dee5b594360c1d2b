//! A reader for ClientHello messages: what a client offers, and a number that all clients of one
//! kind share. Source: RFC 5246 7.4.1.2, RFC 8446 4.1.2, RFC 6066 3.

/// Longest ClientHello that is kept, bytes of the TLS stream. Current libraries with post-quantum
/// key shares send about 1,600; RouterOS 7.1 sends 132.
pub const MAX_HELLO: usize = 2048;

/// What a ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The newest version offered, as on the wire: 0x0301 is TLS 1.0, 0x0304 TLS 1.3.
    pub newest: u16,
    /// The oldest version offered, if the client lists them (TLS 1.3 clients do).
    pub oldest: Option<u16>,
    /// Number of cipher suites, signalling values left out.
    pub suites: u16,
    /// The server name asked for.
    pub server_name: Option<Box<str>>,
    /// Length of the message, bytes.
    pub length: u16,
    /// Hash of versions, suites and kinds of extensions in their order: the client's software and
    /// its settings, without anything that differs between two routers of a kind.
    pub kind: u32,
}

impl Hello {
    /// Name of the newest version offered.
    pub fn newest(&self) -> &'static str {
        version_name(self.newest)
    }

    /// Reads the first handshake message of a TLS stream. `None`: not complete, or none.
    pub fn parse(stream: &[u8]) -> Option<Self> {
        let message = message(stream)?;
        let mut hash = Fnv::new();
        let mut rest = Reader(&message);
        if rest.u8()? != CLIENT_HELLO {
            return None;
        }
        let length = rest.u24()?;
        let mut body = Reader(rest.take(length)?);
        let legacy = body.u16()?;
        hash.add(u32::from(legacy));
        body.take(RANDOM)?;
        let session = usize::from(body.u8()?);
        body.take(session)?;
        let suites_len = usize::from(body.u16()?);
        let mut suites = Reader(body.take(suites_len)?);
        let mut count = 0_u16;
        while let Some(suite) = suites.u16() {
            // Values that change from hello to hello on purpose (RFC 8701), and signals.
            if !is_grease(suite) && !SIGNALS.contains(&suite) {
                count += 1;
                hash.add(u32::from(suite));
            }
        }
        let compression = usize::from(body.u8()?);
        body.take(compression)?;
        let mut hello = Self {
            newest: legacy,
            oldest: None,
            suites: count,
            server_name: None,
            length: u16::try_from(length + 4).unwrap_or(u16::MAX),
            kind: 0,
        };
        // Old clients end here.
        if let Some(all) = body.u16() {
            let mut extensions = Reader(body.take(usize::from(all))?);
            while let (Some(kind), Some(len)) = (extensions.u16(), extensions.u16()) {
                let value = extensions.take(usize::from(len))?;
                if !is_grease(kind) {
                    hash.add(0x1_0000 | u32::from(kind));
                }
                match kind {
                    SERVER_NAME => hello.server_name = server_name(value),
                    SUPPORTED_VERSIONS => hello.versions(value, &mut hash),
                    _ => {}
                }
            }
        }
        hello.kind = hash.0;
        Some(hello)
    }

    fn versions(&mut self, value: &[u8], hash: &mut Fnv) {
        let mut list = Reader(value);
        let _ = list.u8();
        let (mut newest, mut oldest) = (0, u16::MAX);
        while let Some(version) = list.u16() {
            if !is_grease(version) {
                hash.add(u32::from(version));
                (newest, oldest) = (newest.max(version), oldest.min(version));
            }
        }
        if newest != 0 {
            (self.newest, self.oldest) = (newest, Some(oldest));
        }
    }
}

/// True once `stream` holds the whole first message, or can't hold one.
pub fn is_complete(stream: &[u8]) -> bool {
    match stream.first() {
        None => false,
        Some(&kind) if kind != HANDSHAKE => true,
        Some(_) => stream.len() >= MAX_HELLO || message(stream).is_some(),
    }
}

/// Name of a TLS version.
pub fn version_name(version: u16) -> &'static str {
    match version {
        0x0300 => "SSL 3.0",
        0x0301 => "TLS 1.0",
        0x0302 => "TLS 1.1",
        0x0303 => "TLS 1.2",
        0x0304 => "TLS 1.3",
        _ => "an unknown TLS version",
    }
}

/// Puts the first handshake message together from its records.
fn message(stream: &[u8]) -> Option<Vec<u8>> {
    let mut records = Reader(stream);
    let mut message = Vec::new();
    loop {
        if let [_, a, b, c, ..] = message.as_slice() {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if message.len() >= length + 4 {
                return Some(message);
            }
        }
        if records.u8()? != HANDSHAKE {
            return None;
        }
        records.u16()?;
        let length = usize::from(records.u16()?);
        message.extend_from_slice(records.take(length)?);
    }
}

fn server_name(value: &[u8]) -> Option<Box<str>> {
    let mut list = Reader(value);
    list.u16()?;
    if list.u8()? != 0 {
        return None;
    }
    let length = usize::from(list.u16()?);
    let name = list.take(length)?;
    let shown: String = name.escape_ascii().to_string().chars().take(100).collect();
    Some(shown.into_boxed_str())
}

/// Values that clients mix in so that servers stay tolerant. Source: RFC 8701.
fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// FNV-1a over 32-bit values: stable over runs and machines, no protection against intent.
struct Fnv(u32);

impl Fnv {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn add(&mut self, value: u32) {
        for byte in value.to_be_bytes() {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u24(&mut self) -> Option<usize> {
        let high = usize::from(self.u8()?);
        Some(high << 16 | usize::from(self.u16()?))
    }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RANDOM: usize = 32;
const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;
/// Renegotiation and fallback signals. Source: RFC 5746, RFC 7507.
const SIGNALS: [u16; 2] = [0x00ff, 0x5600];

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello with these suites and, if given, extensions.
    pub(in super::super) fn hello(version: u16, suites: &[u16], extensions: &[u8]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(u16::try_from(suites.len() * 2).unwrap().to_be_bytes());
        body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
        body.extend([1, 0]);
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        record(&message)
    }

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut record = vec![HANDSHAKE, 3, 1];
        record.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        record.extend(payload);
        record
    }

    #[test]
    fn an_old_hello_without_extensions_is_read() {
        let hello = Hello::parse(&hello(0x0301, &[0x2f, 0x35, 0xff], &[])).unwrap();
        assert_eq!((hello.newest(), hello.oldest, hello.suites), ("TLS 1.0", None, 2));
        assert_eq!(hello.server_name, None);
    }

    #[test]
    fn versions_and_the_server_name_come_from_extensions() {
        let mut extensions = vec![0, 43, 0, 5, 4, 3, 4, 3, 3];
        extensions.extend(b"\0\0\0\x0e\0\x0c\0\0\x09localhost");
        let hello = Hello::parse(&hello(0x0303, &[0x1301], &extensions)).unwrap();
        assert_eq!((hello.newest, hello.oldest), (0x0304, Some(0x0303)));
        assert_eq!(hello.server_name.as_deref(), Some("localhost"));
    }

    #[test]
    fn two_routers_of_a_kind_share_a_number_and_two_kinds_do_not() {
        let kind = |bytes: &[u8]| Hello::parse(bytes).unwrap().kind;
        let one = hello(0x0303, &[0x2f, 0x35], &[]);
        let mut other = one.clone();
        other[11..43].fill(9);
        assert_eq!(kind(&one), kind(&other));
        assert_ne!(kind(&one), kind(&hello(0x0303, &[0x35, 0x2f], &[])));
        assert_ne!(kind(&one), kind(&hello(0x0302, &[0x2f, 0x35], &[])));
        assert_ne!(kind(&one), kind(&hello(0x0303, &[0x2f, 0x35], &[0, 23, 0, 0])));
        assert_eq!(kind(&one), kind(&hello(0x0303, &[0x2a2a, 0x2f, 0x35], &[])));
    }

    #[test]
    fn a_hello_in_several_records_is_put_together() {
        let whole = hello(0x0303, &[0x2f; 40], &[]);
        let mut split = record(&whole[5..30]);
        split.extend(record(&whole[30..]));
        assert_eq!(Hello::parse(&split), Hello::parse(&whole));
        for end in 0..whole.len() {
            assert_eq!(Hello::parse(&whole[..end]), None, "{end}");
            assert!(!is_complete(&whole[..end]), "{end}");
        }
        assert!(is_complete(&whole) && is_complete(b"GET"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Hello::parse(&bytes), is_complete(&bytes));
            bytes.splice(0..0, [22, 3, 1, 0, 150, 1, 0, 0, 120, 3, 3]);
            let _ = (Hello::parse(&bytes), is_complete(&bytes));
        }
    }
}
