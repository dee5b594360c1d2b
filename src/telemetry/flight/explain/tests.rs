use super::*;
use crate::telemetry::clock;
use crate::telemetry::flight::{Flight, KeyExchange};

/// A login as far as the key exchange that then failed.
fn failed(reason: &'static str, options: &str, peer_info: &str) -> Record {
    let now = clock::now();
    let mut flight = Flight::new(1, now, 0, "192.0.2.1:4000".parse().unwrap(), 0, false);
    flight.received(now, &[0, 14, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0]);
    flight.key_exchange(now, KeyExchange { username: b"branch-42", options, peer_info });
    flight.failed(now, reason, "detail").0
}

const ACCOUNT: AccountFacts<'_> = AccountFacts {
    name: "branch-42",
    username: "branch-42",
    cipher: None,
    auth: None,
    certificate_cn: None,
};

fn setting() -> Setting<'static> {
    Setting {
        now_s: 1_795_316_280,
        account: Some(ACCOUNT),
        ciphers: &["AES-256-GCM", "AES-256-CBC"],
        ..Setting::default()
    }
}

#[test]
fn blowfish_is_called_by_its_routeros_name_and_mended_in_both_spellings() {
    let record = failed("cipher_unsupported", "V4,dev-type tun,cipher BF-CBC,auth SHA1", "");
    let told = explain(&record, &setting());
    assert!(told.sentence.contains("blowfish128"), "{}", told.sentence);
    let set = "/interface ovpn-client set [find where comment=\"tunnelhead: tunnel\"]";
    assert_eq!(told.routeros, Some(format!("{set} cipher=aes256-cbc auth=sha1")));
    assert_eq!(told.routeros_v6, Some(format!("{set} cipher=aes256 auth=sha1")));
}

#[test]
fn what_the_account_prescribes_is_what_the_command_sets() {
    let account = AccountFacts { cipher: Some("AES-128-GCM"), auth: Some("SHA256"), ..ACCOUNT };
    let setting = Setting { account: Some(account), ..setting() };
    let record = failed("cipher_not_the_accounts", "V4,cipher AES-256-CBC,auth SHA1", "");
    let told = explain(&record, &setting);
    assert!(told.routeros.unwrap().ends_with("cipher=aes128-gcm auth=sha256"));
    assert_eq!(told.routeros_v6, None, "v6 has no GCM");
    let stock = failed("no_shared_cipher", "V4", "IV_VER=2.6.3\nIV_CIPHERS=CHACHA20-POLY1305\n");
    let told = explain(&stock, &setting);
    assert_eq!(told.routeros, None);
    assert!(told.sentence.contains("data-ciphers AES-128-GCM"), "{}", told.sentence);
}

#[test]
fn an_expired_certificate_of_ours_is_not_blamed_on_the_router() {
    let now = clock::now();
    let refuse = |alert: u8| {
        let mut flight = Flight::new(1, now, 0, "192.0.2.1:4000".parse().unwrap(), 0, false);
        flight.tls_output(now);
        flight.tls_input(now, &[21, 3, 3, 0, 2, 2, alert]);
        flight.tls_failed("ssl/tls alert certificate expired");
        flight.failed(now, "tls", "").0
    };
    let ours = |end| Setting {
        certificate: Some(CertificateFacts { subject: "vpn", not_after_s: end }),
        ..setting()
    };
    let told = explain(&refuse(45), &ours(1_795_316_280));
    assert!(told.sentence.contains("expired at 2026-11-22 02:58 UTC"), "{}", told.sentence);
    let told = explain(&refuse(45), &ours(1_895_316_280));
    assert!(told.sentence.contains("the router's clock is wrong"), "{}", told.sentence);
    assert!(told.routeros.unwrap().contains("ntp"));
    assert_eq!(explain(&refuse(48), &ours(1_895_316_280)).cause, "server_certificate_not_trusted");
}

#[test]
fn every_cause_has_a_sentence_of_its_own() {
    for reason in [
        "unknown_user",
        "wrong_password",
        "disabled",
        "banned",
        "certificate_missing",
        "certificate_mismatch",
        "credentials_too_long",
        "back_off",
        "clone",
        "authenticator_unavailable",
        "pool_full",
        "store_degraded",
        "no_shared_cipher",
        "cipher_unsupported",
        "cipher_not_allowed",
        "cipher_not_the_accounts",
        "auth_unsupported",
        "auth_missing",
        "auth_not_the_accounts",
        "tap_device",
        "compression",
        "key_method_1",
        "first_packet",
        "control_wrap",
        "key_exchange",
        "login_deadline",
        "login_timeout",
        "peer_closed",
        "connection_reset",
        "peer_exit",
        "no_place",
        "buffers_full",
        "proxy_header",
        "revoked_meanwhile",
    ] {
        let told = explain(&failed(reason, "V4,cipher BF-CBC", ""), &setting());
        assert_ne!(told.sentence, "detail", "{reason}");
        assert!(told.sentence.ends_with(['.', '"']), "{}", told.sentence);
        assert!(told.sentence.starts_with(char::is_uppercase), "{}", told.sentence);
    }
    // One that is not known yet has its detail.
    assert_eq!(explain(&failed("new_one", "", ""), &setting()).sentence, "detail");
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (seconds, text) in [
        (0, "1970-01-01 00:00 UTC"),
        (951_782_399, "2000-02-28 23:59 UTC"),
        (951_782_400, "2000-02-29 00:00 UTC"),
        (1_795_316_280, "2026-11-22 02:58 UTC"),
        (4_102_444_799, "2099-12-31 23:59 UTC"),
    ] {
        assert_eq!(utc(seconds), text);
    }
}
