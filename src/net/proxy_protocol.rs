//! The header that a load balancer puts in front of a connection to name the real client.
//!
//! Source: The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt). Only for peers
//! that are configured as balancers; from anybody else these bytes are rubbish.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest version 1 header, bytes, its line end included.
pub const MAX_V1: usize = 107;
/// Longest version 2 header that is accepted, bytes. The format allows 65,551; real ones carry at
/// most two addresses and a few short extensions.
pub const MAX_V2: usize = 16 + 2048;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The real client; `None` if the balancer speaks for itself (a health check) or does not know:
    /// then the connection's own peer counts.
    pub source: Option<SocketAddr>,
}

/// Why bytes are no header; the connection can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The connection does not begin with a header.
    #[error("no PROXY header where one is expected")]
    Missing,
    /// A version 1 line that is malformed or too long.
    #[error("a malformed PROXY version 1 line")]
    BadLine,
    /// A version 2 header with an unknown version or command, or too short for its addresses.
    #[error("a malformed PROXY version 2 header")]
    BadBinary,
    /// More than [`MAX_V2`] bytes.
    #[error("a PROXY header that is longer than {MAX_V2} bytes")]
    TooLong,
    /// A protocol that no connection to us can have: UDP, unix sockets.
    #[error("a PROXY header for something other than TCP")]
    NotTcp,
}

/// Reads a header from the start of a connection's bytes: the header and its length, or `None` if
/// more bytes are needed. What follows the header belongs to the client.
///
/// # Errors
/// [`ProxyError`], as early as the bytes show that no header can come of them.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    if let Some(rest) = bytes.strip_prefix(V2_START) {
        return version_2(rest);
    }
    if bytes.starts_with(V1_START) {
        return version_1(bytes);
    }
    let incomplete = V2_START.starts_with(bytes) || V1_START.starts_with(bytes);
    if incomplete { Ok(None) } else { Err(ProxyError::Missing) }
}

fn version_1(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let window = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = window.iter().position(|byte| !matches!(byte, b' '..=b'~')) else {
        return if window.len() == MAX_V1 { Err(ProxyError::BadLine) } else { Ok(None) };
    };
    let (line, after) = window.split_at_checked(end).ok_or(ProxyError::BadLine)?;
    match after {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if window.len() < MAX_V1 => return Ok(None),
        _ => return Err(ProxyError::BadLine),
    }
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::BadLine)?;
    Ok(Some((Header { source: source_of_line(line)? }, end + 2)))
}

fn source_of_line(line: &str) -> Result<Option<SocketAddr>, ProxyError> {
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        // The format tells receivers to ignore what follows.
        return Ok(None);
    }
    let mut next = || words.next().ok_or(ProxyError::BadLine);
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    let address = |text: &str| -> Result<IpAddr, ProxyError> {
        let parsed = match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().map(IpAddr::V4),
            Some("TCP6") => text.parse::<Ipv6Addr>().map(IpAddr::V6),
            _ => return Err(ProxyError::BadLine),
        };
        parsed.map_err(|_| ProxyError::BadLine)
    };
    let (source, _) = (address(source)?, address(destination)?);
    let _ = destination_port;
    if words.next().is_some() {
        return Err(ProxyError::BadLine);
    }
    Ok(Some(SocketAddr::new(source, source_port)))
}

fn port(text: &str) -> Result<u16, ProxyError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(ProxyError::BadLine);
    }
    text.parse().map_err(|_| ProxyError::BadLine)
}

/// `rest` is what follows the signature: version and command, family, length (big-endian), then
/// that many bytes of addresses and extensions.
fn version_2(rest: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let Some(&command) = rest.first() else { return Ok(None) };
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyError::BadBinary);
    }
    let Some(&family) = rest.get(1) else { return Ok(None) };
    let is_proxied = command == 0x21;
    let needed = match (is_proxied, family) {
        (false, _) | (true, 0x00) => 0,
        (true, 0x11) => 12,
        (true, 0x21) => 36,
        (true, 0x12 | 0x22 | 0x31 | 0x32) => return Err(ProxyError::NotTcp),
        (true, _) => return Err(ProxyError::BadBinary),
    };
    let Some(&[high, low]) = rest.get(2..4).and_then(|two| two.first_chunk()) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let consumed = V2_START.len() + 4 + length;
    if consumed > MAX_V2 {
        return Err(ProxyError::TooLong);
    }
    if length < needed {
        return Err(ProxyError::BadBinary);
    }
    let Some(body) = rest.get(4..4 + length) else { return Ok(None) };
    let source = match needed {
        12 => body.first_chunk::<12>().map(|&[a, b, c, d, _, _, _, _, high, low, _, _]| {
            SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
        }),
        36 => body.first_chunk::<16>().zip(body.get(32..34)).map(|(address, port)| {
            let port = port.first_chunk().map_or(0, |two| u16::from_be_bytes(*two));
            SocketAddr::from((Ipv6Addr::from(*address), port))
        }),
        _ => None,
    };
    Ok(Some((Header { source }, consumed)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = V2_START.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// The header with the client's first bytes behind it, and each of its prefixes.
    #[track_caller]
    fn reads(header: &[u8], source: Option<&str>) {
        let source = source.map(|text| text.parse().unwrap());
        let mut bytes = header.to_vec();
        bytes.extend(b"\x00\x0e8client");
        assert_eq!(parse(&bytes), Ok(Some((Header { source }, header.len()))));
        assert_eq!(parse(header), Ok(Some((Header { source }, header.len()))));
        for length in 0..header.len() {
            assert_eq!(parse(&header[..length]), Ok(None), "prefix of {length}");
        }
    }

    #[test]
    fn version_1_names_the_client() {
        let v6 = "PROXY TCP6 2001:db8::7 2001:db8::1 65535 8443\r\n";
        reads(b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 8443\r\n", Some("192.0.2.7:50000"));
        reads(v6.as_bytes(), Some("[2001:db8::7]:65535"));
        reads(b"PROXY TCP4 192.0.2.7 198.51.100.1 0 8443\r\n", Some("192.0.2.7:0"));
        reads(b"PROXY UNKNOWN\r\n", None);
        let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
        assert_eq!(longest.len(), MAX_V1);
        reads(longest.as_bytes(), None);
    }

    #[test]
    fn version_1_refuses_what_is_not_exactly_a_line() {
        let lines = [
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 8443 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 8443 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 50000 8443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 8443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +5 8443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 05 8443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1  8443\r\n",
            "PROXY TCP4 192.0.2.300 198.51.100.1 50000 8443\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 50000 8443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 50000 8443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 50000 8443\r\n",
            "PROXY TCP4 192.0.2.7 nobody 50000 8443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 50000 8443\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 50000 8443\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 8443\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 8443\rX",
            "PROXY TCP4\t192.0.2.7 198.51.100.1 50000 8443\r\n",
            "PROXY TCP4 192.0.2.7\0 198.51.100.1 50000 8443\r\n",
            "PROXY \u{e9}",
        ];
        for line in lines {
            assert_eq!(parse(line.as_bytes()), Err(ProxyError::BadLine), "{line:?}");
        }
        let mut endless = b"PROXY UNKNOWN ".to_vec();
        endless.resize(MAX_V1 - 1, b'x');
        assert_eq!(parse(&endless), Ok(None));
        endless.push(b'x');
        assert_eq!(parse(&endless), Err(ProxyError::BadLine));
        endless.pop();
        endless.push(b'\r');
        assert_eq!(parse(&endless), Err(ProxyError::BadLine));
    }

    #[test]
    fn version_2_names_the_client() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0x50, 0x20, 0xfb];
        reads(&v2(0x21, 0x11, &v4), Some("192.0.2.7:50000"));
        let mut with_extensions = v4.to_vec();
        with_extensions.extend([0x04, 0, 3, 1, 2, 3]);
        reads(&v2(0x21, 0x11, &with_extensions), Some("192.0.2.7:50000"));
        let mut v6 = [0u8; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 7;
        v6[32..36].copy_from_slice(&[0xc3, 0x50, 0x20, 0xfb]);
        reads(&v2(0x21, 0x21, &v6), Some("[2001:db8::7]:50000"));
        reads(&v2(0x21, 0x00, &[]), None);
        reads(&v2(0x21, 0x00, &[1, 2, 3]), None);
        reads(&v2(0x20, 0x00, &[]), None);
        reads(&v2(0x20, 0x11, &v4), None);
        reads(&v2(0x20, 0xff, &[9; 2048]), None);
    }

    #[test]
    fn version_2_refuses_lies_and_other_protocols() {
        for command in [0x00, 0x11, 0x22, 0x2f, 0x31] {
            assert_eq!(parse(&v2(command, 0x11, &[0; 12])), Err(ProxyError::BadBinary));
        }
        for family in [0x01, 0x10, 0x13, 0x20, 0x41, 0xff] {
            assert_eq!(parse(&v2(0x21, family, &[0; 36])), Err(ProxyError::BadBinary));
        }
        for family in [0x12, 0x22, 0x31, 0x32] {
            assert_eq!(parse(&v2(0x21, family, &[0; 216])), Err(ProxyError::NotTcp));
        }
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 11])), Err(ProxyError::BadBinary));
        assert_eq!(parse(&v2(0x21, 0x21, &[0; 35])), Err(ProxyError::BadBinary));
        let long = v2(0x21, 0x11, &[0; 2049]);
        assert_eq!(parse(&long[..16]), Err(ProxyError::TooLong));
    }

    #[test]
    fn other_beginnings_are_refused_at_the_first_wrong_byte() {
        for wrong in [&b"\0"[..], b"X", b"PROXX", b"PROXY\t", b"\r\n\r\n\0\r\nQUIX", b"\x16\x03"] {
            assert_eq!(parse(wrong), Err(ProxyError::Missing), "{wrong:?}");
        }
        assert_eq!(parse(b""), Ok(None));
    }

    proptest! {
        #[test]
        fn a_written_header_is_read_back_and_its_prefixes_wait(
            source: [u8; 4], port: u16, extra in prop::collection::vec(any::<u8>(), 0..100)
        ) {
            let client = SocketAddr::from((source, port));
            let line = format!("PROXY TCP4 {} 192.0.2.1 {port} 8443\r\n", client.ip());
            reads(line.as_bytes(), Some(&client.to_string()));
            let mut body = [&source[..], &[192, 0, 2, 1], &port.to_be_bytes(), &[1, 2]].concat();
            body.extend(extra);
            reads(&v2(0x21, 0x11, &body), Some(&client.to_string()));
        }

        #[test]
        fn any_bytes_get_a_bounded_answer(
            start in 0usize..3, tail in prop::collection::vec(any::<u8>(), 0..2100)
        ) {
            let mut bytes = [&b""[..], V1_START, V2_START][start].to_vec();
            bytes.extend(tail);
            match parse(&bytes) {
                Ok(Some((_, consumed))) => prop_assert!(consumed <= bytes.len().min(MAX_V2)),
                Ok(None) => prop_assert!(bytes.len() < MAX_V2),
                Err(error) => {
                    // More bytes never mend it.
                    bytes.push(0);
                    prop_assert_eq!(parse(&bytes), Err(error));
                }
            }
        }
    }
}
