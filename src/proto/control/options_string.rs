//! The options string: a comma-separated self-description that both sides send in key method 2.
//! Diagnostic, except that clients without negotiation name their cipher and digest in it.

use super::printable;

/// Longest options string that is kept or sent, without the terminating NUL.
pub const MAX_OPTIONS: usize = 511;

/// What is sent to a client whose own string is empty.
const FALLBACK: &str = "V4,dev-type tun,link-mtu 1559,tun-mtu 1500,proto TCPv4_SERVER,\
    cipher AES-256-CBC,auth SHA1,keysize 256,key-method 2,tls-server";

/// A parsed options string. Keeps the text (printable, bounded) and looks elements up in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionsString {
    text: Box<str>,
}

impl OptionsString {
    /// Takes any text; unknown and malformed elements do no harm.
    pub fn parse(text: &str) -> Self {
        Self { text: printable(text, MAX_OPTIONS).into_boxed_str() }
    }

    /// The whole text.
    pub fn raw(&self) -> &str {
        &self.text
    }

    /// True if the peer sent an empty string, or none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The elements in order.
    pub fn elements(&self) -> impl Iterator<Item = &str> {
        self.text.split(',').map(str::trim).filter(|element| !element.is_empty())
    }

    /// The value of the first element `name value`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.elements()
            .find_map(|element| element.strip_prefix(name)?.strip_prefix(' '))
            .map(str::trim)
            .filter(|value| !value.is_empty())
    }

    /// True if there is an element `name` without a value.
    pub fn has(&self, name: &str) -> bool {
        self.elements().any(|element| element == name)
    }

    /// `tun`, `tap` or `null`.
    pub fn dev_type(&self) -> Option<&str> {
        self.value("dev-type")
    }

    /// The data cipher, as the peer spells it; `[null-cipher]` for none.
    pub fn cipher(&self) -> Option<&str> {
        self.value("cipher")
    }

    /// The digest, as the peer spells it; `[null-digest]` for none and often for AEAD ciphers.
    pub fn auth(&self) -> Option<&str> {
        self.value("auth")
    }

    /// The peer's idea of the link MTU, bytes.
    pub fn link_mtu(&self) -> Option<u16> {
        self.value("link-mtu")?.parse().ok()
    }

    /// The peer's tunnel MTU, bytes.
    pub fn tun_mtu(&self) -> Option<u16> {
        self.value("tun-mtu")?.parse().ok()
    }

    /// The peer's direction of a static key, 0 or 1.
    pub fn keydir(&self) -> Option<u8> {
        self.value("keydir")?.parse().ok().filter(|direction| *direction <= 1)
    }

    /// Key bits of the peer's cipher.
    pub fn keysize(&self) -> Option<u16> {
        self.value("keysize")?.parse().ok()
    }

    /// True if the peer frames packets for compression, which we do not offer.
    pub fn comp_lzo(&self) -> bool {
        self.has("comp-lzo")
    }

    /// The string that the server answers `client` with: the client's own elements with the roles
    /// swapped, so that the client finds no difference to warn about and a client without
    /// negotiation keeps its cipher. `comp-lzo` is left out, since we do not compress.
    pub fn server_reply(client: &Self) -> String {
        let swapped: Vec<&str> = client
            .elements()
            .filter(|element| *element != "comp-lzo")
            .map(|element| match element {
                "proto TCPv4_CLIENT" => "proto TCPv4_SERVER",
                "proto TCPv6_CLIENT" => "proto TCPv6_SERVER",
                "tls-client" => "tls-server",
                "keydir 0" => "keydir 1",
                "keydir 1" => "keydir 0",
                other => other,
            })
            .collect();
        if swapped.is_empty() { FALLBACK.to_owned() } else { swapped.join(",") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CBC_CLIENT: &str = "V4,dev-type tun,link-mtu 1559,tun-mtu 1500,proto TCPv4_CLIENT,\
        keydir 1,cipher AES-256-CBC,auth SHA1,keysize 256,tls-auth,key-method 2,tls-client";

    #[test]
    fn finds_each_element() {
        let options = OptionsString::parse(CBC_CLIENT);
        assert_eq!(options.dev_type(), Some("tun"));
        assert_eq!(options.cipher(), Some("AES-256-CBC"));
        assert_eq!(options.auth(), Some("SHA1"));
        assert_eq!((options.link_mtu(), options.tun_mtu()), (Some(1559), Some(1500)));
        assert_eq!((options.keydir(), options.keysize()), (Some(1), Some(256)));
        assert!(!options.comp_lzo() && options.has("tls-auth") && options.has("V4"));
        assert!(OptionsString::parse("V4,comp-lzo,x").comp_lzo());
        assert!(!OptionsString::parse("V4,comp-lzonot").comp_lzo());
    }

    #[test]
    fn missing_and_malformed_values_are_absent() {
        let options = OptionsString::parse("V4,cipher,auth ,link-mtu 99999,tun-mtu x,keydir 2");
        assert_eq!((options.cipher(), options.auth()), (None, None));
        assert_eq!((options.link_mtu(), options.tun_mtu(), options.keydir()), (None, None, None));
        assert!(OptionsString::default().is_empty());
        assert_eq!(OptionsString::parse("ciphers X,cipher Y,cipher Z").cipher(), Some("Y"));
    }

    #[test]
    fn the_reply_echoes_the_client_with_the_roles_swapped() {
        assert_eq!(
            OptionsString::server_reply(&OptionsString::parse(CBC_CLIENT)),
            "V4,dev-type tun,link-mtu 1559,tun-mtu 1500,proto TCPv4_SERVER,\
             keydir 0,cipher AES-256-CBC,auth SHA1,keysize 256,tls-auth,key-method 2,tls-server"
        );
        for empty in ["", ",,", "comp-lzo"] {
            let reply = OptionsString::server_reply(&OptionsString::parse(empty));
            assert_eq!(reply, FALLBACK, "never empty: old clients take that for an error");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_bounded_and_printable(text in any::<String>()) {
            let options = OptionsString::parse(&text);
            prop_assert!(options.raw().len() <= MAX_OPTIONS);
            let reply = OptionsString::server_reply(&options);
            prop_assert!(!reply.is_empty() && reply.len() <= MAX_OPTIONS);
            prop_assert!(reply.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
            let _ = (options.cipher(), options.auth(), options.link_mtu(), options.keydir());
        }
    }
}
