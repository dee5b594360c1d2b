//! What was: sessions of a router, and who had which address.

use std::net::Ipv4Addr;

use hyper::Method;

use super::{Client, ClientError, path};
use crate::control_api::types::{DirectoryEntry, List, SessionFilter, SessionView, Timestamp};

impl Client {
    /// `GET /v1/routers/{name}/sessions`, one page; `next` of the answer is `filter.before` of the
    /// next one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sessions(
        &self,
        name: &str,
        filter: &SessionFilter,
    ) -> Result<List<SessionView>, ClientError> {
        let mut target = format!("{}/sessions", path("routers", name)?);
        let mut mark = '?';
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                target.push_str(&format!("{mark}{key}={value}"));
                mark = '&';
            }
        };
        add("from", filter.from.map(|at| at.to_string()));
        add("to", filter.to.map(|at| at.to_string()));
        add("after", filter.before.map(|id| id.to_string()));
        add("limit", (filter.limit > 0).then(|| filter.limit.to_string()));
        self.ask(Method::GET, &target, None::<&()>).await
    }

    /// `GET /v1/directory`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn directory(
        &self,
        address: Ipv4Addr,
        at: Option<Timestamp>,
    ) -> Result<DirectoryEntry, ClientError> {
        let at = at.map(|at| format!("&at={at}")).unwrap_or_default();
        self.ask(Method::GET, &format!("/v1/directory?address={address}{at}"), None::<&()>).await
    }
}
