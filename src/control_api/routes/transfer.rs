//! `/v1/routers/export` and `/v1/routers/import`: accounts as JSON lines.

#![expect(unused_qualifications, reason = "utoipa qualifies the types of parameters")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::body::{
    NoParameters, announced, declared, json, json_fault, query, timed, too_large, too_slow,
};
use super::record::AuditDetail;
use crate::control_api::caller::Caller;
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::handle::Rows;
use crate::control_api::lines::{Line, Lines};
use crate::control_api::types::{
    ImportRefused, ImportedRouter, LineError, MAX_LINE_ERRORS, RouterRecord,
};

/// The media type of JSON lines.
const JSON_LINES: &str = "application/x-ndjson";
/// Longest body of an import.
const MAX_IMPORT_BYTES: usize = 64 * 1024 * 1024;
/// Most routers of one import.
const MAX_IMPORT_LINES: usize = 100_000;
/// Longest line: every field at its longest, each character escaped.
const MAX_LINE_BYTES: usize = 32 * 1024;
/// For the whole body of an import; its parts have to come as fast as other bodies.
const IMPORT_PATIENCE: Duration = Duration::from_secs(300);
/// Bytes of rows that are written at a time, about.
const CHUNK_BYTES: usize = 32 * 1024;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(export_routers)).routes(routes!(import_routers))
}

/// Every account in scope as JSON lines, sorted by name, with its password in hashed form.
///
/// An import of these lines on another concentrator makes accounts that let the same routers in,
/// if that one has the same `server.secret` in its state_dir. Routers that check the server's
/// certificate need the same certificates too.
#[utoipa::path(
    get,
    path = "/v1/routers/export",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    responses(
        (status = 200, description = "One account a line.", body = RouterRecord, content_type = "application/x-ndjson"),
        (status = "default", description = "A refusal.", body = ApiError),
    ),
)]
async fn export_routers(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    if let Err(error) = query::<NoParameters>(&uri) {
        return error.into_response();
    }
    match timed(&shared, shared.handle.export_routers(&caller.scope)).await {
        Ok(routers) => rows(routers),
        Err(error) => error.into_response(),
    }
}

/// How to import.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ImportQuery {
    /// Add what to paste on each router whose password the import makes; about 10 KB a router.
    scripts: Option<bool>,
}

/// Makes the accounts of all lines, or none: every line is checked, and all are recorded in one
/// transaction.
///
/// At most 64 MiB, 100,000 lines, 32 KiB a line; empty lines are skipped. The answer has one line a
/// router, in the order of the lines, with its password: it is shown only now. A line with a `secret`
/// keeps the password that it had.
#[utoipa::path(
    post,
    path = "/v1/routers/import",
    tag = "routers",
    extensions(("x-role" = json!("admin"))),
    params(ImportQuery),
    request_body(content = RouterRecord, content_type = "application/x-ndjson", description = "One account a line."),
    responses(
        (status = 200, description = "One router a line.", body = ImportedRouter, content_type = "application/x-ndjson"),
        (status = "default", description = "A refusal; where lines are wrong, with those.", body = ImportRefused),
    ),
)]
async fn import_routers(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let asked = async {
        let query = query::<ImportQuery>(&uri)?;
        declared(&headers, JSON_LINES, "JSON lines")?;
        announced(&headers, MAX_IMPORT_BYTES)?;
        let lines = tokio::time::timeout(IMPORT_PATIENCE, records(&shared, body));
        let lines = lines.await.map_err(|_| too_slow())??;
        Ok::<_, ImportRefused>((lines, query.scripts.unwrap_or(false)))
    };
    let (lines, scripts) = match asked.await {
        Ok(asked) => asked,
        Err(refused) => return refused.into_response(),
    };
    let count = lines.len().to_string();
    // Not bounded in time: an answer that came too late would lose the passwords.
    match shared.handle.import_routers(&caller.scope, lines, scripts).await {
        Ok(Ok(routers)) => {
            let mut response = rows(routers);
            let detail = BTreeMap::from([("routers".to_owned(), count)]);
            response.extensions_mut().insert(AuditDetail(detail));
            response
        }
        Ok(Err(refused)) => refused.into_response(),
        Err(error) => ImportRefused::from(error).into_response(),
    }
}

/// Reads the lines of an import; all that are wrong in themselves are told together.
async fn records(shared: &Shared, body: Body) -> Result<Vec<(u64, RouterRecord)>, ImportRefused> {
    let mut reading = Reading::default();
    let mut lines = Lines::new(MAX_LINE_BYTES);
    let mut read: usize = 0;
    let mut stream = body.into_data_stream();
    loop {
        let piece = tokio::time::timeout(shared.limits.body, stream.next());
        let piece = match piece.await.map_err(|_| too_slow())? {
            Some(Ok(piece)) => piece,
            Some(Err(_)) => {
                let message = "the body broke off; nothing was imported";
                return Err(ApiError::new(ErrorCode::BadRequest, message).into());
            }
            None => break,
        };
        read = read.saturating_add(piece.len());
        if read > MAX_IMPORT_BYTES {
            return Err(too_large(MAX_IMPORT_BYTES).into());
        }
        lines.push(&piece, |number, line| reading.line(number, line));
        if reading.lines > MAX_IMPORT_LINES {
            return Err(too_many().into());
        }
    }
    lines.finish(|number, line| reading.line(number, line));
    reading.finish()
}

fn too_many() -> ApiError {
    let message = format!("more than {MAX_IMPORT_LINES} lines; import them in parts");
    ApiError::new(ErrorCode::TooLarge, message)
}

/// The lines of an import so far.
#[derive(Default)]
struct Reading {
    records: Vec<(u64, RouterRecord)>,
    lines: usize,
    wrong: Vec<LineError>,
    refused: u64,
}

impl Reading {
    fn line(&mut self, number: u64, line: Line<'_>) {
        let text = match line {
            Line::Text(text) if text.trim_ascii().is_empty() => return,
            Line::Text(text) => Ok(text),
            Line::TooLong => {
                let message = format!("the line is longer than {MAX_LINE_BYTES} bytes");
                Err(ApiError::new(ErrorCode::TooLarge, message))
            }
        };
        self.lines = self.lines.saturating_add(1);
        let record = text.and_then(|text| {
            serde_json::from_slice(text)
                .map_err(|error| json_fault("line", &error))
                .and_then(RouterRecord::check)
        });
        match record {
            // Once a line is wrong nothing will be imported: the rest need not be kept.
            Ok(record) if self.refused == 0 => self.records.push((number, record)),
            Ok(_) => {}
            Err(error) => {
                self.records = Vec::new();
                self.refused = self.refused.saturating_add(1);
                if self.wrong.len() < MAX_LINE_ERRORS {
                    self.wrong.push(LineError::new(number, error));
                }
            }
        }
    }

    fn finish(self) -> Result<Vec<(u64, RouterRecord)>, ImportRefused> {
        if self.refused > 0 {
            return Err(ImportRefused::of(self.wrong, self.refused));
        }
        if self.lines > MAX_IMPORT_LINES {
            return Err(too_many().into());
        }
        if self.records.is_empty() {
            let message = "the body has no line; send one account a line";
            return Err(ApiError::new(ErrorCode::BadRequest, message).into());
        }
        Ok(self.records)
    }
}

/// An answer of JSON lines that are made as fast as they are read.
fn rows<T: Serialize + 'static>(rows: Rows<T>) -> Response {
    let mut rows = rows.fuse();
    let chunks = std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        for row in rows.by_ref() {
            if let Err(error) = serde_json::to_writer(&mut chunk, &row) {
                tracing::error!(%error, "a row cannot be written as JSON");
            }
            chunk.push(b'\n');
            if chunk.len() >= CHUNK_BYTES {
                break;
            }
        }
        (!chunk.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from(chunk)))
    });
    let kind = HeaderValue::from_static(JSON_LINES);
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response()
}

impl IntoResponse for ImportRefused {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, &self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(u64, RouterRecord)>, ImportRefused> {
        let mut reading = Reading::default();
        let mut lines = Lines::new(MAX_LINE_BYTES);
        lines.push(text.as_bytes(), |number, line| reading.line(number, line));
        lines.finish(|number, line| reading.line(number, line));
        reading.finish()
    }

    #[test]
    fn lines_keep_their_numbers_over_empty_ones() {
        let records =
            read("{\"name\":\"a\"}\r\n\n  \n{\"name\":\"b\",\"tags\":[\"z\",\"a\"]}").unwrap();
        let got: Vec<_> = records.iter().map(|(line, one)| (*line, one.name.as_str())).collect();
        assert_eq!(got, [(1, "a"), (4, "b")]);
        assert_eq!(records[1].1.tags, ["a", "z"]);
    }

    #[test]
    fn every_wrong_line_is_told_with_its_field_and_quotes_nothing() {
        let long = format!("{{\"name\":\"a\",\"note\":\"{}\"}}", "x".repeat(40_000));
        let text = format!(
            "{{\"name\":\"good\"}}\n\
             not json canary\n\
             {{\"name\":\"../canary\"}}\n\
             {{\"name\":\"b\",\"canary\":1}}\n\
             {long}\n\
             {{\"name\":\"c\",\"password\":[\"canary\"]}}\n\
             {{\"name\":\"d\",\"password\":\"canary-x\",\"secret\":\"canary-x\"}}\n\
             {{\"name\":\"e\",\"previous_secret\":\"canary-x\"}}\n\
             {{\"name\":\"export\"}}\n\
             {{\"name\":\"f\",\"address\":\"100.64.1.2\",\"pool_address\":\"100.64.1.3\"}}\n"
        );
        let refused = read(&text).unwrap_err();
        let got: Vec<_> = refused
            .lines
            .iter()
            .map(|line| (line.line, line.code, line.field.as_deref()))
            .collect();
        assert_eq!(
            got,
            [
                (2, ErrorCode::BadRequest, None),
                (3, ErrorCode::Invalid, Some("name")),
                (4, ErrorCode::BadRequest, Some("canary")),
                (5, ErrorCode::TooLarge, None),
                (6, ErrorCode::BadRequest, None),
                (7, ErrorCode::Invalid, Some("password")),
                (8, ErrorCode::Invalid, Some("previous_until")),
                (9, ErrorCode::Invalid, Some("name")),
                (10, ErrorCode::Invalid, Some("pool_address")),
            ]
        );
        assert_eq!((refused.refused, refused.code), (9, ErrorCode::BadRequest));
        assert!(refused.lines.iter().all(|line| !line.message.contains("canary")));
        assert!(refused.message.starts_with("line 2: "), "{}", refused.message);
    }

    #[test]
    fn what_is_kept_of_wrong_lines_is_bounded() {
        let refused = read(&"{}\n".repeat(5000)).unwrap_err();
        assert_eq!((refused.lines.len(), refused.refused), (MAX_LINE_ERRORS, 5000));
        assert!(refused.message.contains("4999 more wrong"), "{}", refused.message);
        assert_eq!(refused.field.as_deref(), Some("name"));
    }

    #[test]
    fn an_empty_import_is_a_mistake() {
        for text in ["", "\n\n", "  \n"] {
            assert_eq!(read(text).unwrap_err().code, ErrorCode::BadRequest);
        }
    }
}
