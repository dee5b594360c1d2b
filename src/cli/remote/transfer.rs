//! `router export` and `router import`.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Remote;
use crate::cli::Failure;
use crate::cli::arguments::ImportRouters;
use crate::cli::output::{bytes, or_dash, print, print_json, table};
use crate::control_api::client::{ClientError, ImportStep};
use crate::control_api::types::ImportedRouter;

impl Remote {
    /// JSON lines as they come; a file is for its owner alone.
    pub(super) async fn export(&self, output: Option<&Path>) -> Result<(), Failure> {
        let mut progress = Progress::new();
        let mut count: u64 = 0;
        let mut out: Box<dyn Write + Send> = match output {
            Some(path) => Box::new(private_file(path)?),
            None => Box::new(io::stdout()),
        };
        let written = self
            .client
            .export_routers(|piece| {
                let ends = piece.iter().filter(|byte| **byte == b'\n').count();
                count = count.saturating_add(u64::try_from(ends).unwrap_or(u64::MAX));
                progress.show(&format!("{count} routers"));
                out.write_all(piece)
            })
            .await;
        progress.end();
        match written.and_then(|()| out.flush().map_err(ClientError::Local)) {
            // Whoever reads has gone away: as with every other command.
            Err(ClientError::Local(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }

    pub(super) async fn import(&self, arguments: &ImportRouters) -> Result<(), Failure> {
        let file = &arguments.file;
        let input: Box<dyn Read + Send> = if file.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let opened = File::open(file);
            Box::new(opened.map_err(|error| Failure(format!("{}: {error}", file.display())))?)
        };
        let mut progress = Progress::new();
        let all = self
            .client
            .import_routers(input, arguments.scripts, |step| match step {
                ImportStep::Sent(sent) => progress.show(&format!("sent {}", bytes(sent))),
                ImportStep::Waiting => progress.show("the concentrator checks and records"),
                ImportStep::Made(made) => progress.show(&format!("{made} routers")),
            })
            .await;
        progress.end();
        let all = match all {
            Err(ClientError::ImportRefused(refused)) => {
                let mut text = refused.message.clone();
                for line in refused.lines.iter().skip(1) {
                    let field = line.field.as_deref().map(|field| format!("{field}: "));
                    let field = field.unwrap_or_default();
                    text.push_str(&format!("\n  line {}: {field}{}", line.line, line.message));
                }
                return Err(Failure(text));
            }
            result => result?,
        };
        if self.json {
            print_json(&all)?
        } else {
            print(&imported(&all))?
        }
        Ok(())
    }
}

fn imported(all: &[ImportedRouter]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            vec![
                one.name.clone(),
                one.username.clone(),
                or_dash(one.address),
                or_dash(one.password.as_ref().map(|password| password.expose())),
            ]
        })
        .collect();
    format!(
        "{}{} routers imported; the passwords are shown only now\n",
        table(&["NAME", "USERNAME", "ADDRESS", "PASSWORD"], &rows),
        all.len()
    )
}

/// A file that only its owner can read; an existing one is not overwritten.
fn private_file(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure(format!("cannot create {}: {error}", path.display())))
}

/// One line on a terminal that is written over and over; nothing elsewhere.
struct Progress {
    shown: bool,
    on_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: false, on_terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, text: &str) {
        if self.on_terminal {
            self.shown = true;
            // There is nobody to tell if this fails.
            let _ = write!(io::stderr(), "\r\u{1b}[K{text}");
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
