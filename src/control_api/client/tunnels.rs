//! Tunnels.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{Client, ClientError, path, with_query};
use crate::control_api::ErrorCode;
use crate::control_api::types::{
    BanView, DialQuery, DisconnectQuery, List, NewBan, PageQuery, TunnelQuery, TunnelView,
};

/// For places that others are about to give back.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
/// Between two questions.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Longest text of a refusal.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// An open connection to a router.
#[derive(Debug)]
pub struct Dialled {
    /// Its bytes, in both directions.
    pub stream: UnixStream,
    /// What came from the router together with the answer: it goes before what `stream` gives.
    pub early: Bytes,
}

impl Client {
    /// `GET /v1/tunnels`, every page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tunnels(&self, query: &TunnelQuery) -> Result<Vec<TunnelView>, ClientError> {
        let mut query = query.clone();
        let mut all = Vec::new();
        loop {
            let path = with_query("/v1/tunnels", &query)?;
            let list: List<TunnelView> = self.ask(Method::GET, &path, None::<&()>).await?;
            all.extend(list.items);
            match list.next {
                Some(next) => query.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// `GET /v1/tunnels/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tunnel(&self, name: &str) -> Result<TunnelView, ClientError> {
        self.ask(Method::GET, &path("tunnels", name)?, None::<&()>).await
    }

    /// `DELETE /v1/tunnels/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn disconnect(
        &self,
        name: &str,
        ban_seconds: Option<u64>,
    ) -> Result<(), ClientError> {
        let query = DisconnectQuery { ban: ban_seconds };
        let path = with_query(&path("tunnels", name)?, &query)?;
        self.send(Method::DELETE, &path, None::<&()>).await.map(drop)
    }

    /// `GET /v1/tunnels/{name}/dial`: a connection to a port of the router. While the concentrator
    /// is busy it is asked again for a few seconds.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn dial(&self, name: &str, query: DialQuery) -> Result<Dialled, ClientError> {
        let path = with_query(&format!("{}/dial", path("tunnels", name)?), &query)?;
        let ask = async {
            loop {
                match self.upgrade(&path).await {
                    Err(ClientError::Refused(error)) if error.code == ErrorCode::Busy => {
                        tokio::time::sleep(BUSY_PAUSE).await;
                    }
                    answer => return answer,
                }
            }
        };
        match tokio::time::timeout(BUSY_PATIENCE, ask).await {
            Ok(answer) => answer,
            // The answer, whatever it is now.
            Err(_) => self.upgrade(&path).await,
        }
    }

    async fn upgrade(&self, path: &str) -> Result<Dialled, ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        let driver = tokio::spawn(connection.with_upgrades());
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "tcp")
            .body(Full::new(Bytes::new()))
            .map_err(|e| self.broken(&e))?;
        let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await;
            driver.abort();
            return Err(self.refused(status, &body.map_err(|e| self.broken(&e))?.to_bytes()));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| self.broken(&e))?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| self.broken(&"the upgraded connection is not the one that was made"))?;
        Ok(Dialled { stream: parts.io.into_inner(), early: parts.read_buf })
    }

    /// `GET /v1/bans`, every page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bans(&self) -> Result<Vec<BanView>, ClientError> {
        let mut query = PageQuery::default();
        let mut all = Vec::new();
        loop {
            let path = with_query("/v1/bans", &query)?;
            let list: List<BanView> = self.ask(Method::GET, &path, None::<&()>).await?;
            all.extend(list.items);
            match list.next {
                Some(next) => query.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// `PUT /v1/bans/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ban(&self, name: &str, seconds: u64) -> Result<BanView, ClientError> {
        self.ask(Method::PUT, &path("bans", name)?, Some(&NewBan { seconds })).await
    }

    /// `DELETE /v1/bans/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lift_ban(&self, name: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &path("bans", name)?, None::<&()>).await.map(drop)
    }
}
