//! The audit trail.

use hyper::Method;

use super::{Client, ClientError};
use crate::audit::Head;
use crate::control_api::types::{AuditCheck, AuditEntry, AuditQuery, AuditSegment, List};

const SEGMENTS: &str = "/v1/audit/segments";

impl Client {
    /// `GET /v1/audit`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit(&self, query: &AuditQuery) -> Result<List<AuditEntry>, ClientError> {
        let mut path = format!("/v1/audit?after={}&limit={}", query.after, query.limit);
        if let Some(router) = &query.router {
            crate::control_api::types::check_name(router)?;
            path.push_str(&format!("&router={router}"));
        }
        if let Some(uid) = query.uid {
            path.push_str(&format!("&uid={uid}"));
        }
        self.ask(Method::GET, &path, None::<&()>).await
    }

    /// `GET /v1/audit/check`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn check_audit(&self, heads: &[Head]) -> Result<AuditCheck, ClientError> {
        let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
        let query =
            if heads.is_empty() { String::new() } else { format!("?head={}", heads.join(",")) };
        self.ask(Method::GET, &format!("/v1/audit/check{query}"), None::<&()>).await
    }

    /// `GET /v1/audit/segments`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit_segments(&self) -> Result<Vec<AuditSegment>, ClientError> {
        let list: List<AuditSegment> = self.ask(Method::GET, SEGMENTS, None::<&()>).await?;
        Ok(list.items)
    }

    /// `POST /v1/audit/segments`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn seal_audit(&self) -> Result<AuditSegment, ClientError> {
        self.ask(Method::POST, SEGMENTS, None::<&()>).await
    }

    /// `GET /v1/audit/segments/{segment}`: JSON lines.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn export_segment(&self, segment: u64) -> Result<Vec<u8>, ClientError> {
        let lines = self.send(Method::GET, &format!("{SEGMENTS}/{segment}"), None::<&()>).await?;
        Ok(lines.to_vec())
    }

    /// `DELETE /v1/audit/segments/{segment}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn prune_segment(&self, segment: u64) -> Result<AuditSegment, ClientError> {
        self.ask(Method::DELETE, &format!("{SEGMENTS}/{segment}"), None::<&()>).await
    }
}
