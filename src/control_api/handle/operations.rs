//! How the concentrator is and how it is told to change.

use super::Answer;
use crate::control_api::types::{Finding, ReloadReport, Status};

/// How the concentrator is and how it is told to change.
pub trait Operations: Send + Sync + 'static {
    /// How things are.
    fn status(&self) -> Answer<'_, Status>;

    /// Reads configuration, certificates and revocation lists again. What is bad changes nothing.
    fn reload(&self) -> Answer<'_, ReloadReport>;

    /// Looks at everything that could keep the concentrator from working. Takes seconds.
    fn doctor(&self) -> Answer<'_, Vec<Finding>>;
}
