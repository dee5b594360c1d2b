//! The handle behind the control socket: one file a resource.

mod audit;
mod events;
mod history;
mod logins;
mod metrics;
mod operations;
mod routers;
mod store;
mod tunnels;

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use tokio::sync::{Mutex, Semaphore, oneshot};

use crate::control_api::types::TunStatus;
use crate::control_api::{ApiError, ErrorCode, Scope};
use crate::identity::Account;
use crate::store::{Change, StoreError};

use super::core::Core;
use super::keeping::Keeping;
use super::reload::Reloader;

/// The handle: [`Core`] plus what only the control socket needs.
pub(super) struct ApiHandle {
    pub(super) core: Arc<Core>,
    pub(super) facts: Facts,
    pub(super) reloader: Reloader,
    /// Accounts change one at a time: check, commit, then show.
    pub(super) changing: Mutex<()>,
    /// Copies of the store.
    pub(super) keeping: Arc<Keeping>,
    /// Imports happen one at a time: each may take some memory.
    pub(super) importing: Semaphore,
    /// One doctor at a time.
    pub(super) examining: Mutex<()>,
}

/// What doesn't change while the concentrator runs.
pub(super) struct Facts {
    pub(super) started: u64,
    pub(super) tun: TunStatus,
    /// What the kernel routes to its device; `None`: the packets go elsewhere.
    pub(super) routed: Option<Ipv4Net>,
    pub(super) management_address: Ipv4Addr,
    pub(super) pool: String,
}

impl ApiHandle {
    /// The account of this name, if it is in scope.
    fn account(&self, scope: &Scope, name: &str) -> Result<Arc<Account>, ApiError> {
        let directory = self.core.accounts.read();
        directory
            .get(name)
            .filter(|account| scope.covers(account.tenant.as_deref()))
            .cloned()
            .ok_or_else(|| ApiError::router_not_found(name))
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), ApiError> {
        let (sender, receiver) = oneshot::channel();
        self.core.store.submit(
            changes,
            Some(Box::new(move |result: Result<(), StoreError>| {
                // The caller has gone away: the change stands all the same.
                let _ = sender.send(result);
            })),
        );
        match receiver.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ApiError::new(ErrorCode::StoreDegraded, error.to_string())),
            Err(_) => Err(ApiError::new(ErrorCode::Unavailable, "the concentrator is stopping")),
        }
    }
}

/// Runs a change to its end even if nobody waits for it any more: a caller that hangs up or is
/// answered `timeout` must not leave the disk and the running concentrator apart.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change)
        .await
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the change ended in the middle"))?
}
