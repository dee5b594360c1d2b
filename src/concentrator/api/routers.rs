//! Router accounts.

use std::sync::Arc;

use tunnelhead_crypto::SystemRandom;

use crate::concentrator::TunnelEvent;
use crate::control_api::types::{
    CreatedRouter, List, Login, NewRouter, RouterPatch, RouterView, SecretText, Timestamp,
};
use crate::control_api::{Answer, ApiError, ErrorCode, Routers, Scope};
use crate::identity::{
    Account, DirectoryError, LoginMode, StoredSecret, default_username, generate_password,
};
use crate::lease::LeaseError;
use crate::shard::Cut;
use crate::store::Change;
use crate::telemetry::clock;

use super::{ApiHandle, to_the_end};

impl ApiHandle {
    fn view(&self, account: &Account) -> RouterView {
        let leases = self.core.leases();
        let connected = self.core.events.is_up(&account.name);
        let last_seen = if connected {
            Some(Timestamp(clock::unix_seconds()))
        } else {
            // A lease counts as used from the moment it is made; a router was seen only later.
            let lease = leases.record_of(&account.name).filter(|l| l.last_used > l.since);
            lease.map(|lease| Timestamp(lease.last_used))
        };
        RouterView {
            name: account.name.to_string(),
            username: account.username.clone(),
            login: match account.login {
                LoginMode::Password => Login::Password,
                LoginMode::Certificate => Login::Certificate,
                LoginMode::Both => Login::Both,
            },
            certificate_cn: account.certificate_cn.clone(),
            cipher: account.cipher.clone(),
            auth: account.auth.clone(),
            address: leases.address_of(&account.name),
            address_static: account.address.is_some(),
            disabled: account.disabled,
            connected,
            created: Timestamp(u64::try_from(account.created_at).unwrap_or(0)),
            last_seen,
        }
    }

    async fn add(&self, new: NewRouter) -> Result<CreatedRouter, ApiError> {
        let new = new.check()?;
        let _changing = self.changing.lock().await;
        if self.core.accounts.read().get(&new.name).is_some() {
            let message = format!("a router \"{}\" exists already", new.name);
            return Err(ApiError::field(ErrorCode::RouterExists, "name", message));
        }
        let password = match &new.password {
            Some(password) => password.clone(),
            None => SecretText(generate_password(&mut SystemRandom).map_err(|_| no_randomness())?),
        };
        let account = self.make_account(&new, &password).await?;
        // Shown as disabled until it is on disk: the names are taken, nobody gets in.
        self.replace(Account { disabled: true, ..account.clone() })?;
        let recorded = self.record(&account).await;
        if let Err(error) = recorded {
            self.core.accounts.write().remove(&account.name);
            return Err(error);
        }
        self.replace(account.clone())?;
        tracing::info!(router = %account.name, "router added");
        let router = Arc::clone(&account.name);
        let address = self.core.leases().address_of(&router);
        self.core.tell(TunnelEvent::RouterAdded { router: Arc::clone(&router) });
        if let Some(address) = address {
            self.core.tell(TunnelEvent::AddressGiven { router, address });
        }
        self.provisioned(&account, password, new.verify_server)
    }

    /// The scripts of an account whose password is known to the caller.
    pub(in crate::concentrator) fn provision(
        &self,
        name: &str,
        password: SecretText,
        verify_server: bool,
    ) -> Result<CreatedRouter, ApiError> {
        let account = self.account(&Scope::All, name)?;
        self.provisioned(&account, password, verify_server)
    }

    fn provisioned(
        &self,
        account: &Account,
        password: SecretText,
        verify_server: bool,
    ) -> Result<CreatedRouter, ApiError> {
        let texts =
            self.core.settings.current().provisioning.texts(account, &password, verify_server)?;
        Ok(CreatedRouter {
            router: self.view(account),
            password,
            script: SecretText(texts.script),
            script_v6: SecretText(texts.script_v6),
            ovpn: SecretText(texts.ovpn),
        })
    }

    /// Takes an address for a new account and commits both.
    async fn record(&self, account: &Account) -> Result<(), ApiError> {
        let unix = clock::unix_seconds();
        let lease = {
            let mut leases = self.core.leases();
            match account.address {
                Some(address) => leases.reserve_static(&account.name, address, unix),
                None => leases.acquire(&account.name, unix),
            }
            .map_err(lease_refusal)?;
            leases.record_of(&account.name).cloned()
        };
        let mut changes = vec![Change::PutRouter(account.clone())];
        changes.extend(lease.map(Change::PutLease));
        let committed = self.commit(changes).await;
        if committed.is_err() {
            self.core.leases().release(&account.name, unix);
        }
        committed
    }

    async fn make_account(
        &self,
        new: &NewRouter,
        password: &SecretText,
    ) -> Result<Account, ApiError> {
        let username = match &new.username {
            Some(username) => username.clone(),
            None => default_username(&new.name, &mut SystemRandom).map_err(|_| no_randomness())?,
        };
        let login = match new.login {
            Login::Password => LoginMode::Password,
            Login::Certificate => LoginMode::Certificate,
            Login::Both => LoginMode::Both,
        };
        let secret = if new.password.is_some() {
            let text = password.clone();
            tokio::task::spawn_blocking(move || {
                StoredSecret::argon2id(text.expose().as_bytes(), &mut SystemRandom)
            })
            .await
            .map_err(|_| ApiError::new(ErrorCode::Unavailable, "the concentrator is stopping"))?
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?
        } else {
            StoredSecret::machine(self.core.accounts.key(), &new.name, password.expose().as_bytes())
        };
        let certificate_cn = match (&new.certificate_cn, login.wants_certificate()) {
            (Some(common_name), _) => Some(common_name.clone()),
            (None, true) => Some(new.name.clone()),
            (None, false) => None,
        };
        let account = Account {
            name: new.name.as_str().into(),
            username,
            secret,
            login,
            certificate_cn,
            cipher: new.cipher.clone(),
            auth: new.auth.clone(),
            disabled: false,
            address: new.address,
            created_at: i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX),
            tenant: None,
            tags: Vec::new(),
            note: String::new(),
            previous: None,
            revision: 0,
        };
        Ok(account)
    }

    async fn patch(
        &self,
        scope: &Scope,
        name: &str,
        patch: RouterPatch,
    ) -> Result<RouterView, ApiError> {
        let _changing = self.changing.lock().await;
        let account = self.account(scope, name)?;
        let Some(disabled) = patch.disabled else { return Ok(self.view(&account)) };
        let changed = Account { disabled, ..Account::clone(&account) };
        if disabled && !account.disabled {
            // Shut first: an operator who disables a router means now, whatever the disk says.
            self.replace(changed.clone())?;
            self.core.cut(name, Cut::Disabled);
            self.commit(vec![Change::PutRouter(changed.clone())]).await.map_err(|error| {
                let message = format!(
                    "{name} is cut and shut out until the concentrator restarts, but that could \
                     not be recorded: {}",
                    error.message
                );
                ApiError { message, ..error }
            })?;
        } else {
            self.commit(vec![Change::PutRouter(changed.clone())]).await?;
            self.replace(changed.clone())?;
        }
        tracing::info!(router = name, disabled, "router changed");
        self.core.tell(TunnelEvent::RouterChanged { router: Arc::clone(&changed.name) });
        Ok(self.view(&changed))
    }

    fn replace(&self, account: Account) -> Result<(), ApiError> {
        self.core.accounts.write().insert(account).map(|_| ()).map_err(directory_refusal)
    }

    async fn remove(&self, scope: &Scope, name: &str) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let account = self.account(scope, name)?;
        let unix = clock::unix_seconds();
        let released = Change::ReleaseLease { identity: Arc::clone(&account.name), at: unix };
        self.commit(vec![Change::DeleteRouter { name: Arc::clone(&account.name) }, released])
            .await?;
        self.core.accounts.write().remove(name);
        self.core.recorder().forget(name);
        self.core.cut(name, Cut::Removed);
        self.core.leases().release(name, unix);
        tracing::info!(router = name, "router removed");
        self.core.tell(TunnelEvent::RouterRemoved {
            router: Arc::clone(&account.name),
            tenant: account.tenant.clone(),
        });
        Ok(())
    }
}

impl Routers for Arc<ApiHandle> {
    fn add_router(&self, _: &Scope, new: NewRouter) -> Answer<'_, CreatedRouter> {
        let handle = Self::clone(self);
        Box::pin(to_the_end(async move { handle.add(new).await }))
    }

    fn list_routers(&self, scope: &Scope) -> Answer<'_, List<RouterView>> {
        let scope = scope.clone();
        Box::pin(async move {
            let event_id = self.core.event_id();
            let accounts: Vec<Arc<Account>> = {
                let directory = self.core.accounts.read();
                let in_scope = |a: &&Arc<Account>| scope.covers(a.tenant.as_deref());
                directory.iter().filter(in_scope).map(Arc::clone).collect()
            };
            let mut views: Vec<RouterView> =
                accounts.iter().map(|account| self.view(account)).collect();
            views.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(List::complete(event_id, views))
        })
    }

    fn get_router(&self, scope: &Scope, name: &str) -> Answer<'_, RouterView> {
        let found = self.account(scope, name).map(|account| self.view(&account));
        Box::pin(async { found })
    }

    fn patch_router(
        &self,
        scope: &Scope,
        name: &str,
        patch: RouterPatch,
    ) -> Answer<'_, RouterView> {
        let (handle, scope, name) = (Self::clone(self), scope.clone(), name.to_owned());
        Box::pin(to_the_end(async move { handle.patch(&scope, &name, patch).await }))
    }

    fn remove_router(&self, scope: &Scope, name: &str) -> Answer<'_, ()> {
        let (handle, scope, name) = (Self::clone(self), scope.clone(), name.to_owned());
        Box::pin(to_the_end(async move { handle.remove(&scope, &name).await }))
    }
}

fn no_randomness() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the operating system gives no randomness")
}

fn lease_refusal(error: LeaseError) -> ApiError {
    let message = error.to_string();
    match error {
        LeaseError::PoolFull { .. } | LeaseError::Unknown { .. } => {
            ApiError::new(ErrorCode::PoolFull, message)
        }
        LeaseError::Taken { .. } | LeaseError::Resting { .. } => {
            ApiError::field(ErrorCode::AddressTaken, "address", message)
        }
        _ => ApiError::invalid("address", message),
    }
}

fn directory_refusal(error: DirectoryError) -> ApiError {
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
        _ => ApiError::new(ErrorCode::Invalid, message),
    }
}
