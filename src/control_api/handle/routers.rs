//! Router accounts.

use super::Answer;
use crate::control_api::types::{
    CreatedRouter, ImportRefused, ImportedRouter, List, NewRouter, Page, RotateRouter,
    RouterFilter, RouterPatch, RouterRecord, RouterView,
};
use crate::control_api::{ApiError, ErrorCode, Scope};

/// Rows that are made while they are read.
pub type Rows<T> = Box<dyn Iterator<Item = T> + Send>;

/// Which revision of an account a change is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is now.
    #[default]
    Any,
    /// One of these.
    Revisions(Vec<u64>),
}

impl Expected {
    /// Checks the revision that an account has now.
    ///
    /// # Errors
    /// `revision_conflict`.
    pub fn check(&self, revision: u64) -> Result<(), ApiError> {
        match self {
            Self::Revisions(good) if !good.contains(&revision) => Err(ApiError::new(
                ErrorCode::RevisionConflict,
                format!(
                    "the router was changed meanwhile, it is at revision {revision}; read it again"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Router accounts.
///
/// Changes of accounts happen one after the other. Each is on disk before it answers, and its event
/// is told after it can be seen. `expected` is compared with the revision at the moment of the
/// change, so of two changes that expect the same revision exactly one happens.
pub trait Routers: Send + Sync + 'static {
    /// Makes a router account. `new` was checked with [`NewRouter::check`]; embedders that call
    /// this themselves get the same check. A caller that is bound to one tenant makes accounts of
    /// that tenant.
    ///
    /// # Errors
    /// `router_exists`, `username_taken`, `certificate_taken`, `address_taken`, `pool_full`,
    /// `invalid`, `store_degraded`.
    fn add_router(&self, scope: &Scope, new: NewRouter) -> Answer<'_, CreatedRouter>;

    /// The routers in scope that fit, sorted by name, one page of them.
    fn list_routers(
        &self,
        scope: &Scope,
        filter: RouterFilter,
        page: Page,
    ) -> Answer<'_, List<RouterView>>;

    /// One router.
    ///
    /// # Errors
    /// `router_not_found`.
    fn get_router(&self, scope: &Scope, name: &str) -> Answer<'_, RouterView>;

    /// Changes a router. A disabled router, and one whose address changes, loses its tunnel before
    /// this answers.
    ///
    /// # Errors
    /// `router_not_found`, `revision_conflict`, `address_taken`, `invalid`, `store_degraded`.
    fn patch_router(
        &self,
        scope: &Scope,
        name: &str,
        expected: Expected,
        patch: RouterPatch,
    ) -> Answer<'_, RouterView>;

    /// Gives a router another address of the pool; the old one goes to quarantine, and its tunnel
    /// is cut before this answers.
    ///
    /// # Errors
    /// `router_not_found`, `revision_conflict`, `pool_full`, `invalid` for a static address,
    /// `store_degraded`.
    fn readdress_router(
        &self,
        scope: &Scope,
        name: &str,
        expected: Expected,
    ) -> Answer<'_, RouterView>;

    /// Gives a router another password. The old one counts too until the grace period ends; a
    /// tunnel that was opened with it is cut then.
    ///
    /// A rotation during a grace period replaces the new password if the router has not used it
    /// yet: what the router knows always counts on.
    ///
    /// # Errors
    /// `router_not_found`, `revision_conflict`, `invalid`, `store_degraded`.
    fn rotate_router(
        &self,
        scope: &Scope,
        name: &str,
        expected: Expected,
        rotate: RotateRouter,
    ) -> Answer<'_, CreatedRouter>;

    /// Deletes a router; its tunnel is cut before this answers, its address goes to quarantine.
    ///
    /// # Errors
    /// `router_not_found`, `revision_conflict`, `store_degraded`.
    fn remove_router(&self, scope: &Scope, name: &str, expected: Expected) -> Answer<'_, ()>;

    /// Every router in scope as it has to be told to [`Self::import_routers`] of another
    /// concentrator, sorted by name. Routers that are there all the time come exactly once, each as
    /// it is when it is read.
    fn export_routers(&self, scope: &Scope) -> Answer<'_, Rows<RouterRecord>>;

    /// Makes all of these accounts, or none: every line is checked against the others and against
    /// what exists, and all are recorded in one transaction. `lines` come with their numbers, each
    /// was checked with [`RouterRecord::check`]. With `scripts` the answer has what a router is
    /// told.
    ///
    /// # Errors
    /// `busy` while another import is under way, `store_degraded`; what is wrong with lines is in
    /// the answer.
    fn import_routers(
        &self,
        scope: &Scope,
        lines: Vec<(u64, RouterRecord)>,
        scripts: bool,
    ) -> Answer<'_, Result<Rows<ImportedRouter>, ImportRefused>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_happens_to_the_revision_that_it_expects_only() {
        assert_eq!(Expected::Any.check(7), Ok(()));
        let expected = Expected::Revisions(vec![3, 7]);
        assert_eq!(expected.check(7), Ok(()));
        assert_eq!(expected.check(8).unwrap_err().code, ErrorCode::RevisionConflict);
        assert!(Expected::Revisions(Vec::new()).check(0).is_err());
    }
}
