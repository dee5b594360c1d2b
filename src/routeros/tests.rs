use super::*;

/// Shaped like a certificate; only the form matters here.
fn ca() -> String {
    let line = "MIIC+zCCAeOgAwIBAgIUKx/x9HDp0Ww2wqDGRXgKyv3bYm4wDQYJKoZIhvcNAQEL";
    format!(
        "-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n",
        format!("{line}\n").repeat(20)
    )
}

fn endpoint<'a>(ca: &'a str) -> Endpoint<'a> {
    Endpoint {
        host: "vpn.example.net",
        port: 8443,
        management: Ipv4Addr::new(100, 127, 255, 254),
        ciphers: &["AES-256-GCM", "AES-256-CBC"],
        wrap: Wrap::None,
        ca_pem: Some(ca),
        server_name: Some("vpn.example.net"),
    }
}

fn login() -> Login<'static> {
    Login {
        name: "branch-42",
        username: "branch-42",
        password: "Kr7-mnbv.QWxz",
        cipher: None,
        auth: None,
        certificate_cn: None,
    }
}

/// What a terminal would choke on: see the module's rules.
fn pasteable(script: &str) {
    assert!(script.ends_with('\n') && !script.contains('\r') && !script.contains('\t'));
    for line in script.lines() {
        assert!(line.len() <= 700, "{} characters: {line}", line.len());
        assert!(line.is_ascii() && !line.contains('?'), "{line}");
        assert!(!line.ends_with('\\') && !line.is_empty(), "{line}");
        if !line.starts_with('#') {
            assert!(line.starts_with('/') || line.starts_with(':'), "{line}");
            balanced(line);
        }
    }
}

/// Quotes, brackets and braces close on the same line; a dollar outside of quotes names a variable
/// of ours, inside of quotes it is escaped.
fn balanced(line: &str) {
    let mut open = Vec::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (true, '\\') => {
                chars.next();
            }
            (_, '"') => quoted = !quoted,
            (true, '$') => panic!("a bare dollar in quotes: {line}"),
            (true, _) => {}
            (false, '$') => {
                let name: String = chars.clone().take_while(char::is_ascii_alphabetic).collect();
                assert!(["tunnelheadCa", "line"].contains(&name.as_str()), "{line}");
            }
            (false, '[' | '{' | '(') => open.push(c),
            (false, ']') => assert_eq!(open.pop(), Some('['), "{line}"),
            (false, '}') => assert_eq!(open.pop(), Some('{'), "{line}"),
            (false, ')') => assert_eq!(open.pop(), Some('('), "{line}"),
            (false, _) => {}
        }
    }
    assert!(!quoted && open.is_empty(), "{line}");
}

fn every_script() -> Vec<String> {
    let ca = ca();
    let mut all = Vec::new();
    for verify in [false, true] {
        for password in ["Kr7-mnbv.QWxz", "a\"b\\c$d?e;f [x] {y}\u{e4}"] {
            for certificate_cn in [None, Some("b\"r$a?nch")] {
                let login = Login { password, certificate_cn, ..login() };
                let made = provision(&endpoint(&ca), &login, verify);
                all.extend([made.script, made.script_v6]);
            }
        }
    }
    all
}

#[test]
fn every_line_can_be_pasted_alone() {
    every_script().iter().for_each(|script| pasteable(script));
}

#[test]
#[should_panic(expected = "a bare dollar")]
fn the_paste_check_sees_a_bare_dollar() {
    balanced(":put \"a $b\"");
}

#[test]
fn nothing_is_found_by_position_or_added_without_looking() {
    for script in every_script() {
        for line in script.lines().filter(|line| !line.starts_with('#')) {
            for verb in [" add ", "/certificate import "] {
                if line.contains(verb) {
                    assert!(line.contains(":if ([:len ["), "{line}");
                }
            }
            for verb in [" set ", "/file remove "] {
                if line.contains(verb) && !line.contains(":set ") {
                    assert!(line.contains("[find where "), "{line}");
                }
            }
            assert!(!line.contains("numbers=") && !line.contains("place-before"), "{line}");
            assert!(!line.contains("remove") || line.contains("/file remove"), "{line}");
        }
    }
}

/// `find` is a command of a menu: `[/menu find ...]`, or `[find ...]` inside a command of the menu.
#[test]
fn every_find_belongs_to_a_menu() {
    let mut seen = 0;
    for script in every_script() {
        for line in script.lines().filter(|line| !line.starts_with('#')) {
            for (at, _) in line.match_indices("find where") {
                let before = &line[..at];
                let good = match before.strip_suffix('[') {
                    Some(verb) => [" set ", " get ", " remove ", " monitor "]
                        .iter()
                        .any(|v| verb.ends_with(v)),
                    None => {
                        let menu = before.rsplit('[').next().unwrap();
                        menu.starts_with('/') && menu.ends_with(' ') && !menu.contains('=')
                    }
                };
                assert!(good, "{line}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn the_v7_script_says_everything() {
    let ca = ca();
    let script = provision(&endpoint(&ca), &login(), false).script;
    for part in [
        "change-tcp-mss=yes",
        "use-ipv6=no",
        "connect-to=\"vpn.example.net\" port=8443 protocol=tcp",
        "user=\"branch-42\" password=\"Kr7-mnbv.QWxz\"",
        "cipher=aes256-cbc auth=sha1",
        "tls-version=only-1.2",
        "add-default-route=no route-nopull=yes",
        "verify-server-certificate=no disabled=no",
        "dst-address=100.127.255.254/32",
    ] {
        assert!(script.contains(part), "{part} is missing in\n{script}");
    }
    assert!(!script.contains("BEGIN CERTIFICATE"));
}

#[test]
fn the_v6_script_has_only_what_v6_knows() {
    let ca = ca();
    let script = provision(&endpoint(&ca), &login(), true).script_v6;
    assert!(script.contains("cipher=aes256 auth=sha1"), "{script}");
    for unknown in [
        "protocol=",
        "tls-version",
        "route-nopull",
        "use-peer-dns",
        "aes256-cbc",
        "/file add",
        "name=tunnelhead-ca ",
    ] {
        assert!(!script.contains(unknown), "{unknown} in\n{script}");
    }
    // A comment on a profile may be unknown to v6.
    assert!(
        script
            .lines()
            .filter(|line| line.contains("/ppp profile"))
            .all(|line| !line.contains("comment"))
    );
}

#[test]
fn verification_brings_the_whole_ca() {
    let ca = ca();
    let made = provision(&endpoint(&ca), &login(), true);
    for script in [made.script, made.script_v6] {
        assert!(script.contains("verify-server-certificate=yes"));
        let mut brought = String::new();
        for line in script.lines().filter(|line| line.contains(":set tunnelheadCa (")) {
            let text = line.split("tunnelheadCa . \"").nth(1).unwrap().trim_end_matches("\")");
            brought.push_str(&text.replace("\\n", "\n"));
        }
        assert_eq!(brought, ca);
    }
}

#[test]
fn ciphers_have_the_names_of_each_version() {
    let ca = ca();
    for (cipher, auth, v7, v6) in [
        (
            Some("AES-256-CBC"),
            Some("SHA1"),
            "cipher=aes256-cbc auth=sha1 ",
            Some("cipher=aes256 auth=sha1 "),
        ),
        (
            Some("AES-128-CBC"),
            None,
            "cipher=aes128-cbc auth=sha1 ",
            Some("cipher=aes128 auth=sha1 "),
        ),
        (Some("AES-192-CBC"), Some("SHA512"), "cipher=aes192-cbc auth=sha512 ", None),
        (Some("AES-256-GCM"), None, "cipher=aes256-gcm auth=null ", None),
        (Some("AES-256-GCM"), Some("SHA256"), "cipher=aes256-gcm auth=sha256 ", None),
        (Some("AES-128-GCM"), Some("null"), "cipher=aes128-gcm auth=null ", None),
    ] {
        let made = provision(&endpoint(&ca), &Login { cipher, auth, ..login() }, false);
        assert!(made.script.contains(v7), "{}", made.script);
        match v6 {
            Some(v6) => assert!(made.script_v6.contains(v6), "{}", made.script_v6),
            None => {
                assert!(made.script_v6.contains(":error"), "{}", made.script_v6);
                assert!(!made.script_v6.contains("ovpn-client"), "{}", made.script_v6);
                pasteable(&made.script_v6);
            }
        }
    }
    let only_gcm = Endpoint { ciphers: &["AES-256-GCM"], ..endpoint(&ca) };
    assert!(provision(&only_gcm, &login(), false).script.contains("cipher=aes256-gcm auth=null"));
}

#[test]
fn a_wrapped_listener_gets_no_script() {
    let ca = ca();
    let wrapped = Endpoint { wrap: Wrap::TlsCrypt("KEY"), ..endpoint(&ca) };
    let made = provision(&wrapped, &login(), true);
    for script in [made.script, made.script_v6] {
        assert!(script.contains(":error \"tunnelhead: this listener uses tls-crypt,"), "{script}");
        assert!(!script.contains("password=") && !script.contains("KEY"));
        pasteable(&script);
    }
    assert!(made.ovpn.contains("<tls-crypt>\nKEY\n</tls-crypt>"));
}

#[test]
fn the_ovpn_file_is_complete() {
    let ca = ca();
    let file = provision(&endpoint(&ca), &login(), false).ovpn;
    for part in [
        "\nclient\ndev tun\nproto tcp-client\nremote vpn.example.net 8443\n",
        "\ndata-ciphers AES-256-GCM:AES-256-CBC\ncipher AES-256-CBC\nauth SHA1\n",
        "\nremote-cert-tls server\nverify-x509-name \"vpn.example.net\" name\n",
        "\n<auth-user-pass>\nbranch-42\nKr7-mnbv.QWxz\n</auth-user-pass>\n",
        "\n<ca>\n-----BEGIN CERTIFICATE-----\n",
        "-----END CERTIFICATE-----\n</ca>\n",
        "\nnobind\n",
        "\npersist-key\n",
    ] {
        assert!(file.contains(part), "{part:?} is missing in\n{file}");
    }
    assert!(!file.contains("tls-auth") && !file.contains("key-direction"));
}

#[test]
fn the_ovpn_file_follows_the_listener_and_the_account() {
    let ca = ca();
    let auth = Endpoint { wrap: Wrap::TlsAuth("KEY\n", "SHA256"), ..endpoint(&ca) };
    let login = Login { cipher: Some("AES-128-CBC"), certificate_cn: Some("b \"42\""), ..login() };
    let file = provision(&auth, &login, false).ovpn;
    assert!(
        file.contains("\nauth SHA256\n") && file.contains("\nkey-direction 1\n<tls-auth>\nKEY\n")
    );
    assert!(file.contains("\ndata-ciphers AES-128-CBC\ncipher AES-128-CBC\n"));
    assert!(file.contains("common name \"b \\\"42\\\"\":\n# cert client.pem\n"));
    let v2 = Endpoint { wrap: Wrap::TlsCryptV2("PEM"), ca_pem: None, ..endpoint(&ca) };
    let file = provision(&v2, &login, false).ovpn;
    assert!(file.contains("<tls-crypt-v2>\nPEM\n</tls-crypt-v2>") && !file.contains("<ca>"));
}

#[test]
fn nothing_secret_is_printed_by_debug() {
    let ca = ca();
    let shown =
        format!("{:?} {:?}", login(), Endpoint { wrap: Wrap::TlsCrypt("CANARY"), ..endpoint(&ca) });
    assert!(!shown.contains("Kr7") && !shown.contains("CANARY"), "{shown}");
}

/// `docs/ROUTEROS.md` numbers its quirks in order, and each names tests that exist.
#[test]
fn every_quirk_of_the_documentation_has_a_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                sources.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut number = 0;
    for line in std::fs::read_to_string(root.join("docs/ROUTEROS.md")).unwrap().lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [first, _, _, grade, _, tests] = cells.as_slice() else { continue };
        let Ok(found) = first.trim_start_matches("| ").parse::<usize>() else { continue };
        number += 1;
        assert_eq!(found, number, "{line}");
        assert!(grade.chars().all(|c| "DRIU, reason".contains(c)), "{line}");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "quirk {number} has no test");
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "quirk {number}: no test {name}");
        }
    }
    assert!(number >= 40, "{number}");
}
