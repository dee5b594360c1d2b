//! `store check`, `store backup` and `store list`.

use std::process::ExitCode;

use super::Remote;
use crate::cli::Outcome;
use crate::cli::output::{bytes, plain, print, print_json, table};
use crate::control_api::types::{BackupView, NewBackup};

impl Remote {
    /// Exit code 1 if something was found.
    pub(in crate::cli) async fn check_store(&self) -> Outcome {
        let check = self.client.check_store().await?;
        if self.json {
            print_json(&check)?;
        } else if check.ok {
            print("the store is sound\n")?;
        } else {
            let lines: String = check.problems.iter().map(|one| plain(one) + "\n").collect();
            print(&lines)?;
        }
        Ok(if check.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    pub(in crate::cli) async fn back_up_store(&self, name: String) -> Outcome {
        let made = self.client.back_up_store(&NewBackup { name }.check()?).await?;
        let sentence = format!(
            "copied {} to {}; keep it together with server.secret and pki/ of the state folder",
            bytes(made.bytes),
            plain(&made.path)
        );
        self.done(&made, &sentence)?;
        Ok(ExitCode::SUCCESS)
    }

    pub(in crate::cli) async fn backups(&self) -> Outcome {
        let all = self.client.backups().await?;
        if self.json {
            print_json(&all)?
        } else {
            print(&backups(&all))?
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn backups(all: &[BackupView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            vec![
                one.name.clone(),
                one.kind.clone(),
                one.created.to_string(),
                bytes(one.bytes),
                one.path.clone(),
            ]
        })
        .collect();
    table(&["NAME", "KIND", "CREATED", "SIZE", "FILE"], &rows)
}
