//! Why a login failed: each cause is made by a client or by raw bytes, and has to be answered with
//! its sentence and the command that mends it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tunnelhead::concentrator::{
    Accept, Authenticator, AuthenticatorError, Deciding, Decision, LoginRequest,
};
use tunnelhead::config::{CertificatePolicy, Config, Wrap};
use tunnelhead::control_api::Scope;
use tunnelhead::control_api::types::{IncidentView, Login, LoginAttempt, NewRouter};
use tunnelhead::telemetry::clock;
use tunnelhead::telemetry::flight::capture;
use tunnelhead::testing::fleet::{Command, Fleet, Member, View};
use tunnelhead::testing::profiles::{self, Profile, TlsOffer};
use tunnelhead::testing::replay::replay;
use tunnelhead::tls::{
    CertAndKey, ClientCertificatePolicy, ClientTlsConfig, OpensslContext, ServerTlsConfig,
    TlsVersion,
};
use tunnelhead_crypto::{DataCipher, FastRandom, SecretBytes, StaticKey};

use crate::head::{Head, SOON, listener};
use crate::support::eventually;
use crate::support::pki::{Authority, Identity as Pair};

const PLAIN: usize = 0;
const TLS_CRYPT: usize = 1;
const CERTIFICATE: usize = 2;
const REQUIRED: usize = 3;

/// A password that must turn up nowhere.
const CANARY: &str = "canary-7Q2-do-not-keep";

/// A concentrator with one listener of each kind, a fleet, and a source address for each case.
struct Site {
    head: Head,
    fleet: Fleet,
    authority: Authority,
    cases: u8,
}

impl Site {
    fn start() -> Self {
        let authority = Authority::new("routers");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca = folder.path().join("ca.pem");
        fs::write(&ca, authority.pem()).expect("a file");
        let head = Head::start_with(|config: &mut Config| {
            let mut wrapped = listener();
            let key = StaticKey::generate(&mut random()).expect("a key");
            wrapped.wrap = Wrap::TlsCrypt { key: Arc::new(key) };
            let mut optional = listener();
            optional.client_certificate = CertificatePolicy::Optional;
            let mut required = listener();
            required.client_certificate = CertificatePolicy::Required;
            config.listeners.extend([wrapped, optional, required]);
            config.tls.client_ca = Some(ca);
            config.limits.login_deadline = Duration::from_secs(3);
        });
        Self { head, fleet: Fleet::start().expect("a fleet"), authority, cases: 0 }
    }

    /// An address that no case had before.
    fn source(&mut self) -> IpAddr {
        self.cases += 1;
        Ipv4Addr::new(127, 7, self.cases, 1).into()
    }

    /// Makes an account and a member with that name and password.
    fn member(&self, new: NewRouter, profile: Profile) -> Member {
        let account = self.head.add_router(new).expect("an account");
        let (username, password) = (&account.router.username, account.password.expose());
        Member::new(self.head.listens(PLAIN), profile, username, password)
    }

    /// The end of a member's only attempt.
    fn failed(&mut self, member: Member) -> LoginAttempt {
        let source = self.source();
        let id = self.fleet.add(Member { source: Some(source), ..member });
        self.fleet.wait_for(id, "an end", SOON, |view| view.closes == 1);
        self.head.attempt_from(source, "failed")
    }

    /// The end of a connection on which these bytes were sent, and which then waited.
    fn raw(&mut self, to: usize, bytes: &[u8]) -> LoginAttempt {
        let source = self.source();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("a source address");
        socket.connect(&self.head.listens(to).into()).expect("a connection");
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON)).expect("a time limit");
        let _ = stream.write_all(bytes);
        let _ = stream.read_to_end(&mut Vec::new());
        self.head.attempt_from(source, "failed")
    }
}

fn random() -> FastRandom {
    FastRandom::from_os().expect("randomness")
}

fn named(name: &str) -> NewRouter {
    NewRouter::named(name)
}

fn pair(made: &Pair) -> CertAndKey {
    CertAndKey {
        certificate_pem: made.certificate.clone().into_bytes(),
        key_pem: SecretBytes::from(made.key.clone().into_bytes()),
    }
}

/// A hard reset as RouterOS sends it.
const RESET: [u8; 16] = [0, 14, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0];

#[track_caller]
fn expect(attempt: &LoginAttempt, cause: &str, words: &[&str], command: Option<&str>) {
    let answer = attempt.answer.as_ref().expect("an answer");
    assert_eq!(answer.cause, cause, "{attempt:#?}");
    for word in words {
        assert!(answer.sentence.contains(word), "{word}: {}", answer.sentence);
    }
    let commands = [&answer.routeros, &answer.routeros_v6, &answer.shell];
    if let Some(command) = command {
        let found = commands.iter().filter_map(|c| c.as_deref()).any(|c| c.contains(command));
        assert!(found, "{command}: {answer:?}");
    }
    assert!(!format!("{attempt:?}").contains(CANARY));
}

#[test]
fn what_is_set_wrong_on_a_router_is_said_with_the_command_that_mends_it() {
    let mut site = Site::start();
    let p1 = || profiles::p1();
    let account = site.member(named("blowfish"), profiles::p6());
    expect(
        &site.failed(account),
        "cipher_unsupported",
        &["blowfish128"],
        Some("cipher=aes256-cbc auth=sha1"),
    );

    let digest = NewRouter { auth: Some("SHA256".into()), ..named("digest") };
    let account = site.member(digest, p1());
    expect(
        &site.failed(account),
        "auth_not_the_accounts",
        &["auth=sha256", "SHA1"],
        Some("auth=sha256"),
    );

    let cipher = NewRouter { cipher: Some("AES-128-CBC".into()), ..named("cipher") };
    let account = site.member(cipher, p1());
    expect(
        &site.failed(account),
        "cipher_not_the_accounts",
        &["AES-128-CBC"],
        Some("cipher=aes128 auth=sha1"),
    );

    let tap = p1().with_options("V4,dev-type tap,cipher AES-256-CBC,auth SHA1");
    let account = site.member(named("tap"), tap);
    expect(&site.failed(account), "tap_device", &["TAP"], Some("mode=ip"));

    let lzo = p1().with_options("V4,dev-type tun,cipher AES-256-CBC,auth SHA1,comp-lzo");
    let account = site.member(named("lzo"), lzo);
    expect(&site.failed(account), "compression", &["comp-lzo"], None);

    let null = p1().with_options("V4,dev-type tun,cipher AES-256-CBC,auth [null-digest]");
    let account = site.member(named("null"), null);
    expect(&site.failed(account), "auth_missing", &["auth=null"], Some("auth=sha1"));

    let account = site.member(named("old-tls"), p1().with_tls(TlsOffer::TLS_1_0));
    expect(
        &site.failed(account),
        "tls_version_too_old",
        &["TLS 1.0", "legacy = true"],
        Some("update"),
    );

    let offer = TlsOffer { suites: Some("ECDHE-RSA-CHACHA20-POLY1305"), ..TlsOffer::ECDHE_GCM };
    let account = site.member(named("suites"), p1().with_tls(offer));
    expect(&site.failed(account), "tls_no_shared_suite", &["TLS cipher suites"], Some("update"));

    // A user name as long as RouterOS cuts it.
    let long = "warehouse-north-building-seven";
    let longer = NewRouter { username: Some(long.to_owned()), ..named(long) };
    let account = site.member(longer, p1());
    let cut = Member { username: long.as_bytes()[..27].to_vec(), ..account };
    let attempt = site.failed(cut);
    expect(&attempt, "username_cut", &["27 characters", long], Some("user="));
    let report = site.head.why(long).expect("a report");
    assert!(report.known && report.sentence.contains("27 characters"), "{}", report.sentence);

    let account = site.member(named("password"), p1());
    let wrong = Member { password: CANARY.as_bytes().to_vec(), ..account };
    expect(
        &site.failed(wrong.clone()),
        "wrong_password",
        &["password is wrong"],
        Some("password=PASSWORD"),
    );
    expect(
        &site.failed(Member { username: b"nobody\x1b[2J".to_vec(), ..wrong }),
        "unknown_user",
        &["nobody\\x1b[2J"],
        Some("router list"),
    );

    // A client that checks the server, and knows another CA. It hangs up without a word.
    let other = Authority::new("somebody else");
    let account = site.member(named("trust"), p1());
    for max_version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let checks = OpensslContext::client(&ClientTlsConfig {
            max_version,
            ca: Some(other.pem().into_bytes()),
            ..ClientTlsConfig::default()
        });
        let distrusts = Member { tls: Some(checks.expect("a context")), ..account.clone() };
        let attempt = site.failed(distrusts);
        expect(
            &attempt,
            "left_after_server_certificate",
            &["lacks our CA", "clock"],
            Some("--verify-server"),
        );
    }
    // One that says what it does not like: unknown_ca, certificate_expired.
    let alert = |what: u8| {
        let mut bytes = RESET.to_vec();
        bytes.extend([0, 21, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 1, 21, 3, 1, 0, 2, 2, what]);
        bytes
    };
    expect(
        &site.raw(PLAIN, &alert(48)),
        "server_certificate_not_trusted",
        &["CA"],
        Some("--verify-server"),
    );
    expect(
        &site.raw(PLAIN, &alert(45)),
        "server_certificate_taken_for_expired",
        &["the router's clock is wrong"],
        Some("ntp"),
    );
}

#[test]
fn what_is_wrong_with_a_client_certificate_is_said() {
    let mut site = Site::start();
    let both = |name: &str| NewRouter { login: Login::Both, ..named(name) };
    let account = site.member(both("missing"), profiles::p5());
    expect(
        &site.failed(account),
        "certificate_missing",
        &["common name missing"],
        Some("certificate=NAME"),
    );

    let account = site.member(both("mismatch"), profiles::p5());
    let account = Member { target: site.head.listens(CERTIFICATE), ..account };
    let other = account.clone().with_certificate(pair(&site.authority.client("another")));
    expect(
        &site.failed(other.expect("a certificate")),
        "certificate_mismatch",
        &["(another)", "wants mismatch"],
        None,
    );

    let required = Member { target: site.head.listens(REQUIRED), ..account };
    expect(
        &site.failed(required.clone()),
        "client_certificate_missing",
        &["client certificate"],
        Some("certificate=NAME"),
    );

    let made = |from: &str, to: &str| site.authority.client_with("mismatch", from, to);
    let stranger = Authority::new("a stranger").client("mismatch");
    let cases = [
        (made("20000101000000Z", "20010101000000Z"), "client_certificate_expired", "has expired"),
        (
            made("20480101000000Z", "20490101000000Z"),
            "client_certificate_not_yet_valid",
            "not valid yet",
        ),
        (stranger, "client_certificate_unknown_issuer", "tls.client_ca"),
    ];
    for (certificate, cause, word) in cases {
        let member = required.clone().with_certificate(pair(&certificate)).expect("a certificate");
        expect(&site.failed(member), cause, &[word], None);
    }
}

#[test]
fn what_the_concentrator_decides_is_said() {
    let mut site = Site::start();
    let account = site.member(named("disabled"), profiles::p3());
    site.head.disable("disabled");
    expect(
        &site.failed(account),
        "disabled",
        &["disabled"],
        Some("tunnelhead router enable disabled"),
    );

    // Guessing from one place, until that place has to wait.
    let source = site.source();
    let account = site.member(named("guessed"), profiles::p3());
    let guess = Member { source: Some(source), password: b"no".to_vec(), ..account };
    let waits = (0..40).map(|_| {
        let id = site.fleet.add(guess.clone());
        site.fleet.wait_for(id, "an end", SOON, |view| view.closes == 1);
        site.head.attempt_from(source, "failed")
    });
    let waits = waits.into_iter().find(|one| one.reason.as_deref() == Some("back_off"));
    expect(&waits.expect("a back-off"), "back_off", &["failed logins"], None);
    let report = site.head.why("guessed").expect("a report");
    assert_eq!(
        report.attempts.len(),
        2,
        "the guesses before are one entry: {:#?}",
        report.attempts
    );
    assert!(report.attempts[1].times >= 5);

    // Two places fight for one account.
    let account = site.member(named("clone"), profiles::p3());
    let (one, two) = (site.source(), site.source());
    let refused = (0..20).find_map(|round| {
        let source = if round % 2 == 0 { one } else { two };
        let id = site.fleet.add(Member { source: Some(source), ..account.clone() });
        let view = site.fleet.wait_for(id, "a verdict", SOON, |v| v.up || v.refusals == 1);
        (view.refusals == 1).then_some(source)
    });
    let attempt = site.head.attempt_from(refused.expect("a refusal"), "clone");
    expect(&attempt, "clone", &["Another router", "copy"], Some("router add"));
    let report = site.head.why("clone").expect("a report");
    assert!(report.connected_since.is_some() && report.sentence.contains("is connected since"));
}

#[test]
fn what_is_no_router_is_called_what_it_is() {
    let mut site = Site::start();
    expect(&site.raw(PLAIN, b"GET / HTTP/1.1\r\n\r\n"), "http_on_port", &["HTTP"], None);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x01\x02\x03\x04\x05\x06\x07";
    expect(&site.raw(PLAIN, hello), "tls_on_port", &["SSTP"], None);
    expect(&site.raw(PLAIN, b"SSH-2.0-OpenSSH_9.2\r\n"), "other_protocol", &["SSH"], None);
    let header = b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 8443\r\n";
    expect(&site.raw(PLAIN, header), "proxy_not_listed", &["proxy_protocol"], None);
    expect(&site.raw(PLAIN, &RESET[2..]), "udp_framing", &["UDP"], Some("protocol=tcp"));
    expect(
        &site.raw(PLAIN, &[0, 14, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0]),
        "key_method_1",
        &["update"],
        None,
    );
    // A reset with the HMAC of tls-auth behind the session id, and one without tls-crypt.
    let mut signed = vec![0, 42, 0x38, 1, 2, 3, 4, 5, 6, 7, 8];
    signed.extend([0xa5; 33]);
    expect(&site.raw(PLAIN, &signed), "wrap_mismatch", &["uses no tls-auth"], None);
    expect(&site.raw(TLS_CRYPT, &RESET), "wrap_mismatch", &["uses tls-crypt"], Some("import-ovpn"));
}

#[test]
fn a_login_that_stops_is_told_by_the_step_it_stopped_at() {
    let mut site = Site::start();
    expect(&site.raw(PLAIN, b""), "said_nothing", &["nothing came"], None);
    expect(&site.raw(PLAIN, &RESET[..7]), "deadline_first_packet", &["few bytes"], None);
    let attempt = site.raw(PLAIN, &RESET);
    expect(&attempt, "deadline_client_hello", &["no further"], Some("/log print"));
    let steps: Vec<&str> = attempt.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(steps, ["accepted", "first_bytes", "hard_reset", "reset_answered", "end"]);

    // It sends its ClientHello at once, and our certificate never reaches it.
    let account = site.member(named("mtu"), profiles::p2());
    let source = site.source();
    let id = site.fleet.add(Member { source: Some(source), idle: true, ..account });
    site.fleet.tell(id, Command::StopReading);
    site.fleet.tell(id, Command::Dial);
    let attempt = site.head.attempt_from(source, "failed");
    expect(&attempt, "deadline_after_server_certificate", &["MTU"], Some("change-mss"));

    let account = site.member(named("silent"), profiles::p3());
    let attempt = site.failed(Member { never_asks: true, ..account });
    expect(&attempt, "no_push_request", &["PUSH_REQUEST"], None);

    let account = site.member(named("dislikes"), profiles::p3());
    let attempt = site.failed(Member { dies_at_push_reply: true, ..account });
    expect(&attempt, "left_after_push_reply", &["configuration"], None);
    assert_eq!(attempt.cipher.as_deref(), Some("AES-256-CBC"));
}

#[test]
fn a_healthy_router_has_a_flight_of_every_step() {
    let mut site = Site::start();
    let source = site.source();
    let account = site.member(named("healthy"), profiles::p1());
    let password = String::from_utf8(account.password.clone()).expect("a password");
    let id = site.fleet.add(Member { source: Some(source), ..account });
    site.fleet.wait_for(id, "a tunnel", SOON, |view| view.up);
    let attempt = site.head.attempt_from(source, "up");
    let steps: Vec<&str> = attempt.steps.iter().map(|step| step.step.as_str()).collect();
    let expected = [
        "accepted",
        "first_bytes",
        "hard_reset",
        "reset_answered",
        "client_hello",
        "server_hello",
        "tls_established",
        "key_exchange",
        "verdict",
        "address",
        "push_request",
        "push_reply",
        "up",
    ];
    assert_eq!(steps, expected);
    assert!(attempt.steps.is_sorted_by_key(|step| step.at_ms));
    assert_eq!((attempt.offered.hard_resets, attempt.answer), (2, None));
    assert_eq!(attempt.offered.peer_info.as_deref(), Some(""));
    assert_eq!(attempt.cipher.as_deref(), Some("AES-256-CBC"));
    let report = site.head.why("healthy").expect("a report");
    assert!(report.sentence.starts_with("healthy is connected since 2"), "{}", report.sentence);
    let capture = site.head.capture("healthy").expect("a capture");
    assert!(!capture.contains(&password) && capture.contains("\"hello\":\"1603"), "{capture}");
    // Somebody tries a name that is none's.
    assert!(site.head.why("stranger").is_err());
    let mut stranger = site.member(named("other"), profiles::p1());
    stranger.username = b"stranger".to_vec();
    stranger.password = CANARY.as_bytes().to_vec();
    let _ = site.failed(stranger);
    let report = site.head.why("stranger").expect("a report");
    assert!(!report.known && report.sentence.contains("is no router"), "{}", report.sentence);
    let capture = site.head.capture("stranger").expect("a capture");
    assert!(!capture.contains(CANARY) && !capture.contains(&capture::hex(CANARY.as_bytes())));
}

#[test]
fn a_capture_can_be_replayed_and_comes_as_far() {
    let site = Site::start();
    let account = site.member(named("replayed"), profiles::p1());
    let id = site.fleet.add(account);
    site.fleet.wait_for(id, "a tunnel", SOON, |view| view.up);
    let text = eventually("capture", SOON, || site.head.capture("replayed").ok());
    let capture = capture::read(&text).expect("a capture");
    let server = site.authority.rsa_server("server");
    let tls = OpensslContext::server(&ServerTlsConfig {
        certificates: vec![pair(&server)],
        client_ca: None,
        client_certificate: ClientCertificatePolicy::No,
        legacy: false,
        revocations: Arc::default(),
    })
    .expect("a context");
    let ciphers = [DataCipher::Aes256Gcm, DataCipher::Aes256Cbc];
    // This one, and one that was kept from an earlier run.
    let kept = capture::read(include_str!("captures/p1.jsonl")).expect("a capture");
    for capture in [&capture, &kept] {
        let replayed = replay(capture, &tls, &ciphers).expect("a replay");
        assert!(replayed.answered && replayed.closed.is_none(), "{replayed:?}");
        assert!(replayed.frames >= 3, "two resets and a ClientHello: {replayed:?}");
        assert_eq!(replayed.cipher, Some(Ok("AES-256-CBC")));
    }
    // With the cipher taken away it ends as such a login would, and a damaged one as a broken one.
    let replayed = replay(&kept, &tls, &ciphers[..1]).expect("a replay");
    assert_eq!(replayed.cipher, Some(Err("cipher_not_allowed")));
    let mut damaged = kept;
    damaged.hello[9..].fill(0xff);
    let replayed = replay(&damaged, &tls, &ciphers).expect("a replay");
    assert_eq!((replayed.answered, replayed.closed), (false, Some("tls")));
}

#[test]
fn nobody_is_told_of_the_routers_of_others() {
    let mut site = Site::start();
    let of =
        |name: &str, tenant: &str| NewRouter { tenant: Some(tenant.to_owned()), ..named(name) };
    let wrong = |member: Member| Member { password: b"wrong".to_vec(), ..member };
    let ours = wrong(site.member(of("ours", "a"), profiles::p3()));
    let theirs = wrong(site.member(of("theirs-is-a-very-long-user-name", "b"), profiles::p3()));
    let _ = site.failed(ours.clone());
    let _ = site.failed(theirs);
    let stranger = Member { username: b"theirs-is-a-very-long-user-".to_vec(), ..ours };
    let _ = site.failed(stranger);
    let _ = site.raw(PLAIN, b"GET / HTTP/1.1\r\n\r\n");

    assert_eq!(site.head.logins_in(&Scope::All).len(), 4);
    let scope = Scope::Tenants(["a".into()].into());
    let shown = site.head.logins_in(&scope);
    assert_eq!(shown.len(), 1, "{shown:#?}");
    assert_eq!(shown[0].router.as_deref(), Some("ours"));
    assert!(site.head.why_in(&scope, "ours").is_ok());
    let hidden = site.head.why_in(&scope, "theirs-is-a-very-long-user-name").unwrap_err();
    let mut unknown = site.head.why_in(&scope, "nobody").unwrap_err();
    unknown.message = unknown.message.replace("nobody", "theirs-is-a-very-long-user-name");
    assert_eq!(hidden, unknown, "as if it did not exist");
    assert!(site.head.why_in(&scope, "theirs-is-a-very-long-user-").is_err());
}

/// Lets everybody in under the user name that it gives, while it works.
#[derive(Default)]
struct Fickle {
    dead: Mutex<bool>,
}

impl Authenticator for Fickle {
    fn authenticate<'a>(&'a self, login: &'a LoginRequest) -> Deciding<'a> {
        let dead = *self.dead.lock().expect("a lock");
        let name = String::from_utf8_lossy(&login.request.username).into_owned();
        Box::pin(async move {
            if dead {
                return Err(AuthenticatorError("planted".to_owned()));
            }
            Ok(Decision::Accept(Accept::new(name)))
        })
    }
}

/// Routers of the crowd.
const CROWD: u16 = 2000;
/// Time for so many handshakes in a debug build on a busy machine.
const CROWD_TIME: Duration = Duration::from_secs(240);

fn first(head: &Head, cause: &str, count: usize) -> IncidentView {
    eventually("incident", SOON, || {
        let began: Instant = clock::now();
        let all = head.incidents();
        let took = clock::now() - began;
        assert!(took < Duration::from_secs(1), "{took:?} for {} incidents", all.len());
        all.into_iter().next().filter(|one| one.cause == cause && one.count >= count)
    })
}

/// Lets members dial, and again those whose handshake found no place, until all are as wanted.
fn dial_until(fleet: &Fleet, ids: &[usize], wanted: fn(&View) -> bool) {
    eventually("the crowd", CROWD_TIME, || {
        let views = fleet.views();
        let left: Vec<usize> = ids.iter().copied().filter(|id| !wanted(&views[*id])).collect();
        for id in left.iter().filter(|id| !views[**id].connected) {
            fleet.tell(*id, Command::Dial);
        }
        left.is_empty().then_some(())
    });
}

#[test]
fn causes_planted_among_two_thousand_routers_are_named_first() {
    let authenticator = Arc::new(Fickle::default());
    let head = Head::start_for(
        |config| config.limits.unauthenticated_per_source = 4096,
        Some(Arc::clone(&authenticator) as _),
    );
    let fleet = Fleet::start().expect("a fleet");
    // Eight /16 networks of the loopback.
    for number in 0..CROWD {
        let [high, low] = number.to_be_bytes();
        let network = 100 + u8::try_from(number % 8).expect("below 8");
        let profile = if number % 2 == 0 { profiles::p3() } else { profiles::p1() };
        fleet.add(Member {
            source: Some(Ipv4Addr::new(127, network, high, low.max(1)).into()),
            idle: true,
            ..Member::new(head.listens(0), profile, &format!("router-{number}"), "any")
        });
    }
    dial_until(&fleet, &(0..usize::from(CROWD)).collect::<Vec<_>>(), |view| view.up);

    // One network is gone; a few others flap.
    let lost = |id: usize| id % 8 == 5;
    for id in (0..usize::from(CROWD)).filter(|id| lost(*id)) {
        fleet.tell(id, Command::HangUp);
    }
    let gone = usize::from(CROWD) / 8;
    let incident = first(&head, "lost", gone);
    assert_eq!((incident.count, incident.of), (gone, gone));
    assert_eq!(incident.shared[0].value, "in 127.105.0.0/16");

    // They want to come back, and the authenticator is dead.
    *authenticator.dead.lock().expect("a lock") = true;
    let ids: Vec<usize> = (0..usize::from(CROWD)).filter(|id| lost(*id)).collect();
    dial_until(&fleet, &ids, |view| view.refusals > 0);
    let incident = first(&head, "authenticator_unavailable", gone);
    assert_eq!(incident.command, "tunnelhead status");
}
