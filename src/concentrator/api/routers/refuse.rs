//! Refusals of accounts and addresses, as callers are told.

use crate::control_api::types::NewRouter;
use crate::control_api::{ApiError, ErrorCode, Scope};
use crate::identity::{AccountError, DirectoryError};
use crate::lease::LeaseError;

pub(super) fn no_randomness() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the operating system gives no randomness")
}

pub(super) fn router_exists(name: &str) -> ApiError {
    let message = format!("a router \"{name}\" exists already");
    ApiError::field(ErrorCode::RouterExists, "name", message)
}

/// Who is bound to tenants is not told who else has an address.
pub(super) fn lease_refusal(scope: &Scope, error: LeaseError) -> ApiError {
    let message = match (&error, scope) {
        (
            LeaseError::Taken { address, .. } | LeaseError::Resting { address, .. },
            Scope::Tenants(_),
        ) => {
            format!("{address} belongs to another router, or did not long ago")
        }
        _ => error.to_string(),
    };
    match error {
        LeaseError::PoolFull { .. } | LeaseError::Unknown { .. } => {
            ApiError::new(ErrorCode::PoolFull, message)
        }
        LeaseError::Taken { .. } | LeaseError::Resting { .. } => {
            ApiError::field(ErrorCode::AddressTaken, "address", message)
        }
        LeaseError::Changing => ApiError::new(ErrorCode::Busy, message),
        _ => ApiError::invalid("address", message),
    }
}

pub(super) fn directory_refusal(error: DirectoryError) -> ApiError {
    let message = error.to_string();
    match error {
        DirectoryError::UsernameTaken => {
            ApiError::field(ErrorCode::UsernameTaken, "username", message)
        }
        DirectoryError::CommonNameTaken => {
            ApiError::field(ErrorCode::CertificateTaken, "certificate_cn", message)
        }
        DirectoryError::AddressTaken => {
            ApiError::field(ErrorCode::AddressTaken, "address", message)
        }
        DirectoryError::Account(account) => ApiError::invalid(account_field(account), message),
    }
}

fn account_field(error: AccountError) -> &'static str {
    match error {
        AccountError::Name => "name",
        AccountError::Username => "username",
        AccountError::CommonName | AccountError::CommonNameMissing => "certificate_cn",
        AccountError::Tenant => "tenant",
        AccountError::Tags => "tags",
        AccountError::Note => "note",
        AccountError::LoginMode => "login",
    }
}

/// The tenant of a new account: who is bound to one tenant need not name it, and nobody can make
/// an account that they could not see.
pub(super) fn tenant_of(scope: &Scope, named: Option<String>) -> Result<Option<String>, ApiError> {
    let named = match (named, scope) {
        (None, Scope::Tenants(own)) => match &own[..] {
            [only] => Some(only.to_string()),
            _ => return Err(ApiError::invalid("tenant", "say which of your tenants it is for")),
        },
        (named, _) => named,
    };
    check_tenant_in(scope, named.as_deref())?;
    Ok(named)
}

/// Checks that whoever asks could see a router of this tenant.
pub(super) fn check_tenant_in(scope: &Scope, tenant: Option<&str>) -> Result<(), ApiError> {
    if scope.covers(tenant) {
        return Ok(());
    }
    Err(ApiError::invalid("tenant", "must be one of your tenants"))
}

/// [`NewRouter::check`] and the tenant.
pub(super) fn checked(scope: &Scope, new: NewRouter) -> Result<NewRouter, ApiError> {
    let mut new = new.check()?;
    new.tenant = tenant_of(scope, new.tenant)?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_made_for_tenants_that_their_maker_can_see() {
        let one = Scope::Tenants(["north".into()].into());
        let two = Scope::Tenants(["north".into(), "south".into()].into());
        let none = Scope::Tenants([].into());
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(tenant_of(&Scope::All, None), Ok(None));
        assert_eq!(tenant_of(&Scope::All, named("x")), Ok(named("x")));
        assert_eq!(tenant_of(&one, None), Ok(named("north")));
        assert_eq!(tenant_of(&two, named("south")), Ok(named("south")));
        for (scope, tenant) in
            [(&one, named("south")), (&two, None), (&two, named("west")), (&none, None)]
        {
            let error = tenant_of(scope, tenant).unwrap_err();
            assert_eq!((error.code, error.field.as_deref()), (ErrorCode::Invalid, Some("tenant")));
        }
    }

    #[test]
    fn the_owner_of_an_address_is_told_to_those_who_see_everything_only() {
        let address = [100, 64, 1, 2].into();
        for error in [
            LeaseError::Taken { address, owner: "secret-site".into() },
            LeaseError::Resting { address, owner: "secret-site".into(), until: 9 },
        ] {
            let told = lease_refusal(&Scope::All, error.clone());
            assert!(told.message.contains("secret-site"));
            let told = lease_refusal(&Scope::Tenants(["north".into()].into()), error);
            assert!(!told.message.contains("secret-site"), "{}", told.message);
            assert_eq!(told.code, ErrorCode::AddressTaken);
        }
    }
}
