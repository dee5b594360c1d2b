//! Making one account.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tunnelhead_crypto::SystemRandom;

use crate::control_api::types::{CreatedRouter, NewRouter, SecretText};
use crate::control_api::{ApiError, ErrorCode, Scope};
use crate::identity::{Account, StoredSecret, default_username, generate_password};
use crate::lease::Wish;
use crate::store::Change;
use crate::telemetry::clock;

use super::super::super::events::TunnelEvent;
use super::super::ApiHandle;
use super::refuse::{checked, directory_refusal, lease_refusal, no_randomness, router_exists};
use super::view::login_mode;

/// Hashes of human-set passwords at a time: 19 MiB each.
static HASHING: Semaphore = Semaphore::const_new(2);

impl ApiHandle {
    pub(super) async fn add(
        &self,
        scope: &Scope,
        new: NewRouter,
    ) -> Result<CreatedRouter, ApiError> {
        let new = checked(scope, new)?;
        let verify_server = new.verify_server;
        let (password, secret) = self.new_secret(&new.name, new.password.clone()).await?;
        let _changing = self.changing.lock().await;
        if self.core.accounts.read().get(&new.name).is_some() {
            return Err(router_exists(&new.name));
        }
        let unix = clock::unix_seconds();
        let account = self.new_account(new, secret, unix)?;
        self.core.accounts.read().check(&account).map_err(directory_refusal)?;
        let wish = account.address.map_or(Wish::Next, Wish::Static);
        let planned = self.core.leases().plan(&account.name, wish, unix);
        let planned = planned.map_err(|error| lease_refusal(scope, error))?;
        let changes =
            vec![Change::PutRouter(account.clone()), Change::PutLease(planned.record().clone())];
        if let Err(error) = self.commit(changes).await {
            self.core.leases().abandon(planned);
            return Err(error);
        }
        let address = planned.address();
        self.core.leases().settle(planned);
        self.replace(account.clone())?;
        tracing::info!(router = %account.name, "router added");
        let router = Arc::clone(&account.name);
        self.core.tell(TunnelEvent::RouterAdded { router: Arc::clone(&router) });
        self.core.tell(TunnelEvent::AddressGiven { router, address });
        self.provisioned(&account, password, verify_server)
    }

    /// The account that is asked for; not yet checked against the others.
    pub(super) fn new_account(
        &self,
        new: NewRouter,
        secret: StoredSecret,
        unix: u64,
    ) -> Result<Account, ApiError> {
        let username = match new.username {
            Some(username) => username,
            None => default_username(&new.name, &mut SystemRandom).map_err(|_| no_randomness())?,
        };
        let login = login_mode(new.login);
        let certificate_cn = match (new.certificate_cn, login.wants_certificate()) {
            (Some(common_name), _) => Some(common_name),
            (None, true) => Some(new.name.clone()),
            (None, false) => None,
        };
        Ok(Account {
            login,
            certificate_cn,
            cipher: new.cipher,
            auth: new.auth,
            address: new.address,
            created_at: i64::try_from(unix).unwrap_or(i64::MAX),
            tenant: new.tenant.map(Into::into),
            tags: new.tags,
            note: new.note,
            revision: self.core.accounts.next_revision(unix),
            ..Account::named(&new.name, &username, secret)
        })
    }

    /// The password, made or as given, and what is kept of it.
    pub(super) async fn new_secret(
        &self,
        name: &str,
        given: Option<SecretText>,
    ) -> Result<(SecretText, StoredSecret), ApiError> {
        let Some(password) = given else { return self.machine_secret(name) };
        let text = password.clone();
        let secret = hash(move || Ok(vec![human_secret(&text)?])).await?.pop();
        let secret = secret.ok_or_else(|| ApiError::new(ErrorCode::Internal, "no hash"))?;
        Ok((password, secret))
    }

    pub(super) fn machine_secret(
        &self,
        name: &str,
    ) -> Result<(SecretText, StoredSecret), ApiError> {
        let password = generate_password(&mut SystemRandom).map_err(|_| no_randomness())?;
        let secret = StoredSecret::machine(self.core.accounts.key(), name, password.as_bytes());
        Ok((SecretText(password), secret))
    }
}

pub(super) fn human_secret(password: &SecretText) -> Result<StoredSecret, ApiError> {
    StoredSecret::argon2id(password.expose().as_bytes(), &mut SystemRandom)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))
}

/// Does slow work off the threads that serve requests, a bounded part of it at a time.
pub(super) async fn hash<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let stopping = || ApiError::new(ErrorCode::Unavailable, "the concentrator is stopping");
    let _place = HASHING.acquire().await.map_err(|_| stopping())?;
    tokio::task::spawn_blocking(work).await.map_err(|_| stopping())?
}
