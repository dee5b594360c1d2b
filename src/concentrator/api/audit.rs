//! The audit trail.

use std::sync::Arc;

use crate::audit::{Action, Head, Who};
use crate::control_api::types::{AuditCheck, AuditEntry, AuditQuery, AuditSegment, List};
use crate::control_api::{Answer, ApiError, Audit, ErrorCode};

use super::super::audit::Trail;
use super::ApiHandle;

impl ApiHandle {
    /// Reads the trail where waiting for the disk holds nobody up.
    async fn of_trail<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Trail) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let core = Arc::clone(&self.core);
        tokio::task::spawn_blocking(move || read(&core.audit))
            .await
            .map_err(|_| ApiError::new(ErrorCode::Internal, "reading the audit trail failed"))?
    }
}

impl Audit for Arc<ApiHandle> {
    fn note_audit(&self, who: Who, action: Action) {
        self.core.audit.note(who, action);
    }

    fn list_audit(&self, query: AuditQuery) -> Answer<'_, List<AuditEntry>> {
        Box::pin(async move {
            let event_id = self.core.event_id();
            let page = self.of_trail(move |trail| trail.page(&query)).await?;
            Ok(List { event_id, ..page })
        })
    }

    fn audit_segments(&self) -> Answer<'_, List<AuditSegment>> {
        Box::pin(async move {
            let event_id = self.core.event_id();
            let segments = self.of_trail(Trail::segments).await?;
            Ok(List::complete(event_id, segments))
        })
    }

    fn seal_audit(&self) -> Answer<'_, AuditSegment> {
        Box::pin(async move {
            self.of_trail(|trail| {
                trail.settle();
                Ok(())
            })
            .await?;
            self.core.audit.seal().await
        })
    }

    fn export_segment(&self, segment: u64) -> Answer<'_, String> {
        Box::pin(async move {
            let lines = self.of_trail(move |trail| trail.lines(segment)).await?;
            // Only what could be read may be pruned.
            self.core.audit.exported(segment).await?;
            Ok(lines)
        })
    }

    fn prune_segment(&self, segment: u64) -> Answer<'_, AuditSegment> {
        Box::pin(async move { self.core.audit.prune(segment).await })
    }

    fn check_audit(&self, heads: Vec<Head>) -> Answer<'_, AuditCheck> {
        Box::pin(async move { self.of_trail(move |trail| trail.check(&heads)).await })
    }
}
