//! Sessions, holdings of addresses, and the numbers that outlive a process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::fault::Fault;
use super::records::{collect, integer, parsed, seconds};
use crate::lease::LeaseRecord;
use crate::store::{Holding, Marks, Recovery, SessionEnd, SessionQuery, SessionRecord};

pub(super) fn marks(db: &Connection) -> Result<Marks, Fault> {
    let marks = collect(db, "SELECT name, value FROM marks", |row| {
        Ok((row.get::<_, String>(0)?, seconds(row.get(1)?)))
    })?;
    let mark = |name: &str| marks.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let last_session =
        db.query_row("SELECT max(id) FROM sessions", (), |row| row.get::<_, Option<i64>>(0))?;
    Ok(Marks {
        events_reserved: mark(EVENTS_RESERVED).unwrap_or(0),
        last_session: last_session.map_or(0, seconds),
        alive_at: mark(ALIVE_AT).unwrap_or(0),
        recovery: mark(RECOVERED_AT).map(|at| Recovery {
            at,
            copied_at: mark(COPIED_AT).unwrap_or(0),
            addresses_known: mark(ADDRESSES_KNOWN) == Some(1),
        }),
    })
}

/// One mark.
pub(super) fn mark(db: &Connection, name: &str) -> Result<Option<u64>, Fault> {
    let mut statement = db.prepare_cached("SELECT value FROM marks WHERE name = ?1")?;
    let value = statement.query_row([name], |row| row.get(0)).optional()?;
    Ok(value.map(seconds))
}

/// Sets a mark.
pub(super) fn set(db: &Connection, name: &str, value: u64) -> Result<(), Fault> {
    db.prepare_cached("INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)")?
        .execute(params![name, integer(value)])?;
    Ok(())
}

/// Raises a mark; never lowers it.
pub(super) fn raise(db: &Connection, name: &str, value: u64) -> Result<(), Fault> {
    db.prepare_cached(
        "INSERT INTO marks (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value < excluded.value",
    )?
    .execute(params![name, integer(value)])?;
    Ok(())
}

pub(super) fn put_session(db: &Connection, session: &SessionRecord) -> Result<(), Fault> {
    let end = session.ended.as_ref();
    raise(db, ALIVE_AT, end.map_or(session.since, |end| end.at))?;
    db.prepare_cached(
        "INSERT OR REPLACE INTO sessions
             (id, router, address, real_address, since, rx_bytes, tx_bytes, ended_at, reason)
         VALUES (:id, :router, :address, :real_address, :since, :rx_bytes, :tx_bytes, :ended_at,
                 :reason)",
    )?
    .execute(named_params! {
        ":id": integer(session.id),
        ":router": &*session.router,
        ":address": session.address.to_string(),
        ":real_address": session.real_address.to_string(),
        ":since": integer(session.since),
        ":rx_bytes": integer(session.rx_bytes),
        ":tx_bytes": integer(session.tx_bytes),
        ":ended_at": end.map(|end| integer(end.at)),
        ":reason": end.map(|end| &*end.reason),
    })?;
    Ok(())
}

pub(super) fn end_sessions(db: &Connection, reason: &str) -> Result<(), Fault> {
    db.prepare_cached(
        "UPDATE sessions SET reason = ?1, ended_at =
             max(since, coalesce((SELECT value FROM marks WHERE name = ?2), 0))
         WHERE ended_at IS NULL",
    )?
    .execute(params![reason, ALIVE_AT])?;
    Ok(())
}

pub(super) fn prune(db: &Connection, before: u64, at_most: u32) -> Result<(), Fault> {
    db.prepare_cached(
        "DELETE FROM sessions WHERE id IN
             (SELECT id FROM sessions WHERE ended_at < ?1 ORDER BY ended_at, id LIMIT ?2)",
    )?
    .execute(params![integer(before), at_most])?;
    db.prepare_cached(
        "DELETE FROM address_history WHERE (address, since, identity) IN
             (SELECT address, since, identity FROM address_history WHERE until < ?1
              ORDER BY until, since, identity, address LIMIT ?2)",
    )?
    .execute(params![integer(before), at_most])?;
    Ok(())
}

/// Keeps the history of an address in step with its lease. Call it before the lease is written.
pub(super) fn hold(db: &Connection, record: &LeaseRecord) -> Result<(), Fault> {
    let (address, identity) = (record.address.to_string(), &*record.identity);
    let since = integer(record.since);
    match record.released_at {
        None => {
            db.prepare_cached(
                "UPDATE address_history SET until = max(since, ?3)
                 WHERE identity = ?1 AND address <> ?2 AND until IS NULL",
            )?
            .execute(params![identity, address, since])?;
            db.prepare_cached(
                "INSERT INTO address_history (address, since, identity, until)
                 SELECT ?1, ?2, ?3, NULL WHERE NOT EXISTS
                     (SELECT 1 FROM address_history WHERE address = ?1 AND until IS NULL)
                 ON CONFLICT (address, since, identity) DO UPDATE SET until = NULL",
            )?
            .execute(params![address, since, identity])?;
        }
        Some(released) => {
            let ended = db
                .prepare_cached(
                    "UPDATE address_history SET until = max(since, ?3)
                     WHERE address = ?1 AND identity = ?2 AND until IS NULL",
                )?
                .execute(params![address, identity, integer(released)])?;
            if ended == 0 {
                let until = integer(released.max(record.since));
                db.prepare_cached(
                    "INSERT OR IGNORE INTO address_history (address, since, identity, until)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![address, since, identity, until])?;
            }
        }
    }
    Ok(())
}

pub(super) fn end_holdings(db: &Connection, identity: &str, at: u64) -> Result<(), Fault> {
    db.prepare_cached(
        "UPDATE address_history SET until = max(since, ?2)
         WHERE identity = ?1 AND until IS NULL",
    )?
    .execute(params![identity, integer(at)])?;
    Ok(())
}

pub(super) fn sessions(db: &Connection, query: &SessionQuery) -> Result<Vec<SessionRecord>, Fault> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {SESSION} FROM sessions
         WHERE router = :router AND id < :before AND since <= :to
               AND (ended_at IS NULL OR ended_at >= :from)
         ORDER BY id DESC LIMIT :limit"
    ))?;
    let rows = statement.query_map(
        named_params! {
            ":router": &*query.router,
            ":before": query.before.map_or(i64::MAX, integer),
            ":to": query.to.map_or(i64::MAX, integer),
            ":from": query.from.map_or(0, integer),
            ":limit": i64::try_from(query.limit).unwrap_or(i64::MAX),
        },
        session,
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn session_at(
    db: &Connection,
    address: Ipv4Addr,
    at: u64,
) -> Result<Option<SessionRecord>, Fault> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {SESSION} FROM sessions WHERE address = ?1 AND since <= ?2
         ORDER BY since DESC, id DESC LIMIT 1"
    ))?;
    Ok(statement.query_row(params![address.to_string(), integer(at)], session).optional()?)
}

pub(super) fn holder_at(
    db: &Connection,
    address: Ipv4Addr,
    at: u64,
) -> Result<Option<Holding>, Fault> {
    let mut statement = db.prepare_cached(
        "SELECT identity, since, until FROM address_history WHERE address = ?1 AND since <= ?2
         ORDER BY since DESC, identity DESC LIMIT 1",
    )?;
    let row = statement.query_row(params![address.to_string(), integer(at)], |row| {
        let identity: String = row.get(0)?;
        Ok(Holding {
            address,
            identity: identity.into(),
            since: seconds(row.get(1)?),
            until: row.get::<_, Option<i64>>(2)?.map(seconds),
        })
    });
    Ok(row.optional()?)
}

fn session(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    let router: String = row.get(1)?;
    let end = row.get::<_, Option<i64>>(7)?.zip(row.get::<_, Option<String>>(8)?);
    Ok(SessionRecord {
        id: seconds(row.get(0)?),
        router: router.into(),
        address: parsed::<Ipv4Addr>(row, 2)?,
        real_address: parsed::<SocketAddr>(row, 3)?,
        since: seconds(row.get(4)?),
        rx_bytes: seconds(row.get(5)?),
        tx_bytes: seconds(row.get(6)?),
        ended: end.map(|(at, reason)| SessionEnd { at: seconds(at), reason: Arc::from(reason) }),
    })
}

const SESSION: &str =
    "id, router, address, real_address, since, rx_bytes, tx_bytes, ended_at, reason";

pub(super) const ALIVE_AT: &str = "alive_at";
pub(super) const EVENTS_RESERVED: &str = "events_reserved";
/// When this file was copied; absent in a file that never was a copy.
pub(super) const COPIED_AT: &str = "copied_at";
pub(super) const RECOVERED_AT: &str = "recovered_at";
pub(super) const ADDRESSES_KNOWN: &str = "addresses_known";
