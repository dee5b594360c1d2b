//! How the clients of a fleet behave: RouterOS from version 6 to 7.24, and stock OpenVPN.
//!
//! The names P1 to P9 are those of `docs/ROUTEROS.md`. What the true options string of RouterOS
//! looks like is not known in every detail, so [`options_variants`] differ where it may.

use std::time::Duration;

use tunnelhead_crypto::{AuthDigest, DataCipher, SecretBytes};

use crate::proto::client::{ClientConfig, Quirks, SwitchPolicy};
use crate::tls::{CertAndKey, ClientTlsConfig, OpensslContext, TlsError, TlsVersion};

/// A router's time from the key exchange to the push request; short, so that tests are quick.
const PUSH_DELAY: Duration = Duration::from_millis(20);

/// What a client offers in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsOffer {
    /// Lowest version.
    pub min: TlsVersion,
    /// Highest version.
    pub max: TlsVersion,
    /// Suites of TLS 1.2 and below, in OpenSSL's spelling; `None`: a modern list.
    pub suites: Option<&'static str>,
}

impl TlsOffer {
    /// TLS 1.2 with elliptic curves and AES-GCM.
    pub const ECDHE_GCM: Self = Self {
        min: TlsVersion::Tls12,
        max: TlsVersion::Tls12,
        suites: Some("ECDHE-RSA-AES256-GCM-SHA384"),
    };
    /// The same, with an ECDSA certificate as the first choice.
    pub const ECDHE_ANY_GCM: Self = Self {
        suites: Some("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"),
        ..Self::ECDHE_GCM
    };
    /// TLS 1.2 with RSA key exchange and CBC: what old RouterOS may have at most.
    pub const CBC: Self = Self { suites: Some("AES256-SHA:AES128-SHA"), ..Self::ECDHE_GCM };
    /// TLS 1.0 and nothing newer.
    pub const TLS_1_0: Self = Self {
        min: TlsVersion::Tls10,
        max: TlsVersion::Tls10,
        suites: Some("ECDHE-RSA-AES256-SHA:AES256-SHA:AES128-SHA"),
    };
    /// Whatever a current library offers.
    pub const MODERN: Self = Self { min: TlsVersion::Tls12, max: TlsVersion::Tls13, suites: None };
}

/// A kind of client, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Name for failure messages.
    pub name: &'static str,
    /// TLS.
    pub tls: TlsOffer,
    /// Data cipher it is set to.
    pub cipher: DataCipher,
    /// Digest it is set to; `None` is `auth=null`.
    pub digest: Option<AuthDigest>,
    /// Options string; `None`: the one that fits.
    pub options: Option<String>,
    /// Peer info; `None`: the record ends after the password.
    pub peer_info: Option<String>,
    /// What sets it apart.
    pub quirks: Quirks,
    /// Uses a pushed peer id.
    pub data_v2: bool,
    /// Sends pings of its own.
    pub pings: bool,
    /// When it sends with a new key.
    pub switch: SwitchPolicy,
    /// Starts a rekey this long after a key became active.
    pub rekey_after: Option<Duration>,
    /// Most acknowledgements in one packet.
    pub max_acks: usize,
}

impl Profile {
    /// The settings of one client of this kind.
    pub fn client(&self, username: &[u8], password: &[u8]) -> ClientConfig {
        ClientConfig {
            username: Some(username.to_vec()),
            password: Some(SecretBytes::from(password.to_vec())),
            cipher: self.cipher,
            digest: self.digest,
            options: self.options.clone(),
            peer_info: self.peer_info.clone(),
            quirks: self.quirks,
            data_v2: self.data_v2,
            push_delay: PUSH_DELAY,
            pings: self.pings,
            rekey_after: self.rekey_after,
            switch: self.switch,
            max_acks: self.max_acks,
            ..ClientConfig::default()
        }
    }

    /// A TLS context for clients of this kind; it verifies nobody.
    ///
    /// # Errors
    /// If the certificate can't be used.
    pub fn tls_context(&self, certificate: Option<CertAndKey>) -> Result<OpensslContext, TlsError> {
        let old = self.tls.min < TlsVersion::Tls12;
        OpensslContext::client(&ClientTlsConfig {
            min_version: self.tls.min,
            max_version: self.tls.max,
            cipher_list: self.tls.suites.map(str::to_owned),
            // TLS 1.0 signs with SHA-1, which higher levels refuse.
            security_level: if old { 0 } else { 1 },
            certificate,
            ..ClientTlsConfig::default()
        })
    }

    /// The same client with another TLS offer.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsOffer) -> Self {
        self.tls = tls;
        self
    }

    /// The same client with another digest for CBC.
    #[must_use]
    pub fn with_digest(mut self, digest: AuthDigest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The same client with this options string.
    #[must_use]
    pub fn with_options(mut self, options: &str) -> Self {
        self.options = Some(options.to_owned());
        self
    }

    /// The same client with `IV_PROTO=2` as its peer info, and what follows from it.
    #[must_use]
    pub fn with_peer_info(mut self) -> Self {
        self.peer_info = Some("IV_PROTO=2\n".to_owned());
        self.data_v2 = true;
        self
    }
}

/// What all RouterOS clients share.
fn routeros(name: &'static str) -> Profile {
    Profile {
        name,
        tls: TlsOffer::ECDHE_GCM,
        cipher: DataCipher::Aes256Cbc,
        digest: Some(AuthDigest::Sha1),
        options: None,
        peer_info: None,
        quirks: Quirks {
            ifconfig_is_netmask: true,
            no_continuation: true,
            stalls_on_routes: true,
            ..Quirks::default()
        },
        data_v2: false,
        pings: false,
        switch: SwitchPolicy::After(Duration::from_secs(60)),
        rekey_after: None,
        max_acks: 4,
    }
}

/// P1: RouterOS 6.43 to 6.49, which sends two hard resets.
pub fn p1() -> Profile {
    let mut profile = routeros("P1");
    profile.quirks.second_reset = true;
    profile
}

/// P1b: RouterOS 6 with one hard reset.
pub fn p1b() -> Profile {
    routeros("P1b")
}

/// P2: RouterOS 7.1 to 7.13, which sends its `ClientHello` before the server has answered.
pub fn p2() -> Profile {
    let mut profile = routeros("P2");
    profile.quirks.early_hello = true;
    profile
}

/// P3: RouterOS 7.17 to 7.24.
pub fn p3() -> Profile {
    Profile { name: "P3", ..routeros("P3").with_peer_info().with_tls(TlsOffer::ECDHE_ANY_GCM) }
}

/// P4: RouterOS 7.8 to 7.16 with AES-GCM and `auth=null`.
pub fn p4() -> Profile {
    Profile { name: "P4", cipher: DataCipher::Aes256Gcm, digest: None, ..p2() }
}

/// P4b: RouterOS 7.17 and newer with AES-GCM and a digest that is named but not used.
pub fn p4b() -> Profile {
    Profile { name: "P4b", cipher: DataCipher::Aes256Gcm, ..p3().with_digest(AuthDigest::Sha256) }
}

/// P5: as P3; the difference is a client certificate, given to [`Profile::tls_context`].
pub fn p5() -> Profile {
    Profile { name: "P5", ..p3() }
}

/// P6: the factory's default cipher, Blowfish.
pub fn p6() -> Profile {
    Profile { name: "P6", ..p1b() }.with_options(
        "V4,dev-type tun,link-mtu 1543,tun-mtu 1500,proto TCPv4_CLIENT,cipher BF-CBC,auth SHA1,\
         keysize 128,key-method 2,tls-client",
    )
}

/// P8: as P3, renewing its keys `every` so often and switching at once.
pub fn p8(every: Option<Duration>) -> Profile {
    Profile { name: "P8", rekey_after: every, switch: SwitchPolicy::Immediately, ..p3() }
}

/// A stock OpenVPN 2.6 client.
pub fn stock_2_6() -> Profile {
    let stock = ClientConfig::default();
    Profile {
        name: "stock 2.6",
        tls: TlsOffer::MODERN,
        cipher: stock.cipher,
        digest: stock.digest,
        options: None,
        peer_info: stock.peer_info,
        quirks: Quirks { repeat_acks: true, ..Quirks::default() },
        data_v2: true,
        pings: true,
        switch: stock.switch,
        rekey_after: None,
        max_acks: 4,
    }
}

/// Options strings that a RouterOS client with AES-256-CBC and SHA1 might send: other lengths,
/// another order, missing fields, nothing.
pub fn options_variants() -> [&'static str; 6] {
    [
        "V4,dev-type tun,link-mtu 1559,tun-mtu 1500,proto TCPv4_CLIENT,cipher AES-256-CBC,\
         auth SHA1,keysize 256,key-method 2,tls-client",
        "V4,dev-type tun,link-mtu 1560,tun-mtu 1500,proto TCPv4_CLIENT,keysize 256,\
         cipher AES-256-CBC,auth SHA1,key-method 2,tls-client",
        "V4,dev-type tun,link-mtu 1544,tun-mtu 1500,proto TCPv4_CLIENT,auth SHA1,\
         cipher AES-256-CBC,tls-client",
        "V4,cipher AES-256-CBC,auth SHA1",
        "V4,dev-type tun,proto TCPv4_CLIENT,cipher AES-256-CBC",
        "",
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_tls_is_offered_only_by_the_profile_that_says_so() {
        for profile in [p1(), p1b(), p2(), p3(), p4(), p4b(), p5(), p6(), p8(None), stock_2_6()] {
            assert!(profile.tls.min >= TlsVersion::Tls12, "{}", profile.name);
            profile.tls_context(None).unwrap();
        }
        p1().with_tls(TlsOffer::TLS_1_0).tls_context(None).unwrap();
    }

    #[test]
    fn the_profiles_differ_where_the_routers_do() {
        assert!(p1().quirks.second_reset && !p1b().quirks.second_reset);
        assert!(p2().quirks.early_hello && !p3().quirks.early_hello);
        assert_eq!(p3().client(b"u", b"p").peer_info.as_deref(), Some("IV_PROTO=2\n"));
        assert_eq!(p1().client(b"u", b"p").peer_info, None);
        assert_eq!(p4().client(b"u", b"p").digest, None);
        assert!(p6().options.is_some_and(|options| options.contains("BF-CBC")));
    }
}
