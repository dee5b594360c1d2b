//! The concentrator as a whole.

use hyper::Method;

use super::{Client, ClientError};
use crate::control_api::types::{Finding, List, ReloadReport, Status};

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
}
