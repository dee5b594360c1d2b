//! What the trail asks of the store.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use crate::audit::{Mac, Row, SealRow};
use crate::store::{AuditRecord, AuditSeal, Change, Store, StoreError};

/// Records deleted in one transaction at most: a whole segment and more.
const PRUNE_AT_MOST: u32 = 100_000;

/// The part of the store that keeps the trail. Every call waits for the disk.
#[derive(Clone)]
pub(super) struct Ledger(Arc<dyn Store>);

impl Ledger {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// Adds these rows, all or none.
    pub(super) fn append(&self, rows: &[Row]) -> Result<(), StoreError> {
        let append = |row: &Row| {
            Change::AppendAudit(AuditRecord {
                seq: row.seq,
                at: row.at,
                line: row.line.clone(),
                mac: row.mac.0,
            })
        };
        self.write(rows.iter().map(append).collect())
    }

    /// Adds a seal, or puts its new state in the place of the old one.
    pub(super) fn seal(&self, seal: &SealRow, last: u64) -> Result<(), StoreError> {
        self.write(vec![sealed(seal, last)])
    }

    /// Deletes every record up to this one, and notes it in the seal, in one transaction.
    pub(super) fn prune(&self, seal: &SealRow, last: u64) -> Result<(), StoreError> {
        let prune = Change::PruneAudit { through: last, at_most: PRUNE_AT_MOST };
        self.write(vec![sealed(seal, last), prune])
    }

    /// Rows behind `after`, in order.
    pub(super) fn rows(&self, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let records = self.0.audit(after, limit)?;
        let row = |record: AuditRecord| Row {
            seq: record.seq,
            at: record.at,
            line: record.line,
            mac: Mac(record.mac),
        };
        Ok(records.into_iter().map(row).collect())
    }

    /// Every seal, in order.
    pub(super) fn seals(&self) -> Result<Vec<SealRow>, StoreError> {
        let seals = self.0.audit_seals()?;
        let row = |seal: AuditSeal| SealRow {
            segment: seal.segment,
            line: seal.line,
            mac: Mac(seal.mac),
        };
        Ok(seals.into_iter().map(row).collect())
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (sender, receiver) = sync_channel(1);
        self.0.submit(
            changes,
            Some(Box::new(move |result| {
                // The asker waits for it right here.
                let _ = sender.send(result);
            })),
        );
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }
}

fn sealed(seal: &SealRow, last: u64) -> Change {
    Change::SealAudit(AuditSeal {
        segment: seal.segment,
        last,
        line: seal.line.clone(),
        mac: seal.mac.0,
    })
}
