//! The audit trail.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Fault;
use super::records::{collect, integer, seconds};
use crate::store::{AuditRecord, AuditSeal};

pub(super) fn append(db: &Connection, record: &AuditRecord) -> Result<(), Fault> {
    db.prepare_cached("INSERT INTO audit (seq, at, line, mac) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![integer(record.seq), integer(record.at), record.line, record.mac])?;
    Ok(())
}

pub(super) fn seal(db: &Connection, seal: &AuditSeal) -> Result<(), Fault> {
    db.prepare_cached(
        "INSERT INTO audit_seals (segment, last, line, mac) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (segment) DO UPDATE SET
             last = excluded.last, line = excluded.line, mac = excluded.mac",
    )?
    .execute(params![integer(seal.segment), integer(seal.last), seal.line, seal.mac])?;
    Ok(())
}

pub(super) fn prune(db: &Connection, through: u64, at_most: u32) -> Result<(), Fault> {
    db.prepare_cached(
        "DELETE FROM audit WHERE seq IN
             (SELECT seq FROM audit
              WHERE seq <= min(?1, coalesce((SELECT max(last) FROM audit_seals), 0))
              ORDER BY seq LIMIT ?2)",
    )?
    .execute(params![integer(through), at_most])?;
    Ok(())
}

pub(super) fn head(db: &Connection) -> Result<Option<AuditRecord>, Fault> {
    let sql = "SELECT seq, at, line, mac FROM audit ORDER BY seq DESC LIMIT 1";
    Ok(db.query_row(sql, (), record).optional()?)
}

pub(super) fn newest_seal(db: &Connection) -> Result<Option<AuditSeal>, Fault> {
    let sql = "SELECT segment, last, line, mac FROM audit_seals ORDER BY segment DESC LIMIT 1";
    Ok(db.query_row(sql, (), sealed).optional()?)
}

pub(super) fn lines(db: &Connection, after: u64, limit: usize) -> Result<Vec<AuditRecord>, Fault> {
    let mut statement = db.prepare_cached(
        "SELECT seq, at, line, mac FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![integer(after), limit], record)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn seals(db: &Connection) -> Result<Vec<AuditSeal>, Fault> {
    collect(db, "SELECT segment, last, line, mac FROM audit_seals ORDER BY segment", sealed)
}

fn record(row: &Row<'_>) -> rusqlite::Result<AuditRecord> {
    Ok(AuditRecord {
        seq: seconds(row.get(0)?),
        at: seconds(row.get(1)?),
        line: row.get(2)?,
        mac: row.get(3)?,
    })
}

fn sealed(row: &Row<'_>) -> rusqlite::Result<AuditSeal> {
    Ok(AuditSeal {
        segment: seconds(row.get(0)?),
        last: seconds(row.get(1)?),
        line: row.get(2)?,
        mac: row.get(3)?,
    })
}
