//! What `doctor` finds.

use serde::{Deserialize, Serialize};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct Finding {
    /// What was looked at: "descriptors", "disk", "listener", ...; stable. More than one finding
    /// may have the same.
    pub check: String,
    /// How it is.
    pub state: FindingState,
    /// What was found, one sentence.
    pub message: String,
    /// What to do, often a command; null if there is nothing to do.
    pub advice: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    /// As it should be.
    Ok,
    /// It works, but something should be done.
    Warn,
    /// Something does not work.
    Fail,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { check: check.to_owned(), state: FindingState::Ok, message, advice: None }
    }

    /// It works, but something should be done.
    pub fn warn(check: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: FindingState::Warn, ..Self::fail(check, message, advice) }
    }

    /// Something does not work.
    pub fn fail(check: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            state: FindingState::Fail,
            message: message.into(),
            advice: Some(advice.into()),
        }
    }
}
