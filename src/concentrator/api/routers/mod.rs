//! Router accounts.
//!
//! Every change goes: take the lock, look the account up in the caller's scope, compare the
//! revision, check, put an address aside, commit to the disk, then show and cut, then tell. So
//! whoever reads never sees what might not be recorded, and an event never comes before what it
//! tells.

mod change;
mod create;
mod refuse;
#[cfg(test)]
mod tests;
mod transfer;
mod view;

use std::sync::Arc;

use crate::control_api::types::{
    CreatedRouter, ImportRefused, ImportedRouter, List, NewRouter, Page, RotateRouter,
    RouterFilter, RouterPatch, RouterRecord, RouterView,
};
use crate::control_api::{Answer, ApiError, Expected, Routers, Rows, Scope};
use crate::identity::Account;
use crate::shard::Cut;

use super::{ApiHandle, to_the_end};
use refuse::directory_refusal;

impl ApiHandle {
    fn replace(&self, account: Account) -> Result<(), ApiError> {
        self.core.accounts.write().insert(account).map(|_| ()).map_err(directory_refusal)
    }

    /// Ends the tunnel of a router and waits until it has ended.
    async fn cut_now(&self, name: &str, cut: Cut) {
        let (sender, ended) = tokio::sync::oneshot::channel();
        let done = Box::new(move || {
            // The asker has gone away.
            let _ = sender.send(());
        });
        if self.core.cut_if(name, cut, |_| true, Some(done)) {
            // A shard that has ended itself drops the question.
            let _ = ended.await;
        }
    }
}

impl Routers for Arc<ApiHandle> {
    fn add_router(&self, scope: &Scope, new: NewRouter) -> Answer<'_, CreatedRouter> {
        let (handle, scope) = (Self::clone(self), scope.clone());
        Box::pin(to_the_end(async move { handle.add(&scope, new).await }))
    }

    fn list_routers(
        &self,
        scope: &Scope,
        filter: RouterFilter,
        page: Page,
    ) -> Answer<'_, List<RouterView>> {
        let scope = scope.clone();
        Box::pin(async move { Ok(self.routers_page(&scope, &filter, &page)) })
    }

    fn get_router(&self, scope: &Scope, name: &str) -> Answer<'_, RouterView> {
        let found = self.account(scope, name).map(|account| self.view(&account));
        Box::pin(async { found })
    }

    fn patch_router(
        &self,
        scope: &Scope,
        name: &str,
        expected: Expected,
        patch: RouterPatch,
    ) -> Answer<'_, RouterView> {
        let (handle, scope, name) = (Self::clone(self), scope.clone(), name.to_owned());
        Box::pin(to_the_end(async move { handle.patch(&scope, &name, &expected, patch).await }))
    }

    fn readdress_router(
        &self,
        scope: &Scope,
        name: &str,
        expected: Expected,
    ) -> Answer<'_, RouterView> {
        let (handle, scope, name) = (Self::clone(self), scope.clone(), name.to_owned());
        Box::pin(to_the_end(async move { handle.readdress(&scope, &name, &expected).await }))
    }

    fn rotate_router(
        &self,
        scope: &Scope,
        name: &str,
        expected: Expected,
        rotate: RotateRouter,
    ) -> Answer<'_, CreatedRouter> {
        let (handle, scope, name) = (Self::clone(self), scope.clone(), name.to_owned());
        Box::pin(to_the_end(async move { handle.rotate(&scope, &name, &expected, rotate).await }))
    }

    fn remove_router(&self, scope: &Scope, name: &str, expected: Expected) -> Answer<'_, ()> {
        let (handle, scope, name) = (Self::clone(self), scope.clone(), name.to_owned());
        Box::pin(to_the_end(async move { handle.remove(&scope, &name, &expected).await }))
    }

    fn export_routers(&self, scope: &Scope) -> Answer<'_, Rows<RouterRecord>> {
        let rows = transfer::Export::new(Self::clone(self), scope.clone());
        Box::pin(async { Ok(Box::new(rows) as Rows<RouterRecord>) })
    }

    fn import_routers(
        &self,
        scope: &Scope,
        lines: Vec<(u64, RouterRecord)>,
        scripts: bool,
    ) -> Answer<'_, Result<Rows<ImportedRouter>, ImportRefused>> {
        let (handle, scope) = (Self::clone(self), scope.clone());
        Box::pin(to_the_end(transfer::import(handle, scope, lines, scripts)))
    }
}
