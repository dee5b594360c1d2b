//! The one shape of a refusal: `{code, message, field}` and the status that goes with the code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Stable names of refusals; the number is the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// 400: the request cannot be read: not JSON, a wrong type, an unknown field or parameter.
    BadRequest,
    /// 403: the peer of the socket has no right to ask.
    Forbidden,
    /// 404: there is no such path.
    NotFound,
    /// 404: no router has this name.
    RouterNotFound,
    /// 404: this router has no tunnel now.
    TunnelNotFound,
    /// 404: this router is not banned.
    BanNotFound,
    /// 404: no segment of the audit trail has this number.
    SegmentNotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    RequestTimeout,
    /// 409: a router of this name exists.
    RouterExists,
    /// 409: another router has this user name.
    UsernameTaken,
    /// 409: another router has this certificate common name.
    CertificateTaken,
    /// 409: another router has this address, or it is in quarantine.
    AddressTaken,
    /// 409: the router has another session than the one that was asked for.
    GenerationChanged,
    /// 409: the segment of the audit trail is not ready for this; the message says what comes first.
    SegmentNotReady,
    /// 410: events are asked for that are no longer held; `gap` names them.
    EventsGone,
    /// 412: the account was changed since the revision that `If-Match` names; read it again.
    RevisionConflict,
    /// 413: the body is longer than what is accepted.
    TooLarge,
    /// 415: the body is not declared as JSON.
    UnsupportedMediaType,
    /// 422: a field has a value that cannot be accepted; `field` names it.
    Invalid,
    /// 426: this path answers only to a request that asks for an upgrade.
    UpgradeRequired,
    /// 422: what a reload has read can't be used; nothing has changed.
    ReloadRefused,
    /// 500: a fault of ours; the log has more.
    Internal,
    /// 501: this concentrator is not set up for it.
    NotOffered,
    /// 502: the router refuses the connection.
    DialRefused,
    /// 502: the router, or a host on the way, says that it cannot be reached.
    DialUnreachable,
    /// 503: too many connections or requests; ask again.
    Busy,
    /// 503: the concentrator is starting or stopping.
    Unavailable,
    /// 503: the store takes no changes (full or read-only disk).
    StoreDegraded,
    /// 503: every address of the pool is taken or in quarantine.
    PoolFull,
    /// 504: the concentrator gave no answer in time.
    Timeout,
    /// 504: the router did not answer in time.
    DialTimeout,
    /// A code that this version does not know (client side only).
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// Every code a server may answer.
    pub const ALL: &'static [Self] = &[
        Self::BadRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::RouterNotFound,
        Self::TunnelNotFound,
        Self::BanNotFound,
        Self::SegmentNotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::RouterExists,
        Self::UsernameTaken,
        Self::CertificateTaken,
        Self::AddressTaken,
        Self::GenerationChanged,
        Self::SegmentNotReady,
        Self::EventsGone,
        Self::RevisionConflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::UpgradeRequired,
        Self::ReloadRefused,
        Self::Internal,
        Self::NotOffered,
        Self::DialRefused,
        Self::DialUnreachable,
        Self::Busy,
        Self::Unavailable,
        Self::StoreDegraded,
        Self::PoolFull,
        Self::Timeout,
        Self::DialTimeout,
    ];

    /// The name in documents.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(serde_json::Value::as_str).unwrap_or("unknown").to_owned()
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound
            | Self::RouterNotFound
            | Self::TunnelNotFound
            | Self::BanNotFound
            | Self::SegmentNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::RouterExists
            | Self::UsernameTaken
            | Self::CertificateTaken
            | Self::AddressTaken
            | Self::GenerationChanged
            | Self::SegmentNotReady => 409,
            Self::EventsGone => 410,
            Self::RevisionConflict => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid | Self::ReloadRefused => 422,
            Self::UpgradeRequired => 426,
            Self::Internal | Self::Unknown => 500,
            Self::NotOffered => 501,
            Self::DialRefused | Self::DialUnreachable => 502,
            Self::Busy | Self::Unavailable | Self::StoreDegraded | Self::PoolFull => 503,
            Self::Timeout | Self::DialTimeout => 504,
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct ApiError {
    /// What kind; stable.
    pub code: ErrorCode,
    /// One sentence for people, without a full stop; not stable.
    pub message: String,
    /// The field of the request that is at fault, if one is.
    pub field: Option<String>,
}

impl ApiError {
    /// A refusal that is not about one field.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None }
    }

    /// A refusal of one field's value.
    pub fn field(code: ErrorCode, field: &str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: Some(field.to_owned()) }
    }

    /// [`ErrorCode::Invalid`] for one field.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::field(ErrorCode::Invalid, field, message)
    }

    /// No router of this name. `name` is escaped.
    pub fn router_not_found(name: &str) -> Self {
        Self::new(
            ErrorCode::RouterNotFound,
            format!("there is no router \"{}\"", name.escape_default()),
        )
    }

    /// Something that this concentrator, or this implementation, does not do.
    pub fn not_offered() -> Self {
        Self::new(ErrorCode::NotOffered, "this concentrator does not offer that")
    }

    /// The router exists or not, it is not banned. `name` is escaped.
    pub fn ban_not_found(name: &str) -> Self {
        Self::new(
            ErrorCode::BanNotFound,
            format!("the router \"{}\" is not banned", name.escape_default()),
        )
    }

    /// The router exists or not, it has no tunnel. `name` is escaped.
    pub fn tunnel_not_found(name: &str) -> Self {
        Self::new(
            ErrorCode::TunnelNotFound,
            format!("the router \"{}\" has no tunnel now", name.escape_default()),
        )
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_and_an_error_status() {
        let mut names = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            let name = serde_json::to_string(code).unwrap();
            assert!(names.insert(name.clone()), "{name} twice");
            assert_eq!(serde_json::from_str::<ErrorCode>(&name).unwrap(), *code);
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn an_unknown_code_of_a_newer_server_is_read() {
        let error: ApiError =
            serde_json::from_str(r#"{"code":"moon_phase","message":"no","field":null}"#).unwrap();
        assert_eq!(error.code, ErrorCode::Unknown);
    }

    #[test]
    fn names_are_escaped_in_messages() {
        let error = ApiError::router_not_found("a\n\u{1b}[31m\u{202e}");
        assert!(error.message.is_ascii(), "{}", error.message);
        assert!(!error.message.contains('\n') && !error.message.contains('\u{1b}'));
    }

    #[test]
    fn the_document_has_three_keys_and_a_null_field() {
        let text = serde_json::to_string(&ApiError::new(ErrorCode::Busy, "later")).unwrap();
        assert_eq!(text, r#"{"code":"busy","message":"later","field":null}"#);
    }
}
