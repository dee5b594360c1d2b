//! What happens.

use std::sync::Arc;

use crate::control_api::Events;

use super::ApiHandle;

impl Events for Arc<ApiHandle> {}
