//! Sealing, exporting and pruning: which segment is due for what.

use std::time::Duration;

use crate::audit::{AuditKey, Chain, Head, Row, Seal, SealRow};
use crate::control_api::types::{AuditSegment, Timestamp};
use crate::control_api::{ApiError, ErrorCode};

use super::degraded;
use super::ledger::Ledger;

/// Records of a segment at most, give or take one batch.
const MAX_RECORDS: u64 = 10_000;
const DAY: u64 = 86_400;

/// What is sealed, and what is not yet.
pub(super) struct Segments {
    seals: Vec<Seal>,
    retention: Option<Duration>,
    open: Option<Open>,
}

/// Records behind the last seal.
#[derive(Clone, Copy)]
struct Open {
    first: u64,
    from: u64,
    to: u64,
    records: u64,
}

impl Segments {
    /// Begins with what is sealed; a seal that is not ours is left to `audit verify`.
    pub(super) fn new(rows: &[SealRow], key: &AuditKey, retention: Option<Duration>) -> Self {
        let seals = rows.iter().filter_map(|row| row.open(key)).collect();
        Self { seals, retention, open: None }
    }

    pub(super) fn last_head(&self) -> Head {
        self.seals.last().map_or(Head::START, |seal| seal.head)
    }

    /// These rows were added.
    pub(super) fn note(&mut self, rows: &[Row]) {
        for row in rows {
            let open = self.open.get_or_insert(Open {
                first: row.seq,
                from: row.at,
                to: row.at,
                records: 0,
            });
            open.to = row.at;
            open.records = open.records.saturating_add(1);
        }
    }

    /// The open records are many, or of another day.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.open.is_some_and(|open| open.records >= MAX_RECORDS || open.from / DAY != now / DAY)
    }

    /// A segment whose time is over.
    pub(super) fn outlived(&self, now: u64) -> Option<u64> {
        let retention = self.retention?.as_secs();
        let oldest = self.seals.iter().find(|seal| seal.pruned.is_none())?;
        let over = oldest.exported.is_some() && oldest.to.saturating_add(retention) < now;
        over.then_some(oldest.segment)
    }

    pub(super) fn seal(
        &mut self,
        ledger: &Ledger,
        chain: &Chain,
        now: u64,
    ) -> Result<AuditSegment, ApiError> {
        let open = self
            .open
            .ok_or_else(|| ApiError::new(ErrorCode::SegmentNotReady, "there is nothing to seal"))?;
        let before = self.last_head();
        let seal = Seal {
            segment: self.seals.last().map_or(1, |seal| seal.segment.saturating_add(1)),
            first: open.first,
            anchor: before.mac,
            head: chain.head(),
            records: open.records,
            from: open.from,
            to: open.to,
            sealed: now,
            exported: None,
            pruned: None,
        };
        ledger.seal(&seal.row(chain.key()), seal.head.seq).map_err(|error| degraded(&error))?;
        self.open = None;
        self.seals.push(seal.clone());
        Ok(view(&seal))
    }

    pub(super) fn exported(
        &mut self,
        ledger: &Ledger,
        chain: &Chain,
        segment: u64,
        now: u64,
    ) -> Result<AuditSegment, ApiError> {
        let seal = self.find(segment)?;
        let state = Seal { exported: Some(now), ..seal.clone() };
        ledger.seal(&state.row(chain.key()), state.head.seq).map_err(|error| degraded(&error))?;
        *seal = state;
        Ok(view(seal))
    }

    pub(super) fn prune(
        &mut self,
        ledger: &Ledger,
        chain: &Chain,
        segment: u64,
        now: u64,
    ) -> Result<AuditSegment, ApiError> {
        let not_ready = |message| Err(ApiError::new(ErrorCode::SegmentNotReady, message));
        let older = self.seals.iter().find(|seal| seal.pruned.is_none()).map(|seal| seal.segment);
        let seal = self.find(segment)?;
        if seal.pruned.is_some() {
            return Ok(view(seal));
        }
        if seal.exported.is_none() {
            return not_ready(format!("segment {segment} was never exported; export it first"));
        }
        if let Some(older) = older
            && older < segment
        {
            return not_ready(format!("segment {older} is older; prune it first"));
        }
        let state = Seal { pruned: Some(now), ..seal.clone() };
        ledger.prune(&state.row(chain.key()), state.head.seq).map_err(|error| degraded(&error))?;
        *seal = state;
        Ok(view(seal))
    }

    fn find(&mut self, segment: u64) -> Result<&mut Seal, ApiError> {
        let found = self.seals.iter_mut().find(|seal| seal.segment == segment);
        found.ok_or_else(|| unknown(segment))
    }
}

/// No sealed segment has this number.
pub(super) fn unknown(segment: u64) -> ApiError {
    ApiError::new(ErrorCode::SegmentNotFound, format!("there is no sealed segment {segment}"))
}

pub(super) fn view(seal: &Seal) -> AuditSegment {
    AuditSegment {
        segment: seal.segment,
        first: seal.first,
        last: seal.head.seq,
        records: seal.records,
        from: Timestamp(seal.from),
        to: Timestamp(seal.to),
        sealed: Timestamp(seal.sealed),
        exported: seal.exported.map(Timestamp),
        pruned: seal.pruned.map(Timestamp),
        head: seal.head.to_string(),
    }
}
