//! The file for standard OpenVPN clients.

use std::fmt::Write as _;

use super::{Endpoint, Login, Wrap, cipher};

/// A complete client file with everything inline.
pub(super) fn file(endpoint: &Endpoint<'_>, login: &Login<'_>) -> String {
    let fallback = cipher(endpoint, login);
    let ciphers = match login.cipher {
        Some(cipher) => cipher.to_owned(),
        None if endpoint.ciphers.is_empty() => fallback.to_owned(),
        None => endpoint.ciphers.join(":"),
    };
    let auth = match (login.auth, &endpoint.wrap) {
        // With tls-auth one option sets the digest of both channels.
        (_, Wrap::TlsAuth(_, digest)) => *digest,
        (Some("null"), _) => "none",
        (Some(auth), _) => auth,
        (None, _) => "SHA1",
    };
    let mut text = format!(
        "# tunnelhead: {name}\n\
         # Before OpenVPN 2.6: move <auth-user-pass> into a file and name it after auth-user-pass.\n\
         client\n\
         dev tun\n\
         proto tcp-client\n\
         remote {host} {port}\n\
         nobind\n\
         persist-key\n\
         resolv-retry infinite\n\
         connect-retry 5 60\n\
         # OpenVPN 2.4 does not know data-ciphers.\n\
         ignore-unknown-option data-ciphers\n\
         data-ciphers {ciphers}\n\
         cipher {fallback}\n\
         auth {auth}\n\
         tls-version-min 1.2\n\
         remote-cert-tls server\n",
        name = login.name,
        host = endpoint.host,
        port = endpoint.port,
    );
    if let Some(name) = endpoint.server_name {
        let _ = writeln!(text, "verify-x509-name {} name", quoted(name));
    }
    text.push_str("verb 3\n");
    block(&mut text, "auth-user-pass", &format!("{}\n{}", login.username, login.password));
    match endpoint.ca_pem {
        Some(pem) => block(&mut text, "ca", pem),
        None => text.push_str("# Name the CA of the server's certificate:\n# ca ca.pem\n"),
    }
    if let Some(name) = login.certificate_cn {
        let _ = writeln!(
            text,
            "# This router logs in with a certificate of the common name {}:\n\
             # cert client.pem\n\
             # key client.key",
            quoted(name)
        );
    }
    match endpoint.wrap {
        Wrap::None => {}
        Wrap::TlsAuth(key, _) => {
            // The server's direction is 0.
            text.push_str("key-direction 1\n");
            block(&mut text, "tls-auth", key);
        }
        Wrap::TlsCrypt(key) => block(&mut text, "tls-crypt", key),
        Wrap::TlsCryptV2(pem) => block(&mut text, "tls-crypt-v2", pem),
    }
    text
}

fn block(text: &mut String, tag: &str, content: &str) {
    let content = content.replace("\r\n", "\n");
    let _ = writeln!(text, "<{tag}>\n{}\n</{tag}>", content.trim_end_matches('\n'));
}

/// A quoted argument of OpenVPN's option parser: backslash escapes inside double quotes.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}
