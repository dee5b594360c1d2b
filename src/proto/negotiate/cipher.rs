//! The choice of data cipher and digest.

use thiserror::Error;
use tunnelhead_crypto::{AuthDigest, DataCipher};

use crate::proto::control::{OptionsString, PeerInfo};
use crate::proto::session::AccountAuth;

/// How a client spells "no digest", or the digest that an AEAD cipher does not use.
const NULL_DIGEST: &str = "[null-digest]";
/// What a client without negotiation and without a word about its cipher uses.
const DEFAULT_CIPHER: DataCipher = DataCipher::Aes256Cbc;
const DEFAULT_DIGEST: AuthDigest = AuthDigest::Sha1;
/// What `IV_NCP=2` alone promises. Source: OpenVPN 2.4 manual, `ncp-ciphers`.
const NCP2_CIPHERS: [DataCipher; 2] = [DataCipher::Aes256Gcm, DataCipher::Aes128Gcm];
/// Longest name of a client that is repeated in a refusal.
const MAX_SHOWN: usize = 120;

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct CipherInput<'a> {
    /// The server's list in order of preference; also the allow-list for clients that do not
    /// negotiate.
    pub server: &'a [DataCipher],
    /// What the client says it can do.
    pub peer_info: &'a PeerInfo,
    /// What the client says it uses.
    pub options: &'a OptionsString,
    /// The cipher that the account prescribes; allowed for this account even if not in `server`.
    pub account_cipher: Option<DataCipher>,
    /// The digest that the account prescribes.
    pub account_auth: Option<AccountAuth>,
}

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The data cipher.
    pub cipher: DataCipher,
    /// The digest; of no effect with an AEAD cipher.
    pub digest: AuthDigest,
    /// True if the client negotiates: the cipher must be pushed. False: it must not.
    pub pushed: bool,
}

/// Why no data channel can be agreed on. The text goes to the client in `AUTH_FAILED`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CipherRefusal {
    /// The client negotiates and shares none of our ciphers.
    #[error("no shared data cipher: the client offers {client}")]
    NoSharedCipher {
        /// What it offers.
        client: String,
    },
    /// The client uses a cipher that we do not know or do not consider safe.
    #[error("the client is configured with cipher {name}, which is not supported")]
    UnsupportedCipher {
        /// Its name.
        name: String,
    },
    /// The client uses a cipher that is not on the server's list.
    #[error("the client is configured with cipher {}, which this server does not allow", cipher.name())]
    CipherNotAllowed {
        /// The cipher.
        cipher: DataCipher,
    },
    /// The account prescribes another cipher.
    #[error("the account prescribes cipher {} and the client uses {client}", account.name())]
    AccountCipherMismatch {
        /// The account's.
        account: DataCipher,
        /// The client's.
        client: String,
    },
    /// The client uses a digest that we do not know or do not consider safe.
    #[error("the client is configured with auth {name}, which is not supported")]
    UnsupportedDigest {
        /// Its name.
        name: String,
    },
    /// A CBC cipher without a digest.
    #[error("cipher {} needs an auth digest and the client has none", cipher.name())]
    NullDigest {
        /// The cipher.
        cipher: DataCipher,
    },
    /// The account prescribes another digest, or none with a CBC cipher.
    #[error("the account prescribes auth {account} and the client uses {client}")]
    AccountDigestMismatch {
        /// The account's.
        account: &'static str,
        /// The client's.
        client: String,
    },
    /// The client has an Ethernet (TAP) device.
    #[error("the client is configured with a TAP device, only TUN (mode=ip) is supported")]
    TapDevice,
    /// The client frames packets for compression.
    #[error("the client is configured with compression, which is not supported")]
    Compression,
}

impl CipherRefusal {
    /// Stable name for metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSharedCipher { .. } => "no_shared_cipher",
            Self::UnsupportedCipher { .. } => "cipher_unsupported",
            Self::CipherNotAllowed { .. } => "cipher_not_allowed",
            Self::AccountCipherMismatch { .. } => "cipher_not_the_accounts",
            Self::UnsupportedDigest { .. } => "auth_unsupported",
            Self::NullDigest { .. } => "auth_missing",
            Self::AccountDigestMismatch { .. } => "auth_not_the_accounts",
            Self::TapDevice => "tap_device",
            Self::Compression => "compression",
        }
    }
}

/// Chooses cipher and digest.
///
/// A client that negotiates gets the first cipher of the server's list that it shares. Any other
/// gets what its options string names, if that is allowed; if it names nothing, what the account
/// prescribes, else AES-256-CBC with SHA1. What the account prescribes binds in every case.
///
/// # Errors
/// [`CipherRefusal`], with the reason to send.
pub fn choose_cipher(input: CipherInput<'_>) -> Result<Chosen, CipherRefusal> {
    if input.options.dev_type() == Some("tap") {
        return Err(CipherRefusal::TapDevice);
    }
    if input.options.comp_lzo() {
        return Err(CipherRefusal::Compression);
    }
    let pushed = input.peer_info.negotiates();
    let cipher = if pushed { negotiated(&input)? } else { configured(&input)? };
    let digest = digest(&input, cipher)?;
    Ok(Chosen { cipher, digest, pushed })
}

fn negotiated(input: &CipherInput<'_>) -> Result<DataCipher, CipherRefusal> {
    let listed = input.peer_info.iv_ciphers();
    let offered: Vec<DataCipher> = match &listed {
        Some(names) => names.iter().filter_map(|name| DataCipher::from_name(name)).collect(),
        None => NCP2_CIPHERS.into_iter().chain(named_cipher(input.options)).collect(),
    };
    let shown = || match &listed {
        Some(names) => cut(&names.join(":")),
        None => cut(&offered.iter().map(|cipher| cipher.name()).collect::<Vec<_>>().join(":")),
    };
    match input.account_cipher {
        Some(account) if offered.contains(&account) => Ok(account),
        Some(account) => Err(CipherRefusal::AccountCipherMismatch { account, client: shown() }),
        None => input
            .server
            .iter()
            .copied()
            .find(|cipher| offered.contains(cipher))
            .ok_or_else(|| CipherRefusal::NoSharedCipher { client: shown() }),
    }
}

fn configured(input: &CipherInput<'_>) -> Result<DataCipher, CipherRefusal> {
    let said = input.options.cipher();
    let cipher = match said {
        None => input.account_cipher.unwrap_or(DEFAULT_CIPHER),
        Some(name) => named_cipher(input.options)
            .ok_or_else(|| CipherRefusal::UnsupportedCipher { name: cut(name) })?,
    };
    match input.account_cipher {
        Some(account) if account != cipher => Err(CipherRefusal::AccountCipherMismatch {
            account,
            client: cut(said.unwrap_or_default()),
        }),
        None if !input.server.contains(&cipher) => Err(CipherRefusal::CipherNotAllowed { cipher }),
        _ => Ok(cipher),
    }
}

fn digest(input: &CipherInput<'_>, cipher: DataCipher) -> Result<AuthDigest, CipherRefusal> {
    let said = input.options.auth();
    let known = said.and_then(|name| AuthDigest::from_name(&name.to_ascii_uppercase()));
    let account = match input.account_auth {
        Some(AccountAuth::Digest(digest)) => Some(digest),
        _ => None,
    };
    let silent = account.unwrap_or(DEFAULT_DIGEST);
    if cipher.is_aead() {
        // Unused: neither what the client says nor what the account says can differ on the wire.
        return Ok(known.unwrap_or(silent));
    }
    if input.account_auth == Some(AccountAuth::Null) {
        return Err(CipherRefusal::AccountDigestMismatch {
            account: "null",
            client: format!(
                "{} with {}",
                said.map_or_else(|| "its default".to_owned(), cut),
                cipher.name()
            ),
        });
    }
    let digest = match said {
        None => silent,
        // A client whose own cipher is an AEAD one says so, whatever digest it would use with CBC.
        Some(NULL_DIGEST) if named_cipher(input.options).is_some_and(DataCipher::is_aead) => silent,
        Some(NULL_DIGEST) => return Err(CipherRefusal::NullDigest { cipher }),
        Some(name) => known.ok_or_else(|| CipherRefusal::UnsupportedDigest { name: cut(name) })?,
    };
    match account {
        Some(account) if account != digest => Err(CipherRefusal::AccountDigestMismatch {
            account: account.name(),
            client: digest.name().to_owned(),
        }),
        _ => Ok(digest),
    }
}

/// The cipher of the options string, in whatever case: what routers write there is not recorded.
fn named_cipher(options: &OptionsString) -> Option<DataCipher> {
    DataCipher::from_name(&options.cipher()?.to_ascii_uppercase())
}

/// Text of a client for a refusal.
fn cut(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataCipher::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm};

    const SERVER: [DataCipher; 2] = [Aes256Gcm, Aes256Cbc];

    fn choose(
        peer_info: &str,
        options: &str,
        account_cipher: Option<DataCipher>,
        account_auth: Option<AccountAuth>,
    ) -> Result<Chosen, CipherRefusal> {
        choose_cipher(CipherInput {
            server: &SERVER,
            peer_info: &PeerInfo::parse(peer_info),
            options: &OptionsString::parse(options),
            account_cipher,
            account_auth,
        })
    }

    fn chosen(
        cipher: DataCipher,
        digest: AuthDigest,
        pushed: bool,
    ) -> Result<Chosen, CipherRefusal> {
        Ok(Chosen { cipher, digest, pushed })
    }

    #[test]
    fn a_negotiating_client_gets_our_first_choice_that_it_shares() {
        for (peer_info, cipher) in [
            ("IV_CIPHERS=AES-128-GCM:AES-256-CBC:AES-256-GCM", Aes256Gcm),
            ("IV_CIPHERS=AES-256-CBC:BF-CBC", Aes256Cbc),
            ("IV_NCP=2", Aes256Gcm),
        ] {
            assert_eq!(choose(peer_info, "V4", None, None), chosen(cipher, AuthDigest::Sha1, true));
        }
        let options = "V4,cipher AES-256-GCM,auth [null-digest]";
        assert_eq!(
            choose("IV_CIPHERS=AES-256-CBC", options, None, None),
            chosen(Aes256Cbc, AuthDigest::Sha1, true),
            "its digest is not visible behind an AEAD cipher"
        );
    }

    #[test]
    fn a_negotiating_client_without_a_shared_cipher_is_refused_with_its_list() {
        let refusal = choose("IV_CIPHERS=CHACHA20-POLY1305:BF-CBC", "V4", None, None).unwrap_err();
        assert_eq!(refusal.code(), "no_shared_cipher");
        assert_eq!(
            refusal.to_string(),
            "no shared data cipher: the client offers CHACHA20-POLY1305:BF-CBC"
        );
        // With the list present, the options string does not count.
        assert!(choose("IV_CIPHERS=BF-CBC", "V4,cipher AES-256-GCM", None, None).is_err());
        let only_ncp = PeerInfo::parse("IV_NCP=2");
        let input = CipherInput {
            server: &[Aes256Cbc],
            peer_info: &only_ncp,
            options: &OptionsString::parse("V4,cipher AES-256-CBC,auth SHA256"),
            account_cipher: None,
            account_auth: None,
        };
        assert_eq!(choose_cipher(input), chosen(Aes256Cbc, AuthDigest::Sha256, true));
    }

    #[test]
    fn a_router_gets_what_its_options_string_names() {
        for (options, cipher, digest) in [
            ("V4,cipher AES-256-CBC,auth SHA1", Aes256Cbc, AuthDigest::Sha1),
            ("V4,cipher AES-256-CBC,auth SHA512", Aes256Cbc, AuthDigest::Sha512),
            ("V4,cipher aes-256-cbc,auth sha256", Aes256Cbc, AuthDigest::Sha256),
            ("V4,cipher AES-256-GCM,auth [null-digest]", Aes256Gcm, AuthDigest::Sha1),
            ("V4,cipher AES-256-GCM,auth MD5", Aes256Gcm, AuthDigest::Sha1),
            ("V4,cipher AES-256-GCM,auth SHA256", Aes256Gcm, AuthDigest::Sha256),
            ("V4", Aes256Cbc, AuthDigest::Sha1),
            ("", Aes256Cbc, AuthDigest::Sha1),
        ] {
            for peer_info in ["", "IV_PROTO=2"] {
                assert_eq!(choose(peer_info, options, None, None), chosen(cipher, digest, false));
            }
        }
    }

    #[test]
    fn what_is_unsafe_or_not_allowed_is_refused_each_with_its_code() {
        for (options, code) in [
            ("V4,cipher BF-CBC,auth SHA1", "cipher_unsupported"),
            ("V4,cipher [null-cipher],auth SHA1", "cipher_unsupported"),
            ("V4,cipher AES-128-CBC,auth SHA1", "cipher_not_allowed"),
            ("V4,cipher AES-256-CBC,auth MD5", "auth_unsupported"),
            ("V4,cipher AES-256-CBC,auth [null-digest]", "auth_missing"),
            ("V4,auth [null-digest]", "auth_missing"),
            ("V4,dev-type tap,cipher AES-256-CBC", "tap_device"),
            ("V4,dev-type tun,comp-lzo,cipher AES-256-CBC", "compression"),
        ] {
            let refusal = choose("", options, None, None).unwrap_err();
            assert_eq!(refusal.code(), code, "{options}");
        }
        assert_eq!(
            choose("", "V4,cipher BF-CBC", None, None).unwrap_err().to_string(),
            "the client is configured with cipher BF-CBC, which is not supported"
        );
    }

    #[test]
    fn the_account_decides_where_the_router_is_silent() {
        let sha256 = Some(AccountAuth::Digest(AuthDigest::Sha256));
        assert_eq!(
            choose("", "V4", Some(Aes256Gcm), sha256),
            chosen(Aes256Gcm, AuthDigest::Sha256, false)
        );
        assert_eq!(choose("", "", None, sha256), chosen(Aes256Cbc, AuthDigest::Sha256, false));
        // Allowed for this account although the server's list lacks it.
        assert_eq!(
            choose("", "V4,cipher AES-128-CBC", Some(Aes128Cbc), None),
            chosen(Aes128Cbc, AuthDigest::Sha1, false)
        );
        assert_eq!(
            choose("IV_CIPHERS=AES-256-GCM:AES-128-GCM", "V4", Some(Aes128Gcm), None),
            chosen(Aes128Gcm, AuthDigest::Sha1, true)
        );
        let null = Some(AccountAuth::Null);
        assert_eq!(
            choose("", "V4,cipher AES-256-GCM,auth [null-digest]", None, null),
            chosen(Aes256Gcm, AuthDigest::Sha1, false)
        );
    }

    #[test]
    fn an_account_that_says_otherwise_is_a_refusal() {
        let sha256 = Some(AccountAuth::Digest(AuthDigest::Sha256));
        let null = Some(AccountAuth::Null);
        for (peer_info, options, cipher, auth, code) in [
            ("", "V4,cipher AES-256-CBC", Some(Aes256Gcm), None, "cipher_not_the_accounts"),
            ("IV_CIPHERS=AES-256-CBC", "V4", Some(Aes256Gcm), None, "cipher_not_the_accounts"),
            ("IV_NCP=2", "V4", Some(Aes256Cbc), None, "cipher_not_the_accounts"),
            ("", "V4,cipher AES-256-CBC,auth SHA1", None, sha256, "auth_not_the_accounts"),
            ("", "V4,cipher AES-256-CBC,auth SHA1", None, null, "auth_not_the_accounts"),
            ("", "V4", None, null, "auth_not_the_accounts"),
        ] {
            let refusal = choose(peer_info, options, cipher, auth).unwrap_err();
            assert_eq!(refusal.code(), code, "{peer_info} {options}: {refusal}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_an_endless_name() {
        let name = "X".repeat(400);
        let refusal = choose("", &format!("V4,cipher {name}"), None, None).unwrap_err();
        assert!(refusal.to_string().len() < 250);
        let list = PeerInfo::parse(&format!("IV_CIPHERS={name}"));
        let input = CipherInput {
            server: &SERVER,
            peer_info: &list,
            options: &OptionsString::default(),
            account_cipher: None,
            account_auth: None,
        };
        assert!(choose_cipher(input).unwrap_err().to_string().len() < 250);
    }
}
