//! Keeping the store.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::control_api::types::{BackupView, NewBackup, StoreCheck, Timestamp};
use crate::control_api::{Answer, ApiError, ErrorCode, StoreKeeping};
use crate::telemetry::clock;

use super::ApiHandle;
use super::history::store_refusal;

/// Sentences of a check at most.
const MAX_PROBLEMS: usize = 200;

impl ApiHandle {
    async fn check(&self) -> Result<StoreCheck, ApiError> {
        let mut problems = self.read(|store| store.check()).await?;
        // What changes while we look differs for a moment; what is wrong still is at a second look.
        let first = self.unlike_memory().await?;
        if !first.is_empty() {
            let second = self.unlike_memory().await?;
            problems.extend(first.into_iter().filter(|sentence| second.contains(sentence)));
        }
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        let checked = Timestamp(clock::unix_seconds());
        Ok(StoreCheck { ok: problems.is_empty(), problems, checked })
    }

    /// What the disk says and the running concentrator does not, and the other way.
    async fn unlike_memory(&self) -> Result<Vec<String>, ApiError> {
        let snapshot = self.read(|store| store.load()).await?;
        let mut problems = Vec::new();
        {
            let directory = self.core.accounts.read();
            for account in &snapshot.accounts {
                match directory.get(&account.name) {
                    None => problems.push(format!("{} is on disk only", account.name)),
                    Some(known) if **known != *account => {
                        problems.push(format!("{} is not as it is on disk", account.name));
                    }
                    Some(_) => {}
                }
            }
            if directory.len() > snapshot.accounts.len() {
                problems.push("there are accounts that are not on disk".to_owned());
            }
        }
        let on_disk: HashMap<Ipv4Addr, &Arc<str>> = snapshot
            .leases
            .iter()
            .filter(|lease| lease.released_at.is_none())
            .map(|lease| (lease.address, &lease.identity))
            .collect();
        let leases = self.core.leases();
        let ignored = leases.ignored();
        for (address, identity) in &on_disk {
            let set_aside = ignored.iter().any(|lease| lease.address == *address);
            if leases.owner_of(*address) != Some(*identity) && !set_aside {
                problems.push(format!("on disk {address} is held by {identity}"));
            }
        }
        for lease in leases.records().filter(|lease| lease.released_at.is_none()) {
            if on_disk.get(&lease.address) != Some(&&lease.identity) {
                problems.push(format!(
                    "{} is held by {} in memory only",
                    lease.address, lease.identity
                ));
            }
        }
        problems.sort();
        Ok(problems)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
            Err(ApiError::new(ErrorCode::Unavailable, "the concentrator is stopping"))
        })
    }
}

impl StoreKeeping for Arc<ApiHandle> {
    fn check_store(&self) -> Answer<'_, StoreCheck> {
        Box::pin(async { self.check().await })
    }

    fn back_up_store(&self, new: NewBackup) -> Answer<'_, BackupView> {
        let keeping = Arc::clone(&self.keeping);
        Box::pin(async move {
            let new = new.check()?;
            let work = move || {
                let made = keeping.back_up(&new.name, clock::unix_seconds());
                made.map_err(|error| store_refusal(&error))
            };
            let made = self.blocking(work).await?;
            tracing::info!(backup = made.name, bytes = made.bytes, "the store was copied");
            Ok(made)
        })
    }

    fn list_backups(&self) -> Answer<'_, Vec<BackupView>> {
        let keeping = Arc::clone(&self.keeping);
        Box::pin(async move {
            let list = move || {
                keeping.list().map_err(|error| {
                    let message = format!("the folder of backups can not be read: {error}");
                    ApiError::new(ErrorCode::StoreDegraded, message)
                })
            };
            self.blocking(list).await
        })
    }
}
