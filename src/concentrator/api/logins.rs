//! Login attempts.

use std::sync::Arc;

use crate::control_api::Logins;

use super::ApiHandle;

impl Logins for Arc<ApiHandle> {}
