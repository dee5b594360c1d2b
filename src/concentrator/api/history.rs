//! Who had which address when.

use std::sync::Arc;

use crate::control_api::History;

use super::ApiHandle;

impl History for Arc<ApiHandle> {}
