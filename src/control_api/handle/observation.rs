//! Metrics, health, and what is logged.

use super::Answer;
use crate::control_api::caller::Scope;
use crate::control_api::error::ApiError;
use crate::control_api::types::{Health, LogLevel};

/// Metrics, health, and what is logged.
pub trait Observation: Send + Sync + 'static {
    /// Everything that is counted, in the text format of Prometheus. Only callers that may see
    /// every router are told of single ones.
    fn metrics(&self, scope: &Scope) -> Answer<'_, String> {
        let _ = scope;
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Whether the process works at all: if not, only a new one helps.
    fn health(&self) -> Answer<'_, Health> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// What is logged.
    fn log_level(&self) -> Answer<'_, LogLevel> {
        Box::pin(async { Err(ApiError::not_offered()) })
    }

    /// Logs by this filter from now on; what holds then.
    fn set_log_level(&self, level: LogLevel) -> Answer<'_, LogLevel> {
        let _ = level;
        Box::pin(async { Err(ApiError::not_offered()) })
    }
}
