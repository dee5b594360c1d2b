//! What is shown of an account.

use crate::control_api::types::{
    CreatedRouter, List, Login, Page, RotationView, RouterFilter, RouterView, SecretText, Timestamp,
};
use crate::control_api::{ApiError, Scope};
use crate::identity::{Account, LoginMode};
use crate::telemetry::clock;

use super::super::ApiHandle;

impl ApiHandle {
    pub(super) fn routers_page(
        &self,
        scope: &Scope,
        filter: &RouterFilter,
        page: &Page,
    ) -> List<RouterView> {
        let event_id = self.core.event_id();
        let directory = self.core.accounts.read();
        let fitting = directory.after(page.after.as_deref()).filter_map(|account| {
            let tenant = account.tenant.as_deref();
            // What costs nothing first: most of a large fleet need not be looked up.
            let fits = scope.covers(tenant)
                && filter.fits_account(&account.name, tenant, &account.tags, account.disabled);
            let view = fits.then(|| self.view(account))?;
            filter.fits_state(view.connected, view.last_seen).then_some(view)
        });
        let views = fitting.take(page.limit.saturating_add(1)).collect();
        page.cut(event_id, views, |view| &view.name)
    }

    pub(super) fn view(&self, account: &Account) -> RouterView {
        let unix = clock::unix_seconds();
        // As the events tell it: a login whose tunnel never comes up is no news.
        let connected = self.core.events.is_up(&account.name);
        let last_seen =
            if connected { Some(unix) } else { self.core.accounts.last_seen(&account.name) };
        let rotation = account.previous_at(unix).and(account.previous.as_ref());
        RouterView {
            name: account.name.to_string(),
            username: account.username.clone(),
            login: shown_login(account.login),
            certificate_cn: account.certificate_cn.clone(),
            cipher: account.cipher.clone(),
            auth: account.auth.clone(),
            address: self.core.leases().address_of(&account.name),
            address_static: account.address.is_some(),
            disabled: account.disabled,
            connected,
            created: Timestamp(u64::try_from(account.created_at).unwrap_or(0)),
            last_seen: last_seen.map(Timestamp),
            tenant: account.tenant.as_deref().map(str::to_owned),
            tags: account.tags.clone(),
            note: account.note.clone(),
            rotation: rotation.map(|previous| RotationView {
                ends: Timestamp(previous.until),
                new_used: self.core.accounts.uses_new_password(&account.name),
            }),
            revision: account.revision,
        }
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

    pub(super) fn provisioned(
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
}

pub(super) fn shown_login(login: LoginMode) -> Login {
    match login {
        LoginMode::Password => Login::Password,
        LoginMode::Certificate => Login::Certificate,
        LoginMode::Both => Login::Both,
    }
}

pub(super) fn login_mode(login: Login) -> LoginMode {
    match login {
        Login::Password => LoginMode::Password,
        Login::Certificate => LoginMode::Certificate,
        Login::Both => LoginMode::Both,
    }
}
