//! An authenticator behind an HTTP endpoint of this host: a unix socket or a loopback address.
//!
//! Connections are kept and reused, so many at most. The deadline is the caller's: when it drops
//! the question, the connection goes with it. Described in docs/AUTHENTICATION.md.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::config::Endpoint;
use crate::proto::session::DenyReason;

use super::document;
use super::{Authenticator, AuthenticatorError, Deciding, Decision, LoginRequest, Refusal};

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most header lines of an answer.
const MAX_HEADERS: usize = 64;

/// Asks an HTTP endpoint.
pub struct HttpAuthenticator {
    endpoint: Endpoint,
    authorization: Option<header::HeaderValue>,
    connections: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

type Connection = SendRequest<Full<Bytes>>;

impl HttpAuthenticator {
    /// Asks `endpoint` over `connections` connections at most. With a secret each question carries
    /// `Authorization: Bearer SECRET`.
    ///
    /// # Errors
    /// The secret can't stand in a header.
    pub fn new(
        endpoint: Endpoint,
        connections: usize,
        secret: Option<&str>,
    ) -> Result<Self, AuthenticatorError> {
        let authorization = secret.map(|secret| {
            let text = Zeroizing::new(format!("Bearer {secret}"));
            header::HeaderValue::from_str(&text).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        let authorization = authorization
            .transpose()
            .map_err(|_| AuthenticatorError("the secret can not stand in a header".to_owned()))?;
        Ok(Self {
            endpoint,
            authorization,
            connections: Semaphore::new(connections.max(1)),
            idle: Mutex::new(Vec::new()),
        })
    }

    async fn ask(&self, body: &Bytes) -> Result<Decision, AuthenticatorError> {
        // Closed never.
        let Ok(_place) = self.connections.acquire().await else {
            return Err(AuthenticatorError("closed".to_owned()));
        };
        while let Some(mut kept) = self.kept() {
            if kept.ready().await.is_err() {
                continue;
            }
            match self.exchange(&mut kept, body).await {
                // The endpoint closed the connection while we were about to use it: ask anew. It
                // may have seen the question; asking twice changes nothing.
                Err(Fault::Connection(_)) => continue,
                Err(Fault::Answer(error)) => return Err(error),
                Ok(decision) => {
                    self.keep(kept);
                    return Ok(decision);
                }
            }
        }
        let mut fresh = self.connect().await?;
        match self.exchange(&mut fresh, body).await {
            Ok(decision) => {
                self.keep(fresh);
                Ok(decision)
            }
            Err(Fault::Connection(error)) => {
                Err(AuthenticatorError(format!("the endpoint gave no answer: {error}")))
            }
            Err(Fault::Answer(error)) => Err(error),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> Option<Connection> {
        self.idle().pop()
    }

    /// Never more than there are places, as each came from one.
    fn keep(&self, connection: Connection) {
        if !connection.is_closed() {
            self.idle().push(connection);
        }
    }

    async fn connect(&self) -> Result<Connection, AuthenticatorError> {
        let failed = |error: io::Error| {
            AuthenticatorError(format!("the endpoint can not be reached: {error}"))
        };
        let stream: Pin<Box<dyn Stream>> = match &self.endpoint {
            Endpoint::Unix { socket, .. } => {
                Box::pin(UnixStream::connect(socket).await.map_err(failed)?)
            }
            Endpoint::Loopback { address, .. } => {
                Box::pin(TcpStream::connect(address).await.map_err(failed)?)
            }
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| AuthenticatorError(error.to_string()))?;
        // Ends when the sender is dropped or the endpoint closes.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn exchange(&self, connection: &mut Connection, body: &Bytes) -> Result<Decision, Fault> {
        let answer = |error: String| Fault::Answer(AuthenticatorError(error));
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.path())
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value.clone());
        }
        let request =
            request.body(Full::new(body.clone())).map_err(|error| answer(error.to_string()))?;
        let response = connection.send_request(request).await.map_err(|error| {
            if error.is_parse() {
                answer(format!("the endpoint does not speak HTTP/1.1: {error}"))
            } else {
                Fault::Connection(error)
            }
        })?;
        if response.status() != StatusCode::OK {
            return Err(answer(format!("the endpoint answers {}", response.status())));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| answer(format!("the answer is broken or too long: {error}")))?
            .to_bytes();
        document::reply(&body).map_err(Fault::Answer)
    }
}

impl Authenticator for HttpAuthenticator {
    fn authenticate<'a>(&'a self, login: &'a LoginRequest) -> Deciding<'a> {
        Box::pin(async move {
            match document::question(login) {
                // Wiped when the last user of it is gone.
                Some(body) => self.ask(&Bytes::from_owner(body)).await,
                None => Ok(Decision::Refuse(Refusal {
                    reason: DenyReason::Refused,
                    text: "the user name, the password or the certificate's name is not UTF-8 \
                           text; the endpoint was not asked"
                        .to_owned(),
                })),
            }
        })
    }
}

/// What goes wrong between a question and its answer.
enum Fault {
    /// The connection broke before an answer began.
    Connection(hyper::Error),
    /// There is an answer and it is none.
    Answer(AuthenticatorError),
}

trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
