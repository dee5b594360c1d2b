//! How one record is tied to the next.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tunnelhead_crypto::{Secret, credential_tag, ct_eq};

use super::record::{Record, ascii};

/// A message authentication code; 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 32]);

impl Mac {
    /// What the first record is tied to.
    pub const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no mac.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mac is 64 hexadecimal digits")]
pub struct NoMac;

impl FromStr for Mac {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(NoMac) };
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return Err(NoMac);
        }
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high).ok_or(NoMac)? << 4 | digit(*low).ok_or(NoMac)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The end of a chain: the last number and its mac. "SEQ:MAC" in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last record; 0: there is none.
    pub seq: u64,
    /// Its mac.
    pub mac: Mac,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { seq: 0, mac: Mac::ZERO };
}

impl Default for Head {
    fn default() -> Self {
        Self::START
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.mac)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write SEQ:MAC as the log has it".to_owned();
        let (seq, mac) = text.split_once(':').ok_or_else(wrong)?;
        let seq = seq.parse().map_err(|_| wrong())?;
        Ok(Self { seq, mac: mac.parse().map_err(|_| wrong())? })
    }
}

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number, as the line says too.
    pub seq: u64,
    /// Seconds since 1970-01-01 UTC, as the line says too.
    pub at: u64,
    /// The canonical line.
    pub line: String,
    /// What ties it to its predecessor.
    pub mac: Mac,
}

impl Row {
    /// The end of the chain if this is its last record.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, mac: self.mac }
    }

    /// One line of an export: the record's bytes stand in it as they are.
    pub fn export(&self) -> String {
        format!("{{\"mac\":\"{}\",\"record\":{}}}", self.mac, self.line)
    }
}

/// The key of the chain, derived from the server's secret.
pub struct AuditKey(Secret<32>);

impl AuditKey {
    /// Takes the key.
    pub fn new(key: Secret<32>) -> Self {
        Self(key)
    }

    /// The mac of a record's line behind `previous`.
    pub fn record(&self, previous: Mac, line: &str) -> Mac {
        Mac(credential_tag(&self.0, &[&previous.0, line.as_bytes()]))
    }

    /// The mac of a seal's line. No mac of a record has a first part of four bytes.
    pub fn seal(&self, line: &str) -> Mac {
        Mac(credential_tag(&self.0, &[b"seal", line.as_bytes()]))
    }

    /// The text of the head file.
    pub fn head_file(&self, head: Head) -> String {
        let line = ascii(&head.to_string());
        format!("{line}\n{}\n", Mac(credential_tag(&self.0, &[b"head", line.as_bytes()])))
    }

    /// Reads the head file; None: it is damaged, or not written with this key.
    pub fn read_head_file(&self, text: &str) -> Option<Head> {
        let (line, mac) = text.strip_suffix('\n')?.split_once('\n')?;
        let mac: Mac = mac.parse().ok()?;
        ct_eq(&mac.0, &credential_tag(&self.0, &[b"head", line.as_bytes()]))
            .then(|| line.parse().ok())?
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(..)")
    }
}

/// Makes rows of records, each behind the one before.
#[derive(Debug)]
pub struct Chain {
    key: AuditKey,
    head: Head,
}

impl Chain {
    /// Goes on behind `head`.
    pub fn new(key: AuditKey, head: Head) -> Self {
        Self { key, head }
    }

    /// The last record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The key.
    pub fn key(&self) -> &AuditKey {
        &self.key
    }

    /// The rows for these records, numbered on from the head; the chain itself stays where it is
    /// until [`Chain::advance`] says that they are kept.
    pub fn rows(&self, records: impl IntoIterator<Item = Record>) -> Vec<Row> {
        self.rows_from(self.head.seq.saturating_add(1), records)
    }

    /// The same with a first number of the caller's, behind a gap that the first record explains.
    pub fn rows_from(&self, first: u64, records: impl IntoIterator<Item = Record>) -> Vec<Row> {
        let mut previous = self.head.mac;
        let numbered = (first..).zip(records).map(|(seq, mut record)| {
            record.seq = seq;
            let line = record.line();
            previous = self.key.record(previous, &line);
            Row { seq, at: record.at, line, mac: previous }
        });
        numbered.collect()
    }

    /// These rows are kept.
    pub fn advance(&mut self, rows: &[Row]) {
        if let Some(last) = rows.last() {
            self.head = last.head();
        }
    }
}
