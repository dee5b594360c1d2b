//! What was: sessions of a router, and who had which address.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::control_api::types::{
    DirectoryEntry, List, MAX_PAGE, SessionFilter, SessionView, Timestamp, plain_address,
};
use crate::control_api::{Answer, ApiError, ErrorCode, History, Scope, Tunnels as _};
use crate::store::{PROCESS_ENDED, SessionQuery, SessionRecord, Store, StoreError};
use crate::telemetry::clock;

use super::ApiHandle;

impl ApiHandle {
    /// From when on the caller may look at what a router of this name did. A name that belonged to
    /// another tenant before has no past for the tenant that has it now; names without an account
    /// (deleted, or an embedder's own) are for callers that may see every router.
    fn visible_since(&self, scope: &Scope, name: &str) -> Option<u64> {
        if *scope == Scope::All {
            return Some(0);
        }
        let account = self.account(scope, name).ok()?;
        Some(u64::try_from(account.created_at).unwrap_or(0))
    }

    fn session_view(&self, session: SessionRecord) -> SessionView {
        // Its process has ended and the disk could not be told so yet.
        let gone = session.ended.is_none() && self.core.sessions.is_of_the_past(session.id);
        let reason = session.ended.as_ref().map(|end| end.reason.to_string());
        SessionView {
            id: session.id,
            router: session.router.to_string(),
            address: session.address,
            real_address: plain_address(session.real_address),
            since: Timestamp(session.since),
            until: match &session.ended {
                Some(end) => Some(Timestamp(end.at)),
                None => gone.then_some(Timestamp(session.since)),
            },
            rx_bytes: session.rx_bytes,
            tx_bytes: session.tx_bytes,
            reason: reason.or_else(|| gone.then(|| PROCESS_ENDED.to_owned())),
        }
    }

    async fn sessions_page(
        &self,
        scope: &Scope,
        name: String,
        filter: SessionFilter,
    ) -> Result<List<SessionView>, ApiError> {
        let since = self.visible_since(scope, &name);
        let Some(since) = since else { return Err(ApiError::router_not_found(&name)) };
        let event_id = self.core.event_id();
        let limit = match filter.limit {
            0 => MAX_PAGE,
            limit => limit.min(MAX_PAGE),
        };
        let query = SessionQuery {
            router: name.as_str().into(),
            from: filter.from.map(|at| at.0).max(Some(since)),
            to: filter.to.map(|at| at.0),
            before: filter.before,
            // One more, to know whether there is a next page.
            limit: limit.saturating_add(1),
        };
        let mut found = self.read(move |store| store.sessions(&query)).await?;
        found.retain(|session| session.since >= since);
        if found.is_empty() && self.account(&Scope::All, &name).is_err() {
            let any = SessionQuery {
                router: name.as_str().into(),
                from: None,
                to: None,
                before: None,
                limit: 1,
            };
            if self.read(move |store| store.sessions(&any)).await?.is_empty() {
                return Err(ApiError::router_not_found(&name));
            }
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let items: Vec<SessionView> =
            found.into_iter().map(|session| self.session_view(session)).collect();
        let next = items.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(List { items, next, event_id })
    }

    /// Whoever holds the address now; what is in memory, and the same work however many routers
    /// there are.
    fn holder_now(&self, scope: &Scope, address: Ipv4Addr) -> Option<Option<DirectoryEntry>> {
        let (owner, since) = {
            let leases = self.core.leases();
            let lease = leases.holding(address)?;
            (Arc::clone(&lease.identity), lease.since)
        };
        if self.visible_since(scope, &owner).is_none() {
            return Some(None);
        }
        let real_address = self.core.sessions.connected_from(address).map(plain_address);
        Some(Some(DirectoryEntry {
            address,
            router: owner.to_string(),
            since: Timestamp(since),
            until: None,
            connected: real_address.is_some(),
            real_address,
        }))
    }

    /// Whoever was given the address last at this time or earlier.
    async fn holder_then(
        &self,
        scope: &Scope,
        address: Ipv4Addr,
        at: Option<u64>,
    ) -> Result<DirectoryEntry, ApiError> {
        let moment = at.unwrap_or_else(clock::unix_seconds);
        let looked_up = move |store: &dyn Store| {
            Ok((store.holder_at(address, moment)?, store.session_at(address, moment)?))
        };
        let (holder, session) = self.read(looked_up).await?;
        let holder = holder
            // Asked for a time, who had it before that time and gave it up is no answer.
            .filter(|held| at.is_none() || held.until.is_none_or(|until| until > moment))
            .filter(|held| {
                self.visible_since(scope, &held.identity).is_some_and(|since| held.since >= since)
            })
            .ok_or_else(|| nobody(address))?;
        let session = session.filter(|session| {
            session.router == holder.identity
                && match &session.ended {
                    Some(end) => end.at > moment,
                    None => !self.core.sessions.is_of_the_past(session.id),
                }
        });
        Ok(DirectoryEntry {
            address,
            router: holder.identity.to_string(),
            since: Timestamp(holder.since),
            until: holder.until.map(Timestamp),
            connected: session.is_some(),
            real_address: session.map(|session| plain_address(session.real_address)),
        })
    }

    /// Asks the store on a thread that may wait for the disk.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = Arc::clone(&self.core.store);
        match tokio::task::spawn_blocking(move || query(&*store)).await {
            Ok(result) => result.map_err(|error| store_refusal(&error)),
            Err(_) => Err(ApiError::new(ErrorCode::Unavailable, "the concentrator is stopping")),
        }
    }
}

/// What a refusal of the store is over the control socket.
pub(super) fn store_refusal(error: &StoreError) -> ApiError {
    let code = match error {
        StoreError::InMemory => ErrorCode::NotOffered,
        StoreError::Closed => ErrorCode::Unavailable,
        _ => ErrorCode::StoreDegraded,
    };
    ApiError::new(code, error.to_string())
}

fn nobody(address: Ipv4Addr) -> ApiError {
    ApiError::new(ErrorCode::RouterNotFound, format!("no router has or had {address} then"))
}

impl History for Arc<ApiHandle> {
    fn sessions(
        &self,
        scope: &Scope,
        name: &str,
        filter: SessionFilter,
    ) -> Answer<'_, List<SessionView>> {
        let (scope, name) = (scope.clone(), name.to_owned());
        Box::pin(async move {
            let mut page = self.sessions_page(&scope, name.clone(), filter).await?;
            // Only the newest one can still be up.
            let live = self.core.live().get(name.as_str()).map(|live| live.client.0);
            if let Some(open) = page.items.iter_mut().find(|session| session.until.is_none())
                && live == Some(open.id)
                && let Ok(tunnel) = self.get_tunnel(&scope, &name).await
            {
                open.rx_bytes = tunnel.rx_bytes;
                open.tx_bytes = tunnel.tx_bytes;
            }
            Ok(page)
        })
    }

    fn directory(
        &self,
        scope: &Scope,
        address: Ipv4Addr,
        at: Option<Timestamp>,
    ) -> Answer<'_, DirectoryEntry> {
        let scope = scope.clone();
        Box::pin(async move {
            if at.is_none()
                && let Some(now) = self.holder_now(&scope, address)
            {
                return now.ok_or_else(|| nobody(address));
            }
            self.holder_then(&scope, address, at.map(|at| at.0)).await
        })
    }
}
