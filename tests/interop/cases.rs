//! Single cases with one client each: refusals, client variants, the legacy switch.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::KEYS;
use crate::matrix::{CIPHERS, report};
use crate::server::{Account, Listener, Login, Server, Spec};
use crate::support::client::{Client, Config, Outcome};
use crate::support::keys::Wrap;
use crate::support::pki::Authority;

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Up, with this cipher and, unless the cipher needs none, this digest; data flows.
    Up(&'static str, Option<&'static str>),
    /// AUTH_FAILED, and then the end.
    AuthFailed,
    /// The client refuses the server's certificate.
    NotTrusted,
    /// The server ends the handshake.
    Closed,
}

/// What the client shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// Its own password.
    Password,
    /// A wrong password.
    WrongPassword,
    /// A name that has no account.
    Stranger,
    /// Its own certificate alone.
    Certificate,
    /// Its own password and another router's certificate.
    PasswordAndOthersCertificate,
    /// Its own password and a certificate with its own name from another authority.
    PasswordAndForgedCertificate,
}

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    listener: Listener,
    login: Login,
    shows: Shows,
    lines: &'static [&'static str],
    foreign_authority: bool,
    expect: Expect,
    /// Whether the stock server must give the same outcome.
    pub(crate) stock: bool,
}

const GCM: Expect = Expect::Up("AES-256-GCM", None);
const TLS_1_0: &[&str] =
    &["tls-version-min 1.0", "tls-version-max 1.0", "tls-cipher DEFAULT:@SECLEVEL=0"];
const TLS_1_1: &[&str] =
    &["tls-version-min 1.0", "tls-version-max 1.1", "tls-cipher DEFAULT:@SECLEVEL=0"];

impl Case {
    fn new(name: &'static str, lines: &'static [&'static str], expect: Expect) -> Self {
        Self {
            name,
            listener: Listener::PLAIN,
            login: Login::Password,
            shows: Shows::Password,
            lines,
            foreign_authority: false,
            expect,
            stock: true,
        }
    }

    fn showing(self, login: Login, shows: Shows) -> Self {
        Self { login, shows, listener: Listener { login, ..self.listener }, ..self }
    }

    fn legacy(self) -> Self {
        Self { listener: Listener { legacy: true, ..self.listener }, ..self }
    }

    fn wrapped(self, wrap: Wrap) -> Self {
        Self { listener: Listener { wrap, ..self.listener }, ..self }
    }

    fn ours_only(self) -> Self {
        Self { stock: false, ..self }
    }

    fn account(&self) -> Account {
        let name = self.name.replace(' ', "-").to_lowercase();
        // At most 27 characters: the username is the name.
        let name = name.chars().take(27).collect::<String>();
        let password = format!("Secret-of-{name}");
        Account { name, password, login: self.login }
    }
}

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    use Expect::{AuthFailed, Closed, NotTrusted, Up};
    let case = Case::new;
    let up_cbc = |digest| Up("AES-256-CBC", Some(digest));
    vec![
        case("wrong password", &[], AuthFailed).showing(Login::Password, Shows::WrongPassword),
        case("unknown user", &[], AuthFailed).showing(Login::Password, Shows::Stranger),
        Case { foreign_authority: true, ..case("wrong ca", &[], NotTrusted) },
        case("no common cipher", &["data-ciphers AES-128-GCM"], AuthFailed),
        case("chacha only", &["data-ciphers CHACHA20-POLY1305"], AuthFailed),
        case("certificate missing", &[], AuthFailed)
            .showing(Login::Certificate, Shows::Password)
            .ours_only(),
        case("password missing", &[], AuthFailed)
            .showing(Login::Both, Shows::Certificate)
            .ours_only(),
        case("password wrong with cert", &[], AuthFailed)
            .showing(Login::Both, Shows::WrongPassword)
            .ours_only(),
        case("anothers certificate", &[], AuthFailed)
            .showing(Login::Both, Shows::PasswordAndOthersCertificate)
            .ours_only(),
        case("forged certificate", &[], Closed)
            .showing(Login::Both, Shows::PasswordAndForgedCertificate),
        case("tls 1.0 refused", TLS_1_0, Closed),
        case("tls 1.1 refused", TLS_1_1, Closed),
        case("tls 1.0 legacy", TLS_1_0, GCM).legacy(),
        case("tls 1.1 legacy", TLS_1_1, GCM).legacy(),
        case("tls 1.3 legacy", &["tls-version-min 1.3"], GCM).legacy(),
        case("tls 1.2", &["tls-version-max 1.2"], GCM),
        case("tls 1.3", &["tls-version-min 1.3"], GCM),
        case(
            "rsa key exchange",
            &["tls-version-max 1.2", "tls-cipher TLS-RSA-WITH-AES-256-CBC-SHA"],
            GCM,
        )
        .ours_only(),
        case(
            "ecdsa suite",
            &["tls-version-max 1.2", "tls-cipher TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256"],
            GCM,
        )
        .ours_only(),
        case("server prefers gcm", &["data-ciphers AES-256-CBC:AES-256-GCM"], GCM),
        case("cbc sha384", &["data-ciphers AES-256-CBC", "auth SHA384"], up_cbc("SHA384"))
            .ours_only(),
        case("default client", &[], GCM),
        case("gcm without digest", &["auth none"], GCM),
        case("cbc without digest", &["data-ciphers AES-256-CBC", "auth none"], AuthFailed)
            .ours_only(),
        case(
            "compat mode 2.3",
            &["compat-mode 2.3.18", "data-ciphers AES-256-CBC", "cipher AES-256-CBC"],
            up_cbc("SHA1"),
        ),
        case("compat mode 2.4", &["compat-mode 2.4.0", "cipher AES-256-CBC"], GCM),
        case("dynamic tls-crypt", &[], GCM).wrapped(Wrap::TlsCrypt),
        case("pull filter route", &["pull-filter ignore route"], GCM),
        case("pull filter gateway", &["pull-filter ignore route-gateway"], GCM),
        case("comp-lzo", &["comp-lzo no"], AuthFailed).ours_only(),
        case("compress stub", &["compress stub-v2"], AuthFailed).ours_only(),
        case("small tun mtu", &["tun-mtu 1400"], GCM),
        case("peer info", &["push-peer-info", "setenv UV_NOTE hello"], GCM),
    ]
}

/// A server for these cases.
pub(crate) fn spec(cases: &[Case]) -> Spec {
    let mut listeners: Vec<Listener> = Vec::new();
    for case in cases {
        if !listeners.contains(&case.listener) {
            listeners.push(case.listener);
        }
    }
    let accounts = cases.iter().map(Case::account).collect();
    Spec { listeners, accounts, ciphers: CIPHERS.to_vec() }
}

/// Whoever is refused for what he shows is told the same, so that nobody learns which names exist;
/// whoever has no cipher in common is told that.
pub(crate) fn check_refusal_texts(server: &dyn Server) {
    let foreign = Authority::new("another authority");
    let text = |name: &str| {
        let case = all().into_iter().find(|case| case.name == name).expect("a case of this name");
        match run(&case, server, &foreign) {
            Ok(Outcome::AuthFailed(text)) => text,
            other => panic!("{name}: {other:?}"),
        }
    };
    let names = ["wrong password", "unknown user", "certificate missing", "anothers certificate"];
    let texts: BTreeSet<String> = names.into_iter().map(text).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    let cipher = text("no common cipher");
    assert!(cipher.to_lowercase().contains("cipher"), "{cipher:?}");
}

/// Every case ends as its line says.
pub(crate) fn check(cases: &[Case], server: &dyn Server) {
    let foreign = Authority::new("another authority");
    let complaints = crate::each(cases, |case| run(case, server, &foreign).map(drop));
    report(cases.len(), &complaints, server);
}

fn run(case: &Case, server: &dyn Server, foreign: &Authority) -> Result<Outcome, String> {
    let authority = if case.foreign_authority { foreign } else { &KEYS.authority };
    let account = case.account();
    let name = account.name.as_str();
    let config = Config::null(server.address(&case.listener))
        .inline("ca", &authority.pem())
        .wrap(case.listener.wrap, &KEYS)
        .lines(case.lines)
        .once();
    let with_password = |config: Config| config.password(name, &account.password);
    let config = match case.shows {
        Shows::Password => with_password(config),
        Shows::WrongPassword => config.password(name, "not the password"),
        Shows::Stranger => config.password("nobody", &account.password),
        Shows::Certificate => config.certificate(&KEYS.authority.client(name)),
        Shows::PasswordAndOthersCertificate => {
            with_password(config).certificate(&KEYS.authority.client("somebody-else"))
        }
        Shows::PasswordAndForgedCertificate => {
            with_password(config).certificate(&foreign.client(name))
        }
    };
    let client = config.start(case.name);
    let complain =
        |what: String| Err(format!("{}: {what}\n{}", case.name, client.process.tail(30)));
    let (outcome, next) = client.outcome_after(0);
    let as_expected = matches!(
        (case.expect, &outcome),
        (Expect::Up(..), Outcome::Up)
            | (Expect::AuthFailed, Outcome::AuthFailed(_))
            | (Expect::NotTrusted, Outcome::ServerNotTrusted)
            | (Expect::Closed, Outcome::Closed)
    );
    if !as_expected {
        return complain(format!("expected {:?}, came {outcome:?}", case.expect));
    }
    if let Expect::Up(cipher, digest) = case.expect {
        client.process.expect_line(0, Duration::from_secs(5), "Data Channel: cipher");
        let agreed = client.data_channel();
        if agreed != (cipher.to_owned(), digest.map(str::to_owned)) {
            return complain(format!("agreed on {agreed:?}"));
        }
        client.expect_pings(next, 1, Duration::from_secs(15));
    }
    Ok(outcome)
}

/// The account of the cases with more than one client.
const TWICE: &str = "logs-in-twice";

/// A server for [`check_takeover`] and [`check_silent_client`].
pub(crate) fn plain_spec() -> Spec {
    let account = Account {
        name: TWICE.to_owned(),
        password: "Secret-of-twice".to_owned(),
        login: Login::Password,
    };
    Spec { listeners: vec![Listener::PLAIN], accounts: vec![account], ciphers: CIPHERS.to_vec() }
}

fn plain_client(server: &dyn Server, name: &str, lines: &[&str]) -> Client {
    Config::null(server.address(&Listener::PLAIN))
        .inline("ca", &KEYS.authority.pem())
        .password(TWICE, "Secret-of-twice")
        .lines(lines)
        .once()
        .start(name)
}

/// A second login of one identity: the first connection ends, the second stays. Returns both
/// addresses.
pub(crate) fn check_takeover(server: &dyn Server) -> [Ipv4Addr; 2] {
    let limit = Duration::from_secs(15);
    let first = plain_client(server, "the first client", &[]);
    let first_up = first.expect_up(0);
    let second = plain_client(server, "the second client", &[]);
    let second_up = second.expect_up(0);
    let (outcome, _) = first.outcome_after(first_up);
    assert!(
        matches!(outcome, Outcome::Closed | Outcome::Exited),
        "{outcome:?}\n{}\n{}",
        first.process.tail(20),
        server.diagnosis()
    );
    second.expect_pings(second_up, 2, limit);
    [first.address(), second.address()]
}

/// A client that never sends a ping is not dead for that: it is still there, and still served,
/// `pings` server pings later.
pub(crate) fn check_silent_client(server: &dyn Server, pings: usize) {
    let client = plain_client(server, "the silent client", &["pull-filter ignore ping"]);
    let mut next = client.expect_up(0);
    for _ in 0..pings {
        next = client.process.expect_line(next, Duration::from_secs(15), "RECEIVED PING PACKET");
    }
    assert_eq!(client.process.count(0, "SENT PING"), 0, "the client was meant to be silent");
    assert_eq!(client.process.count(0, "Connection reset"), 0, "{}", client.process.tail(30));
}

/// The push reply holds what it must and nothing else: no network that could swallow the router's
/// own uplink, and no `cc-exit`.
pub(crate) fn check_push(server: &dyn Server) {
    let client = plain_client(server, "the pushed-to client", &[]);
    client.expect_up(0);
    let pushed = client.pushed();
    let (address, gateway) = (client.address().octets(), client.gateway().octets());
    assert_eq!((&address[..3], gateway[3]), (&gateway[..3], 1), "{pushed:?}");
    assert!((2..=254).contains(&address[3]), "{pushed:?}");
    let known = [
        "route-gateway ",
        "topology subnet",
        "ifconfig ",
        "ping 1",
        "ping-restart ",
        "route 100.127.255.254 255.255.255.255",
        "peer-id ",
        "cipher AES-256-GCM",
        "protocol-flags tls-ekm dyn-tls-crypt",
        "tun-mtu 1500",
    ];
    for option in &pushed {
        assert!(known.iter().any(|known| option.starts_with(known)), "{option} in {pushed:?}");
    }
    for known in known {
        let times = pushed.iter().filter(|option| option.starts_with(known)).count();
        assert_eq!(times, 1, "{known} in {pushed:?}");
    }
    assert!(pushed.iter().any(|option| option.ends_with(" 255.255.255.0")), "{pushed:?}");
}
