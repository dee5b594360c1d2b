//! Finds what was edited, deleted, swapped, cut or made up.

use std::collections::BTreeMap;
use std::fmt;

use tunnelhead_crypto::ct_eq;

use super::chain::{AuditKey, Head, Mac, Row};
use super::record::{Record, read_line};
use super::seal::{Seal, SealRow};

/// Most findings that are kept; further ones are counted.
pub const MAX_FINDINGS: usize = 100;

/// What the file beside the database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFile {
    /// There is none.
    Missing,
    /// It does not carry our mac.
    Damaged,
    /// The last record at the time of writing; more may have followed.
    At(Head),
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The record does not fit behind its predecessor.
    Edited {
        /// Its number.
        seq: u64,
    },
    /// The line carries another number, or another time, than its row.
    Misplaced {
        /// Number of the row.
        seq: u64,
        /// Number of the line, if it has one.
        line: Option<u64>,
    },
    /// Records are gone.
    Missing {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The concentrator itself found at a start that records were gone or changed, and said so.
    Noticed {
        /// Number of the record that says so.
        seq: u64,
        /// What it says.
        reason: String,
    },
    /// A seal that was not written with our key, or twice.
    SealForged {
        /// Number of the segment.
        segment: u64,
    },
    /// A seal contradicts its neighbours or the records.
    SealContradicts {
        /// Number of the segment.
        segment: u64,
    },
    /// The trail ends before a record that is known to have existed.
    Cut {
        /// The last record that is there.
        last: u64,
        /// The one that was known.
        known: u64,
    },
    /// The trail has another record than the one that was known: it was written anew.
    Rewritten {
        /// Its number.
        seq: u64,
    },
    /// The head file is gone.
    HeadFileMissing,
    /// The head file is not ours.
    HeadFileDamaged,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited { seq } => {
                write!(
                    f,
                    "record {seq} does not fit behind its predecessor: one of them was edited"
                )
            }
            Self::Misplaced { seq, line: Some(line) } if line != seq => {
                write!(f, "record {seq} carries the number {line}: records were swapped")
            }
            Self::Misplaced { seq, .. } => write!(f, "record {seq} is not a record of ours"),
            Self::Missing { from, to } if from == to => write!(f, "record {from} is missing"),
            Self::Missing { from, to } => write!(f, "records {from} to {to} are missing"),
            Self::Noticed { seq, reason } => {
                write!(f, "record {seq}, written at a start: {}", reason.escape_default())
            }
            Self::SealForged { segment } => {
                write!(f, "the seal of segment {segment} was not written by this concentrator")
            }
            Self::SealContradicts { segment } => {
                write!(f, "the seal of segment {segment} contradicts what is beside it")
            }
            Self::Cut { last, known } => {
                write!(
                    f,
                    "the trail ends with record {last}, but record {known} existed: it was cut"
                )
            }
            Self::Rewritten { seq } => {
                write!(f, "record {seq} is another one than it was: the trail was written anew")
            }
            Self::HeadFileMissing => f.write_str("the head file is missing"),
            Self::HeadFileDamaged => {
                f.write_str("the head file was not written by this concentrator")
            }
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Records that were looked at.
    pub records: u64,
    /// Number of the first one; 0: there is none.
    pub first: u64,
    /// The last record, or the last one that a seal knows.
    pub head: Head,
    /// Sealed segments.
    pub segments: u64,
    /// Those among them whose records were pruned.
    pub pruned: u64,
    /// Empty: all is as it was written.
    pub findings: Vec<Finding>,
    /// Findings beyond [`MAX_FINDINGS`].
    pub more: u64,
    /// Known heads that lie in a pruned segment, so that nothing can be said about them.
    pub unknown: Vec<Head>,
}

/// Looks at every record once, in the order of the numbers.
pub struct Verifier<'k> {
    key: &'k AuditKey,
    /// Seals by number of their first record.
    seals: BTreeMap<u64, Seal>,
    /// Where the chain is; `sure` if its mac is known to be right.
    at: Head,
    sure: bool,
    /// Heads to compare with, by number.
    known: BTreeMap<u64, Vec<Mac>>,
    head_file: Option<Head>,
    report: Report,
}

impl<'k> Verifier<'k> {
    /// Begins with the seals, sorted by number, and with what is known from outside the database:
    /// the head file and heads from the log.
    pub fn new(key: &'k AuditKey, seals: &[SealRow], file: HeadFile, heads: &[Head]) -> Self {
        let report = Report {
            records: 0,
            first: 0,
            head: Head::START,
            segments: 0,
            pruned: 0,
            findings: Vec::new(),
            more: 0,
            unknown: Vec::new(),
        };
        let mut verifier = Self {
            key,
            seals: BTreeMap::new(),
            at: Head::START,
            sure: true,
            known: BTreeMap::new(),
            head_file: None,
            report,
        };
        match file {
            HeadFile::Missing => verifier.find(Finding::HeadFileMissing),
            HeadFile::Damaged => verifier.find(Finding::HeadFileDamaged),
            HeadFile::At(head) => verifier.head_file = Some(head),
        }
        for head in heads.iter().chain(&verifier.head_file.clone()) {
            verifier.known.entry(head.seq).or_default().push(head.mac);
        }
        verifier.take_seals(seals);
        verifier.skip_pruned();
        verifier
    }

    fn take_seals(&mut self, rows: &[SealRow]) {
        let mut before: Option<Seal> = None;
        for row in rows {
            let Some(seal) = row.open(self.key) else {
                self.find(Finding::SealForged { segment: row.segment });
                continue;
            };
            self.report.segments = self.report.segments.saturating_add(1);
            self.report.pruned =
                self.report.pruned.saturating_add(u64::from(seal.pruned.is_some()));
            let fits = match &before {
                Some(before) => {
                    seal.segment == before.segment.saturating_add(1)
                        && seal.anchor == before.head.mac
                        && seal.first > before.head.seq
                }
                None => seal.segment == 1 && seal.anchor == Mac::ZERO,
            };
            if !fits || seal.first > seal.head.seq {
                self.find(Finding::SealContradicts { segment: seal.segment });
            }
            before = Some(seal.clone());
            self.seals.insert(seal.first, seal);
        }
    }

    /// Walks over the segments that follow the present place and whose records were pruned.
    fn skip_pruned(&mut self) {
        while let Some((_, seal)) = self.seals.range(self.at.seq.saturating_add(1)..).next()
            && seal.pruned.is_some()
            && self.sure
            && seal.anchor == self.at.mac
        {
            let (first, head) = (seal.first, seal.head);
            let known = self.known.range(first..=head.seq);
            let known: Vec<Head> = known
                .flat_map(|(seq, macs)| macs.iter().map(|mac| Head { seq: *seq, mac: *mac }))
                .collect();
            for one in known {
                if one.seq != head.seq {
                    self.report.unknown.push(one);
                } else if one.mac != head.mac {
                    self.find(Finding::Rewritten { seq: one.seq });
                }
            }
            self.at = head;
        }
    }

    /// The next record; rows come sorted by number, each once.
    pub fn row(&mut self, row: &Row) {
        self.skip_pruned();
        self.report.records = self.report.records.saturating_add(1);
        if self.report.first == 0 {
            self.report.first = row.seq;
        }
        let record = read_line(&row.line);
        let line = record.as_ref().map(|record| record.seq);
        if line != Some(row.seq) || record.as_ref().map(|record| record.at) != Some(row.at) {
            self.find(Finding::Misplaced { seq: row.seq, line });
        }
        let fits = ct_eq(&row.mac.0, &self.key.record(self.at.mac, &row.line).0);
        let next = self.at.seq.saturating_add(1);
        let notice = record.filter(|record| record.action.what == Record::GAP);
        if row.seq < next {
            self.find(Finding::Misplaced { seq: row.seq, line });
        } else if row.seq > next && !(fits && notice.is_some()) {
            self.find(Finding::Missing { from: next, to: row.seq.saturating_sub(1) });
            // What it should be tied to is gone with them; it is the new beginning.
            self.sure = false;
        }
        if self.sure && !fits {
            self.find(Finding::Edited { seq: row.seq });
        } else if fits && let Some(notice) = notice {
            let reason = notice.action.detail.get("reason").cloned().unwrap_or_default();
            self.find(Finding::Noticed { seq: row.seq, reason });
        }
        self.compare_seals(row);
        if self.known.get(&row.seq).is_some_and(|macs| macs.iter().any(|mac| *mac != row.mac)) {
            self.find(Finding::Rewritten { seq: row.seq });
        }
        self.at = row.head();
        self.sure = true;
    }

    /// A sealed segment begins behind its anchor and ends with its head.
    fn compare_seals(&mut self, row: &Row) {
        let Some((_, seal)) = self.seals.range(..=row.seq).next_back() else { return };
        let segment = seal.segment;
        let begins = seal.first != row.seq || !self.sure || seal.anchor == self.at.mac;
        let ends = seal.head.seq != row.seq || seal.head.mac == row.mac;
        if !begins || !ends {
            self.find(Finding::SealContradicts { segment });
        }
    }

    /// After the last record.
    pub fn finish(mut self) -> Report {
        self.skip_pruned();
        let sealed = self.seals.values().next_back().map_or(0, |seal| seal.head.seq);
        let known = self.known.keys().next_back().copied().unwrap_or(0).max(sealed);
        if known > self.at.seq {
            self.find(Finding::Cut { last: self.at.seq, known });
        }
        self.report.head = self.at;
        self.report
    }

    fn find(&mut self, finding: Finding) {
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(finding);
        } else {
            self.report.more = self.report.more.saturating_add(1);
        }
    }
}
