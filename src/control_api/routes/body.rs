//! Reading requests and writing answers.

use axum::body::{Body, to_bytes};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Shared, record};
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::handle::Answer;
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

/// Reads a JSON body within the limits.
pub(super) async fn read<T: DeserializeOwned>(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = declared.and_then(|value| value.split(';').next()).unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            "send JSON with the header \"Content-Type: application/json\"",
        ));
    }
    let too_large = || {
        let most = shared.limits.body_bytes;
        ApiError::new(ErrorCode::TooLarge, format!("the body is longer than {most} bytes"))
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|value| value.parse::<u64>().ok()).is_some_and(|length| {
        usize::try_from(length).is_ok_and(|length| length > shared.limits.body_bytes)
    }) {
        return Err(too_large());
    }
    let reading = to_bytes(body, shared.limits.body_bytes);
    let bytes = match tokio::time::timeout(shared.limits.body, reading).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            return Err(ApiError::new(
                ErrorCode::RequestTimeout,
                "the body did not arrive in time",
            ));
        }
    };
    let read = serde_json::from_slice(&bytes);
    if read.is_ok() {
        record::note_body(&bytes);
    }
    read.map_err(|error| {
        // The parser quotes what it read: a stranger's text, or a password.
        let place = format!("line {}, column {}", error.line(), error.column());
        let text = error.to_string();
        let field = ["unknown field `", "missing field `", "duplicate field `"]
            .iter()
            .find_map(|start| text.strip_prefix(start)?.split('`').next())
            .map(shown);
        let message = match (error.classify(), &field) {
            (serde_json::error::Category::Data, Some(_)) => {
                let what = text.split(' ').next().unwrap_or("wrong");
                format!("the field is {what} at {place}")
            }
            (serde_json::error::Category::Data, None) => {
                format!("a value has the wrong type or form at {place}")
            }
            _ => format!("the body is not JSON: it breaks at {place}"),
        };
        ApiError { code: ErrorCode::BadRequest, message, field }
    })
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
