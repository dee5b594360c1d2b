//! Accounts as JSON lines, in both directions.

use std::io::{self, Read};

use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, Limited, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::{Client, ClientError, MAX_ANSWER_BYTES, PATIENCE};
use crate::control_api::lines::{Line, Lines};
use crate::control_api::types::{ImportRefused, ImportedRouter};

/// Bytes that are read and sent at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Longest line of an answer: an account with all its scripts.
const MAX_ROW_BYTES: usize = 1024 * 1024;

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportStep {
    /// Bytes sent so far.
    Sent(u64),
    /// Everything is sent.
    Waiting,
    /// Routers that were told so far.
    Made(u64),
}

/// Ends the connection when nobody reads it any more.
struct Driver(JoinHandle<hyper::Result<()>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// `GET /v1/routers/export`, piece by piece as it comes.
    ///
    /// # Errors
    /// See [`ClientError`]; what `write` says is [`ClientError::Local`].
    pub async fn export_routers(
        &self,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let request = Request::builder().method(Method::GET).uri("/v1/routers/export");
        let request = request.header(header::HOST, "localhost").body(Empty::<Bytes>::new());
        let (response, _driver) = self.open(request.map_err(|error| self.broken(&error))?).await?;
        if !response.status().is_success() {
            return Err(self.read_refusal(response).await);
        }
        let mut body = response.into_body();
        while let Some(piece) = self.next_piece(&mut body).await? {
            write(&piece).map_err(ClientError::Local)?;
        }
        Ok(())
    }

    /// `POST /v1/routers/import`: sends `input` and collects what is answered.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::ImportRefused`] names the wrong lines, and
    /// [`ClientError::Local`] is what reading `input` says.
    pub async fn import_routers(
        &self,
        input: Box<dyn Read + Send>,
        scripts: bool,
        mut progress: impl FnMut(ImportStep),
    ) -> Result<Vec<ImportedRouter>, ClientError> {
        let (steps, mut told) = tokio::sync::mpsc::channel(16);
        let pieces = futures_util::stream::unfold((input, 0_u64), move |(mut input, sent)| {
            let steps = steps.clone();
            async move {
                let mut piece = vec![0; PIECE_BYTES];
                // Reading a file blocks, which bothers nobody in a command.
                let length = match input.read(&mut piece) {
                    Ok(0) => return None,
                    Ok(length) => length,
                    Err(error) => return Some((Err(error), (input, sent))),
                };
                piece.truncate(length);
                let sent = sent.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                // Whoever shows it may be behind; the next one says more.
                let _ = steps.try_send(ImportStep::Sent(sent));
                Some((Ok(Frame::data(Bytes::from(piece))), (input, sent)))
            }
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(if scripts { "/v1/routers/import?scripts=true" } else { "/v1/routers/import" })
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(StreamBody::new(pieces.boxed()));
        let opening = self.open(request.map_err(|error| self.broken(&error))?);
        tokio::pin!(opening);
        let mut sending = true;
        let (response, _driver) = loop {
            tokio::select! {
                opened = &mut opening => break opened?,
                step = told.recv(), if sending => match step {
                    Some(step) => progress(step),
                    None => {
                        sending = false;
                        progress(ImportStep::Waiting);
                    }
                },
            }
        };
        if !response.status().is_success() {
            return Err(self.read_refusal(response).await);
        }
        let mut all = Vec::new();
        let mut fault = None;
        let mut lines = Lines::new(MAX_ROW_BYTES);
        let mut row = |line: Line<'_>| match line {
            Line::Text(text) => match serde_json::from_slice(text) {
                Ok(router) => all.push(router),
                Err(error) => fault = Some(self.broken(&error)),
            },
            Line::TooLong => fault = Some(self.broken(&"a line is too long")),
        };
        let mut body = response.into_body();
        let mut made: u64 = 0;
        while let Some(piece) = self.next_piece(&mut body).await? {
            lines.push(&piece, |number, line| {
                made = number;
                row(line);
            });
            progress(ImportStep::Made(made));
        }
        lines.finish(|_, line| row(line));
        fault.map_or(Ok(all), Err)
    }

    /// Sends a request whose answer is read bit by bit. Waits as long as it takes: the answer to an
    /// import is the only one that has its passwords.
    async fn open<B>(
        &self,
        request: Request<B>,
    ) -> Result<(Response<Incoming>, Driver), ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = UnixStream::connect(self.path()).await.map_err(|e| self.not_connected(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        let driver = Driver(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(|error| {
            // A body that cannot be read ends the connection; its reason is below.
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                if let Some(io) = inner.downcast_ref::<io::Error>() {
                    return ClientError::Local(io::Error::new(io.kind(), io.to_string()));
                }
                source = inner.source();
            }
            self.broken(&error)
        })?;
        Ok((response, driver))
    }

    async fn next_piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, body.frame());
            let frame = frame.await.map_err(|_| self.broken(&"it took too long"))?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(piece) = frame.map_err(|error| self.broken(&error))?.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    async fn read_refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
        let bytes = match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) => return self.broken(&error),
            Err(_) => return self.broken(&"it took too long"),
        };
        match serde_json::from_slice::<ImportRefused>(&bytes) {
            Ok(refused) if refused.refused > 0 => ClientError::ImportRefused(Box::new(refused)),
            _ => self.refused(status, &bytes),
        }
    }
}
