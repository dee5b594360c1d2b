//! Who asks, and what of the fleet they may see.

use std::sync::Arc;

/// What a caller may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look at everything in scope.
    Read,
    /// And reach routers, cut tunnels, open access.
    Operate,
    /// And change accounts, the configuration, the store and the audit trail.
    Admin,
}

impl Role {
    /// Every role, from the least.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    /// The word used in the configuration and in the OpenAPI document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// Not a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is \"read\", \"operate\" or \"admin\"")]
pub struct UnknownRole;

/// Which routers a caller may see. A router outside the scope answers like one that does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every router.
    #[default]
    All,
    /// Those of these tenants.
    Tenants(Arc<[Arc<str>]>),
}

impl Scope {
    /// True if a router of this tenant, or of none, is in scope.
    pub fn covers(&self, tenant: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Tenants(tenants) => {
                tenant.is_some_and(|tenant| tenants.iter().any(|own| **own == *tenant))
            }
        }
    }
}

/// The other end of a control connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User id that the kernel vouches for.
    pub uid: u32,
    /// Primary group id likewise.
    pub gid: u32,
    /// Process id when it connected, if the kernel tells.
    pub pid: Option<i32>,
    /// Path of the socket that was connected to.
    pub socket: Arc<str>,
    /// What the `X-Actor` header claims; nobody has checked it.
    pub actor: Option<String>,
    /// What it may do.
    pub role: Role,
    /// What it may see.
    pub scope: Scope,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_of_tenants_covers_theirs_only() {
        let scope = Scope::Tenants(["a".into(), "b".into()].into());
        assert!(scope.covers(Some("a")) && scope.covers(Some("b")));
        assert!(!scope.covers(Some("c")) && !scope.covers(Some("A")) && !scope.covers(None));
        assert!(Scope::All.covers(None) && Scope::All.covers(Some("c")));
    }

    #[test]
    fn roles_are_ordered_and_named() {
        assert!(Role::Read < Role::Operate && Role::Operate < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!("root".parse::<Role>(), Err(UnknownRole));
    }
}
