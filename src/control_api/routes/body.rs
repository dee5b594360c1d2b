//! Reading requests and writing answers.

use axum::body::{Body, to_bytes};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Shared, record};
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::handle::{Answer, Expected};
use crate::control_api::types::check_name;

/// The name in a path, or why there is none.
pub(super) type NamePath = Result<Path<String>, PathRejection>;

/// A name that no router can have is one that no router has.
pub(super) fn known(name: NamePath, unknown: fn(&str) -> ApiError) -> Result<String, ApiError> {
    match name {
        Ok(Path(name)) if check_name(&name).is_ok() => Ok(name),
        Ok(Path(name)) => {
            let shown: String = name.chars().take(80).collect();
            Err(unknown(&shown))
        }
        Err(_) => Err(ApiError::new(ErrorCode::BadRequest, "the path is not UTF-8")),
    }
}

/// The revisions that a change is meant for.
///
/// # Errors
/// `bad_request`: not the form of RFC 9110 `If-Match`. What has the form and is no revision of ours
/// matches nothing.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expected, ApiError> {
    let mut revisions = Vec::new();
    let mut given = false;
    for value in headers.get_all(header::IF_MATCH) {
        given = true;
        let malformed = || {
            let message = "If-Match must be \"*\" or revisions in quotes, as the ETag said";
            ApiError::field(ErrorCode::BadRequest, "If-Match", message)
        };
        for tag in value.to_str().map_err(|_| malformed())?.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(Expected::Any);
            }
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let inner = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let inner = inner.filter(|inner| !inner.contains('"')).ok_or_else(malformed)?;
            // A weak tag never matches here; a number has one spelling.
            revisions.extend(
                inner.parse().ok().filter(|n: &u64| strong == tag && n.to_string() == inner),
            );
        }
    }
    Ok(if given { Expected::Revisions(revisions) } else { Expected::Any })
}

/// Tells the revision of what is answered.
pub(super) fn with_etag(mut response: Response, revision: u64) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Reads a JSON body within the limits; no body means every default.
pub(super) async fn read_or_default<T: DeserializeOwned + Default>(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    if body.is_end_stream() { Ok(T::default()) } else { read(shared, headers, body).await }
}

/// Checks that a body is declared as `media_type`.
pub(super) fn declared(headers: &HeaderMap, media_type: &str, what: &str) -> Result<(), ApiError> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = declared.and_then(|value| value.split(';').next()).unwrap_or("").trim();
    if found.eq_ignore_ascii_case(media_type) {
        return Ok(());
    }
    let message = format!("send {what} with the header \"Content-Type: {media_type}\"");
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
}

/// Checks what a body announces of its length.
pub(super) fn announced(headers: &HeaderMap, most: usize) -> Result<(), ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = announced.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    if usize::try_from(length).is_ok_and(|length| length <= most) {
        return Ok(());
    }
    Err(too_large(most))
}

pub(super) fn too_large(most: usize) -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("the body is longer than {most} bytes"))
}

pub(super) fn too_slow() -> ApiError {
    ApiError::new(ErrorCode::RequestTimeout, "the body did not arrive in time")
}

/// Reads a JSON body within the limits.
pub(super) async fn read<T: DeserializeOwned>(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    declared(headers, "application/json", "JSON")?;
    announced(headers, shared.limits.body_bytes)?;
    let reading = to_bytes(body, shared.limits.body_bytes);
    let bytes = match tokio::time::timeout(shared.limits.body, reading).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(too_large(shared.limits.body_bytes)),
        Err(_) => return Err(too_slow()),
    };
    let read = serde_json::from_slice(&bytes);
    if read.is_ok() {
        record::note_body(&bytes);
    }
    read.map_err(|error| json_fault("body", &error))
}

/// Why a text is not the JSON that is wanted. The parser quotes what it read, which may be a
/// stranger's text or a password; this does not.
pub(super) fn json_fault(what: &str, error: &serde_json::Error) -> ApiError {
    let place = match what {
        "body" => format!("line {}, column {}", error.line(), error.column()),
        _ => format!("column {}", error.column()),
    };
    let text = error.to_string();
    let field = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| text.strip_prefix(start)?.split('`').next())
        .map(shown);
    let message = match (error.classify(), &field) {
        (serde_json::error::Category::Data, Some(_)) => {
            let word = text.split(' ').next().unwrap_or("wrong");
            format!("the field is {word} at {place}")
        }
        (serde_json::error::Category::Data, None) => {
            format!("a value has the wrong type or form at {place}")
        }
        _ => format!("the {what} is not JSON: it breaks at {place}"),
    };
    ApiError { code: ErrorCode::BadRequest, message, field }
}

pub(super) async fn timed<T>(shared: &Shared, answer: Answer<'_, T>) -> Result<T, ApiError> {
    tokio::time::timeout(shared.limits.answer, answer).await.unwrap_or_else(|_| {
        Err(ApiError::new(ErrorCode::Timeout, "the concentrator gave no answer in time"))
    })
}

pub(super) async fn answer<T: Serialize>(shared: &Shared, pending: Answer<'_, T>) -> Response {
    match timed(shared, pending).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => error.into_response(),
    }
}

pub(super) async fn nothing(shared: &Shared, pending: Answer<'_, ()>) -> Response {
    match timed(shared, pending).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let kind = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, kind)], bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &self);
        response.extensions_mut().insert(self.code);
        response
    }
}

/// The parameters of a request; those that are not known, and values of the wrong form, are
/// refused. One that is ignored today could not get a meaning tomorrow.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let query = axum::extract::Query::<T>::try_from_uri(uri);
    query.map(|axum::extract::Query(query)| query).map_err(|rejection| {
        let text = std::error::Error::source(&rejection).map(ToString::to_string);
        let text = text.unwrap_or_default();
        let field = ["unknown field `", "missing field `", "duplicate field `"]
            .iter()
            .find_map(|start| text.split_once(start)?.1.split('`').next())
            .or_else(|| text.split_once(": ").map(|(field, _)| field))
            .map(shown);
        let message = match &field {
            Some(name) if text.contains("unknown field") => {
                format!("this path takes no parameter \"{name}\"")
            }
            Some(name) => format!("the parameter \"{name}\" is missing, double or malformed"),
            None => "the parameters after \"?\" are malformed".to_owned(),
        };
        ApiError { code: ErrorCode::BadRequest, message, field }
    })
}

/// The parameters of a path that takes none.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

/// A stranger's name of a field, bounded and escaped.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_read_as_the_rfc_says() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, HeaderValue::from_static(value));
            }
            expected(&headers)
        };
        let revisions = |of: &[u64]| Ok(Expected::Revisions(of.to_vec()));
        assert_eq!(read(&[]), Ok(Expected::Any));
        assert_eq!(read(&["*"]), Ok(Expected::Any));
        assert_eq!(read(&["\"7\""]), revisions(&[7]));
        assert_eq!(read(&["\"7\", \"8\"", "\"9\""]), revisions(&[7, 8, 9]));
        for nothing in
            ["W/\"7\"", "\"abc\"", "\"\"", "\"-1\"", "\"07\"", "\"99999999999999999999\""]
        {
            assert_eq!(read(&[nothing]), revisions(&[]), "{nothing}");
        }
        for malformed in ["", "7", "\"7", "7\"", "\"7\",", "\"7\"8\"", "\""] {
            let error = read(&[malformed]).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest, "{malformed}");
        }
    }
}
