//! The head of the trail in a file beside the database, so that a cut tail is found.
//!
//! It is written after the database: after a crash between the two it is behind, which says
//! nothing, and never ahead.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::audit::{AuditKey, Head, HeadFile};

/// Name of the file in the state folder.
const FILE: &str = "audit.head";
/// No head is longer.
const MAX_BYTES: u64 = 1024;

/// The file; None: a store of the embedder's, who keeps heads himself.
pub(super) struct HeadKeeper(Option<PathBuf>);

impl HeadKeeper {
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        Self(state_dir.map(|folder| folder.join(FILE)))
    }

    /// What the file says; None: there is no such file to be had.
    pub(super) fn read(&self, key: &AuditKey) -> Option<HeadFile> {
        let path = self.0.as_ref()?;
        Some(match fs::metadata(path).and_then(|facts| Ok((facts.len(), fs::read(path)?))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => HeadFile::Missing,
            Ok((length, bytes)) if length <= MAX_BYTES => {
                let head = String::from_utf8(bytes).ok().and_then(|text| key.read_head_file(&text));
                head.map_or(HeadFile::Damaged, HeadFile::At)
            }
            _ => HeadFile::Damaged,
        })
    }

    /// Writes it aside and renames it, so that a crash leaves the old one or the new one.
    pub(super) fn write(&self, key: &AuditKey, head: Head) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let aside = path.with_extension("head.new");
        let mut out =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        out.write_all(key.head_file(head).as_bytes())?;
        out.sync_all()?;
        fs::rename(&aside, path)
    }
}
