//! Health, readiness and what is logged.

use serde::{Deserialize, Serialize};

use super::Degraded;

/// Whether something is as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct Health {
    /// True: it is.
    pub ok: bool,
    /// Why not; empty if it is.
    pub reasons: Vec<Degraded>,
}

impl Health {
    /// Well if there is no reason why not.
    pub fn of(reasons: Vec<Degraded>) -> Self {
        Self { ok: reasons.is_empty(), reasons }
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct LogLevel {
    /// A level, or levels by module: "info,tunnelhead::shard=debug".
    #[cfg_attr(feature = "control-api", schema(max_length = 1000))]
    pub filter: String,
}
