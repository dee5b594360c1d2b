//! Which role an operation needs, read from the document that describes it.

use std::collections::HashMap;

use axum::http::Method;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::Operation;

use crate::control_api::caller::{Caller, Role};
use crate::control_api::error::{ApiError, ErrorCode};

/// The extension of an operation that names the role.
const ROLE: &str = "x-role";

/// The needed role by method and path template.
pub(super) struct Rights(HashMap<(Method, String), Role>);

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
                    rights.insert((method, path.clone()), role_of(operation));
                }
            }
        }
        Self(rights)
    }

    /// The role that this operation needs; HEAD is answered like GET. None: there is no such
    /// operation, which the router says better.
    pub(super) fn needed(&self, method: &Method, path: &str) -> Option<Role> {
        let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
        self.0.get(&(method, path.to_owned())).copied()
    }

    /// # Errors
    /// `forbidden`, with what to do.
    pub(super) fn check(
        &self,
        caller: &Caller,
        method: &Method,
        path: &str,
    ) -> Result<(), ApiError> {
        match self.needed(method, path) {
            Some(needed) if caller.role < needed => Err(ApiError::new(
                ErrorCode::Forbidden,
                format!(
                    "this needs the role {}, user {} has {}; see [control] in the configuration",
                    needed.as_str(),
                    caller.uid,
                    caller.role.as_str()
                ),
            )),
            _ => Ok(()),
        }
    }
}

fn role_of(operation: &Operation) -> Role {
    let extensions = operation.extensions.as_ref();
    let role = extensions.and_then(|all| all.get(ROLE)).and_then(|value| value.as_str());
    role.and_then(|role| role.parse().ok()).unwrap_or(Role::Admin)
}
