//! The other end of the control socket, for the command line.

mod audit;
mod events;
mod history;
mod logins;
mod operations;
mod routers;
mod store;
mod transfer;
mod tunnels;

pub use tunnels::Dialled;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::error::{ApiError, ErrorCode};
use super::types::{EventGap, ImportRefused, check_name};

pub use events::{Following, Told};
pub use transfer::ImportStep;

/// Longest answer that is read: 100,000 routers and more.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Longest wait for an answer; the server gives up earlier.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer: one sentence each, with what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "the concentrator is not running: {reason} at {path}; start it with \"tunnelhead serve\" \
         or name its socket with --socket"
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What was found instead.
        reason: &'static str,
    },
    /// The kernel lets us not connect.
    #[error("no permission to use {0}; become root or a member of the group of this file")]
    Permission(PathBuf),
    /// The connection broke, or what came is not HTTP.
    #[error("the concentrator at {path} gave no proper answer: {reason}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// Events were asked for that are no longer held.
    #[error("{0}; read the lists again and go on after their event_id")]
    EventsGone(EventGap),
    /// A refusal.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// An import was refused; nothing of it was done.
    #[error("{}", .0.message)]
    ImportRefused(Box<ImportRefused>),
    /// What is sent cannot be read here, or what comes cannot be written.
    #[error("{0}")]
    Local(io::Error),
}

/// Speaks to one control socket; every call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client; nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a request and reads a document.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let bytes = self.send(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    /// Sends a request; the body of a good answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Bytes, ClientError> {
        self.send_if(method, path, None, body).await
    }

    /// Sends a request that is meant for one revision; the body of a good answer.
    async fn send_if(
        &self,
        method: Method,
        path: &str,
        revision: Option<u64>,
        body: Option<&impl Serialize>,
    ) -> Result<Bytes, ClientError> {
        let exchange = self.exchange(method, path, revision, body);
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(result) => result,
            Err(_) => Err(self.broken(&"it took too long")),
        }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.path).await.map_err(|error| self.not_connected(&error))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        revision: Option<u64>,
        body: Option<&impl Serialize>,
    ) -> Result<Bytes, ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        let driver = tokio::spawn(connection);
        let content = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| self.broken(&e))?,
            None => Vec::new(),
        };
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(revision) = revision {
            request = request.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        let request = request.body(Full::new(Bytes::from(content))).map_err(|e| self.broken(&e))?;
        let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|e| self.broken(&e))?
            .to_bytes();
        drop(sender);
        driver.abort();
        if status.is_success() { Ok(bytes) } else { Err(self.refused(status, &bytes)) }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ApiError>(body) {
            Ok(error) => error.into(),
            Err(_) => self.broken(&format!("status {status}")),
        }
    }

    fn not_connected(&self, error: &io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound => {
                ClientError::NotRunning { path, reason: "there is no socket" }
            }
            io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { path, reason: "nobody answers" }
            }
            io::ErrorKind::PermissionDenied => ClientError::Permission(path),
            _ => self.broken(error),
        }
    }

    fn broken(&self, reason: &impl ToString) -> ClientError {
        ClientError::Broken { path: self.path.clone(), reason: reason.to_string() }
    }
}

/// A path with the fields of `query` that are set as parameters.
fn with_query(path: &str, query: &impl Serialize) -> Result<String, ClientError> {
    let fields = serde_json::to_value(query).map_err(|error| {
        ApiError::new(ErrorCode::Internal, format!("the parameters cannot be written: {error}"))
    })?;
    let mut text = path.to_owned();
    let mut mark = '?';
    for (name, value) in fields.as_object().into_iter().flatten() {
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        text.push(mark);
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            // Source: RFC 3986, unreserved characters.
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        mark = '&';
    }
    Ok(text)
}

/// A name that no router can have is not sent: it could be another path.
fn path(collection: &str, name: &str) -> Result<String, ClientError> {
    check_name(name)?;
    Ok(format!("/v1/{collection}/{name}"))
}

/// A value of a parameter after "?", with everything encoded that could be something else.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
