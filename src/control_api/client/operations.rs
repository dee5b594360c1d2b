//! The concentrator as a whole.

use hyper::Method;

use super::{Client, ClientError};
use crate::control_api::types::Status;

impl Client {
    /// `GET /v1/status`
    ///
    /// # Errors
    /// See [`ClientError`]; so for every call.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status", None::<&()>).await
    }
}
