use std::collections::BTreeSet;
use std::fs;

use super::*;

const STATIC_KEY: &str = "-----BEGIN OpenVPN Static key V1-----\n\
    00112233445566778899aabbccddeeff\n00112233445566778899aabbccddeeff\n\
    00112233445566778899aabbccddeeff\n00112233445566778899aabbccddeeff\n\
    00112233445566778899aabbccddeeff\n00112233445566778899aabbccddeeff\n\
    00112233445566778899aabbccddeeff\n00112233445566778899aabbccddeeff\n\
    00112233445566778899aabbccddeeff\n00112233445566778899aabbccddeeff\n\
    00112233445566778899aabbccddeeff\n00112233445566778899aabbccddeeff\n\
    00112233445566778899aabbccddeeff\n00112233445566778899aabbccddeeff\n\
    00112233445566778899aabbccddeeff\n00112233445566778899aabbccddeeff\n\
    -----END OpenVPN Static key V1-----\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/nowhere"), &[])
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Invalid(problems)) => problems,
        other => panic!("{text}\n{other:?}"),
    }
}

fn keys(text: &str) -> Vec<String> {
    problems(text).into_iter().map(|problem| problem.key).collect()
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = good("");
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    let addresses: Vec<_> = config.listeners.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(addresses, ["0.0.0.0:8443", "[::]:8443"]);
    assert_eq!(config.pool.network.to_string(), "100.64.0.0/10");
    assert_eq!(config.pool.excluded.len(), 2);
    assert_eq!(config.management_address, Ipv4Addr::new(100, 127, 255, 254));
    assert_eq!(config.state_dir, Path::new("/var/lib/tunnelhead"));
    assert_eq!(config.control_socket, Path::new("/run/tunnelhead/control.sock"));
    assert_eq!((config.tun.name.as_str(), config.tun.mtu), ("tunnelhead0", 1500));
    assert_eq!(config.data.ciphers, [DataCipher::Aes256Gcm, DataCipher::Aes256Cbc]);
    assert_eq!(config.keepalive.ping, Duration::from_secs(20));
    assert_eq!(config.keepalive.restart, Duration::from_secs(90));
    assert_eq!(config.limits.login_deadline, Duration::from_secs(30));
    assert_eq!(config.limits.unauthenticated, 4096);
    assert_eq!(config.limits.unauthenticated_per_source, 512);
    assert_eq!(config.limits.handshakes_per_greeter, 64);
    assert_eq!(config.limits.login_bytes, 65_536);
    assert_eq!(config.limits.login_bytes_total, 64 << 20);
    assert_eq!(config.limits.frame_bytes, 2048);
    assert_eq!(config.limits.lease_quarantine, Duration::from_secs(7 * 86_400));
    assert_eq!(config.limits.open_files, None);
    assert_eq!(config.store.snapshots, 24);
    assert_eq!(config.store.snapshot_every, Duration::from_secs(3600));
    assert_eq!(config.history.retention, Duration::from_secs(90 * 86_400));
    assert!(config.allow.is_empty() && config.public_host.is_none());
    config.check(&[]).unwrap();
}

#[test]
fn every_key_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ta.key"), STATIC_KEY).unwrap();
    fs::write(dir.path().join("cert.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    fs::write(dir.path().join("key.pem"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    fs::write(dir.path().join("crl.pem"), "-----BEGIN X509 CRL-----\n").unwrap();
    fs::write(dir.path().join("secret.txt"), "s3cret\n").unwrap();
    let text = r#"
        listen = ["0.0.0.0:8443"]
        public_host = "vpn.example.net"
        public_addresses = ["192.0.2.1", "2001:db8::1"]
        state_dir = "state"
        control_socket = "run/control.sock"
        management_address = "154.66.115.255"
        [[listener]]
        address = "[::]:9443"
        wrap = "tls-auth"
        wrap_key = "ta.key"
        wrap_digest = "SHA256"
        client_certificate = "required"
        proxy_protocol = ["10.0.0.5", "10.1.0.0/16"]
        legacy = true
        [pool]
        network = "10.64.0.0/16"
        excluded = ["10.64.0.0/24"]
        [tun]
        name = "th1"
        mtu = 1400
        [tls]
        certificates = [{ certificate = "cert.pem", key = "key.pem" }]
        client_ca = "cert.pem"
        crl = ["crl.pem"]
        [data]
        ciphers = ["aes-128-gcm"]
        rekey_after = "1h"
        [keepalive]
        ping = "10s"
        restart = "1m"
        suspect = "9s"
        [isolation]
        allow = ["udp/514", "tcp/9"]
        [threads]
        shards = 4
        greeters = 2
        [control]
        group = "tunnelhead"
        read_only_socket = "run/read.sock"
        read_only_group = "adm"
        [[control.role]]
        user = "alice"
        role = "operate"
        tenants = ["a"]
        [audit]
        retention = "30d"
        [authenticator]
        url = "http://127.0.0.1:8090/login"
        secret_file = "secret.txt"
        timeout = "2s"
        connections = 4
        queue = 16
        accounts = true
        rekeys = true
        [metrics]
        per_router = true
        [limits]
        login_deadline = "10s"
        unauthenticated = 100
        unauthenticated_per_source = 10
        source_memory = "1h"
        handshakes_per_greeter = 8
        listen_backlog = 128
        login_bytes = "32KiB"
        login_bytes_total = "8MiB"
        frame_bytes = 1800
        lease_quarantine = "1d"
        open_files = 10000
        queue_bytes = "64KiB"
        queue_bytes_total = "16MiB"
        control_connections = 16
        dials = 50
        control_streams = 8
        control_body_bytes = "16KiB"
        events = 2048
        [store]
        snapshots = 3
        snapshot_every = "10m"
        [history]
        retention = "1d"
    "#;
    let config = Config::parse(text, dir.path(), &[]).unwrap();
    assert_eq!(config.listeners.len(), 2);
    let long = &config.listeners[1];
    assert!(matches!(&long.wrap, Wrap::TlsAuth { digest: AuthDigest::Sha256, .. }));
    assert_eq!(long.client_certificate, CertificatePolicy::Required);
    assert!(long.legacy && long.proxy_protocol.len() == 2);
    assert_eq!(config.state_dir, dir.path().join("state"));
    assert_eq!(config.tls.certificates[0].key, dir.path().join("key.pem"));
    assert_eq!(config.tls.crl, [dir.path().join("crl.pem")]);
    assert_eq!(config.data.rekey_after, Some(Duration::from_secs(3600)));
    assert_eq!(config.allow[1], Allow { protocol: Protocol::Tcp, port: 9 });
    assert_eq!((config.threads.shards(16), config.threads.greeters(16)), (4, 2));
    assert_eq!(config.limits.open_files, Some(10_000));
    assert_eq!((config.limits.frame_bytes, config.limits.events), (1800, 2048));
    assert_eq!(config.router_host(None), (Some("vpn.example.net".into()), false));
    assert!(config.authenticator.endpoint.is_some() && config.authenticator.rekeys);
    // The text above leaves no key out.
    let (_, notes) = read::config(text, dir.path()).unwrap();
    for key in &notes.asked {
        let last = key.rsplit('.').next().unwrap();
        assert!(
            text.contains(&format!("{last} = "))
                || text.contains(&format!("[{last}]"))
                || last == "listener",
            "{key}"
        );
    }
}

#[test]
fn every_error_is_reported_at_once() {
    let found = keys(
        r#"
        lisen = ["0.0.0.0:1"]
        state_dir = 7
        management_address = "100.64.0.0/10"
        public_host = "a b"
        [pool]
        network = "100.64.0.1/10"
        [tun]
        mtu = 1600
        name = "a/b"
        colour = "red"
        [data]
        ciphers = ["BF-CBC", "AES-256-GCM", "aes-256-gcm"]
        [keepalive]
        ping = "2m"
        [isolation]
        allow = ["514"]
        [limits]
        login_deadline = "0s"
        login_bytes = "1TiB"
        "#,
    );
    let found: BTreeSet<_> = found.iter().map(String::as_str).collect();
    let expected = [
        "lisen",
        "state_dir",
        "management_address",
        "public_host",
        "pool.network",
        "tun.mtu",
        "tun.name",
        "tun.colour",
        "data.ciphers[0]",
        "data.ciphers[2]",
        "keepalive.restart",
        "isolation.allow[0]",
        "limits.login_deadline",
        "limits.login_bytes",
    ];
    assert_eq!(found, expected.into_iter().collect());
}

#[test]
fn an_unknown_key_gets_a_suggestion() {
    let text = problems("lisen = []")[0].to_string();
    assert_eq!(text, "lisen: is not a known key; did you mean \"listen\"");
    assert!(problems("[keepalive]\nwombat = 1")[0].message.ends_with("remove it"));
    assert_eq!(keys("[[listener]]\naddress = \"0.0.0.0:1\"\nport = 3"), ["listener[0].port"]);
    assert_eq!(keys("\"a\\u001bb\" = 1"), ["a\\u{1b}b"]);
}

#[test]
fn wrong_types_are_named() {
    for (text, key, part) in [
        ("listen = \"0.0.0.0:1\"", "listen", "a list"),
        ("listen = [1]", "listen[0]", "a text"),
        ("listener = 1", "listener", "an array of tables"),
        ("listener = [1]", "listener[0]", "a table"),
        ("pool = 1", "pool", "a table"),
        ("public_host = false", "public_host", "a text"),
        ("[tun]\nmtu = \"1500\"", "tun.mtu", "a whole number"),
        ("[tun]\nmtu = 1500.0", "tun.mtu", "a number with a point"),
        ("[limits]\nqueue_bytes = true", "limits.queue_bytes", "64KiB"),
        ("[keepalive]\nping = 20", "keepalive.ping", "a text"),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\nlegacy = \"no\"",
            "listener[0].legacy",
            "true or false",
        ),
    ] {
        let problem = &problems(text)[0];
        assert_eq!(problem.key, key, "{text}");
        assert!(problem.message.contains(part), "{text}: {problem}");
    }
}

#[test]
fn text_that_is_not_toml_is_one_sentence_with_a_line() {
    let error = parse("a = 1\nb = = 2\n").unwrap_err().to_string();
    assert!(error.starts_with("the configuration is not TOML: line 2: "), "{error}");
    assert_eq!(error.lines().count(), 1);
    assert!(parse("a = 1\na = 2").unwrap_err().to_string().contains("line 2"));
}

#[test]
fn an_unreadable_file_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    for (name, part) in [("absent.toml", "there is no such file"), ("", "it is a folder")] {
        let error = Config::load(&dir.path().join(name), &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read the configuration ") && error.ends_with(part),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
    }
    fs::write(dir.path().join("binary"), [0xff, 0xfe]).unwrap();
    assert!(
        Config::load(&dir.path().join("binary"), &[]).unwrap_err().to_string().contains("UTF-8")
    );
    fs::write(dir.path().join("large"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(
        Config::load(&dir.path().join("large"), &[]).unwrap_err().to_string().contains("longer")
    );
}

#[test]
fn paths_are_taken_from_the_folder_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tunnelhead.toml");
    fs::write(&file, "state_dir = \"state\"\ncontrol_socket = \"/run/x.sock\"\n").unwrap();
    let config = Config::load(&file, &[]).unwrap();
    assert_eq!(config.state_dir, dir.path().join("state"));
    assert_eq!(config.control_socket, Path::new("/run/x.sock"));
}

#[test]
fn listeners_have_two_forms() {
    assert_eq!(good("listen = [\"127.0.0.1:0\", \"[::1]:0\"]").listeners.len(), 2);
    let long = "[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\naddress = \"127.0.0.1:2\"";
    assert_eq!(good(long).listeners.len(), 2);
    assert_eq!(keys("listen = []"), ["listen"]);
    assert_eq!(keys("[[listener]]\nlegacy = true"), ["listener[0].address"]);
    assert_eq!(
        keys("listen = [\"127.0.0.1:1\"]\n[[listener]]\naddress = \"127.0.0.1:1\""),
        ["listener"]
    );
    for bad in ["8443", ":8443", "localhost:8443", "0.0.0.0", "0.0.0.0:65536", "::1:8443"] {
        assert_eq!(keys(&format!("listen = [\"{bad}\"]"))[0], "listen[0]", "{bad}");
    }
}

#[test]
fn wrapping_needs_a_readable_well_formed_key() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good"), STATIC_KEY).unwrap();
    fs::write(dir.path().join("bad"), "hello").unwrap();
    let of = |lines: &str| {
        Config::parse(&format!("[[listener]]\naddress = \"0.0.0.0:1\"\n{lines}"), dir.path(), &[])
    };
    let failing = |lines: &str| match of(lines) {
        Err(ConfigError::Invalid(problems)) => problems[0].to_string(),
        other => panic!("{lines}: {other:?}"),
    };
    assert!(matches!(
        of("wrap = \"tls-crypt\"\nwrap_key = \"good\"").unwrap().listeners[0].wrap,
        Wrap::TlsCrypt { .. }
    ));
    assert!(matches!(
        of("wrap = \"tls-auth\"\nwrap_key = \"good\"").unwrap().listeners[0].wrap,
        Wrap::TlsAuth { digest: AuthDigest::Sha1, .. }
    ));
    assert!(matches!(
        of("wrap = \"none\"\nwrap_key = \"\"").unwrap().listeners[0].wrap,
        Wrap::None
    ));
    for (lines, part) in [
        ("wrap = \"tls-crypt\"", "wrap_key: is missing"),
        ("wrap_key = \"good\"", "wrap_key: is set but wrap is \"none\""),
        ("wrap = \"tls-crypt\"\nwrap_key = \"absent\"", "there is no such file"),
        ("wrap = \"tls-crypt\"\nwrap_key = \"bad\"", "does not hold an OpenVPN static key V1"),
        (
            "wrap = \"tls-crypt-v2\"\nwrap_key = \"good\"",
            "does not hold an OpenVPN tls-crypt-v2 server key",
        ),
        (
            "wrap = \"tls-crypt\"\nwrap_key = \"good\"\nwrap_digest = \"SHA1\"",
            "wrap_digest: belongs to",
        ),
        ("wrap = \"tls-auth\"\nwrap_key = \"good\"\nwrap_digest = \"MD5\"", "is not one of"),
        ("wrap = \"tls\"", "is not one of \"none\""),
    ] {
        assert!(failing(lines).contains(part), "{lines}: {}", failing(lines));
    }
    assert!(
        !format!("{:?}", of("wrap = \"tls-crypt\"\nwrap_key = \"good\"").unwrap()).contains("0011")
    );
}

#[test]
fn certificates_are_pairs_of_readable_pem_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c"), "-----BEGIN CERTIFICATE-----").unwrap();
    fs::write(dir.path().join("k"), "-----BEGIN EC PRIVATE KEY-----").unwrap();
    let of = |text: &str| Config::parse(text, dir.path(), &[]);
    of("[tls]\ncertificates = [{ certificate = \"c\", key = \"k\" }]").unwrap();
    for (text, key) in [
        ("[tls]\ncertificates = [{ certificate = \"c\" }]", "tls.certificates[0].key"),
        (
            "[tls]\ncertificates = [{ certificate = \"k\", key = \"k\" }]",
            "tls.certificates[0].certificate",
        ),
        (
            "[tls]\ncertificates = [{ certificate = \"c\", key = \"absent\" }]",
            "tls.certificates[0].key",
        ),
        (
            "[tls]\ncertificates = [{ certificate = \"c\", key = \"k\", ca = \"c\" }]",
            "tls.certificates[0].ca",
        ),
        ("[tls]\ncertificates = \"c\"", "tls.certificates"),
        ("[tls]\nclient_ca = \"absent\"", "tls.client_ca"),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\nclient_certificate = \"required\"",
            "tls.client_ca",
        ),
    ] {
        match of(text) {
            Err(ConfigError::Invalid(problems)) => assert_eq!(problems[0].key, key, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn the_management_address_is_one_that_nobody_dials() {
    let local = |interface: &str, address: &str| LocalAddress {
        interface: interface.to_owned(),
        address: address.parse().unwrap(),
    };
    let with = |text: &str, local: &[LocalAddress]| match Config::parse(text, Path::new("/"), local)
    {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid(problems)) => problems,
        Err(other) => panic!("{other}"),
    };
    // Inside the pool, or the customer's own.
    assert_eq!(with("management_address = \"100.96.0.1\"", &[]), []);
    assert_eq!(with("management_address = \"154.66.115.255\"", &[]), []);
    for (text, part) in [
        (
            "management_address = \"192.0.2.1\"\nlisten = [\"192.0.2.1:8443\"]",
            "address of the listener",
        ),
        (
            "management_address = \"192.0.2.1\"\nlisten = [\"[::ffff:192.0.2.1]:8443\"]",
            "address of the listener",
        ),
        ("management_address = \"192.0.2.1\"\npublic_host = \"192.0.2.1\"", "is public_host"),
        (
            "management_address = \"192.0.2.1\"\npublic_addresses = [\"192.0.2.1\"]",
            "public_addresses",
        ),
        ("management_address = \"127.0.0.1\"", "cannot be the address of a host"),
        ("management_address = \"0.0.0.0\"", "cannot be the address of a host"),
        ("management_address = \"169.254.169.254\"", "cannot be the address of a host"),
        ("management_address = \"224.0.0.1\"", "cannot be the address of a host"),
        ("management_address = \"255.255.255.255\"", "cannot be the address of a host"),
        ("management_address = \"100.64.0.0\"", "is an end of pool.network"),
        ("management_address = \"100.127.255.255\"", "is an end of pool.network"),
        ("management_address = \"fe80::1\"", "is not an IPv4 address"),
        ("management_address = \"100.096.0.1\"", "is not an IPv4 address"),
    ] {
        let found = with(text, &[]);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].key, "management_address");
        assert!(found[0].message.contains(part), "{text}: {}", found[0]);
    }
    let text = "management_address = \"192.0.2.1\"";
    assert_eq!(with(text, &[local("eth0", "192.0.2.1")])[0].key, "management_address");
    assert_eq!(with(text, &[local("eth0", "::ffff:192.0.2.1")])[0].key, "management_address");
    assert_eq!(with(text, &[local("eth0", "192.0.2.2")]), []);
    // While a concentrator runs its own device has the address; check-config is no liar then.
    assert_eq!(with(text, &[local("tunnelhead0", "192.0.2.1")]), []);
}

#[test]
fn the_pool_has_room_for_routers() {
    assert_eq!(good("[pool]\nnetwork = \"10.1.2.0/24\"").pool.excluded, []);
    for (text, key) in [
        ("[pool]\nnetwork = \"10.1.2.0/25\"", "pool.network"),
        ("[pool]\nnetwork = \"0.0.0.0/0\"", "pool.network"),
        ("[pool]\nnetwork = \"127.0.0.0/8\"", "pool.network"),
        ("[pool]\nnetwork = \"224.0.0.0/8\"", "pool.network"),
        ("[pool]\nnetwork = \"2001:db8::/32\"", "pool.network"),
        ("[pool]\nexcluded = [\"10.0.0.0/24\"]", "pool.excluded"),
        ("[pool]\nexcluded = [\"100.64.0.0/10\"]", "pool.excluded"),
        ("[pool]\nexcluded = [\"100.64.0.0/11\", \"100.96.0.0/11\"]", "pool.excluded"),
        ("management_address = \"10.1.2.3\"\n[pool]\nnetwork = \"10.1.2.0/24\"", "pool.excluded"),
        (
            "management_address = \"10.1.3.3\"\n[pool]\nnetwork = \"10.1.2.0/23\"\nexcluded = [\"10.1.2.0/24\"]",
            "pool.excluded",
        ),
    ] {
        assert_eq!(keys(text), [key], "{text}");
    }
    good(
        "management_address = \"10.1.3.3\"\n[pool]\nnetwork = \"10.1.2.0/23\"\nexcluded = [\"10.1.2.0/25\"]",
    );
}

#[test]
fn timers_and_budgets_fit_together() {
    for (text, key) in [
        ("[keepalive]\nping = \"90s\"\nrestart = \"90s\"", "keepalive.restart"),
        ("[keepalive]\nping = \"0s\"", "keepalive.ping"),
        ("[tun]\nmtu = 1279", "tun.mtu"),
        ("[tun]\nmtu = 1501", "tun.mtu"),
        ("[threads]\nshards = 3", "threads.shards"),
        ("[threads]\nshards = 128", "threads.shards"),
        ("[threads]\nshards = -1", "threads.shards"),
        ("[limits]\nunauthenticated = 100", "limits.unauthenticated_per_source"),
        ("[limits]\nlogin_bytes_total = 0", "limits.login_bytes_total"),
        ("[limits]\nqueue_bytes = \"16MiB\"\nqueue_bytes_total = \"1MiB\"", "limits.queue_bytes"),
        ("[limits]\nframe_bytes = 4096", "limits.frame_bytes"),
        ("[data]\nrekey_after = \"1s\"", "data.rekey_after"),
        ("[data]\nrekey_after = \"sometimes\"", "data.rekey_after"),
        ("[data]\nciphers = []", "data.ciphers"),
        ("[data]\nciphers = [\"BF-CBC\"]", "data.ciphers[0]"),
    ] {
        assert_eq!(keys(text), [key], "{text}");
    }
    assert_eq!(good("[data]\nrekey_after = \"never\"").data.rekey_after, None);
}

#[test]
fn threads_follow_the_cores() {
    let auto = Threads::default();
    for (cores, shards, greeters) in
        [(0, 1, 1), (1, 1, 1), (2, 2, 1), (3, 2, 1), (8, 8, 2), (12, 8, 3), (500, 64, 64)]
    {
        assert_eq!((auto.shards(cores), auto.greeters(cores)), (shards, greeters), "{cores}");
    }
}

#[test]
fn the_host_that_routers_dial_is_found_or_guessed() {
    let source = Some("198.51.100.7".parse().unwrap());
    let host = |text: &str, source| good(text).router_host(source);
    assert_eq!(
        host("public_host = \"VPN.example.net\"", source),
        (Some("vpn.example.net".into()), false)
    );
    assert_eq!(host("listen = [\"192.0.2.9:1\"]", source), (Some("192.0.2.9".into()), false));
    assert_eq!(host("", source), (Some("198.51.100.7".into()), true));
    assert_eq!(host("", None), (None, true));
}

#[test]
fn doubtful_settings_are_warned_about() {
    let config = good("");
    let keys = |local: &[LocalAddress]| -> Vec<_> {
        config.warnings(local).into_iter().map(|warning| warning.key).collect()
    };
    assert_eq!(keys(&[]), ["public_host"]);
    let at = |address: &str| LocalAddress {
        interface: "eth0".into(),
        address: address.parse().unwrap(),
    };
    assert_eq!(keys(&[at("100.70.0.1")]), ["public_host", "pool.network"]);
    assert_eq!(keys(&[at("100.64.0.7")]), ["public_host"]);
}

#[test]
fn revocation_lists_are_one_text_or_a_list_and_need_their_ca() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.pem", "b.pem"] {
        fs::write(dir.path().join(name), "-----BEGIN X509 CRL-----\n").unwrap();
    }
    fs::write(dir.path().join("cert.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    fs::write(dir.path().join("key.pem"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let read = |tls: &str| Config::parse(&format!("[tls]\n{tls}"), dir.path(), &[]);
    let crl = |tls: &str| read(tls).unwrap().tls.crl;
    assert_eq!(crl("crl = \"a.pem\""), [dir.path().join("a.pem")]);
    assert_eq!(crl("crl = [\"b.pem\", \"a.pem\"]").len(), 2);
    assert!(crl("").is_empty() && crl("crl = []").is_empty() && crl("crl = \"\"").is_empty());
    let certificates = "certificates = [{ certificate = \"cert.pem\", key = \"key.pem\" }]";
    assert!(read(&format!("crl = \"a.pem\"\nclient_ca = \"cert.pem\"\n{certificates}")).is_ok());
    for (tls, key, message) in [
        ("crl = [\"a.pem\", \"missing.pem\"]", "tls.crl[1]", "there is no such file"),
        ("crl = \"cert.pem\"", "tls.crl[0]", "does not hold a x509 crl"),
        ("crl = [\"a.pem\", \"a.pem\"]", "tls.crl[1]", "twice"),
        ("crl = [\"\"]", "tls.crl[0]", "is empty"),
        ("crl = 7", "tls.crl", "write a list"),
        (&format!("crl = \"a.pem\"\n{certificates}"), "tls.client_ca", "is missing"),
    ] {
        let Err(ConfigError::Invalid(problems)) = read(tls) else { panic!("{tls}") };
        let found = problems.iter().find(|one| one.key == key);
        assert!(found.is_some_and(|one| one.message.contains(message)), "{tls}: {problems:?}");
    }
}

/// `docs/CONFIG.md` has one line "| `key` | ..." for each key that is read, and no other.
#[test]
fn the_documentation_names_every_key() {
    let text = include_str!("../../docs/CONFIG.md");
    let mut section = String::new();
    let mut documented = BTreeSet::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.split('`').nth(1).unwrap_or("").trim_matches(['[', ']']).to_owned();
        }
        if let Some(key) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
            let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            assert!(documented.insert(path.clone()), "{path} is documented twice");
        }
    }
    let probe = "[[listener]]\naddress = \"0.0.0.0:1\"\n[tls]\ncertificates = [{}]\n\
                 [[control.role]]\n";
    let (_, notes) = read::config(probe, Path::new("/")).unwrap();
    let tables = [
        "listener",
        "pool",
        "tun",
        "tls",
        "tls.certificates",
        "data",
        "keepalive",
        "isolation",
        "threads",
        "control",
        "control.role",
        "audit",
        "authenticator",
        "metrics",
        "limits",
        "store",
        "history",
    ];
    let known: BTreeSet<String> =
        notes.asked.into_iter().filter(|key| !tables.contains(&key.as_str())).collect();
    assert_eq!(documented, known);
}

#[test]
fn control_rules_are_read_in_order() {
    let config = parse(
        "[control]\ngroup = \"tunnelhead\"\nread_only_socket = \"ro.sock\"\n\
         read_only_group = \"993\"\n[[control.role]]\nuser = \"alice\"\nrole = \"operate\"\n\
         tenants = [\"a\", \"b\"]\n[[control.role]]\ngroup = \"1000\"\nrole = \"admin\"\n",
    )
    .unwrap();
    let control = config.control;
    assert_eq!(control.group, Some(Principal::Name("tunnelhead".to_owned())));
    assert_eq!(control.read_only_group, Some(Principal::Id(993)));
    assert!(control.read_only_socket.unwrap().is_absolute());
    let whom = Whom::User(Principal::Name("alice".to_owned()));
    let tenants = Some(vec!["a".to_owned(), "b".to_owned()]);
    assert_eq!(control.roles[0], RoleRule { who: whom, role: Role::Operate, tenants });
    let who = Whom::Group(Principal::Id(1000));
    assert_eq!(control.roles[1], RoleRule { who, role: Role::Admin, tenants: None });
    assert_eq!(Config::default().control, Control::default());
    assert_eq!(Config::default().audit.retention, Some(Duration::from_secs(365 * 86_400)));
    assert_eq!(parse("[audit]\nretention = \"never\"\n").unwrap().audit.retention, None);
}

#[test]
fn control_rules_that_say_too_little_or_too_much_are_refused() {
    for (text, key) in [
        ("[[control.role]]\nrole = \"read\"\n", "control.role[0].user"),
        ("[[control.role]]\nuser = \"a\"\n", "control.role[0].role"),
        (
            "[[control.role]]\nuser = \"a\"\ngroup = \"b\"\nrole = \"read\"\n",
            "control.role[0].group",
        ),
        ("[[control.role]]\nuser = \"a\"\nrole = \"root\"\n", "control.role[0].role"),
        (
            "[[control.role]]\nuser = \"a\"\nrole = \"read\"\ntenants = []\n",
            "control.role[0].tenants",
        ),
        ("[[control.role]]\nuser = \"4294967295\"\nrole = \"read\"\n", "control.role[0].user"),
        ("[[control.role]]\nuser = \"a b\"\nrole = \"read\"\n", "control.role[0].user"),
        ("[control]\ngroup = \"-a\"\n", "control.group"),
        ("[control]\nread_only_group = \"a\"\n", "control.read_only_group"),
        (
            "control_socket = \"a\"\n[control]\nread_only_socket = \"a\"\n",
            "control.read_only_socket",
        ),
        ("[audit]\nretention = \"1h\"\n", "audit.retention"),
    ] {
        let found = problems(text);
        assert!(found.iter().any(|problem| problem.key == key), "{text}: {found:?}");
    }
}
