//! Changing, rotating, readdressing and deleting an account.

use std::sync::Arc;

use crate::control_api::types::{
    CreatedRouter, Patch, RotateRouter, RouterPatch, RouterView, check_pair,
};
use crate::control_api::{ApiError, Expected, Scope};
use crate::identity::{Account, LoginMode, PreviousSecret};
use crate::lease::{Planned, Wish};
use crate::shard::Cut;
use crate::store::Change;
use crate::telemetry::clock;

use super::super::super::events::TunnelEvent;
use super::super::ApiHandle;
use super::refuse::{check_tenant_in, directory_refusal, lease_refusal};

impl ApiHandle {
    pub(super) async fn patch(
        &self,
        scope: &Scope,
        name: &str,
        expected: &Expected,
        patch: RouterPatch,
    ) -> Result<RouterView, ApiError> {
        let patch = patch.check()?;
        let _changing = self.changing.lock().await;
        let account = self.account(scope, name)?;
        expected.check(account.revision)?;
        let wish = wish_of(&account, &patch.address, self.core.leases().address_of(name));
        let mut changed = patched(&account, patch)?;
        if changed.tenant != account.tenant {
            check_tenant_in(scope, changed.tenant.as_deref())?;
        }
        if changed == *account {
            return Ok(self.view(&account));
        }
        let unix = clock::unix_seconds();
        changed.revision = self.core.accounts.next_revision(unix);
        self.core.accounts.read().check(&changed).map_err(directory_refusal)?;
        let planned = wish.map(|wish| self.core.leases().plan(name, wish, unix)).transpose();
        let planned = planned.map_err(|error| lease_refusal(scope, error))?;
        let shut = changed.disabled && !account.disabled;
        if shut {
            // Shut first: an operator who disables a router means now, whatever the disk says.
            let shut =
                Account { disabled: true, revision: changed.revision, ..Account::clone(&account) };
            self.replace(shut)?;
            self.cut_now(name, Cut::Disabled).await;
        }
        self.apply(&account, changed, planned).await.map_err(|error| match shut {
            true => {
                self.core.tell(TunnelEvent::RouterChanged { router: Arc::clone(&account.name) });
                let message = format!(
                    "{name} is cut and shut out until the concentrator restarts, but that could \
                     not be recorded: {}",
                    error.message
                );
                ApiError { message, ..error }
            }
            false => error,
        })
    }

    pub(super) async fn readdress(
        &self,
        scope: &Scope,
        name: &str,
        expected: &Expected,
    ) -> Result<RouterView, ApiError> {
        let _changing = self.changing.lock().await;
        let account = self.account(scope, name)?;
        expected.check(account.revision)?;
        if account.address.is_some() {
            return Err(ApiError::invalid(
                "address",
                "this router has a static address; clear or change that instead",
            ));
        }
        let unix = clock::unix_seconds();
        let planned = self.core.leases().plan(name, Wish::Next, unix);
        let planned = planned.map_err(|error| lease_refusal(scope, error))?;
        let revision = self.core.accounts.next_revision(unix);
        let changed = Account { revision, ..Account::clone(&account) };
        self.apply(&account, changed, Some(planned)).await
    }

    pub(super) async fn rotate(
        &self,
        scope: &Scope,
        name: &str,
        expected: &Expected,
        rotate: RotateRouter,
    ) -> Result<CreatedRouter, ApiError> {
        let rotate = rotate.check()?;
        // Before the slow hash: a stranger's name costs nothing, nor does a lost race.
        expected.check(self.account(scope, name)?.revision)?;
        let (password, secret) = self.new_secret(name, rotate.password.clone()).await?;
        let _changing = self.changing.lock().await;
        let account = self.account(scope, name)?;
        expected.check(account.revision)?;
        if account.login == LoginMode::Certificate {
            return Err(ApiError::invalid(
                "login",
                "this router logs in with its certificate alone; it has no password to rotate",
            ));
        }
        let unix = clock::unix_seconds();
        let grace = rotate.grace();
        let unused =
            account.previous_at(unix).filter(|_| !self.core.accounts.uses_new_password(name));
        let known = unused.unwrap_or(&account.secret).clone();
        let until = unix.saturating_add(grace);
        let changed = Account {
            secret,
            previous: (grace > 0).then_some(PreviousSecret { secret: known, until }),
            revision: self.core.accounts.next_revision(unix),
            ..Account::clone(&account)
        };
        self.commit(vec![Change::PutRouter(changed.clone())]).await?;
        self.replace(changed.clone())?;
        self.core.accounts.forget_rotation(name);
        if grace == 0 {
            self.cut_now(name, Cut::Rotated).await;
        }
        tracing::info!(router = name, grace, "password rotated");
        self.core.tell(TunnelEvent::RouterChanged { router: Arc::clone(&changed.name) });
        self.provisioned(&changed, password, rotate.verify_server)
    }

    pub(super) async fn remove(
        &self,
        scope: &Scope,
        name: &str,
        expected: &Expected,
    ) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let account = self.account(scope, name)?;
        expected.check(account.revision)?;
        let unix = clock::unix_seconds();
        let router = Arc::clone(&account.name);
        let released = Change::ReleaseLease { identity: Arc::clone(&router), at: unix };
        self.commit(vec![Change::DeleteRouter { name: Arc::clone(&router) }, released]).await?;
        self.core.accounts.write().remove(name);
        self.cut_now(name, Cut::Removed).await;
        self.core.leases().release(name, unix);
        self.core.accounts.forget(name);
        self.core.recorder().forget(name);
        tracing::info!(router = name, "router removed");
        self.core.tell(TunnelEvent::RouterRemoved { router, tenant: account.tenant.clone() });
        Ok(())
    }

    /// Commits the account and the lease, then shows both and tells.
    async fn apply(
        &self,
        old: &Account,
        changed: Account,
        planned: Option<Planned>,
    ) -> Result<RouterView, ApiError> {
        let mut changes = vec![Change::PutRouter(changed.clone())];
        changes.extend(planned.as_ref().map(|planned| Change::PutLease(planned.record().clone())));
        if let Err(error) = self.commit(changes).await {
            if let Some(planned) = planned {
                self.core.leases().abandon(planned);
            }
            return Err(error);
        }
        let name = Arc::clone(&changed.name);
        let moved = planned.as_ref().filter(|planned| planned.moves()).map(Planned::address);
        if let Some(planned) = planned {
            self.core.leases().settle(planned);
        }
        self.replace(changed.clone())?;
        if moved.is_some() {
            self.cut_now(&name, Cut::Readdressed).await;
        }
        tracing::info!(router = %name, disabled = changed.disabled, "router changed");
        if changed.tenant != old.tenant {
            self.core.tell_moved(&name, old.tenant.clone());
        }
        self.core.tell(TunnelEvent::RouterChanged { router: Arc::clone(&name) });
        if let Some(address) = moved {
            self.core.tell(TunnelEvent::AddressGiven { router: name, address });
        }
        Ok(self.view(&changed))
    }

    /// Ends the rotations whose grace period is over: their old passwords are forgotten, and
    /// tunnels that were opened with them are cut. Blocks; for the housekeeping thread.
    pub(in crate::concentrator) fn end_rotations(&self, unix: u64) {
        if self.core.accounts.read().rotating() == 0 {
            return;
        }
        let _changing = self.changing.blocking_lock();
        let over = |account: &&Arc<Account>| {
            account.previous.as_ref().is_some_and(|previous| previous.until <= unix)
        };
        let ended: Vec<Arc<Account>> =
            self.core.accounts.read().iter().filter(over).map(Arc::clone).collect();
        for account in ended {
            let changed = Account { previous: None, ..Account::clone(&account) };
            // Nobody waits for the disk: there, the end of the grace period is recorded already.
            self.core.store.submit(vec![Change::PutRouter(changed.clone())], None);
            if self.replace(changed).is_err() {
                continue;
            }
            let name = &account.name;
            if !self.core.accounts.uses_new_password(name) {
                self.core.cut(name, Cut::Rotated);
            }
            self.core.accounts.forget_rotation(name);
            tracing::info!(router = %name, "the old password counts no more");
            self.core.tell(TunnelEvent::RouterChanged { router: Arc::clone(name) });
        }
    }
}

/// The account as the patch has it, with its old revision.
fn patched(account: &Account, patch: RouterPatch) -> Result<Account, ApiError> {
    let old = account.clone();
    let changed = Account {
        disabled: patch.disabled.apply(Some(old.disabled)).unwrap_or(old.disabled),
        tags: patch.tags.apply(Some(old.tags)).unwrap_or_default(),
        tenant: patch.tenant.apply(old.tenant.as_deref().map(str::to_owned)).map(Into::into),
        address: patch.address.apply(old.address),
        cipher: patch.cipher.apply(old.cipher),
        auth: patch.auth.apply(old.auth),
        note: patch.note.apply(Some(old.note)).unwrap_or_default(),
        ..account.clone()
    };
    check_pair(changed.cipher.as_deref(), changed.auth.as_deref())?;
    Ok(changed)
}

/// What a patch means for the lease. A router that loses its static address keeps it as one of
/// the pool; one that never had an address waits for its first login.
fn wish_of(
    account: &Account,
    address: &Patch<std::net::Ipv4Addr>,
    held: Option<std::net::Ipv4Addr>,
) -> Option<Wish> {
    match address {
        Patch::Set(address) if account.address != Some(*address) => Some(Wish::Static(*address)),
        Patch::Clear if account.address.is_some() => held.map(Wish::Pooled),
        _ => None,
    }
}
