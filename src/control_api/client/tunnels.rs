//! Tunnels.

use hyper::Method;

use super::{Client, ClientError, path, with_query};
use crate::control_api::types::{
    BanView, DisconnectQuery, List, NewBan, PageQuery, TunnelQuery, TunnelView,
};

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
