//! Many accounts at a time: export and import.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::control_api::types::{
    ImportRefused, ImportedRouter, LineError, MAX_LINE_ERRORS, NewRouter, RouterRecord, SecretText,
    Timestamp,
};
use crate::control_api::{ApiError, ErrorCode, Rows, Scope};
use crate::identity::{Account, Directory, PreviousSecret, StoredSecret};
use crate::lease::{Planned, Wish};
use crate::store::Change;
use crate::telemetry::clock;

use super::super::super::events::TunnelEvent;
use super::super::ApiHandle;
use super::create::{hash, human_secret};
use super::refuse::{checked, directory_refusal, lease_refusal, router_exists};
use super::view::shown_login;

/// Lines of one import that may have a password which a person chose.
const MAX_SLOW_LINES: usize = 1000;
/// Accounts that an export takes at a time.
const EXPORT_CHUNK: usize = 256;

/// Every account in scope, read in parts so that no change waits long.
pub(super) struct Export {
    handle: Arc<ApiHandle>,
    scope: Scope,
    /// What was read and not given yet.
    ready: VecDeque<RouterRecord>,
    /// The last name that was looked at; `None` before the first.
    after: Option<Arc<str>>,
    done: bool,
}

impl Export {
    pub(super) fn new(handle: Arc<ApiHandle>, scope: Scope) -> Self {
        Self { handle, scope, ready: VecDeque::new(), after: None, done: false }
    }

    fn fill(&mut self) {
        let accounts: Vec<Arc<Account>> = {
            let directory = self.handle.core.accounts.read();
            directory.after(self.after.as_deref()).take(EXPORT_CHUNK).map(Arc::clone).collect()
        };
        self.done = accounts.len() < EXPORT_CHUNK;
        self.after = accounts.last().map(|account| Arc::clone(&account.name));
        let in_scope = |account: &&Arc<Account>| self.scope.covers(account.tenant.as_deref());
        let handle = &self.handle;
        self.ready
            .extend(accounts.iter().filter(in_scope).map(|account| record_of(handle, account)));
    }
}

impl Iterator for Export {
    type Item = RouterRecord;

    fn next(&mut self) -> Option<RouterRecord> {
        while self.ready.is_empty() && !self.done {
            self.fill();
        }
        self.ready.pop_front()
    }
}

fn record_of(handle: &ApiHandle, account: &Account) -> RouterRecord {
    let text = |secret: &StoredSecret| Some(SecretText(secret.to_text()));
    let held = handle.core.leases().address_of(&account.name);
    let previous = account.previous_at(clock::unix_seconds()).and(account.previous.as_ref());
    let secrets = [Some(&account.secret), previous.map(|previous| &previous.secret)];
    let keyed = secrets.iter().flatten().any(|secret| !secret.is_slow());
    RouterRecord {
        name: account.name.to_string(),
        username: Some(account.username.clone()),
        password: None,
        login: shown_login(account.login),
        certificate_cn: account.certificate_cn.clone(),
        cipher: account.cipher.clone(),
        auth: account.auth.clone(),
        address: account.address,
        pool_address: held.filter(|_| account.address.is_none()),
        tenant: account.tenant.as_deref().map(str::to_owned),
        tags: account.tags.clone(),
        note: account.note.clone(),
        disabled: account.disabled,
        created: Some(Timestamp(u64::try_from(account.created_at).unwrap_or(0))),
        secret: text(&account.secret),
        previous_secret: previous.and_then(|previous| text(&previous.secret)),
        previous_until: previous.map(|previous| Timestamp(previous.until)),
        server_key: keyed.then(|| handle.core.accounts.key_id()),
    }
}

/// One line on its way to an account.
struct Candidate {
    line: u64,
    new: NewRouter,
    wish: Wish,
    disabled: bool,
    created: Option<Timestamp>,
    previous: Option<PreviousSecret>,
    secret: Option<StoredSecret>,
    /// The password, if this import makes it known.
    password: Option<SecretText>,
}

/// Wrong lines: the first ones, and how many there are.
#[derive(Default)]
struct Wrong {
    lines: Vec<LineError>,
    count: u64,
}

impl Wrong {
    fn note(&mut self, line: u64, error: ApiError) {
        self.count = self.count.saturating_add(1);
        if self.lines.len() < MAX_LINE_ERRORS {
            self.lines.push(LineError::new(line, error));
        }
    }

    /// Keeps what is right and notes the rest.
    fn keep<T>(&mut self, line: u64, result: Result<T, ApiError>) -> Option<T> {
        result.map_err(|error| self.note(line, error)).ok()
    }

    fn refusal(self) -> Option<ImportRefused> {
        (self.count > 0).then(|| ImportRefused::of(self.lines, self.count))
    }
}

/// An account that was made, to be told about.
struct Made {
    line: u64,
    account: Arc<Account>,
    address: Ipv4Addr,
    password: Option<SecretText>,
}

type Imported = Result<Rows<ImportedRouter>, ImportRefused>;

/// Makes all accounts or none.
pub(super) async fn import(
    handle: Arc<ApiHandle>,
    scope: Scope,
    lines: Vec<(u64, RouterRecord)>,
    scripts: bool,
) -> Result<Imported, ApiError> {
    let Ok(_only) = handle.importing.try_acquire() else {
        let message = "another import is under way; try again when it has ended";
        return Err(ApiError::new(ErrorCode::Busy, message));
    };
    let mut wrong = Wrong::default();
    let key_id = handle.core.accounts.key_id();
    let candidates: Vec<Candidate> = lines
        .into_iter()
        .filter_map(|(line, record)| wrong.keep(line, candidate(&scope, &key_id, line, record)))
        .collect();
    let mut slow = candidates.iter().filter(|one| one.secret.is_none() && one.password.is_some());
    if let Some(over) = slow.nth(MAX_SLOW_LINES) {
        let message = format!("more than {MAX_SLOW_LINES} lines have a password; leave it out");
        wrong.note(over.line, ApiError::invalid("password", message));
    }
    if let Some(refused) = wrong.refusal() {
        return Ok(Err(refused));
    }
    let maker = Arc::clone(&handle);
    let candidates = hash(move || with_secrets(&maker, candidates)).await?;

    let _changing = handle.changing.lock().await;
    let unix = clock::unix_seconds();
    let mut wrong = Wrong::default();
    let mut made = Vec::with_capacity(candidates.len());
    let mut planned = Vec::with_capacity(candidates.len());
    {
        let mut fresh = Directory::new();
        for candidate in candidates {
            let line = candidate.line;
            let result = place(&handle, &scope, &mut fresh, candidate, unix);
            if let Some((one, plan)) = wrong.keep(line, result) {
                made.push(one);
                planned.push(plan);
            }
        }
    }
    if let Some(refused) = wrong.refusal() {
        abandon(&handle, planned);
        return Ok(Err(refused));
    }
    let changes = made.iter().zip(&planned).flat_map(|(one, plan)| {
        [Change::PutRouter(Account::clone(&one.account)), Change::PutLease(plan.record().clone())]
    });
    if let Err(error) = handle.commit(changes.collect()).await {
        abandon(&handle, planned);
        return Err(error);
    }
    show(&handle, &made, planned)?;
    tracing::info!(routers = made.len(), "routers imported");
    let teller = Arc::clone(&handle);
    let rows = made.into_iter().map(move |one| imported(&teller, one, scripts));
    Ok(Ok(Box::new(rows)))
}

/// Checks what can be checked of a line alone.
fn candidate(
    scope: &Scope,
    key_id: &str,
    line: u64,
    record: RouterRecord,
) -> Result<Candidate, ApiError> {
    let record = record.check()?;
    let parse = |field: &str, text: Option<SecretText>| {
        let parsed = text.map(|text| StoredSecret::parse(text.expose()));
        parsed.transpose().map_err(|error| ApiError::invalid(field, error.to_string()))
    };
    let secret = parse("secret", record.secret)?;
    let previous = parse("previous_secret", record.previous_secret)?;
    let keyed = [&secret, &previous].into_iter().flatten().any(|secret| !secret.is_slow());
    if keyed && record.server_key.as_deref() != Some(key_id) {
        return Err(ApiError::invalid(
            "server_key",
            "the secret was made under another server.secret and would let nobody in; copy that \
             file from the state_dir of the exporting host first, or leave secret out to make a \
             new password",
        ));
    }
    let wish = match (record.address, record.pool_address) {
        (Some(address), _) => Wish::Static(address),
        (None, Some(address)) => Wish::Pooled(address),
        (None, None) => Wish::Next,
    };
    let new = NewRouter {
        username: record.username,
        password: None,
        address: record.address,
        cipher: record.cipher,
        auth: record.auth,
        login: record.login,
        certificate_cn: record.certificate_cn,
        tenant: record.tenant,
        tags: record.tags,
        note: record.note,
        ..NewRouter::named(&record.name)
    };
    Ok(Candidate {
        line,
        new: checked(scope, new)?,
        wish,
        disabled: record.disabled,
        created: record.created,
        previous: previous
            .zip(record.previous_until)
            .map(|(secret, until)| PreviousSecret { secret, until: until.0 }),
        secret,
        password: record.password,
    })
}

/// Makes the secrets that are missing. Takes its time.
fn with_secrets(
    handle: &ApiHandle,
    mut candidates: Vec<Candidate>,
) -> Result<Vec<Candidate>, ApiError> {
    for one in &mut candidates {
        match (&one.secret, &one.password) {
            (Some(_), _) => {}
            (None, Some(password)) => one.secret = Some(human_secret(password)?),
            (None, None) => {
                let (password, secret) = handle.machine_secret(&one.new.name)?;
                (one.password, one.secret) = (Some(password), Some(secret));
            }
        }
    }
    Ok(candidates)
}

/// Checks a line against what exists and the lines before it, and puts its address aside.
fn place(
    handle: &ApiHandle,
    scope: &Scope,
    fresh: &mut Directory,
    candidate: Candidate,
    unix: u64,
) -> Result<(Made, Planned), ApiError> {
    let Candidate { line, new, wish, disabled, created, previous, secret, password } = candidate;
    let Some(secret) = secret else {
        return Err(ApiError::new(ErrorCode::Internal, "a line without a secret"));
    };
    let exists = handle.core.accounts.read().get(&new.name).is_some();
    if exists || fresh.get(&new.name).is_some() {
        return Err(router_exists(&new.name));
    }
    let mut account = Account { disabled, previous, ..handle.new_account(new, secret, unix)? };
    if let Some(created) = created {
        account.created_at = i64::try_from(created.0).unwrap_or(i64::MAX);
    }
    handle.core.accounts.read().check(&account).map_err(directory_refusal)?;
    fresh.check(&account).map_err(directory_refusal)?;
    let planned = handle.core.leases().plan(&account.name, wish, unix);
    let planned = planned.map_err(|error| {
        let error = lease_refusal(scope, error);
        match wish {
            Wish::Pooled(_) => ApiError { field: Some("pool_address".to_owned()), ..error },
            _ => error,
        }
    })?;
    let address = planned.address();
    if let Err(error) = fresh.insert(account.clone()) {
        handle.core.leases().abandon(planned);
        return Err(directory_refusal(error));
    }
    Ok((Made { line, account: Arc::new(account), address, password }, planned))
}

fn abandon(handle: &ApiHandle, planned: Vec<Planned>) {
    let mut leases = handle.core.leases();
    for plan in planned {
        leases.abandon(plan);
    }
}

/// Shows what is on disk, all at once, and tells.
fn show(handle: &ApiHandle, made: &[Made], planned: Vec<Planned>) -> Result<(), ApiError> {
    {
        let mut leases = handle.core.leases();
        for plan in planned {
            leases.settle(plan);
        }
    }
    {
        let mut directory = handle.core.accounts.write();
        for one in made {
            directory.insert(Account::clone(&one.account)).map_err(directory_refusal)?;
        }
    }
    for one in made {
        let router = Arc::clone(&one.account.name);
        handle.core.tell(TunnelEvent::RouterAdded { router: Arc::clone(&router) });
        handle.core.tell(TunnelEvent::AddressGiven { router, address: one.address });
    }
    Ok(())
}

/// What a caller is told of one account. Scripts are made here, when they are read: all of them at
/// once would take much memory.
fn imported(handle: &ApiHandle, made: Made, scripts: bool) -> ImportedRouter {
    let Made { line, account, address, password } = made;
    let known = password.as_ref().filter(|_| scripts);
    let texts = known.and_then(|password| {
        let texts = handle.core.settings.current().provisioning.texts(&account, password, false);
        texts
            .inspect_err(|error| tracing::error!(router = %account.name, %error, "no scripts"))
            .ok()
    });
    let (script, script_v6, ovpn) = match texts {
        Some(texts) => (Some(texts.script), Some(texts.script_v6), Some(texts.ovpn)),
        None => (None, None, None),
    };
    ImportedRouter {
        line,
        name: account.name.to_string(),
        username: account.username.clone(),
        address: Some(address),
        password,
        script: script.map(SecretText),
        script_v6: script_v6.map(SecretText),
        ovpn: ovpn.map(SecretText),
    }
}
