//! Control messages: NUL-terminated printable ASCII commands inside TLS, after key method 2.

/// Longest message that is read, without the NUL. Stock peers send at most 1,024.
pub const MAX_MESSAGE: usize = 2048;
/// The one message that is also taken without its NUL, if it comes alone.
const UNTERMINATED: &[u8] = b"PUSH_REQUEST";

/// A control message. Texts are printable ASCII without the separating comma.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The client asks for its configuration.
    PushRequest,
    /// The configuration: everything after `PUSH_REPLY,`, maybe empty.
    PushReply(String),
    /// A change of the configuration.
    PushUpdate(String),
    /// The login failed, maybe with a reason.
    AuthFailed(Option<String>),
    /// The login is being decided.
    AuthPending(Option<String>),
    /// Reconnect.
    Restart(Option<String>),
    /// Stop and do not come back.
    Halt(Option<String>),
    /// The peer leaves.
    Exit,
    /// Text for the user.
    Info(String),
    /// Text for the user, before the login is decided.
    InfoPre(String),
    /// The answer to a challenge.
    CrResponse(String),
    /// Anything else; ignored and counted.
    Unknown(String),
}

impl Message {
    /// Reads one command. Commands are matched by prefix, as stock peers do.
    pub fn parse(text: &str) -> Self {
        let rest = |name: &str| text.strip_prefix(name);
        let argument = |rest: &str| rest.strip_prefix(',').unwrap_or(rest).to_owned();
        let optional = |rest: &str| Some(argument(rest)).filter(|text| !text.is_empty());
        if rest("PUSH_REQUEST").is_some() {
            Self::PushRequest
        } else if let Some(rest) = rest("PUSH_REPLY") {
            Self::PushReply(argument(rest))
        } else if let Some(rest) = rest("PUSH_UPDATE") {
            Self::PushUpdate(argument(rest))
        } else if let Some(rest) = rest("AUTH_FAILED") {
            Self::AuthFailed(optional(rest))
        } else if let Some(rest) = rest("AUTH_PENDING") {
            Self::AuthPending(optional(rest))
        } else if let Some(rest) = rest("RESTART") {
            Self::Restart(optional(rest))
        } else if let Some(rest) = rest("HALT") {
            Self::Halt(optional(rest))
        } else if rest("EXIT").is_some() {
            Self::Exit
        } else if let Some(rest) = rest("INFO_PRE") {
            Self::InfoPre(argument(rest))
        } else if let Some(rest) = rest("INFO") {
            Self::Info(argument(rest))
        } else if let Some(rest) = rest("CR_RESPONSE") {
            Self::CrResponse(argument(rest))
        } else {
            Self::Unknown(text.to_owned())
        }
    }

    /// The command as text, without the NUL.
    pub fn to_text(&self) -> String {
        let with = |name: &str, text: &str| format!("{name},{text}");
        let maybe = |name: &str, text: &Option<String>| {
            text.as_ref().map_or_else(|| name.to_owned(), |text| with(name, text))
        };
        match self {
            Self::PushRequest => "PUSH_REQUEST".to_owned(),
            Self::PushReply(text) if text.is_empty() => "PUSH_REPLY".to_owned(),
            Self::PushReply(text) => with("PUSH_REPLY", text),
            Self::PushUpdate(text) => with("PUSH_UPDATE", text),
            Self::AuthFailed(text) => maybe("AUTH_FAILED", text),
            Self::AuthPending(text) => maybe("AUTH_PENDING", text),
            Self::Restart(text) => maybe("RESTART", text),
            Self::Halt(text) => maybe("HALT", text),
            Self::Exit => "EXIT".to_owned(),
            Self::Info(text) => with("INFO", text),
            Self::InfoPre(text) => with("INFO_PRE", text),
            Self::CrResponse(text) => with("CR_RESPONSE", text),
            Self::Unknown(text) => text.clone(),
        }
    }

    /// The bytes to write into TLS, with the NUL, as one write.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_text().into_bytes();
        bytes.push(0);
        bytes
    }
}

/// Cuts the TLS plaintext into messages. Holds at most [`MAX_MESSAGE`] bytes.
#[derive(Debug, Default)]
pub struct MessageReader {
    held: Vec<u8>,
    /// The message at hand is too long: skip to its NUL.
    skipping: bool,
    bad: u64,
}

impl MessageReader {
    /// An empty reader; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes plaintext as it comes, in any chunking, and gives each message to `each`. Messages
    /// that are too long or hold anything but printable ASCII (after a trailing CR/LF is cut off)
    /// are dropped and counted; empty ones are ignored, since some clients send a second NUL.
    pub fn push(&mut self, plaintext: &[u8], each: &mut dyn FnMut(Message)) {
        let mut rest = plaintext;
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            let (part, after) = rest.split_at(end);
            self.hold(part);
            self.finish(each);
            rest = after.get(1..).unwrap_or_default();
        }
        self.hold(rest);
        // Deviation: a stock server parses what one read gives, NUL or not.
        if self.held == UNTERMINATED {
            self.finish(each);
        }
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }

    /// How many messages were dropped.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// Bytes of an unfinished message.
    pub fn buffered(&self) -> usize {
        self.held.len()
    }

    fn hold(&mut self, part: &[u8]) {
        if self.held.len().saturating_add(part.len()) > MAX_MESSAGE {
            self.skipping = true;
        }
        if self.skipping {
            self.held.clear();
        } else {
            self.held.extend_from_slice(part);
        }
    }

    fn finish(&mut self, each: &mut dyn FnMut(Message)) {
        let line = self.held.trim_ascii_end();
        let clean = line.iter().all(|byte| *byte == b' ' || byte.is_ascii_graphic());
        match std::str::from_utf8(line) {
            _ if self.skipping => self.bad = self.bad.saturating_add(1),
            Ok("") => {}
            Ok(text) if clean => each(Message::parse(text)),
            _ => self.bad = self.bad.saturating_add(1),
        }
        self.skipping = false;
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> (Vec<Message>, u64) {
        let mut reader = MessageReader::new();
        let mut seen = Vec::new();
        for chunk in chunks {
            reader.push(chunk, &mut |message| seen.push(message));
        }
        (seen, reader.bad())
    }

    #[test]
    fn each_command_is_known_and_written_as_it_is_read() {
        for (text, message) in [
            ("PUSH_REQUEST", Message::PushRequest),
            ("PUSH_REPLY", Message::PushReply(String::new())),
            ("PUSH_REPLY,ping 3", Message::PushReply("ping 3".into())),
            ("PUSH_UPDATE,route 1.2.3.4", Message::PushUpdate("route 1.2.3.4".into())),
            ("AUTH_FAILED", Message::AuthFailed(None)),
            ("AUTH_FAILED,no", Message::AuthFailed(Some("no".into()))),
            ("AUTH_PENDING,timeout 9", Message::AuthPending(Some("timeout 9".into()))),
            ("RESTART", Message::Restart(None)),
            ("RESTART,[P]x", Message::Restart(Some("[P]x".into()))),
            ("HALT", Message::Halt(None)),
            ("EXIT", Message::Exit),
            ("INFO,x", Message::Info("x".into())),
            ("INFO_PRE,x", Message::InfoPre("x".into())),
            ("CR_RESPONSE,eA==", Message::CrResponse("eA==".into())),
            ("HELLO", Message::Unknown("HELLO".into())),
        ] {
            assert_eq!(Message::parse(text), message);
            assert_eq!(message.to_text(), text);
            assert_eq!(read(&[&message.to_bytes()]), (vec![message], 0));
        }
    }

    #[test]
    fn line_ends_and_a_second_nul_are_tolerated() {
        let (seen, bad) = read(&[b"PUSH_REQUEST\r\n\0\0EXIT\n\0"]);
        assert_eq!((seen, bad), (vec![Message::PushRequest, Message::Exit], 0));
    }

    #[test]
    fn a_push_request_without_its_nul_is_taken_once() {
        let (seen, bad) = read(&[b"PUSH_REQUEST", b"\0", b"PUSH_REQUEST"]);
        assert_eq!((seen, bad), (vec![Message::PushRequest, Message::PushRequest], 0));
        assert_eq!(read(&[b"EXIT"]).0, []);
    }

    #[test]
    fn every_byte_at_every_place_is_taken_or_counted() {
        for byte in 1..=255_u8 {
            for place in 0..4 {
                let mut text = b"EXI T\0".to_vec();
                text[place] = byte;
                let (seen, bad) = read(&[&text]);
                let fine = byte == b' ' || byte.is_ascii_graphic();
                assert_eq!((seen.len(), bad), if fine { (1, 0) } else { (0, 1) }, "{byte}");
            }
        }
    }

    #[test]
    fn an_endless_message_is_skipped_in_bounded_memory() {
        let mut reader = MessageReader::new();
        let mut seen = 0;
        for _ in 0..1_000_000 {
            reader.push(b"x", &mut |_| seen += 1);
            assert!(reader.buffered() <= MAX_MESSAGE);
        }
        reader.push(b"\0EXIT\0", &mut |_| seen += 1);
        assert_eq!((seen, reader.bad()), (1, 1));
        assert_eq!(read(&[&[b'x'; MAX_MESSAGE], b"\0"]).0.len(), 1);
        assert_eq!(read(&[&[b'x'; MAX_MESSAGE + 1], b"\0"]), (vec![], 1));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(
            messages in prop::collection::vec("[ -~]{0,30}", 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
            junk in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            prop_assume!(messages.iter().all(|text| !text.starts_with("PUSH_REQUEST")));
            let mut stream: Vec<u8> =
                messages.iter().flat_map(|text| text.bytes().chain([0])).collect();
            stream.extend_from_slice(&junk);
            let mut bounds: Vec<usize> = cuts.iter().map(|c| c % (stream.len() + 1)).collect();
            bounds.extend([0, stream.len()]);
            bounds.sort_unstable();
            let chunks: Vec<&[u8]> = bounds.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(read(&chunks), read(&[&stream]));
        }
    }
}
