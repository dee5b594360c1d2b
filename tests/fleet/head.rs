//! A concentrator in this process, with a memory device and the host behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tunnelhead::concentrator::{Authenticator, Builder, Concentrator, TunSource};
use tunnelhead::config::{Config, Listener};
use tunnelhead::control_api::types::{
    CreatedRouter, DirectoryEntry, IncidentView, LoginAttempt, LoginFilter, LoginReport, NewRouter,
    ReloadReport, RouterPatch, SessionFilter, SessionView, Status, Timestamp, TunnelFilter,
    TunnelView,
};
use tunnelhead::control_api::{ApiError, Expected, Handle, Scope};
use tunnelhead::store::MemoryStore;
use tunnelhead::testing::fleet::{Host, Member};
use tunnelhead::testing::profiles::Profile;
use tunnelhead::tun::{Queue, memory};

use crate::support::eventually;

/// A login, or anything else that takes milliseconds on an idle machine, is done by then.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Packet threads of the concentrators in this process.
const SHARDS: usize = 2;

/// A running concentrator.
pub(crate) struct Head {
    runtime: Runtime,
    concentrator: Option<Concentrator>,
    handle: Arc<dyn Handle>,
    pub(crate) host: Host,
    folder: TempDir,
}

impl Head {
    /// One listener, every default.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// A concentrator whose configuration `change` has had a look at. It has one listener on a
    /// free port of 127.0.0.1.
    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_for(change, None)
    }

    /// The same with an authenticator of the embedder's.
    pub(crate) fn start_for(
        change: impl FnOnce(&mut Config),
        authenticator: Option<Arc<dyn Authenticator>>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config {
            listeners: vec![listener()],
            state_dir: folder.path().join("state"),
            ..Config::default()
        };
        config.public_host = Some("127.0.0.1".to_owned());
        change(&mut config);
        let mut builder = Concentrator::builder();
        if let Some(authenticator) = authenticator {
            builder = builder.authenticator(authenticator);
        }
        Self::start_as(builder, config, folder)
    }

    /// A concentrator that reads "config.toml" in this folder, now and at each reload.
    pub(crate) fn start_from_file(folder: TempDir) -> Self {
        let file = folder.path().join("config.toml");
        let load = move || Config::load(&file, &[]);
        let config = load().expect("a configuration");
        Self::start_as(Concentrator::builder().reload_from(load), config, folder)
    }

    fn start_as(builder: Builder, config: Config, folder: TempDir) -> Self {
        let (queues, device) = memory::pair(SHARDS).expect("a memory device");
        let host = Host::start(device, config.management_address).expect("a host");
        let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect();
        let runtime = Runtime::new().expect("a runtime");
        let builder = builder
            .config(config)
            .store(Arc::new(MemoryStore::new()))
            .tun(TunSource::Queues(queues));
        let concentrator = runtime.block_on(builder.start()).expect("a concentrator");
        let handle = concentrator.handle();
        Self { runtime, concentrator: Some(concentrator), handle, host, folder }
    }

    /// The folder of everything that this concentrator keeps.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Where listener number `index` listens.
    pub(crate) fn listens(&self, index: usize) -> SocketAddr {
        let concentrator = self.concentrator.as_ref().expect("a running concentrator");
        concentrator.local_addresses()[index]
    }

    /// Makes a router account.
    pub(crate) fn add(&self, name: &str) -> CreatedRouter {
        self.add_router(NewRouter::named(name)).expect("an account")
    }

    /// Makes a router account.
    pub(crate) fn add_router(&self, new: NewRouter) -> Result<CreatedRouter, ApiError> {
        self.runtime.block_on(self.handle.add_router(&Scope::All, new))
    }

    /// A client for the first listener with a new account of this name.
    pub(crate) fn member(&self, name: &str, profile: Profile) -> Member {
        let account = self.add(name);
        let (username, password) = (&account.router.username, account.password.expose());
        Member::new(self.listens(0), profile, username, password)
    }

    pub(crate) fn disable(&self, name: &str) {
        let patch = RouterPatch::disabled(true);
        self.runtime
            .block_on(self.handle.patch_router(&Scope::All, name, Expected::Any, patch))
            .expect("a change");
    }

    pub(crate) fn disconnect(&self, name: &str) {
        self.runtime
            .block_on(self.handle.disconnect(&Scope::All, name, None))
            .expect("a disconnect");
    }

    /// The newest login attempt from this address that has ended in this way (`failed`, `up`).
    pub(crate) fn attempt_from(&self, source: IpAddr, outcome: &str) -> LoginAttempt {
        eventually("login attempt", SOON, || {
            let filter = LoginFilter {
                source: Some(source),
                outcome: Some(outcome.to_owned()),
                ..LoginFilter::default()
            };
            let listed = self.handle.list_logins(&Scope::All, filter, 1, None);
            self.runtime.block_on(listed).expect("the attempts").items.pop()
        })
    }

    /// The attempts that somebody with this scope is shown.
    pub(crate) fn logins_in(&self, scope: &Scope) -> Vec<LoginAttempt> {
        let listed = self.handle.list_logins(scope, LoginFilter::default(), 1000, None);
        self.runtime.block_on(listed).expect("the attempts").items
    }

    /// Why this router can, or can't, log in, for somebody with this scope.
    pub(crate) fn why_in(&self, scope: &Scope, name: &str) -> Result<LoginReport, ApiError> {
        self.runtime.block_on(self.handle.why(scope, name))
    }

    /// Why this router can, or can't, log in.
    pub(crate) fn why(&self, name: &str) -> Result<LoginReport, ApiError> {
        self.runtime.block_on(self.handle.why(&Scope::All, name))
    }

    /// What crossed the wire in its last login.
    pub(crate) fn capture(&self, name: &str) -> Result<String, ApiError> {
        self.runtime.block_on(self.handle.capture(&Scope::All, name))
    }

    /// What troubled the fleet in the last quarter of an hour.
    pub(crate) fn incidents(&self) -> Vec<IncidentView> {
        let since = Duration::from_secs(900);
        self.runtime.block_on(self.handle.incidents(&Scope::All, since)).expect("incidents").items
    }

    pub(crate) fn status(&self) -> Status {
        self.runtime.block_on(self.handle.status()).expect("the status")
    }

    /// Reads the configuration again.
    pub(crate) fn reload(&self) -> Result<ReloadReport, ApiError> {
        self.runtime.block_on(self.handle.reload())
    }

    /// One counter of the status; 0 if it has not been counted yet.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status().counters.get(name).copied().unwrap_or(0)
    }

    /// Waits until a counter has this value at least: what a client sees is counted afterwards.
    pub(crate) fn wait_counter(&self, name: &str, value: u64) {
        eventually(name, SOON, || (self.counter(name) >= value).then_some(()));
    }

    pub(crate) fn tunnels(&self) -> Vec<TunnelView> {
        self.runtime
            .block_on(self.handle.list_tunnels(&Scope::All, TunnelFilter::ALL))
            .expect("the tunnels")
            .items
    }

    /// Everything that is kept of the tunnels of a router, newest first.
    pub(crate) fn sessions(&self, name: &str) -> Vec<SessionView> {
        let filter = SessionFilter::default();
        self.runtime
            .block_on(self.handle.sessions(&Scope::All, name, filter))
            .expect("sessions")
            .items
    }

    /// Who has, or had, an address.
    pub(crate) fn directory(
        &self,
        address: Ipv4Addr,
        at: Option<Timestamp>,
    ) -> Result<DirectoryEntry, ApiError> {
        self.runtime.block_on(self.handle.directory(&Scope::All, address, at))
    }

    pub(crate) fn tunnel(&self, name: &str) -> Option<TunnelView> {
        self.runtime.block_on(self.handle.get_tunnel(&Scope::All, name)).ok()
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        if let Some(concentrator) = self.concentrator.take() {
            self.runtime.block_on(concentrator.shutdown());
        }
    }
}

/// A listener on a free port.
pub(crate) fn listener() -> Listener {
    Listener::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}
