//! Rows to values and back: the only SQL beside the schema.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::fault::Fault;
use super::{audit, history};
use crate::identity::{Account, PreviousSecret, StoredSecret};
use crate::lease::LeaseRecord;
use crate::store::{Activity, Change, Snapshot};

/// Reads everything from a database of schema `version`; older ones too, for a disk that does not
/// let us migrate.
pub(super) fn load(db: &Connection, version: i64) -> Result<Snapshot, Fault> {
    let since_3 = if version >= 3 {
        "tenant, tags, note, previous_secret, previous_until, revision"
    } else {
        "NULL, '', '', NULL, NULL, 0"
    };
    let accounts = collect(
        db,
        &format!(
            "SELECT name, username, secret, login, certificate_cn, cipher, auth, disabled, address,
                    created_at, {since_3}
             FROM routers ORDER BY name"
        ),
        account,
    )?;
    let last_used = if version >= 2 { "last_used_at" } else { "since" };
    let mut leases = collect(
        db,
        &format!("SELECT address, identity, fixed, since, {last_used}, released_at FROM leases"),
        lease,
    )?;
    leases.sort_unstable_by_key(|lease| lease.address);
    let activity = if version >= 2 {
        collect(
            db,
            "SELECT router, last_seen_at, real_address FROM router_activity ORDER BY router",
            activity,
        )?
    } else {
        Vec::new()
    };
    if version < 3 {
        return Ok(Snapshot { accounts, leases, activity, ..Snapshot::default() });
    }
    Ok(Snapshot {
        accounts,
        leases,
        activity,
        marks: history::marks(db)?,
        audit_head: audit::head(db)?,
        audit_seal: audit::newest_seal(db)?,
    })
}

/// Makes one change within the transaction that is open on `db`.
pub(super) fn apply(db: &Connection, change: &Change) -> Result<(), Fault> {
    match change {
        Change::PutRouter(account) => put_router(db, account)?,
        Change::DeleteRouter { name } => {
            db.prepare_cached("DELETE FROM routers WHERE name = ?1")?.execute([&**name])?;
        }
        Change::PutLease(record) => put_lease(db, record)?,
        Change::ReleaseLease { identity, at } => {
            history::end_holdings(db, identity, *at)?;
            db.prepare_cached(
                "UPDATE leases SET released_at = ?2, fixed = 0
                 WHERE identity = ?1 AND released_at IS NULL",
            )?
            .execute(params![&**identity, integer(*at)])?;
        }
        Change::ForgetLeases { released_before } => {
            db.prepare_cached("DELETE FROM leases WHERE released_at < ?1")?
                .execute([integer(*released_before)])?;
        }
        Change::Touch { identity, at, real_address } => {
            touch(db, identity, *at, *real_address)?;
        }
        Change::OpenSession(session) | Change::CloseSession(session) => {
            history::put_session(db, session)?;
        }
        Change::EndSessions { reason } => history::end_sessions(db, reason)?,
        Change::Alive { at } => history::raise(db, history::ALIVE_AT, *at)?,
        Change::PruneSessions { before, at_most } => history::prune(db, *before, *at_most)?,
        Change::ReserveEvents { up_to } => history::raise(db, history::EVENTS_RESERVED, *up_to)?,
        Change::AppendAudit(record) => audit::append(db, record)?,
        Change::SealAudit(seal) => audit::seal(db, seal)?,
        Change::PruneAudit { through, at_most } => audit::prune(db, *through, *at_most)?,
    }
    Ok(())
}

/// Writes something that does not matter, to find out whether there is room to write.
pub(super) fn probe(db: &Connection) -> Result<(), Fault> {
    let transaction = db.unchecked_transaction()?;
    transaction.execute(
        "INSERT INTO write_probe (id, count, padding) VALUES (1, 1, zeroblob(?1))
         ON CONFLICT (id) DO UPDATE SET count = count + 1, padding = excluded.padding",
        [HEADROOM_BYTES],
    )?;
    transaction.execute("UPDATE write_probe SET padding = NULL", ())?;
    transaction.commit()?;
    Ok(())
}

fn put_router(db: &Connection, account: &Account) -> Result<(), Fault> {
    account.check().map_err(|error| Fault::Conflict(error.to_string()))?;
    db.prepare_cached(
        "INSERT INTO routers (name, username, secret, login, certificate_cn, cipher, auth,
                              disabled, address, created_at, tenant, tags, note,
                              previous_secret, previous_until, revision)
         VALUES (:name, :username, :secret, :login, :certificate_cn, :cipher, :auth,
                 :disabled, :address, :created_at, :tenant, :tags, :note,
                 :previous_secret, :previous_until, :revision)
         ON CONFLICT (name) DO UPDATE SET
             username = excluded.username, secret = excluded.secret, login = excluded.login,
             certificate_cn = excluded.certificate_cn, cipher = excluded.cipher,
             auth = excluded.auth, disabled = excluded.disabled, address = excluded.address,
             created_at = excluded.created_at, tenant = excluded.tenant,
             tags = excluded.tags, note = excluded.note,
             previous_secret = excluded.previous_secret,
             previous_until = excluded.previous_until, revision = excluded.revision",
    )?
    .execute(named_params! {
        ":name": &*account.name,
        ":username": account.username,
        ":secret": account.secret.to_text(),
        ":login": account.login.as_str(),
        ":certificate_cn": account.certificate_cn,
        ":cipher": account.cipher,
        ":auth": account.auth,
        ":disabled": account.disabled,
        ":address": account.address.map(|address| address.to_string()),
        ":created_at": account.created_at,
        ":tenant": account.tenant.as_deref(),
        ":tags": account.tags.join(" "),
        ":note": account.note,
        ":previous_secret": account.previous.as_ref().map(|previous| previous.secret.to_text()),
        ":previous_until": account.previous.as_ref().map(|previous| integer(previous.until)),
        ":revision": integer(account.revision),
    })?;
    Ok(())
}

fn put_lease(db: &Connection, record: &LeaseRecord) -> Result<(), Fault> {
    let address = record.address.to_string();
    let holder: Option<String> = db
        .prepare_cached("SELECT identity FROM leases WHERE address = ?1 AND released_at IS NULL")?
        .query_row([&address], |row| row.get(0))
        .optional()?;
    if holder.is_some_and(|holder| *holder != *record.identity) {
        return Err(Fault::Conflict("another identity holds the address".to_owned()));
    }
    if record.released_at.is_none() {
        db.prepare_cached(
            "UPDATE leases SET released_at = ?3, fixed = 0
             WHERE identity = ?1 AND address <> ?2 AND released_at IS NULL",
        )?
        .execute(params![&*record.identity, address, integer(record.since)])?;
    }
    history::hold(db, record)?;
    db.prepare_cached(
        "INSERT OR REPLACE INTO leases (address, identity, fixed, since, last_used_at, released_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        address,
        &*record.identity,
        record.fixed,
        integer(record.since),
        integer(record.last_used),
        record.released_at.map(integer),
    ])?;
    Ok(())
}

fn touch(db: &Connection, who: &str, at: u64, from: Option<IpAddr>) -> Result<(), Fault> {
    db.prepare_cached(
        "UPDATE leases SET last_used_at = max(last_used_at, ?2)
         WHERE identity = ?1 AND released_at IS NULL",
    )?
    .execute(params![who, integer(at)])?;
    db.prepare_cached(
        "INSERT INTO router_activity (router, last_seen_at, real_address)
         SELECT name, ?2, ?3 FROM routers WHERE name = ?1
         ON CONFLICT (router) DO UPDATE SET
             last_seen_at = max(last_seen_at, excluded.last_seen_at),
             real_address = coalesce(excluded.real_address, real_address)",
    )?
    .execute(params![who, integer(at), from.map(|from| from.to_string())])?;
    Ok(())
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    let name: String = row.get(0)?;
    let secret: String = row.get(2)?;
    Ok(Account {
        name: name.into(),
        username: row.get(1)?,
        secret: StoredSecret::parse(&secret).map_err(|error| unreadable(2, error))?,
        login: parsed(row, 3)?,
        certificate_cn: row.get(4)?,
        cipher: row.get(5)?,
        auth: row.get(6)?,
        disabled: row.get(7)?,
        address: optional(row, 8)?,
        created_at: row.get(9)?,
        tenant: row.get::<_, Option<String>>(10)?.map(Arc::from),
        tags: row.get::<_, String>(11)?.split_whitespace().map(str::to_owned).collect(),
        note: row.get(12)?,
        previous: previous_secret(row)?,
        revision: seconds(row.get(15)?),
    })
}

fn previous_secret(row: &Row<'_>) -> rusqlite::Result<Option<PreviousSecret>> {
    let (Some(secret), Some(until)) =
        (row.get::<_, Option<String>>(13)?, row.get::<_, Option<i64>>(14)?)
    else {
        return Ok(None);
    };
    let secret = StoredSecret::parse(&secret).map_err(|error| unreadable(13, error))?;
    Ok(Some(PreviousSecret { secret, until: seconds(until) }))
}

fn lease(row: &Row<'_>) -> rusqlite::Result<LeaseRecord> {
    let identity: String = row.get(1)?;
    Ok(LeaseRecord {
        address: parsed::<Ipv4Addr>(row, 0)?,
        identity: identity.into(),
        fixed: row.get(2)?,
        since: seconds(row.get(3)?),
        last_used: seconds(row.get(4)?),
        released_at: row.get::<_, Option<i64>>(5)?.map(seconds),
    })
}

fn activity(row: &Row<'_>) -> rusqlite::Result<Activity> {
    let router: String = row.get(0)?;
    let router: Arc<str> = router.into();
    Ok(Activity { router, last_seen: seconds(row.get(1)?), real_address: optional(row, 2)? })
}

pub(super) fn collect<T>(
    db: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Fault> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map((), read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| unreadable(column, error))
}

fn optional<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| unreadable(column, error))).transpose()
}

pub(super) fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

/// Seconds as SQLite keeps them.
pub(super) fn integer(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

pub(super) fn seconds(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}

/// What must fit before the store calls itself well again: some dozens of changes.
const HEADROOM_BYTES: i64 = 64 * 1024;
