//! What an operation needs, read from the document that describes it.

use std::collections::HashMap;

use axum::http::Method;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::Operation;

use crate::control_api::caller::{Caller, Role, Scope};
use crate::control_api::error::{ApiError, ErrorCode};
use crate::control_api::seats::Class;

/// The extension of an operation that names the role it needs.
const ROLE: &str = "x-role";
/// The extension of an operation that concerns the whole concentrator ("all"): it is not for
/// callers who are bound to tenants.
const SCOPE: &str = "x-scope";
/// The extension of an operation that becomes a long stream: "stream" or "dial".
const CLASS: &str = "x-class";

/// What one operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) role: Role,
    /// Only for callers who see every router.
    pub(super) every_tenant: bool,
    pub(super) class: Class,
}

/// The needs by method and path template.
pub(super) struct Rights(HashMap<(Method, String), Needs>);

impl Rights {
    /// Reads the document; an operation that names no role, or an unknown one, needs the highest.
    pub(super) fn of(document: &OpenApi) -> Self {
        let mut rights = HashMap::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ] {
                if let Some(operation) = operation {
                    rights.insert((method, path.clone()), needs(operation));
                }
            }
        }
        Self(rights)
    }

    /// What this operation needs; HEAD is answered like GET. None: there is no such operation,
    /// which the router says better.
    pub(super) fn needed(&self, method: &Method, path: &str) -> Option<Needs> {
        let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
        self.0.get(&(method, path.to_owned())).copied()
    }
}

impl Needs {
    /// # Errors
    /// `forbidden`, with what to do.
    pub(super) fn check(self, caller: &Caller) -> Result<(), ApiError> {
        if caller.role < self.role {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                format!(
                    "this needs the role {}, user {} has {}; see [control] in the configuration",
                    self.role.as_str(),
                    caller.uid,
                    caller.role.as_str()
                ),
            ));
        }
        if self.every_tenant && caller.scope != Scope::All {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                format!(
                    "this concerns every tenant, user {} is bound to some; see [control] in the \
                     configuration",
                    caller.uid
                ),
            ));
        }
        Ok(())
    }
}

fn needs(operation: &Operation) -> Needs {
    let extension = |name| {
        let all = operation.extensions.as_ref();
        all.and_then(|all| all.get(name)).and_then(|value| value.as_str())
    };
    Needs {
        role: extension(ROLE).and_then(|role| role.parse().ok()).unwrap_or(Role::Admin),
        every_tenant: extension(SCOPE).is_some(),
        class: match extension(CLASS) {
            Some("stream") => Class::Stream,
            Some("dial") => Class::Dial,
            _ => Class::Request,
        },
    }
}
