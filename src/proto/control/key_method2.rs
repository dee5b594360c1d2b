//! Key method 2: the first message in each direction inside TLS.
//!
//! ```text
//! u32 0 | u8 2 | pre-master (48, client only) | random1 (32) | random2 (32)
//!   | options | user name | password | peer info         each: u16 length with its NUL | bytes
//! ```
//!
//! The client's message may end after any of the strings; peer info is often missing.

use thiserror::Error;
use tunnelhead_crypto::{KeySource, Secret, SecretBytes};

use super::{MAX_OPTIONS, MAX_PEER_INFO};
use crate::proto::wire::{Reader, Truncated, put_u16, put_u32};

/// Longest user name that is accepted on the wire, bytes without the NUL.
pub const MAX_USERNAME: usize = 128;
/// Longest password that is accepted on the wire, bytes without the NUL.
pub const MAX_PASSWORD: usize = 1000;
const METHOD: u8 = 2;
/// The upper bits of the method byte are reserved.
const METHOD_MASK: u8 = 0x0f;

/// The peer broke the format; close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Km2Error {
    /// Another key method.
    #[error("key method {0} is not supported")]
    Method(u8),
    /// The options string is longer than [`MAX_OPTIONS`].
    #[error("an options string of {0} bytes")]
    OptionsTooLong(u16),
    /// The peer info is longer than [`MAX_PEER_INFO`].
    #[error("peer info of {0} bytes")]
    PeerInfoTooLong(u16),
    /// A string that is to be sent does not fit its length field.
    #[error("a string of {0} bytes can't be sent")]
    Unsendable(usize),
}

/// A client's message, or the server's (then without credentials and with a pre-master of zeros).
#[derive(Debug)]
pub struct KeyMethod2 {
    /// Random material for the data keys.
    pub source: KeySource,
    /// The options string; see [`super::OptionsString`].
    pub options: String,
    /// User name without the NUL, byte for byte; `None` if absent or too long.
    pub username: Option<Vec<u8>>,
    /// Password without the NUL, byte for byte; `None` if absent or too long.
    pub password: Option<SecretBytes>,
    /// User name or password was longer than what is accepted; the login fails, the session lives.
    pub too_long: bool,
    /// Peer info; `None` if the message ends before it. See [`super::PeerInfo`].
    pub peer_info: Option<String>,
}

/// Why reading stopped: more bytes may mend it, or nothing can.
enum Stop {
    Truncated,
    Bad(Km2Error),
}

impl From<Truncated> for Stop {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

impl KeyMethod2 {
    /// Reads a client's message and says how many bytes it took. `None`: not all there yet.
    ///
    /// The end of the plaintext is the only sign of a message that leaves strings out: set
    /// `complete` if `bytes` is all that TLS has to give for now. Then a message that ends between
    /// two strings is whole; one that ends inside a string waits for more in any case.
    ///
    /// # Errors
    /// [`Km2Error`]; never for credentials that are too long.
    pub fn decode_client(bytes: &[u8], complete: bool) -> Result<Option<(Self, usize)>, Km2Error> {
        Self::decode(bytes, complete, true)
    }

    /// Reads a server's message likewise.
    ///
    /// # Errors
    /// [`Km2Error`].
    pub fn decode_server(bytes: &[u8], complete: bool) -> Result<Option<(Self, usize)>, Km2Error> {
        Self::decode(bytes, complete, false)
    }

    fn decode(
        bytes: &[u8],
        complete: bool,
        from_client: bool,
    ) -> Result<Option<(Self, usize)>, Km2Error> {
        let mut reader = Reader::new(bytes);
        match read(&mut reader, complete, from_client) {
            Ok(message) => Ok(Some((message, bytes.len() - reader.remaining()))),
            Err(Stop::Truncated) => Ok(None),
            Err(Stop::Bad(error)) => Err(error),
        }
    }

    /// The client's message. It ends after the last string that is present; an absent one before
    /// that is written as empty.
    ///
    /// # Errors
    /// [`Km2Error::Unsendable`].
    pub fn encode_client(&self) -> Result<SecretBytes, Km2Error> {
        let mut out = head();
        out.extend_from_slice(self.source.pre_master.expose());
        out.extend_from_slice(self.source.random1.expose());
        out.extend_from_slice(self.source.random2.expose());
        put_string(&mut out, self.options.as_bytes())?;
        let strings = [
            self.username.as_deref(),
            self.password.as_ref().map(|password| password.expose()),
            self.peer_info.as_ref().map(String::as_bytes),
        ];
        let present = strings.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        for string in strings.into_iter().take(present) {
            put_string(&mut out, string.unwrap_or_default())?;
        }
        Ok(SecretBytes::from(out))
    }

    /// The server's message: its randoms, the options string, and three empty strings.
    ///
    /// # Errors
    /// [`Km2Error::Unsendable`].
    pub fn encode_server(source: &KeySource, options: &str) -> Result<SecretBytes, Km2Error> {
        let mut out = head();
        out.extend_from_slice(source.random1.expose());
        out.extend_from_slice(source.random2.expose());
        put_string(&mut out, options.as_bytes())?;
        for _ in 0..3 {
            put_string(&mut out, b"")?;
        }
        Ok(SecretBytes::from(out))
    }
}

fn read(reader: &mut Reader<'_>, complete: bool, from_client: bool) -> Result<KeyMethod2, Stop> {
    // The leading zeros are not checked: stock peers do not, either.
    reader.u32()?;
    let method = reader.u8()? & METHOD_MASK;
    if method != METHOD {
        return Err(Stop::Bad(Km2Error::Method(method)));
    }
    let pre_master = if from_client { reader.array()? } else { [0; 48] };
    let source = KeySource {
        pre_master: Secret::new(pre_master),
        random1: Secret::new(reader.array()?),
        random2: Secret::new(reader.array()?),
    };
    let options = text(string(reader, MAX_OPTIONS, Km2Error::OptionsTooLong)?);
    let any = |_| Km2Error::Unsendable(0);
    let username = optional(reader, complete, usize::MAX, any)?;
    let password = optional(reader, complete, usize::MAX, any)?;
    let peer_info = optional(reader, complete, MAX_PEER_INFO, Km2Error::PeerInfoTooLong)?;
    let username_fits = username.is_none_or(|name| name.len() <= MAX_USERNAME);
    let password_fits = password.is_none_or(|word| word.len() <= MAX_PASSWORD);
    Ok(KeyMethod2 {
        source,
        options,
        username: username.filter(|_| username_fits).map(<[u8]>::to_vec),
        password: password.filter(|_| password_fits).map(|word| SecretBytes::from(word.to_vec())),
        too_long: !(username_fits && password_fits),
        peer_info: peer_info.map(text),
    })
}

/// A string without its last byte, which is its NUL: stock peers overwrite it with one.
fn string<'a>(
    reader: &mut Reader<'a>,
    max: usize,
    too_long: impl FnOnce(u16) -> Km2Error,
) -> Result<&'a [u8], Stop> {
    let len = reader.u16()?;
    if usize::from(len) > max.saturating_add(1) {
        return Err(Stop::Bad(too_long(len)));
    }
    let bytes = reader.bytes(usize::from(len))?;
    Ok(bytes.split_last().map_or(&[], |(_, string)| string))
}

fn optional<'a>(
    reader: &mut Reader<'a>,
    complete: bool,
    max: usize,
    too_long: impl FnOnce(u16) -> Km2Error,
) -> Result<Option<&'a [u8]>, Stop> {
    if complete && reader.is_empty() {
        return Ok(None);
    }
    string(reader, max, too_long).map(Some)
}

/// Text up to its first NUL.
fn text(bytes: &[u8]) -> String {
    let until_nul = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(until_nul).into_owned()
}

fn head() -> Vec<u8> {
    // Room for all of it, so that no copy of the secrets stays behind in a smaller block.
    let mut out = Vec::with_capacity(8192);
    put_u32(&mut out, 0);
    out.push(METHOD);
    out
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Km2Error> {
    if bytes.is_empty() {
        put_u16(out, 0);
        return Ok(());
    }
    let len = u16::try_from(bytes.len() + 1).map_err(|_| Km2Error::Unsendable(bytes.len()))?;
    put_u16(out, len);
    out.extend_from_slice(bytes);
    out.push(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source() -> KeySource {
        KeySource {
            pre_master: Secret::new([1; 48]),
            random1: Secret::new([2; 32]),
            random2: Secret::new([3; 32]),
        }
    }

    fn message(username: Option<&[u8]>, password: Option<&[u8]>) -> KeyMethod2 {
        KeyMethod2 {
            source: source(),
            options: "V4,dev-type tun".to_owned(),
            username: username.map(<[u8]>::to_vec),
            password: password.map(|word| SecretBytes::from(word.to_vec())),
            too_long: false,
            peer_info: None,
        }
    }

    fn bytes(message: &KeyMethod2) -> Vec<u8> {
        message.encode_client().unwrap().expose().to_vec()
    }

    fn read_whole(bytes: &[u8]) -> KeyMethod2 {
        let (message, consumed) = KeyMethod2::decode_client(bytes, true).unwrap().unwrap();
        assert_eq!(consumed, bytes.len());
        message
    }

    #[test]
    fn a_whole_message_reads_back_and_what_follows_stays() {
        let mut sent = message(Some(b"bob"), Some(b"secret"));
        sent.peer_info = Some("IV_PROTO=2\n".to_owned());
        let mut wire = bytes(&sent);
        let len = wire.len();
        wire.extend_from_slice(b"PUSH_REQUEST\0");
        let (got, consumed) = KeyMethod2::decode_client(&wire, false).unwrap().unwrap();
        assert_eq!(consumed, len);
        assert_eq!(got.source.pre_master.expose(), &[1; 48]);
        assert_eq!(got.source.random1.expose(), &[2; 32]);
        assert_eq!(got.source.random2.expose(), &[3; 32]);
        assert_eq!(got.options, "V4,dev-type tun");
        assert_eq!(got.username.as_deref(), Some(&b"bob"[..]));
        assert_eq!(got.password.as_ref().map(|p| p.expose().to_vec()), Some(b"secret".to_vec()));
        assert_eq!(got.peer_info.as_deref(), Some("IV_PROTO=2\n"));
    }

    #[test]
    fn a_message_may_end_after_the_options_or_the_password() {
        let short = read_whole(&bytes(&message(None, None)));
        assert!(short.username.is_none() && short.password.is_none() && short.peer_info.is_none());
        let wire = bytes(&message(Some(b"bob"), Some(b"")));
        let router = read_whole(&wire);
        assert_eq!(router.username.as_deref(), Some(&b"bob"[..]));
        assert!(router.password.is_some_and(|p| p.is_empty()) && router.peer_info.is_none());
        assert!(matches!(KeyMethod2::decode_client(&wire, false), Ok(None)), "more may come");
    }

    #[test]
    fn every_prefix_waits_unless_it_ends_between_two_strings() {
        let mut sent = message(Some(b"bob"), Some(b"pw"));
        sent.peer_info = Some("IV_PROTO=2\n".to_owned());
        let wire = bytes(&sent);
        let options_end = 5 + 48 + 64 + 2 + 16;
        let ends = [options_end, options_end + 6, options_end + 11, wire.len()];
        for len in 0..=wire.len() {
            let now = KeyMethod2::decode_client(&wire[..len], false).unwrap();
            assert_eq!(now.is_some(), len == wire.len(), "{len}");
            let complete = KeyMethod2::decode_client(&wire[..len], true).unwrap();
            assert_eq!(complete.is_some(), ends.contains(&len), "{len}");
        }
    }

    #[test]
    fn credentials_at_the_limit_pass_and_beyond_it_are_a_value() {
        let (name, word) = ([b'u'; MAX_USERNAME + 1], [b'p'; MAX_PASSWORD + 1]);
        let fits = read_whole(&bytes(&message(Some(&name[1..]), Some(&word[1..]))));
        assert!(!fits.too_long && fits.username.is_some_and(|name| name.len() == MAX_USERNAME));
        let long_name = read_whole(&bytes(&message(Some(&name), Some(b"x"))));
        assert!(long_name.too_long && long_name.username.is_none() && long_name.password.is_some());
        let long_word = read_whole(&bytes(&message(Some(b"x"), Some(&word))));
        assert!(long_word.too_long && long_word.password.is_none());
        let huge = vec![b'p'; 65_000];
        assert!(read_whole(&bytes(&message(Some(b"x"), Some(&huge)))).too_long);
    }

    #[test]
    fn a_broken_message_is_refused_as_soon_as_it_shows() {
        let mut wire = bytes(&message(None, None));
        wire[4] = 0xf2;
        assert!(KeyMethod2::decode_client(&wire, true).unwrap().is_some(), "reserved bits");
        wire[4] = 1;
        assert_eq!(KeyMethod2::decode_client(&wire[..5], false).unwrap_err(), Km2Error::Method(1));
        let mut wire = bytes(&message(None, None));
        wire.truncate(5 + 48 + 64);
        wire.extend_from_slice(&513_u16.to_be_bytes());
        let error = KeyMethod2::decode_client(&wire, false).unwrap_err();
        assert_eq!(error, Km2Error::OptionsTooLong(513));
        let mut wire = bytes(&message(Some(b"u"), Some(b"p")));
        wire.extend_from_slice(&5000_u16.to_be_bytes());
        let error = KeyMethod2::decode_client(&wire, false).unwrap_err();
        assert_eq!(error, Km2Error::PeerInfoTooLong(5000));
        let mut long = message(Some(&[b'u'; 70_000]), None);
        assert_eq!(long.encode_client().unwrap_err(), Km2Error::Unsendable(70_000));
        long.username = None;
        assert!(long.encode_client().is_ok());
    }

    #[test]
    fn an_unterminated_string_loses_its_last_byte_and_inner_nuls_stay_in_credentials() {
        let mut wire = bytes(&message(None, None));
        wire.extend_from_slice(&[0, 3, b'a', 0, b'c', 0, 1, 0]);
        let got = read_whole(&wire);
        assert_eq!(got.username.as_deref(), Some(&b"a\0"[..]));
        assert!(got.password.is_some_and(|p| p.is_empty()));
    }

    #[test]
    fn the_server_message_has_its_strings_where_clients_look() {
        let wire = KeyMethod2::encode_server(&source(), "V4").unwrap();
        let wire = wire.expose();
        assert_eq!(wire.len(), 69 + 2 + 3 + 6);
        assert_eq!(&wire[..5], &[0, 0, 0, 0, 2]);
        assert_eq!(&wire[69..74], &[0, 3, b'V', b'4', 0]);
        let (got, consumed) = KeyMethod2::decode_server(wire, false).unwrap().unwrap();
        assert_eq!((consumed, got.options.as_str()), (wire.len(), "V4"));
        assert_eq!(got.source.random1.expose(), &[2; 32]);
        assert_eq!(got.source.pre_master.expose(), &[0; 48]);
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let shown = format!("{:?}", message(Some(b"bob"), Some(b"hunter2hunter2")));
        assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            options in "[ -~]{0,511}",
            username in prop::collection::vec(any::<u8>(), 0..=128),
            password in prop::collection::vec(any::<u8>(), 0..=1000),
            peer_info in prop::option::of("[ -~\n]{0,200}"),
        ) {
            let mut sent = message(Some(&username), Some(&password));
            sent.options = options;
            sent.peer_info = peer_info;
            let got = read_whole(&bytes(&sent));
            prop_assert_eq!(got.options, sent.options);
            prop_assert_eq!(got.username, Some(username));
            prop_assert_eq!(got.password.map(|p| p.expose().to_vec()), Some(password));
            prop_assert_eq!(got.peer_info, sent.peer_info);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            tail in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..200),
            complete in any::<bool>(),
        ) {
            let mut wire = bytes(&message(None, None));
            wire.truncate(5 + 48 + 64);
            wire.extend_from_slice(&tail);
            for bytes in [&wire[..], &tail] {
                if let Ok(Some((_, consumed))) = KeyMethod2::decode_client(bytes, complete) {
                    prop_assert!(consumed <= bytes.len());
                }
                let _ = KeyMethod2::decode_server(bytes, complete);
            }
        }
    }
}
