//! The embeddable handle and the only composition root: [`Config`] in, a running concentrator out.
//!
//! ```no_run
//! # async fn run() -> Result<(), tunnelhead::concentrator::StartError> {
//! use tunnelhead::concentrator::{Concentrator, NoEvent};
//! use tunnelhead::config::Config;
//!
//! let head = Concentrator::builder().config(Config::default()).start().await?;
//! let mut events = head.events();
//! loop {
//!     match events.recv().await {
//!         Ok(event) => println!("{} {:?}", event.at, event.what),
//!         Err(NoEvent::Lost(gap)) => println!("too slow: {gap}"),
//!         Err(NoEvent::Closed) => break,
//!     }
//! }
//! head.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod accounts;
mod api;
mod audit;
mod authenticator;
mod bans;
mod core;
mod dial;
mod doctor;
mod events;
mod flights;
mod handles;
mod host;
mod housekeeping;
mod keeping;
mod listening;
mod material;
mod observed;
mod provisioning;
mod pulse;
mod reload;
mod revoked;
mod secrets;
mod session_log;
mod settings;
mod slow_pool;
mod start;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
mod timed_store;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::{Config, ConfigError, Problem};
use crate::control_api::types::{CreatedRouter, ReloadReport, SecretText};
use crate::control_api::{ApiError, Handle};
use crate::greeter::{GreeterHandle, GreeterMessage};
use crate::shard::{ShardHandle, ShardMessage};
use crate::store::Store;
use crate::telemetry::log_filter::LogFilter;
use crate::tun::Queue;

#[cfg(feature = "store-sqlite")]
pub use audit::{AuditError, verify_audit};
#[cfg(feature = "http-authenticator")]
pub use authenticator::HttpAuthenticator;
pub use authenticator::{
    Accept, AllOf, Authenticator, AuthenticatorError, Deciding, Decision, LoginKind, LoginRequest,
    Refusal,
};
pub use dial::{DialError, DialStream};
pub use events::{Event, EventFilter, EventGap, EventStream, Moment, NoEvent, TunnelEvent};
pub use handles::{Routers, Tunnel, Tunnels};
pub use host::{Inherited, check_tun_permission, inherited_sockets, local_addresses};
pub use start::StartError;

#[cfg(feature = "store-sqlite")]
pub use keeping::restore_store;

pub use crate::sys::rlimit::forbid_core_dumps;

/// Where packets to and from the host go.
#[derive(Default)]
pub enum TunSource {
    /// A TUN device of the kernel, made and configured at the start.
    #[default]
    Kernel,
    /// These queues, one a shard; their number is the number of shards and a power of two.
    Queues(Vec<Box<dyn Queue>>),
}

/// Puts a concentrator together.
#[derive(Default)]
pub struct Builder {
    config: Config,
    source: Option<reload::ConfigSource>,
    authenticator: Option<Arc<dyn Authenticator>>,
    store: Option<Arc<dyn Store>>,
    recover: bool,
    tun: TunSource,
    log_filter: Option<Arc<dyn LogFilter>>,
    inherited: Vec<TcpListener>,
}

impl Builder {
    /// The configuration; without it every default.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Where [`Concentrator::reload`] gets the configuration from, usually [`Config::load`] of the
    /// same file; without it a reload reads certificates and revocation lists only.
    #[must_use]
    pub fn reload_from(
        mut self,
        source: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Who decides about logins; without it what `[authenticator]` names, else the accounts of the
    /// store. Time-out, bounds and `accounts` of that section hold for it as well.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = Some(authenticator);
        self
    }

    /// Where accounts and leases are kept; without it a database in the state folder.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// If the database in the state folder is damaged, starts from the newest good snapshot instead
    /// of refusing; the damaged file is kept. What was changed after the snapshot is lost, and
    /// addresses that were given after it rest for `limits.lease_quarantine`.
    #[must_use]
    pub fn recover(mut self, recover: bool) -> Self {
        self.recover = recover;
        self
    }

    /// Where packets go; without it a TUN device.
    #[must_use]
    pub fn tun(mut self, tun: TunSource) -> Self {
        self.tun = tun;
        self
    }

    /// Listening sockets that somebody else has opened, non-blocking. A listener of the
    /// configuration with the address of one takes that; the others are closed.
    #[must_use]
    pub fn inherited(mut self, sockets: Vec<TcpListener>) -> Self {
        self.inherited = sockets;
        self
    }

    /// Lets the control socket change what is logged. The library sets up no logging: whoever does
    /// hands this in; without it `log-level` answers that it is not offered.
    #[must_use]
    pub fn log_filter(mut self, filter: Arc<dyn LogFilter>) -> Self {
        self.log_filter = Some(filter);
        self
    }

    /// Starts everything, in an order in which a failure leaves nothing behind.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what to do.
    pub async fn start(self) -> Result<Concentrator, StartError> {
        // Opening the database, making keys and talking to the kernel block for a while.
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || start::start(self, &runtime))
            .await
            .map_err(|_| StartError::Internal("the start was cancelled"))?
    }
}

/// Name of the database in the state folder.
#[cfg(feature = "store-sqlite")]
const DATABASE: &str = "tunnelhead.db";

/// Reads the certificates, keys and revocation lists that a configuration names, and checks them
/// against each other. Nothing is made or changed.
///
/// # Errors
/// Everything that is wrong.
pub fn check_files(config: &Config) -> Result<(), Vec<Problem>> {
    material::Material::check(config)
}

/// A running concentrator. Dropping it ends it abruptly; see [`Concentrator::shutdown`].
pub struct Concentrator {
    core: Arc<core::Core>,
    api: Arc<api::ApiHandle>,
    listening: Vec<SocketAddr>,
    threads: Threads,
}

impl Concentrator {
    /// Starts describing a concentrator.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens since its start, with the real ports.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// What happens from now on. A slow listener holds up nobody; what it loses it is told.
    pub fn events(&self) -> EventStream {
        EventStream::new(&self.core.events, None)
    }

    /// What has happened since the event of this id, an `event_id` of a list or of
    /// [`EventStream::position`]. The first thing it gives is a gap if not everything is held.
    pub fn events_after(&self, id: u64) -> EventStream {
        EventStream::new(&self.core.events, Some(id))
    }

    /// The router accounts.
    pub fn routers(&self) -> Routers {
        Routers::new(Arc::clone(&self.api))
    }

    /// The tunnels that are up.
    pub fn tunnels(&self) -> Tunnels {
        Tunnels::new(Arc::clone(&self.api))
    }

    /// The tunnel that a router has now.
    ///
    /// # Errors
    /// `tunnel_not_found`.
    pub fn tunnel(&self, router: &str) -> Result<Tunnel, ApiError> {
        self.tunnels().get(router)
    }

    /// The handle that the control socket is served from.
    pub fn handle(&self) -> Arc<dyn Handle> {
        Arc::new(Arc::clone(&self.api))
    }

    /// Reads configuration, certificates and revocation lists again and changes over to them. No
    /// tunnel is dropped, but those of clients whose certificate is revoked. What is bad changes
    /// nothing. Of two at once the second waits for the first.
    ///
    /// # Errors
    /// `reload_refused`: everything that is wrong with what was read.
    pub async fn reload(&self) -> Result<ReloadReport, ApiError> {
        self.api.reload_now().await
    }

    /// The scripts of a router whose password the caller has kept: nothing is changed, and the
    /// password isn't checked.
    ///
    /// # Errors
    /// `router_not_found`.
    pub fn provision(
        &self,
        name: &str,
        password: SecretText,
        verify_server: bool,
    ) -> Result<CreatedRouter, ApiError> {
        self.api.provision(name, password, verify_server)
    }

    /// Tunnels at present.
    pub fn tunnel_count(&self) -> u64 {
        self.core.tunnel_count()
    }

    /// Why this process should end: a packet or login thread has ended or hangs, in one sentence.
    /// Nothing mends that from inside; tunnels of other threads work on until somebody acts.
    pub fn failure(&self) -> Option<String> {
        self.core.dead_or_hanging()
    }

    /// Ends every tunnel, waits for the threads, and closes the store.
    pub async fn shutdown(self) {
        let Self { core, threads, .. } = self;
        // Joining blocks for as long as a turn of an event loop takes.
        let _ = tokio::task::spawn_blocking(move || {
            drop(threads);
            core.events.close();
            core.audit.close();
            core.sessions.finish();
            core.store.close();
        })
        .await;
    }
}

/// The threads that were started; they end when this is dropped.
#[derive(Default)]
struct Threads {
    /// First to end: its jobs use everything else.
    housekeeper: housekeeping::Housekeeper,
    shards: Vec<ShardHandle>,
    greeters: Vec<GreeterHandle>,
}

impl Drop for Threads {
    /// Newcomers first, so that nobody moves to a shard that has ended.
    fn drop(&mut self) {
        drop(std::mem::take(&mut self.housekeeper));
        for greeter in &self.greeters {
            greeter.mailbox.post(GreeterMessage::Stop);
        }
        for greeter in &mut self.greeters {
            join(greeter.thread.take());
        }
        for shard in &self.shards {
            shard.mailbox.post(ShardMessage::Stop);
        }
        for shard in &mut self.shards {
            join(shard.thread.take());
        }
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.join().is_err()
    {
        tracing::error!("a thread had ended with a panic");
    }
}
