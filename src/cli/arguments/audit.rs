//! `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::name;
use crate::audit::Head;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Who did what, and what came of it
    List(ListAudit),
    /// Look whether the trail is as it was written; exit code 0 only if it is
    Verify(VerifyAudit),
    /// The sealed segments
    Segments,
    /// Seal what there is, so that it can be exported now
    Seal,
    /// Write sealed segments to files, one each; what is there already is left alone
    Export(ExportAudit),
    /// Delete the records of exported segments; their seals stay
    Prune(PruneAudit),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListAudit {
    /// Only records with a higher number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(in crate::cli) after: u64,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(in crate::cli) limit: Option<usize>,
    /// Only records that name this router
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(in crate::cli) router: Option<String>,
    /// Only records of this user id
    #[arg(long, value_name = "UID")]
    pub(in crate::cli) uid: Option<u32>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyAudit {
    /// A head from the log; the trail must have it
    #[arg(long, value_name = "SEQ:MAC")]
    pub(in crate::cli) head: Vec<Head>,
    /// Read this state folder instead of asking a running concentrator
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportAudit {
    /// Where the files go
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
    /// Seal what there is first
    #[arg(long)]
    pub(in crate::cli) seal: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PruneAudit {
    /// The last segment to prune; without it every one that was exported
    #[arg(long, value_name = "SEGMENT")]
    pub(in crate::cli) through: Option<u64>,
}
