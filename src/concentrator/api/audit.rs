//! The audit trail.

use std::sync::Arc;

use crate::control_api::Audit;

use super::ApiHandle;

impl Audit for Arc<ApiHandle> {}
