//! The concentrator as a whole.

use hyper::Method;

use super::{Client, ClientError};
use crate::control_api::types::{Finding, Health, List, LogLevel, ReloadReport, Status};

impl Client {
    /// `GET /v1/status`
    ///
    /// # Errors
    /// See [`ClientError`]; so for every call.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status", None::<&()>).await
    }

    /// `POST /v1/reload`
    ///
    /// # Errors
    /// `reload_refused`: everything that is wrong with what was read.
    pub async fn reload(&self) -> Result<ReloadReport, ClientError> {
        self.ask(Method::POST, "/v1/reload", None::<&()>).await
    }

    /// `GET /v1/doctor`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn doctor(&self) -> Result<List<Finding>, ClientError> {
        self.ask(Method::GET, "/v1/doctor", None::<&()>).await
    }

    /// `GET /v1/log-level`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn log_level(&self) -> Result<LogLevel, ClientError> {
        self.ask(Method::GET, "/v1/log-level", None::<&()>).await
    }

    /// `PUT /v1/log-level`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_log_level(&self, level: &LogLevel) -> Result<LogLevel, ClientError> {
        self.ask(Method::PUT, "/v1/log-level", Some(level)).await
    }

    /// `GET /v1/healthz`
    ///
    /// # Errors
    /// See [`ClientError`]; also if it is not well.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.ask(Method::GET, "/v1/healthz", None::<&()>).await
    }
}
