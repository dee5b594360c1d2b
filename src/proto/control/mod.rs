//! What is said inside TLS: key method 2, the options string, peer info and the control messages.
//! Pure codecs; every text that comes from a peer is bounded and holds printable ASCII only.
//!
//! Source: `docs/PROTOCOL.md`, "Key method 2", "Options and peer info", "Control messages".

mod key_method2;
mod message;
mod options_string;
mod peer_info;

pub use key_method2::{KeyMethod2, Km2Error, MAX_PASSWORD, MAX_USERNAME};
pub use message::{MAX_MESSAGE, Message, MessageReader};
pub use options_string::{MAX_OPTIONS, OptionsString};
pub use peer_info::{MAX_PEER_INFO, PeerInfo, iv_proto};

/// Copies text of a peer: at most `max` characters, each that is not printable ASCII becomes `_`.
fn printable(text: &str, max: usize) -> String {
    let clean = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '_' };
    text.chars().take(max).map(clean).collect()
}
