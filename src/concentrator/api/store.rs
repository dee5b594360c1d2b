//! Keeping the store.

use std::sync::Arc;

use crate::control_api::StoreKeeping;

use super::ApiHandle;

impl StoreKeeping for Arc<ApiHandle> {}
