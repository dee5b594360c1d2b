//! The scripts for RouterOS v7 and v6.

use std::fmt::Write as _;

use super::quote::quote;
use super::{Endpoint, Login, Wrap, ca, cipher};

const INTERFACE: &str = "find where comment=\"tunnelhead: tunnel\"";
const ROUTE: &str = "find where comment=\"tunnelhead: management\"";

/// For RouterOS 7.9 and later.
pub(super) fn v7(endpoint: &Endpoint<'_>, login: &Login<'_>, verify_server: bool) -> String {
    let cipher = cipher(endpoint, login);
    let auth = match login.auth {
        Some(auth) => auth,
        // Until 7.16 a GCM cipher demands auth=null. Source: RouterOS manual, OpenVPN.
        None if cipher.ends_with("-GCM") => "null",
        None => "SHA1",
    };
    let mut text = head(login, "RouterOS 7.9 or later");
    if let Some(refusal) = wrapped(endpoint) {
        text.push_str(&refusal);
        return text;
    }
    text.push_str(
        ":if ([:len [/ppp profile find where comment=\"tunnelhead: profile\"]] = 0) \
         do={ /ppp profile add name=tunnelhead comment=\"tunnelhead: profile\" }\n\
         /ppp profile set [find where comment=\"tunnelhead: profile\"] change-tcp-mss=yes use-ipv6=no\n",
    );
    let verify = trust(&mut text, endpoint, verify_server, false);
    add_interface(&mut text, endpoint, login);
    let _ = writeln!(
        text,
        "/interface ovpn-client set [{INTERFACE}] connect-to={host} port={port} protocol=tcp mode=ip \
         user={user} password={password} \
         profile=[/ppp profile get [find where comment=\"tunnelhead: profile\"] name] \
         cipher={cipher} auth={auth} tls-version=only-1.2 add-default-route=no route-nopull=yes \
         use-peer-dns=no verify-server-certificate={verify} disabled=no",
        host = quote(endpoint.host),
        port = endpoint.port,
        user = quote(login.username),
        password = quote(login.password),
        cipher = v7_cipher(cipher),
        auth = auth.to_ascii_lowercase(),
    );
    tail(&mut text, endpoint, login);
    text
}

/// For RouterOS 6.45 and later, and for 7.1 to 7.7, which still have the short cipher names.
pub(super) fn v6(endpoint: &Endpoint<'_>, login: &Login<'_>, verify_server: bool) -> String {
    let mut text = head(login, "RouterOS 6.45 to 6.49");
    if let Some(refusal) = wrapped(endpoint) {
        text.push_str(&refusal);
        return text;
    }
    let wanted = cipher(endpoint, login);
    let wanted_auth = login.auth.unwrap_or("SHA1");
    let Some(cipher) = v6_cipher(wanted).filter(|_| wanted_auth == "SHA1") else {
        refuse(
            &mut text,
            &format!(
                "RouterOS v6 has neither GCM nor digests other than SHA1, but this router is set to \
                 {wanted} with {wanted_auth}; make it anew with --cipher aes-256-cbc --auth sha1"
            ),
        );
        return text;
    };
    text.push_str(
        ":if ([:len [/ppp profile find where name=\"tunnelhead\"]] = 0) \
         do={ /ppp profile add name=tunnelhead }\n\
         /ppp profile set [find where name=\"tunnelhead\"] change-tcp-mss=yes\n\
         :do { :local line [:parse \"/ppp profile set [find where name=tunnelhead] use-ipv6=no\"]; \
         $line } on-error={}\n",
    );
    let verify = trust(&mut text, endpoint, verify_server, true);
    add_interface(&mut text, endpoint, login);
    let _ = writeln!(
        text,
        "/interface ovpn-client set [{INTERFACE}] connect-to={host} port={port} mode=ip \
         user={user} password={password} profile=tunnelhead cipher={cipher} auth=sha1 \
         add-default-route=no verify-server-certificate={verify} disabled=no",
        host = quote(endpoint.host),
        port = endpoint.port,
        user = quote(login.username),
        password = quote(login.password),
    );
    tail(&mut text, endpoint, login);
    text
}

fn head(login: &Login<'_>, versions: &str) -> String {
    format!("# tunnelhead: {} for {versions}. Safe to paste again.\n", login.name)
}

/// A script cannot carry a wrapping key; RouterOS takes one only from a .ovpn file.
fn wrapped(endpoint: &Endpoint<'_>) -> Option<String> {
    let mut text = String::new();
    match endpoint.wrap {
        Wrap::None => return None,
        Wrap::TlsAuth(..) | Wrap::TlsCrypt(_) | Wrap::TlsCryptV2(_) => refuse(
            &mut text,
            &format!(
                "this listener uses {:?}, which a script cannot set; copy the .ovpn file to a router \
                 with RouterOS 7.17 or later and use /interface ovpn-client import-ovpn-configuration",
                endpoint.wrap
            ),
        ),
    }
    Some(text)
}

fn refuse(text: &mut String, why: &str) {
    let _ = writeln!(text, ":error {}", quote(&format!("tunnelhead: {why}")));
}

/// Imports the CA if that is wanted and possible; the value for verify-server-certificate.
fn trust(text: &mut String, endpoint: &Endpoint<'_>, wanted: bool, v6: bool) -> &'static str {
    if !wanted {
        return "no";
    }
    if let Some(lines) = endpoint.ca_pem.and_then(|pem| ca::import(pem, v6)) {
        text.push_str(&lines);
    }
    // Without a CA of ours the router's own trust store has to know the issuer.
    "yes"
}

fn add_interface(text: &mut String, endpoint: &Endpoint<'_>, login: &Login<'_>) {
    let _ = writeln!(
        text,
        ":if ([:len [/interface ovpn-client {INTERFACE}]] = 0) \
         do={{ /interface ovpn-client add name=tunnelhead connect-to={} user={} disabled=yes \
         comment=\"tunnelhead: tunnel\" }}",
        quote(endpoint.host),
        quote(login.username),
    );
}

/// The route takes the interface's present name, in case somebody has renamed it.
fn tail(text: &mut String, endpoint: &Endpoint<'_>, login: &Login<'_>) {
    let gateway = format!("[/interface ovpn-client get [{INTERFACE}] name]");
    let to = endpoint.management;
    let _ = writeln!(
        text,
        ":if ([:len [/ip route {ROUTE}]] = 0) do={{ /ip route add dst-address={to}/32 \
         gateway={gateway} comment=\"tunnelhead: management\" }}"
    );
    let _ =
        writeln!(text, "/ip route set [{ROUTE}] dst-address={to}/32 gateway={gateway} disabled=no");
    if let Some(name) = login.certificate_cn {
        let _ = writeln!(
            text,
            "# This router logs in with a certificate: import one with the common name {} and its \
             key, then set it:",
            quote(name)
        );
        let _ = writeln!(text, "# /interface ovpn-client set [{INTERFACE}] certificate=NAME");
    }
    let _ = writeln!(
        text,
        ":put \"tunnelhead: done. See: /interface ovpn-client monitor [{}]\"",
        INTERFACE.replace('"', "\\\"")
    );
}

/// Names since about 7.8. Source: RouterOS manual; published schemas 7.9 to 7.24.
fn v7_cipher(cipher: &str) -> String {
    cipher.to_ascii_lowercase().replacen("aes-", "aes", 1)
}

/// Short names, CBC only. Source: RouterOS 6.48.6.
fn v6_cipher(cipher: &str) -> Option<&'static str> {
    match cipher {
        "AES-128-CBC" => Some("aes128"),
        "AES-192-CBC" => Some("aes192"),
        "AES-256-CBC" => Some("aes256"),
        _ => None,
    }
}
