//! Tunnels.

use hyper::Method;

use super::{Client, ClientError, path};
use crate::control_api::types::{List, TunnelView};

impl Client {
    /// `GET /v1/tunnels`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tunnels(&self) -> Result<Vec<TunnelView>, ClientError> {
        let list: List<TunnelView> = self.ask(Method::GET, "/v1/tunnels", None::<&()>).await?;
        Ok(list.items)
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
    pub async fn disconnect(&self, name: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &path("tunnels", name)?, None::<&()>).await.map(drop)
    }
}
