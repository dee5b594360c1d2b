//! The schema and how older ones become it.
//!
//! A step that has been released is never edited: a database is what its steps made of it. The
//! version is `user_version`; `application_id` tells the file from other people's databases.

use rusqlite::{Connection, TransactionBehavior};

use super::fault::Fault;

/// What is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing: a new file.
    Nothing,
    /// Our database with this schema version, 1 to [`CURRENT`].
    Ours(i64),
}

/// Tells what is in the file.
///
/// # Errors
/// Somebody else's database, a newer one, or none.
pub(super) fn identify(db: &Connection) -> Result<Contents, Fault> {
    let number = |sql| db.query_row(sql, (), |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version, objects) {
        (0, 0, 0) => Ok(Contents::Nothing),
        (APPLICATION_ID, 1..=CURRENT, _) => Ok(Contents::Ours(version)),
        (APPLICATION_ID, version, _) if version > CURRENT => Err(Fault::Newer(version)),
        (APPLICATION_ID, version, _) => Err(Fault::Damaged(format!("schema version {version}"))),
        _ => Err(Fault::Foreign(format!("application id {application:#x}"))),
    }
}

/// Brings the schema to [`CURRENT`] in one transaction.
pub(super) fn migrate(db: &mut Connection, contents: Contents) -> Result<(), Fault> {
    let done = match contents {
        Contents::Nothing => 0,
        Contents::Ours(CURRENT) => return Ok(()),
        Contents::Ours(version) => version,
    };
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (version, step) in (1..).zip(STEPS) {
        if version > done {
            transaction.execute_batch(step)?;
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", CURRENT)?;
    transaction.commit()?;
    Ok(())
}

/// The newest schema version that we know.
pub(super) const CURRENT: i64 = 3;
/// "tunh" in ASCII.
pub(super) const APPLICATION_ID: i64 = 0x7475_6E68;

const STEPS: [&str; 3] = [STEP_1, STEP_2, STEP_3];

const STEP_1: &str = "
CREATE TABLE routers (
    name TEXT NOT NULL PRIMARY KEY
        CHECK (length(name) <= 63 AND name GLOB '[a-z0-9]*' AND name NOT GLOB '*[^a-z0-9._-]*'),
    username TEXT NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 128),
    secret TEXT NOT NULL CHECK (secret GLOB '?*:?*'),
    login TEXT NOT NULL CHECK (login IN ('password', 'certificate', 'both')),
    certificate_cn TEXT UNIQUE CHECK (length(certificate_cn) BETWEEN 1 AND 64),
    cipher TEXT,
    auth TEXT,
    disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    address TEXT UNIQUE CHECK (address GLOB '?*.?*.?*.?*'),
    created_at INTEGER NOT NULL,
    CHECK (login = 'password' OR certificate_cn IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    address TEXT NOT NULL PRIMARY KEY CHECK (address GLOB '?*.?*.?*.?*'),
    identity TEXT NOT NULL,
    fixed INTEGER NOT NULL CHECK (fixed IN (0, 1)),
    since INTEGER NOT NULL CHECK (since >= 0),
    released_at INTEGER CHECK (released_at >= 0)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX lease_of_identity ON leases (identity) WHERE released_at IS NULL;
";

const STEP_2: &str = "
ALTER TABLE leases ADD COLUMN last_used_at INTEGER NOT NULL DEFAULT 0 CHECK (last_used_at >= 0);
UPDATE leases SET last_used_at = since;

CREATE TABLE router_activity (
    router TEXT NOT NULL PRIMARY KEY REFERENCES routers (name) ON DELETE CASCADE,
    last_seen_at INTEGER NOT NULL CHECK (last_seen_at >= 0),
    real_address TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE write_probe (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL,
    padding BLOB
) STRICT;
";

/// Times are seconds since 1970-01-01 UTC. `tags` are separated by blanks. An address has an open
/// row in `address_history` exactly while a lease holds it.
const STEP_3: &str = "
ALTER TABLE routers ADD COLUMN tenant TEXT CHECK (length(tenant) BETWEEN 1 AND 63);
ALTER TABLE routers ADD COLUMN tags TEXT NOT NULL DEFAULT '';
ALTER TABLE routers ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE routers ADD COLUMN previous_secret TEXT CHECK (previous_secret GLOB '?*:?*');
ALTER TABLE routers ADD COLUMN previous_until INTEGER
    CHECK ((previous_until IS NULL) = (previous_secret IS NULL));
ALTER TABLE routers ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;

CREATE TABLE sessions (
    id INTEGER NOT NULL PRIMARY KEY,
    router TEXT NOT NULL,
    address TEXT NOT NULL,
    real_address TEXT NOT NULL,
    since INTEGER NOT NULL CHECK (since >= 0),
    rx_bytes INTEGER NOT NULL,
    tx_bytes INTEGER NOT NULL,
    ended_at INTEGER,
    reason TEXT CHECK ((reason IS NULL) = (ended_at IS NULL))
) STRICT;
CREATE INDEX session_of_router ON sessions (router, id);
CREATE INDEX session_of_address ON sessions (address, since);
CREATE INDEX session_by_end ON sessions (ended_at);

CREATE TABLE address_history (
    address TEXT NOT NULL,
    since INTEGER NOT NULL CHECK (since >= 0),
    identity TEXT NOT NULL,
    until INTEGER CHECK (until >= since),
    PRIMARY KEY (address, since, identity)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX open_holding ON address_history (address) WHERE until IS NULL;
CREATE INDEX holding_of_identity ON address_history (identity) WHERE until IS NULL;
CREATE INDEX holding_by_end ON address_history (until);
INSERT INTO address_history (address, since, identity, until)
    SELECT address, since, identity, max(since, released_at) FROM leases;

CREATE TABLE audit (
    seq INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    line TEXT NOT NULL,
    mac BLOB NOT NULL CHECK (length(mac) = 32)
) STRICT;
CREATE TABLE audit_seals (
    segment INTEGER NOT NULL PRIMARY KEY,
    last INTEGER NOT NULL,
    line TEXT NOT NULL,
    mac BLOB NOT NULL CHECK (length(mac) = 32)
) STRICT;

CREATE TABLE marks (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";
