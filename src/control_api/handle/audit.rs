//! The audit trail.

use super::Answer;
use crate::audit::{Action, Head, Who};
use crate::control_api::error::ApiError;
use crate::control_api::types::{AuditCheck, AuditEntry, AuditQuery, AuditSegment, List};

/// The audit trail.
pub trait Audit: Send + Sync + 'static {
    /// Records what somebody did. Never waits: if nothing can be written, records wait for that in
    /// a bounded queue, and how many were lost is recorded in the end.
    fn note_audit(&self, who: Who, action: Action) {
        let _ = (who, action);
    }

    /// Records, by number. `next` is set if there may be more.
    ///
    /// # Errors
    /// `store_degraded`.
    fn list_audit(&self, query: AuditQuery) -> Answer<'_, List<AuditEntry>> {
        let _ = query;
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Every sealed segment.
    ///
    /// # Errors
    /// `store_degraded`.
    fn audit_segments(&self) -> Answer<'_, List<AuditSegment>> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Seals what there is, without waiting for the day or the number that would.
    ///
    /// # Errors
    /// `segment_not_ready` if there is nothing to seal; `store_degraded`.
    fn seal_audit(&self) -> Answer<'_, AuditSegment> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// The records of a segment as JSON lines, its seal first; it may be pruned from then on.
    ///
    /// # Errors
    /// `segment_not_found`, `segment_not_ready` if it was pruned, `store_degraded`.
    fn export_segment(&self, segment: u64) -> Answer<'_, String> {
        let _ = segment;
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Deletes the records of a segment that was exported; older ones come first.
    ///
    /// # Errors
    /// `segment_not_found`, `segment_not_ready`, `store_degraded`.
    fn prune_segment(&self, segment: u64) -> Answer<'_, AuditSegment> {
        let _ = segment;
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Looks whether the trail is as it was written, and has these heads.
    ///
    /// # Errors
    /// `store_degraded`.
    fn check_audit(&self, heads: Vec<Head>) -> Answer<'_, AuditCheck> {
        let _ = heads;
        Box::pin(async { Err(ApiError::not_offered()) })
    }
}
