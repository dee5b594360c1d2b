//! `audit`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::Remote;
use crate::cli::arguments::audit::{AuditCommand, ExportAudit, ListAudit, PruneAudit, VerifyAudit};
use crate::cli::output::{or_dash, print, print_json, table};
use crate::cli::{Failure, Outcome};
use crate::control_api::types::{AuditCheck, AuditEntry, AuditQuery, AuditSegment};

/// Records of one request.
const PAGE: usize = 1000;

impl Remote {
    pub(in crate::cli) async fn audit(&self, command: AuditCommand) -> Outcome {
        match command {
            AuditCommand::List(list) => self.list_audit(list).await?,
            AuditCommand::Verify(verify) => return self.verify_audit(verify).await,
            AuditCommand::Segments => {
                let all = self.client.audit_segments().await?;
                if self.json { print_json(&all)? } else { print(&segments(&all))? }
            }
            AuditCommand::Seal => {
                let one = self.client.seal_audit().await?;
                let sentence = format!("segment {} is sealed", one.segment);
                self.done(&one, &sentence)?;
            }
            AuditCommand::Export(export) => self.export_audit(&export).await?,
            AuditCommand::Prune(prune) => self.prune_audit(&prune).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn list_audit(&self, list: ListAudit) -> Result<(), Failure> {
        let ListAudit { mut after, limit, router, uid } = list;
        let mut all = Vec::new();
        loop {
            let wanted = limit.map_or(PAGE, |limit| limit.saturating_sub(all.len()).min(PAGE));
            if wanted == 0 {
                break;
            }
            let query = AuditQuery { after, limit: wanted, router: router.clone(), uid };
            let page = self.client.audit(&query).await?;
            all.extend(page.items);
            match page.next.and_then(|next| next.parse().ok()) {
                Some(next) => after = next,
                None => break,
            }
        }
        if self.json {
            print_json(&all)?
        } else {
            print(&entries(&all))?
        }
        Ok(())
    }

    async fn verify_audit(&self, verify: VerifyAudit) -> Outcome {
        let VerifyAudit { head, state_dir } = verify;
        let check = match state_dir {
            None => self.client.check_audit(&head).await?,
            Some(folder) => {
                // Reading a database blocks; nothing else is done meanwhile.
                let look = move || crate::concentrator::verify_audit(&folder, &head);
                tokio::task::spawn_blocking(look).await??
            }
        };
        if self.json {
            print_json(&check)?
        } else {
            print(&verdict(&check))?
        }
        if check.good {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure("the audit trail is not as it was written".to_owned()))
    }

    async fn export_audit(&self, export: &ExportAudit) -> Result<(), Failure> {
        if export.seal {
            // Nothing to seal is no reason to export nothing.
            let _ = self.client.seal_audit().await;
        }
        fs::create_dir_all(&export.dir)?;
        let mut written = Vec::new();
        let all = self.client.audit_segments().await?;
        for segment in all.iter().filter(|segment| segment.pruned.is_none()) {
            let path = export.dir.join(format!("audit-{:06}.jsonl", segment.segment));
            if path.exists() {
                continue;
            }
            let lines = self.client.export_segment(segment.segment).await?;
            write_new(&path, &lines)?;
            written.push(path.display().to_string());
        }
        let mut sentence = format!("{} segments are written", written.len());
        for path in &written {
            sentence.push_str(&format!("\n  {path}"));
        }
        self.done(&json!({"written": written}), &sentence)
    }

    async fn prune_audit(&self, prune: &PruneAudit) -> Result<(), Failure> {
        let mut pruned = Vec::new();
        for segment in self.client.audit_segments().await? {
            let named = prune.through.is_some_and(|through| segment.segment <= through);
            let wanted = named || (prune.through.is_none() && segment.exported.is_some());
            if wanted && segment.pruned.is_none() {
                self.client.prune_segment(segment.segment).await?;
                pruned.push(segment.segment);
            }
        }
        self.done(&json!({"pruned": pruned}), &format!("{} segments are pruned", pruned.len()))
    }
}

/// Written aside and renamed: half a segment never has the name of one.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("part");
    let mut out =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&aside, path)
}

fn entries(all: &[AuditEntry]) -> String {
    let row = |one: &AuditEntry| {
        let who = one.uid.map_or_else(|| "itself".to_owned(), |uid| uid.to_string());
        let result = match (&one.code, one.status) {
            (Some(code), _) => code.clone(),
            (None, Some(status)) => status.to_string(),
            (None, None) => "-".to_owned(),
        };
        let detail: Vec<String> =
            one.detail.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            one.seq.to_string(),
            one.at.to_string(),
            who,
            or_dash(one.actor.as_ref()),
            one.action.clone(),
            or_dash(one.router.as_ref()),
            result,
            detail.join(" "),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(&["SEQ", "AT", "UID", "CLAIMED", "ACTION", "ROUTER", "RESULT", "DETAIL"], &rows)
}

fn segments(all: &[AuditSegment]) -> String {
    let row = |one: &AuditSegment| {
        vec![
            one.segment.to_string(),
            format!("{}-{}", one.first, one.last),
            one.from.to_string(),
            one.to.to_string(),
            or_dash(one.exported),
            or_dash(one.pruned),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(&["SEGMENT", "RECORDS", "FROM", "TO", "EXPORTED", "PRUNED"], &rows)
}

fn verdict(check: &AuditCheck) -> String {
    let mut text = format!(
        "{} records looked at, {} segments, {} of them pruned; the last record is {}\n",
        check.records, check.segments, check.pruned, check.head
    );
    for finding in &check.findings {
        text.push_str(&format!("FOUND: {finding}\n"));
    }
    if check.more > 0 {
        text.push_str(&format!("and {} more\n", check.more));
    }
    for head in &check.unknown {
        text.push_str(&format!("not known: {head} lies in a pruned segment; look at its export\n"));
    }
    if check.good {
        text.push_str("the trail is as it was written\n");
    }
    text
}
