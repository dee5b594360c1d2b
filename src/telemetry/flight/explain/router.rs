//! What is set wrong on the router.

use super::{
    Explanation, Record, SET, Setting, client, is_openvpn, offered, utc, v6_cipher, v7_cipher,
    wanted_auth, wanted_cipher,
};

pub(super) fn explain(
    cause: &'static str,
    record: &Record,
    setting: &Setting<'_>,
) -> Option<Explanation> {
    Some(match cause {
        "no_shared_cipher"
        | "cipher_unsupported"
        | "cipher_not_allowed"
        | "cipher_not_the_accounts"
        | "auth_unsupported"
        | "auth_missing"
        | "auth_not_the_accounts" => data_channel(cause, record, setting),
        "tap_device" => Explanation::new(
            cause,
            "The client is in Ethernet (TAP) mode; only IP (TUN) mode is supported.",
        )
        .router(format!("{SET} mode=ip")),
        "compression" => Explanation::new(
            cause,
            "The client compresses its packets, which is not supported: remove comp-lzo and \
             compress from its configuration.",
        ),
        "key_method_1" => Explanation::new(
            cause,
            "The client speaks key method 1, which ended with OpenVPN 2.4: it needs an update.",
        ),
        "tls_version_too_old" => {
            let sentence = format!(
                "The newest TLS version that the client offers is {}, and this listener takes TLS \
                 1.2 and newer.",
                offered(record)
            );
            let made = Explanation::new(cause, sentence);
            match setting.legacy_listener {
                Some(legacy) => made.router(format!("{SET} port={}", legacy.port())),
                None => Explanation {
                    sentence: format!(
                        "{} Update the router, or open a listener with legacy = true for it.",
                        made.sentence
                    ),
                    ..made
                }
                .router("/system package update install"),
            }
        }
        "tls_no_shared_suite" => Explanation::new(
            cause,
            format!(
                "The client offers {} TLS cipher suites and none of them is one that we allow; \
                 update the router.",
                record.hello.as_ref().map_or(0, |hello| hello.suites)
            ),
        )
        .router("/system package update install"),
        "not_tls" => Explanation::new(
            cause,
            "What came through the control channel is not TLS: a broken client, or something on \
             the way changes the bytes.",
        ),
        "server_certificate_not_trusted"
        | "server_certificate_not_accepted"
        | "server_certificate_taken_for_expired"
        | "left_after_server_certificate" => server_certificate(cause, setting),
        "client_certificate_missing" | "certificate_missing" => {
            let name = setting.account.and_then(|account| account.certificate_cn);
            let which = name.map_or(String::new(), |cn| format!(" with the common name {cn}"));
            Explanation::new(
                cause,
                format!(
                    "The login needs a client certificate{which} and none was presented: import it \
                     with its private key and select it."
                ),
            )
            .router(format!("{SET} certificate=NAME"))
        }
        "certificate_mismatch" => {
            let sent = record.certificate.as_ref().map_or_else(String::new, |certificate| {
                format!(" ({})", certificate.common_name.escape_ascii())
            });
            let wanted = setting
                .account
                .and_then(|account| account.certificate_cn)
                .map_or_else(String::new, |cn| format!("; this account wants {cn}"));
            Explanation::new(
                cause,
                format!("The client certificate{sent} belongs to another account{wanted}."),
            )
            .router(format!("{SET} certificate=NAME"))
        }
        "client_certificate_expired" => Explanation::new(
            cause,
            format!(
                "The router's client certificate has expired (the clock here says {}): give it a \
                 new one.",
                utc(setting.now_s)
            ),
        )
        .router("/certificate print detail where private-key=yes"),
        "client_certificate_not_yet_valid" => Explanation::new(
            cause,
            format!(
                "The router's client certificate is not valid yet: either the clock here ({}) or \
                 the one of whoever issued it is wrong.",
                utc(setting.now_s)
            ),
        )
        .shell("timedatectl"),
        "client_certificate_revoked" => Explanation::new(
            cause,
            "The router's client certificate is revoked: give it a new one.",
        )
        .router(format!("{SET} certificate=NAME")),
        "client_certificate_unknown_issuer" => Explanation::new(
            cause,
            "The router's client certificate comes from a CA that is not the one in tls.client_ca.",
        )
        .router(format!("{SET} certificate=NAME")),
        "client_certificate_key_not_allowed" => Explanation::new(
            cause,
            "A key in the router's certificate chain is too small or of a wrong kind; allowed are \
             RSA with 2048 to 4096 bits, and ECDSA on P-256 or P-384.",
        )
        .router(format!("{SET} certificate=NAME")),
        "unknown_user" => unknown_user(cause, record, setting),
        "wrong_password" => {
            let name = setting.account.map_or("NAME", |account| account.name);
            Explanation::new(
                cause,
                "The password is wrong: paste the router's script again, or give it a new password.",
            )
            .router(format!("{SET} password=PASSWORD"))
            .shell(format!("tunnelhead router rotate {name}"))
        }
        "credentials_too_long" => Explanation::new(
            cause,
            "The user name or the password is longer than what any account can have (128 and 1,000 \
             bytes).",
        )
        .router(format!("{SET} user=NAME password=PASSWORD")),
        "udp_framing" => Explanation::new(
            cause,
            "The client sent OpenVPN packets without the length that TCP needs: it is set to UDP, \
             or something between translates UDP to TCP.",
        )
        .router(format!("{SET} protocol=tcp")),
        _ => return None,
    })
}

fn data_channel(cause: &'static str, record: &Record, setting: &Setting<'_>) -> Explanation {
    let cipher = wanted_cipher(setting);
    let auth = wanted_auth(setting, cipher);
    let said = record.peer("IV_CIPHERS").or_else(|| record.option("cipher")).unwrap_or("none");
    let digest = record.option("auth").unwrap_or("none");
    let who = client(record);
    let sentence = match cause {
        "cipher_unsupported" if said.eq_ignore_ascii_case("BF-CBC") => format!(
            "The cipher is left at blowfish128 (BF-CBC), RouterOS' default, which is not safe and \
             not supported; set {cipher}."
        ),
        "cipher_unsupported" => {
            format!("{who} is set to cipher {said}, which is not supported; set {cipher}.")
        }
        "cipher_not_allowed" => format!(
            "{who} is set to cipher {said}, which data.ciphers of this server does not list; set \
             {cipher}."
        ),
        "no_shared_cipher" => {
            format!("{who} offers the ciphers {said} and none of them is allowed; set {cipher}.")
        }
        "cipher_not_the_accounts" => {
            format!("The account prescribes cipher {cipher} and {who} is set to {said}.")
        }
        "auth_missing" => format!("{who} has auth=null, which a CBC cipher can't do without."),
        "auth_unsupported" => {
            format!("{who} is set to auth={digest}, which is not supported; set {auth}.")
        }
        _ => format!("The account prescribes auth={auth} and {who} is set to {digest}."),
    };
    let sentence = capital(&sentence);
    if is_openvpn(record) {
        let sentence = format!(
            "{sentence} In the client's file: \"data-ciphers {cipher}\" and \"auth {}\".",
            auth.to_ascii_uppercase()
        );
        return Explanation::new(cause, sentence);
    }
    let made = Explanation::new(cause, sentence)
        .router(format!("{SET} cipher={} auth={auth}", v7_cipher(cipher)));
    match v6_cipher(cipher).filter(|_| auth == "sha1") {
        Some(short) => made.router_v6(format!("{SET} cipher={short} auth={auth}")),
        None => made,
    }
}

fn server_certificate(cause: &'static str, setting: &Setting<'_>) -> Explanation {
    if let Some(ours) = setting.certificate.filter(|ours| ours.not_after_s <= setting.now_s) {
        return Explanation::new(
            cause,
            format!(
                "Our certificate ({}) expired at {}: renew it and reload.",
                ours.subject,
                utc(ours.not_after_s)
            ),
        )
        .shell("tunnelhead reload");
    }
    let name = setting.account.map_or("NAME", |account| account.name);
    let script = format!("tunnelhead router rotate {name} --verify-server");
    match cause {
        "server_certificate_taken_for_expired" => Explanation::new(
            cause,
            format!(
                "The router takes our certificate for expired, and it is not (the time is {}): the \
                 router's clock is wrong.",
                utc(setting.now_s)
            ),
        )
        .router("/system ntp client set enabled=yes servers=pool.ntp.org")
        .router_v6("/system ntp client set enabled=yes server-dns-names=pool.ntp.org"),
        "server_certificate_not_accepted" => Explanation::new(
            cause,
            "The router does not accept our certificate: its name is not the one in connect-to, or \
             its kind is not known to the router.",
        )
        .router("/interface ovpn-client print detail where comment=\"tunnelhead: tunnel\"")
        .shell(script),
        "left_after_server_certificate" => Explanation::new(
            cause,
            "The client hung up when it had our certificate, and did not say why: usually it checks \
             the server (verify-server-certificate) and lacks our CA, or its clock is wrong.",
        )
        .router("/system ntp client set enabled=yes servers=pool.ntp.org")
        .router_v6("/system ntp client set enabled=yes server-dns-names=pool.ntp.org")
        .shell(script),
        _ => Explanation::new(
            cause,
            "The router does not trust our certificate: the CA is not imported on it, or its clock \
             is before the certificate's first day. Paste a script with the CA.",
        )
        .router("/certificate print where common-name~\"tunnelhead\"")
        .shell(script),
    }
}

fn unknown_user(cause: &'static str, record: &Record, setting: &Setting<'_>) -> Explanation {
    let sent = record.username.as_deref().unwrap_or_default();
    if let Some(name) = setting.cut {
        return Explanation::new(
            "username_cut",
            format!(
                "RouterOS cuts user names at 27 characters, and the user name of {name} is longer: \
                 give it a shorter one."
            ),
        )
        .router(format!("{SET} user=SHORTER"))
        .shell(format!("tunnelhead router add SHORTER; tunnelhead router remove {name}"));
    }
    if sent.is_empty() {
        return Explanation::new(cause, "The client sent no user name.")
            .router(format!("{SET} user=NAME password=PASSWORD"));
    }
    let shown = sent.escape_ascii();
    Explanation::new(cause, format!("No account has the user name \"{shown}\"."))
        .router(format!("{SET} user=NAME password=PASSWORD"))
        .shell("tunnelhead router list")
}

/// The first letter in upper case.
fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}
