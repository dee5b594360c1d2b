//! Configuration, certificates and revocation lists exchanged under live tunnels and logins.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tunnelhead::control_api::ErrorCode;
use tunnelhead::testing::fleet::{Command, Fleet, Member};
use tunnelhead::testing::profiles;
use tunnelhead::tls::CertAndKey;
use tunnelhead_crypto::SecretBytes;

use crate::head::{Head, SOON};
use crate::support::pki::{Authority, Identity};

/// What a revoked certificate may keep its tunnel for.
const CUT_WITHIN: Duration = Duration::from_secs(2);

/// A concentrator with certificates of its operator's, in files.
struct Site {
    head: Head,
    authority: Authority,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("Router CA");
        write(folder.path(), "ca.pem", &authority.pem());
        install(folder.path(), &authority.rsa_server("vpn.example.net"));
        write(folder.path(), "crl.pem", &authority.crl(&[], 9));
        write(folder.path(), "config.toml", &config(""));
        Self { head: Head::start_from_file(folder), authority }
    }

    fn folder(&self) -> &Path {
        self.head.folder()
    }

    /// A router with a certificate of our CA.
    fn member(&self, name: &str, identity: &Identity) -> Member {
        let pair = CertAndKey {
            certificate_pem: identity.certificate.clone().into_bytes(),
            key_pem: SecretBytes::from(identity.key.clone().into_bytes()),
        };
        self.head.member(name, profiles::p3()).with_certificate(pair).unwrap()
    }
}

fn config(more: &str) -> String {
    format!(
        "public_host = \"127.0.0.1\"\nstate_dir = \"state\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nclient_certificate = \"optional\"\n\
         [tls]\ncertificates = [{{ certificate = \"server.pem\", key = \"server.key\" }}]\n\
         client_ca = \"ca.pem\"\ncrl = [\"crl.pem\"]\n{more}\n"
    )
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn install(folder: &Path, server: &Identity) {
    write(folder, "server.pem", &server.certificate);
    write(folder, "server.key", &server.key);
}

#[test]
fn what_is_bad_changes_nothing_and_says_why() {
    let site = Site::start();
    let folder = site.folder();
    let fleet = Fleet::start().unwrap();
    fleet.add(site.head.member("branch-1", profiles::p3()));
    fleet.wait_all_up(SOON);
    let before = site.head.status();

    let stranger = Authority::new("Another CA");
    let other = site.authority.rsa_server("vpn.example.net");
    let good = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let cut = |text: String| text[..text.len() * 2 / 3].to_owned();
    let table = [
        ("server.pem", cut(good("server.pem")), "tls.certificates[0]", "ends in the middle"),
        ("server.pem", String::new(), "tls.certificates[0].certificate", "does not hold"),
        ("server.key", cut(good("server.key")), "tls.certificates[0].key", "ends in the middle"),
        ("server.key", other.key, "tls.certificates[0].key", "does not belong"),
        ("ca.pem", cut(site.authority.pem()), "tls.client_ca", "ends in the middle"),
        ("ca.pem", stranger.pem(), "tls.crl[0]", "not among the CAs"),
        ("crl.pem", cut(good("crl.pem")), "tls.crl[0]", "ends in the middle"),
        ("crl.pem", stranger.crl(&[], 1), "tls.crl[0]", "not among the CAs"),
        ("config.toml", config("typo = 1"), "tls.typo", "not a known key"),
        ("config.toml", "listen = [".to_owned(), "", "not TOML"),
        ("config.toml", config("[keepalive]\nping = \"9h\""), "keepalive.ping", "not possible"),
    ];
    for (file, text, key, words) in table {
        let whole = good(file);
        write(folder, file, &text);
        let refused = site.head.reload().expect_err(file);
        assert_eq!(refused.code, ErrorCode::ReloadRefused, "{file}");
        let all = refused.to_string();
        assert!(all.contains(key) && all.contains(words), "{file}: {all}");
        let status = site.head.status();
        let degraded = status.degraded.iter().find(|one| one.part == "reload").expect(file);
        assert!(degraded.reason.contains(words), "{}", degraded.reason);
        assert_eq!(
            (status.certificates, status.crls),
            (before.certificates.clone(), before.crls.clone())
        );
        assert!(site.head.tunnel("branch-1").is_some());
        write(folder, file, &whole);
    }
    // Two at once are both named.
    write(folder, "crl.pem", "");
    let whole = good("server.key");
    write(folder, "server.key", "-----BEGIN PRIVATE KEY-----\n");
    let all = site.head.reload().unwrap_err().to_string();
    assert!(all.contains("tls.crl[0]"), "{all}");
    write(folder, "crl.pem", &site.authority.crl(&[], 9));
    fs::remove_file(folder.join("server.key")).unwrap();
    let all = site.head.reload().unwrap_err().to_string();
    assert!(all.contains("there is no such file"), "{all}");
    write(folder, "server.key", &whole);
    // What is good again is taken, and the trouble is over.
    let report = site.head.reload().unwrap();
    assert_eq!((report.tunnels_cut, report.needs_restart.len()), (0, 0));
    assert!(!site.head.status().degraded.iter().any(|one| one.part == "reload"));
    assert!(fleet.views().iter().all(|view| view.up));
    fleet.expect_no_violations();
}

#[test]
fn a_revoked_certificate_loses_its_tunnel_and_does_not_come_back() {
    let site = Site::start();
    let (first, second) = (site.authority.client("branch-1"), site.authority.client("branch-2"));
    let fleet = Fleet::start().unwrap();
    let revoked = fleet.add(site.member("branch-1", &first));
    let kept = fleet.add(site.member("branch-2", &second));
    let plain = fleet.add(site.head.member("branch-3", profiles::p3()));
    fleet.wait_all_up(SOON);

    write(site.folder(), "crl.pem", &site.authority.crl(&[&first], 1));
    let report = site.head.reload().unwrap();
    assert_eq!((report.applied, report.tunnels_cut), (vec!["tls.crl".to_owned()], 1));
    fleet.wait("the cut", CUT_WITHIN, |views| !views[revoked].connected);
    site.head.wait_counter("tunnel_closed_certificate_revoked", 1);
    assert_eq!(site.head.status().crls[0].revoked, 1);

    fleet.tell(revoked, Command::Dial);
    fleet.wait("the refusal", SOON, |views| views[revoked].dials == 2 && !views[revoked].connected);
    assert!(site.head.tunnel("branch-1").is_none());
    // The others never noticed; their rekeys go by the new list.
    for one in [kept, plain] {
        fleet.tell(one, Command::Rekey);
    }
    fleet.wait("rekeys", SOON, |views| views[kept].rekeys == 1 && views[plain].rekeys == 1);
    assert!([kept, plain].iter().all(|one| fleet.view(*one).up));
    // A list without it lets it in again.
    write(site.folder(), "crl.pem", &site.authority.crl(&[], 0));
    site.head.reload().unwrap();
    fleet.tell(revoked, Command::Dial);
    fleet.wait_all_up(SOON);
}

#[test]
fn certificates_are_exchanged_under_live_tunnels_and_their_rekeys() {
    let site = Site::start();
    let fleet = Fleet::start().unwrap();
    let old = fleet.add(site.head.member("old", profiles::p3()));
    fleet.wait_all_up(SOON);
    assert!(site.head.status().certificates[0].key.starts_with("RSA"));
    install(site.folder(), &site.authority.ecdsa_server("vpn.example.net"));
    write(site.folder(), "config.toml", &config("[data]\nciphers = [\"AES-128-GCM\"]"));
    let report = site.head.reload().unwrap();
    assert_eq!(report.applied, ["data.ciphers", "tls.certificates"]);
    assert!(site.head.status().certificates[0].key.starts_with("ECDSA"));
    fleet.tell(old, Command::Rekey);
    fleet.wait("a rekey", SOON, |views| views[old].rekeys == 1);
    fleet.add(site.head.member("new", profiles::stock_2_6()));
    fleet.wait_all_up(SOON);
    // Who was there keeps its cipher, who comes gets the new one.
    let cipher = |name: &str| {
        let tunnel = crate::support::eventually("the tunnel", SOON, || site.head.tunnel(name));
        tunnel.cipher
    };
    assert_eq!(cipher("new"), "AES-128-GCM");
    assert_ne!(cipher("old"), "AES-128-GCM");
    fleet.tell_all(Command::PingBoth);
    fleet.wait("answers", SOON, |views| views.iter().all(|view| view.pings_answered()));
    fleet.expect_no_violations();
}

#[test]
fn reloads_during_two_hundred_logins_lose_none() {
    let site = Site::start();
    let fleet = Fleet::start().unwrap();
    let members: Vec<Member> =
        (0..200).map(|n| site.head.member(&format!("r{n}"), profiles::p3())).collect();
    let servers = [
        site.authority.ecdsa_server("vpn.example.net"),
        site.authority.rsa_server("vpn.example.net"),
    ];
    for member in members {
        fleet.add(member);
    }
    let mut reloads = 0;
    while !fleet.views().iter().all(|view| view.up) {
        install(site.folder(), &servers[reloads % 2]);
        site.head.reload().unwrap();
        reloads += 1;
        assert!(fleet.views().iter().all(|view| view.closes == 0), "after {reloads} reloads");
        assert!(reloads < 10_000, "the logins never end");
    }
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("200 logins during {reloads} reloads\n"),
    );
    assert!(fleet.views().iter().all(|view| view.dials == 1));
    assert_eq!(site.head.tunnels().len(), 200);
    fleet.expect_no_violations();
}

#[test]
fn listeners_come_and_go_and_what_needs_a_restart_is_said() {
    let site = Site::start();
    let fleet = Fleet::start().unwrap();
    let stays = fleet.add(site.head.member("stays", profiles::p3()));
    fleet.wait_all_up(SOON);
    let port = site.head.listens(0);
    let more = "[[listener]]\naddress = \"127.0.0.2:0\"\n[pool]\nnetwork = \"100.64.0.0/11\"\n\
                [tun]\nmtu = 1400";
    write(site.folder(), "config.toml", &config(more));
    let report = site.head.reload().unwrap();
    assert_eq!(report.applied, ["listener"]);
    assert!(report.needs_restart.contains(&"tun".to_owned()), "{report:?}");
    let listeners = site.head.status().listeners;
    assert_eq!((listeners.len(), listeners[0].address), (2, port));
    let mut other = site.head.member("other", profiles::p3());
    other.target = listeners[1].address;
    fleet.add(other);
    fleet.wait_all_up(SOON);
    // Gone again: nobody can dial it, and its tunnel goes on.
    write(site.folder(), "config.toml", &config(""));
    assert_eq!(site.head.reload().unwrap().applied, ["listener"]);
    assert_eq!(site.head.status().listeners.len(), 1);
    crate::support::eventually("a closed port", SOON, || {
        std::net::TcpStream::connect(listeners[1].address).is_err().then_some(())
    });
    fleet.tell_all(Command::Rekey);
    fleet.wait("rekeys", SOON, |views| views.iter().all(|view| view.rekeys == 1));
    assert!(fleet.view(stays).up);
    fleet.expect_no_violations();
}
