//! Every kind of RouterOS client reaches the outcome that `docs/ROUTEROS.md` promises it.

use std::time::Duration;

use tunnelhead::control_api::types::{NewRouter, SecretText};
use tunnelhead::testing::fleet::{Command, Fleet, Happening, Member, MemberId, View};
use tunnelhead::testing::profiles::{self, Profile, TlsOffer};
use tunnelhead::tls::CertAndKey;
use tunnelhead::tls::pki::issue_client;
use tunnelhead_crypto::{AuthDigest, SecretBytes};

use crate::head::{Head, SOON, listener};

/// A concentrator and a fleet.
struct Site {
    head: Head,
    fleet: Fleet,
}

impl Site {
    fn start() -> Self {
        Self::with(Head::start())
    }

    fn with(head: Head) -> Self {
        Self { head, fleet: Fleet::start().expect("a fleet") }
    }

    /// A router of this kind logs in; it, its gateway and the host reach each other.
    fn expect_tunnel(&self, name: &str, profile: Profile) -> (MemberId, View) {
        self.expect_tunnel_of(name, self.head.member(name, profile))
    }

    fn expect_tunnel_of(&self, name: &str, member: Member) -> (MemberId, View) {
        let id = self.fleet.add(member);
        self.fleet.wait_for(id, name, SOON, |view| view.up);
        (id, self.expect_pings(name, id))
    }

    /// One more ping each way is answered.
    fn expect_pings(&self, name: &str, id: MemberId) -> View {
        let before = self.fleet.view(id);
        self.fleet.tell(id, Command::PingBoth);
        let answered = self.fleet.wait_for(id, "answers", SOON, |view| {
            let more = view.management_pings.0 > before.management_pings.0;
            view.up && more && view.pings_answered()
        });
        let address = answered.address.expect("an address");
        let replies = self.head.host.view(address).replies;
        assert!(self.head.host.ping(address, 1));
        self.head.host.wait_for(address, name, SOON, |seen| seen.replies > replies);
        self.fleet.expect_no_violations();
        self.fleet.view(id)
    }

    /// A login that is refused in words; returns them.
    fn expect_refusal(&self, member: Member) -> String {
        let id = self.fleet.add(member);
        let view = self.fleet.wait_for(id, "an end", SOON, |view| view.closes == 1);
        assert_eq!((view.logins, view.refusals), (0, 1), "{view:?}");
        self.fleet.expect_no_violations();
        view.refusal().expect("AUTH_FAILED").to_owned()
    }

    /// A login that ends without a word of the protocol.
    fn expect_silence(&self, member: Member) {
        let id = self.fleet.add(member);
        let view = self.fleet.wait_for(id, "an end", SOON, |view| view.closes == 1);
        assert_eq!((view.logins, view.refusals), (0, 0), "{view:?}");
    }

    /// Cipher and digest of a tunnel, as the concentrator shows them.
    fn data_channel(&self, name: &str) -> (String, String) {
        let tunnel = self.head.tunnel(name).expect("a tunnel");
        (tunnel.cipher, tunnel.auth)
    }
}

fn cbc(digest: &str) -> (String, String) {
    ("AES-256-CBC".to_owned(), digest.to_owned())
}

#[test]
fn routeros_p1_second_hard_reset() {
    let site = Site::start();
    for (name, offer) in [("gcm-suites", TlsOffer::ECDHE_GCM), ("cbc-suites", TlsOffer::CBC)] {
        site.expect_tunnel(name, profiles::p1().with_tls(offer));
        assert_eq!(site.data_channel(name), cbc("SHA1"));
    }
}

#[test]
fn routeros_p1_tls_1_0_only_on_a_legacy_listener() {
    let mut legacy = listener();
    legacy.legacy = true;
    let site = Site::with(Head::start_with(|config| config.listeners.push(legacy)));
    let member = site.head.member("old", profiles::p1().with_tls(TlsOffer::TLS_1_0));
    site.expect_silence(member.clone());
    site.head.wait_counter("login_closed_tls", 1);
    site.expect_tunnel_of("old", Member { target: site.head.listens(1), ..member });
    let tunnel = site.head.tunnel("old").expect("a tunnel");
    assert_eq!(tunnel.tls_version.as_deref(), Some("TLSv1"));
}

#[test]
fn routeros_p1b_one_hard_reset() {
    let site = Site::start();
    site.expect_tunnel("p1b", profiles::p1b());
    assert_eq!(site.data_channel("p1b"), cbc("SHA1"));
}

#[test]
fn routeros_p2_client_hello_before_our_reset() {
    let site = Site::start();
    for digest in [AuthDigest::Sha1, AuthDigest::Sha256, AuthDigest::Sha512] {
        let profile = profiles::p2().with_digest(digest);
        let name = format!("none-{}", digest.name().to_lowercase());
        site.expect_tunnel(&name, profile.clone());
        assert_eq!(site.data_channel(&name), cbc(digest.name()));
        let name = format!("iv-{}", digest.name().to_lowercase());
        site.expect_tunnel(&name, profile.with_peer_info());
        assert_eq!(site.data_channel(&name), cbc(digest.name()));
    }
}

#[test]
fn routeros_p3_standard_start_with_iv_proto_2() {
    let site = Site::start();
    for digest in [AuthDigest::Sha1, AuthDigest::Sha256] {
        let name = digest.name().to_lowercase();
        site.expect_tunnel(&name, profiles::p3().with_digest(digest));
        assert_eq!(site.data_channel(&name), cbc(digest.name()));
    }
}

#[test]
fn routeros_p4_gcm_without_digest() {
    let site = Site::start();
    for (name, profile) in [("none", profiles::p4()), ("iv", profiles::p4().with_peer_info())] {
        site.expect_tunnel(name, profile);
        assert_eq!(site.data_channel(name).0, "AES-256-GCM");
    }
}

#[test]
fn routeros_p4b_gcm_with_a_digest_that_is_not_used() {
    let site = Site::start();
    site.expect_tunnel("p4b", profiles::p4b());
    assert_eq!(site.data_channel("p4b").0, "AES-256-GCM");
}

#[test]
fn routeros_p5_certificate_where_one_is_asked_for() {
    let site = Site::with(Head::start_with(|config| {
        config.listeners[0].client_certificate = tunnelhead::config::CertificatePolicy::Optional;
    }));
    let pki = site.head.folder().join("state/pki");
    let (certificate, key) = issue_client(&pki, "p5").expect("a certificate");
    let pair = CertAndKey {
        certificate_pem: certificate.into_bytes(),
        key_pem: SecretBytes::from(key.as_bytes().to_vec()),
    };
    let member = site.head.member("p5", profiles::p5());
    let member = member.with_certificate(pair).expect("a usable certificate");
    site.expect_tunnel_of("p5", member);
    // Without one, the client answers the question with an empty list.
    site.expect_tunnel("p1", profiles::p1());
}

#[test]
fn routeros_p6_blowfish_is_refused_with_a_reason() {
    let site = Site::start();
    let text = site.expect_refusal(site.head.member("p6", profiles::p6()));
    assert!(text.contains("BF-CBC"), "{text}");
    site.head.wait_counter("login_closed_cipher_unsupported", 1);
}

#[test]
fn routeros_p7_second_login_after_a_silent_death_keeps_the_address() {
    let site = Site::start();
    let (id, first) = site.expect_tunnel("p7", profiles::p3());
    for round in 1..=5 {
        // The old connection is still open as far as the concentrator can see.
        site.fleet.tell(id, Command::Abandon);
        site.fleet.tell(id, Command::Dial);
        let view = site.fleet.wait_for(id, "another login", SOON, |view| view.logins == round + 1);
        assert_eq!(view.address, first.address);
        site.expect_pings("p7", id);
        assert_eq!(site.head.tunnels().len(), 1);
    }
    site.head.wait_counter("tunnel_closed_replaced_by_new_login", 5);
}

#[test]
fn routeros_p7_reconnects_keep_the_address() {
    let site = Site::start();
    let member = Member {
        redial: Some(Duration::from_millis(10)),
        ..site.head.member("p7", profiles::p1())
    };
    let (id, first) = site.expect_tunnel_of("p7", member);
    for round in 1..=5 {
        site.fleet.tell(id, Command::HangUp);
        let view = site.fleet.wait_for(id, "another login", SOON, |view| view.logins == round + 1);
        assert_eq!(view.address, first.address);
        site.expect_pings("p7", id);
    }
}

#[test]
fn routeros_p7_segments_of_one_byte() {
    let site = Site::start();
    for (name, profile) in
        [("p1", profiles::p1()), ("p3", profiles::p3()), ("stock", profiles::stock_2_6())]
    {
        let member = site.head.member(name, profile);
        site.expect_tunnel_of(name, Member { one_byte_segments: true, ..member });
    }
}

#[test]
fn routeros_p7_two_frames_in_one_segment() {
    let site = Site::start();
    // The reset and the first TLS bytes share a write, and so do the two pings.
    site.expect_tunnel("p2", profiles::p2());
    // Both resets.
    site.expect_tunnel("p1", profiles::p1());
}

#[test]
fn routeros_p7_killed_after_the_key_exchange() {
    let site = Site::start();
    let member = Member {
        die_after_key_exchange: 3,
        redial: Some(Duration::from_millis(10)),
        ..site.head.member("p7", profiles::p3())
    };
    let (_, view) = site.expect_tunnel_of("p7", member);
    assert_eq!((view.dials, view.closes, view.logins), (4, 3, 1));
}

/// The key ids that a member has used after the first.
fn key_ids(view: &View) -> Vec<u8> {
    let changed = view.log.iter().filter_map(|happening| match happening {
        Happening::KeysChanged(id) => Some(*id),
        _ => None,
    });
    changed.collect()
}

#[test]
fn routeros_p8_renegotiation_by_the_router() {
    let site = Site::start();
    let (id, _) = site.expect_tunnel("p8", profiles::p8(None));
    site.fleet.tell(id, Command::PingEvery(Some(Duration::from_millis(5))));
    for round in 1..=9 {
        site.fleet.tell(id, Command::Rekey);
        site.fleet.wait_for(id, "new keys", SOON, |view| view.rekeys == round);
        let sent = site.fleet.view(id).management_pings.0;
        site.fleet.wait_for(id, "a ping", SOON, |view| view.management_pings.1 > sent);
    }
    site.fleet.tell(id, Command::PingEvery(None));
    site.fleet.wait_for(id, "every answer", SOON, View::pings_answered);
    let view = site.expect_pings("p8", id);
    assert_eq!(key_ids(&view), [1, 2, 3, 4, 5, 6, 7, 1, 2]);
    assert_eq!(view.closes, 0);
}

#[test]
fn routeros_p8_renegotiation_by_the_server() {
    let every = Duration::from_millis(300);
    let site = Site::with(Head::start_with(|config| config.data.rekey_after = Some(every)));
    for (name, profile) in [("p1", profiles::p1()), ("p8", profiles::p8(None))] {
        let (id, _) = site.expect_tunnel(name, profile);
        site.fleet.tell(id, Command::PingEvery(Some(Duration::from_millis(5))));
        site.fleet.wait_for(id, "new keys", SOON, |view| view.rekeys >= 8);
        site.fleet.tell(id, Command::PingEvery(None));
        site.fleet.wait_for(id, "every answer", SOON, View::pings_answered);
        let view = site.expect_pings(name, id);
        assert_eq!(key_ids(&view)[..8], [1, 2, 3, 4, 5, 6, 7, 1]);
        assert_eq!(view.closes, 0);
    }
}

#[test]
fn routeros_p9_limits_end_in_a_tunnel_or_a_clean_refusal() {
    let site = Site::start();
    let account = |name: &str, username: &str, password: &str| {
        let mut new = NewRouter::named(name);
        new.username = Some(username.to_owned());
        new.password = Some(SecretText(password.to_owned()));
        site.head.add_router(new)
    };
    let member = |username: &str, password: &str| {
        Member::new(site.head.listens(0), profiles::p3(), username, password)
    };
    let (name, password) = ("u".repeat(27), "p".repeat(233));
    account("longest", &name, &password).expect("an account");
    site.expect_tunnel_of("longest", member(&name, &password));
    account("utf-8", "zurich", "пароль-å").expect("an account");
    site.expect_tunnel_of("utf-8", member("zurich", "пароль-å"));

    let refusal = site.expect_refusal(member("nobody", "wrong"));
    for (username, password) in [
        (name.as_str(), ""),
        (&name, &"p".repeat(232)),
        (&name, &"p".repeat(1000)),
        (&name, &"p".repeat(3000)),
        ("zurich", "пароль-a"),
        ("Zürich-東京", "пароль-å"),
        (&"u".repeat(128), "x"),
        (&"u".repeat(600), "x"),
        ("", ""),
    ] {
        let text = site.expect_refusal(member(username, password));
        assert_eq!(text, refusal, "{} {}", username.len(), password.len());
    }
}

#[test]
fn routeros_options_strings_of_any_shape_mean_aes_256_cbc_and_sha1() {
    let site = Site::start();
    for (index, options) in profiles::options_variants().into_iter().enumerate() {
        for (kind, profile) in [("p1", profiles::p1()), ("p3", profiles::p3())] {
            let name = format!("{kind}-{index}");
            site.expect_tunnel(&name, profile.with_options(options));
            assert_eq!(site.data_channel(&name), cbc("SHA1"), "{options}");
        }
    }
}
