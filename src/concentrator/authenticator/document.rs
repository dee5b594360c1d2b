//! What is sent to the endpoint and what it may answer. Described in docs/AUTHENTICATION.md.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use tunnelhead_crypto::{AuthDigest, DataCipher};
use zeroize::Zeroizing;

use crate::proto::session::{AccountAuth, DenyReason};

use super::{Accept, AuthenticatorError, Decision, LoginKind, LoginRequest, Refusal};

#[derive(Serialize)]
struct Question<'a> {
    kind: &'static str,
    /// At a rekey only.
    #[serde(skip_serializing_if = "Option::is_none")]
    router: Option<&'a str>,
    username: &'a str,
    password: &'a str,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<String>,
    certificate: Option<Certificate<'a>>,
    peer_info: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Certificate<'a> {
    cn: &'a str,
    /// SHA-256 of the DER form, lower-case hexadecimal.
    fingerprint: String,
    serial: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    accept: bool,
    router: Option<String>,
    address: Option<Ipv4Addr>,
    tags: Option<Vec<String>>,
    tenant: Option<String>,
    cipher: Option<String>,
    auth: Option<String>,
    reason: Option<String>,
    code: Option<String>,
}

/// The body of the question. `None`: the credential is not UTF-8 text, so JSON can't carry it as
/// it is; a form that another credential has too would be worse than none.
pub(super) fn question(login: &LoginRequest) -> Option<Zeroizing<Vec<u8>>> {
    let request = &login.request;
    let (kind, router) = match &login.kind {
        LoginKind::Login => ("login", None),
        LoginKind::Rekey { router } => ("rekey", Some(&**router)),
    };
    let certificate = match &request.certificate {
        None => None,
        Some(certificate) => Some(Certificate {
            cn: std::str::from_utf8(&certificate.common_name).ok()?,
            fingerprint: certificate.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect(),
            serial: &certificate.serial,
        }),
    };
    let question = Question {
        kind,
        router,
        username: std::str::from_utf8(&request.username).ok()?,
        password: std::str::from_utf8(request.password.expose()).ok()?,
        source: login.source.to_string(),
        listener: login.listener.map(|listener| listener.to_string()),
        certificate,
        peer_info: request.peer_info.iter().collect(),
    };
    // Room for any usual question, so that no copy of the password stays in a smaller block.
    let mut body = Zeroizing::new(Vec::with_capacity(16 * 1024));
    serde_json::to_writer(&mut *body, &question).ok()?;
    Some(body)
}

/// What the endpoint says.
///
/// # Errors
/// It is not one of the two documents that it may be.
pub(super) fn reply(body: &[u8]) -> Result<Decision, AuthenticatorError> {
    let reply: Reply = serde_json::from_slice(body)
        .map_err(|error| wrong(&format!("the answer is not what it has to be: {error}")))?;
    if !reply.accept {
        let reason = match reply.code.as_deref() {
            None => DenyReason::Refused,
            Some(code) => reason_of(code)?,
        };
        return Ok(Decision::Refuse(Refusal { reason, text: reply.reason.unwrap_or_default() }));
    }
    if reply.reason.is_some() || reply.code.is_some() {
        return Err(wrong("the answer accepts and gives a reason for a refusal"));
    }
    let Some(router) = reply.router else {
        return Err(wrong("the answer accepts and names no router"));
    };
    let cipher = match reply.cipher {
        None => None,
        Some(name) => Some(
            DataCipher::from_name(&name.to_ascii_uppercase())
                .ok_or_else(|| wrong("the answer names an unknown cipher"))?,
        ),
    };
    let auth = match reply.auth.as_deref() {
        None => None,
        Some("null") => Some(AccountAuth::Null),
        Some(name) => Some(AccountAuth::Digest(
            AuthDigest::from_name(&name.to_ascii_uppercase())
                .ok_or_else(|| wrong("the answer names an unknown digest"))?,
        )),
    };
    Ok(Decision::Accept(Accept {
        router: router.into(),
        address: reply.address,
        tags: reply.tags.unwrap_or_default(),
        tenant: reply.tenant.map(Into::into),
        cipher,
        auth,
    }))
}

fn reason_of(code: &str) -> Result<DenyReason, AuthenticatorError> {
    let known = [
        DenyReason::Refused,
        DenyReason::UnknownUser,
        DenyReason::WrongPassword,
        DenyReason::Disabled,
        DenyReason::CertificateMissing,
        DenyReason::CertificateMismatch,
    ];
    known
        .into_iter()
        .find(|reason| reason.code() == code)
        .ok_or_else(|| wrong("the answer refuses with an unknown code"))
}

fn wrong(what: &str) -> AuthenticatorError {
    AuthenticatorError(what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tunnelhead_crypto::SecretBytes;

    use super::*;
    use crate::proto::control::{OptionsString, PeerInfo};
    use crate::proto::session::{AuthRequest, ClientCertificate};

    fn login(username: &[u8], password: &[u8]) -> LoginRequest {
        LoginRequest {
            kind: LoginKind::Login,
            request: Box::new(AuthRequest {
                username: username.to_vec(),
                password: SecretBytes::from(password.to_vec()),
                too_long: false,
                certificate: None,
                options: OptionsString::parse(""),
                peer_info: PeerInfo::parse("IV_VER=2.6.3\nIV_PROTO=2\n"),
            }),
            source: "203.0.113.9:50123".parse().unwrap(),
            listener: Some("192.0.2.1:8443".parse().unwrap()),
        }
    }

    #[test]
    fn the_question_is_as_documented() {
        let mut login = login(b"r1", b"p\"\n\x01");
        let asked = |login: &LoginRequest| -> serde_json::Value {
            serde_json::from_slice(&question(login).unwrap()).unwrap()
        };
        assert_eq!(
            asked(&login),
            serde_json::json!({
                "kind": "login", "username": "r1", "password": "p\"\n\u{1}",
                "source": "203.0.113.9:50123", "listener": "192.0.2.1:8443",
                "certificate": null, "peer_info": {"IV_VER": "2.6.3", "IV_PROTO": "2"},
            })
        );
        login.kind = LoginKind::Rekey { router: Arc::from("branch-1") };
        login.listener = None;
        login.request.certificate = Some(ClientCertificate {
            common_name: b"branch-1".to_vec(),
            fingerprint: [0xab; 32],
            intermediates: Vec::new(),
            serial: "0F".into(),
            issuer_hash: [0; 32],
        });
        let again = asked(&login);
        assert_eq!((&again["kind"], &again["router"]), (&"rekey".into(), &"branch-1".into()));
        assert_eq!(
            again["certificate"],
            serde_json::json!({"cn": "branch-1", "fingerprint": "ab".repeat(32), "serial": "0F"})
        );
    }

    #[test]
    fn a_credential_that_is_no_text_is_not_sent_in_another_form() {
        assert!(question(&login(b"r\xff", b"p")).is_none());
        assert!(question(&login(b"r", b"p\xfe")).is_none());
    }

    #[test]
    fn only_two_documents_are_answers() {
        let accept = |body: &str| match reply(body.as_bytes()) {
            Ok(Decision::Accept(accept)) => accept,
            other => panic!("{body}: {other:?}"),
        };
        assert_eq!(accept(r#"{"accept": true, "router": "r"}"#), Accept::new("r"));
        let full = accept(
            r#"{"accept": true, "router": "r", "address": "100.64.3.4", "tags": ["a"],
                "tenant": "t", "cipher": "aes-256-gcm", "auth": "sha256"}"#,
        );
        assert_eq!(full.address, Some(Ipv4Addr::new(100, 64, 3, 4)));
        assert_eq!(full.cipher, Some(DataCipher::Aes256Gcm));
        assert_eq!(full.auth, Some(AccountAuth::Digest(AuthDigest::Sha256)));
        let refuse = |body: &str| match reply(body.as_bytes()) {
            Ok(Decision::Refuse(refusal)) => refusal,
            other => panic!("{body}: {other:?}"),
        };
        assert_eq!(refuse(r#"{"accept": false}"#), Refusal::new(""));
        let wrong = refuse(r#"{"accept": false, "code": "wrong_password", "reason": "no"}"#);
        assert_eq!((wrong.reason, wrong.text.as_str()), (DenyReason::WrongPassword, "no"));
        for garbage in [
            "",
            "true",
            "[]",
            "{}",
            "null",
            r#"{"accept": true}"#,
            r#"{"accept": "true", "router": "r"}"#,
            r#"{"accept": 1, "router": "r"}"#,
            r#"{"accept": true, "router": "r", "reason": "no"}"#,
            r#"{"accept": true, "router": "r", "tenent": "t"}"#,
            r#"{"accept": true, "router": "r", "address": "100.64.3"}"#,
            r#"{"accept": true, "router": "r", "address": "::1"}"#,
            r#"{"accept": true, "router": "r", "cipher": "BF-CBC"}"#,
            r#"{"accept": true, "router": "r"} trailing"#,
            r#"{"accept": false, "accept": true, "router": "r"}"#,
            r#"{"accept": false, "code": "authenticator_unavailable"}"#,
            "<html>",
        ] {
            assert!(reply(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
