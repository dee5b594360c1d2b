//! Starting: everything that can fail, in an order in which a failure leaves nothing behind.

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tunnelhead_crypto::{SecureRandom as _, SystemRandom};

use crate::audit::AuditKey;
use crate::config::{self, Config, ConfigError};
use crate::control_api::types::{Degraded, TunStatus};
use crate::greeter::{self, GreeterLimits, GreeterShared};
use crate::identity::{Directory, StoredSecret, Takeovers};
use crate::lease::{AddressBook, PoolConfig, PoolError};
use crate::net::admission::{Admission, Limits as AdmissionLimits};
use crate::net::flow_queue::Budget;
use crate::net::isolation::{AllowedPort, Policy, Proto};
use crate::shard::{self, ShardConfig, ShardSettings};
use crate::store::{Change, Snapshot, Store, StoreError};
use crate::sys::mailbox::Mailbox;
use crate::sys::rlimit;
use crate::telemetry::clock;
use crate::telemetry::flight::{Limits, Recorder};
use crate::telemetry::tally::Tally;
use crate::tls::TlsError;
use crate::tun::{Device, Queue, TunConfig, TunError};

use super::accounts::Accounts;
use super::api::{ApiHandle, Facts};
use super::audit::{self, Trail};
use super::authenticator;
use super::core::{Core, Counters, Services};
use super::dial::{Dials, Route};
use super::events::{EventHub, before_first};
use super::housekeeping::Housekeeping;
use super::keeping::{self, Keeping};
use super::listening::Places;
use super::material::Material;
use super::observed::Observed;
use super::reload::Reloader;
use super::revoked::Revoked;
use super::timed_store::TimedStore;

use super::secrets::{Secrets, SecretsError};
use super::session_log::SessionLog;
use super::settings::{self, Current, Settings};
use super::{Builder, Concentrator, Threads, TunSource, watch};

/// Time between looks for leases that have rested long enough.
const LEASES_EVERY: Duration = Duration::from_secs(3600);
/// Rekey handshakes in progress a greeter, as a multiple of the limit for logins: they are part of
/// tunnels that must not be lost.
const REKEYS_PER_HANDSHAKE: usize = 4;
/// How soon the end of a ban is told; it counts from its own moment.
const BANS_EVERY: Duration = Duration::from_secs(1);
/// `nice` of greeter threads: at 10, a busy greeter beside a busy shard gets about a tenth.
const GREETER_NICE: u8 = 10;
/// How often the end of the audit trail is written to the log.
const AUDIT_HEAD_EVERY: Duration = Duration::from_secs(3600);
/// Time for which records of tunnels wait for more of them.
const SESSIONS_EVERY: Duration = Duration::from_secs(1);
/// Time between two notes that the process runs.
const ALIVE_EVERY: Duration = Duration::from_secs(60);
/// Time between two parts of pruning, and records in a part: twenty million a day.
const PRUNE_EVERY: Duration = Duration::from_secs(2);
const PRUNE_AT_MOST: u32 = 500;
/// Time between looks at rotated passwords whose grace period is over.
const ROTATIONS_EVERY: Duration = Duration::from_secs(1);
/// Time between looks at the threads' turns.
const PULSE_EVERY: Duration = Duration::from_secs(1);
/// Descriptors beside one a tunnel: listeners, queues, database, control connections.
const SPARE_DESCRIPTORS: u64 = 1024;

/// Why a concentrator can't start, in one sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state folder.
    #[error("cannot use the state folder {}: {source}", path.display())]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server's secret.
    #[error("{0}")]
    Secrets(String),
    /// Certificates, keys and revocation lists.
    #[error(transparent)]
    Files(ConfigError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file that the configuration names.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A listener.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What to do about it.
        reason: String,
    },
    /// An IPv6 listener on a host without IPv6.
    #[error("this host has no IPv6: {address} can not be listened on")]
    NoIpv6 {
        /// The address.
        address: SocketAddr,
    },
    /// The address pool.
    #[error("[pool]: {0}")]
    Pool(#[from] PoolError),
    /// The TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The number of queues that were handed in.
    #[error("{0} TUN queues were handed in; their number must be a power of two")]
    Queues(usize),
    /// Threads and descriptors.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// `[authenticator]`
    #[error("[authenticator]: {0}")]
    Authenticator(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(&'static str),
}

impl From<SecretsError> for StartError {
    fn from(error: SecretsError) -> Self {
        Self::Secrets(error.to_string())
    }
}

pub(super) fn start(builder: Builder, runtime: &Handle) -> Result<Concentrator, StartError> {
    let Builder { config, source, authenticator, store, recover, tun, log_filter, inherited } =
        builder;
    let mut degraded = Vec::new();
    create_state_dir(&config.state_dir)?;
    let own_store = store.is_none();
    let store = match store {
        Some(store) => store,
        None => open_store(&config.state_dir, recover)?,
    };
    let (store, store_times) = TimedStore::around(store);
    let snapshot = store.load()?;
    let marks = snapshot.marks;
    let secrets = load_secrets(&config, &snapshot)?;
    let audit_key = || AuditKey::new(secrets.key(audit::KEY_PURPOSE));
    let audit = Trail::start(audit::Setup {
        store: Arc::clone(&store),
        state_dir: own_store.then_some(config.state_dir.as_path()),
        keys: [audit_key(), audit_key()],
        retention: config.audit.retention,
    })?;
    let (host, _) = settings::router_host(&config);
    let material = Material::read(&config, host.as_deref())
        .map_err(|problems| StartError::Files(ConfigError::Invalid(problems)))?;
    let mut of_listeners = Vec::new();
    let credential_key = secrets.key("session credentials");
    let places = Places::open(&config, inherited, &material, credential_key, &mut of_listeners)?;
    let listening = places.addresses();

    let (queues, kernel) = open_tun(&config, tun, &mut degraded)?;
    raise_descriptor_limit(&config, &mut degraded);

    let shards = queues.len();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let greeters = config.threads.greeters(cores);
    let shard_mailboxes = mailboxes(shards, shard::MAILBOX_BOUND)?;
    let greeter_mailboxes = mailboxes(greeters, greeter::MAILBOX_BOUND)?;

    let accounts = Arc::new(load_accounts(&snapshot, &secrets, cores)?);
    let mut admission = Admission::new(admission_limits(&config, greeters));
    // The whole fleet comes back after a restart: its networks are no strangers.
    for source in snapshot.activity.iter().filter_map(|seen| seen.real_address) {
        admission.succeeded(clock::now(), source);
    }
    let alive_at = snapshot.marks.alive_at;
    let reserved = snapshot.marks.events_reserved;
    let recorder = flights_of(&snapshot);
    let leases = load_leases(&config, snapshot, &secrets, &mut degraded)?;
    let sessions = SessionLog::new(Arc::clone(&store), &marks, clock::unix_seconds());
    let keeping = Arc::new(Keeping::new(
        Arc::clone(&store),
        &config.state_dir,
        &config.store,
        marks.recovery,
        config.limits.lease_quarantine,
    ));
    let mut housekeeping = Housekeeping::default();
    keep_history(&mut housekeeping, &store, &sessions, config.history.retention);
    housekeeping.every("snapshots", keeping.look_every(), {
        let keeping = Arc::clone(&keeping);
        move || keeping.snapshot_if_due(clock::unix_seconds())
    });
    forget_leases(&store, config.limits.lease_quarantine);
    housekeeping.every("leases", LEASES_EVERY, {
        let (store, quarantine) = (Arc::clone(&store), config.limits.lease_quarantine);
        move || forget_leases(&store, quarantine)
    });
    let greeting = Arc::new(GreeterShared {
        admission: Mutex::new(admission),
        buffered: AtomicUsize::new(0),
        // Numbers of sessions rise over restarts too, and stay exact in JSON (below 2^53).
        next_client: AtomicU64::new(sessions.first()),
        closed: Tally::default(),
        in_progress: AtomicUsize::new(0),
        turns: (0..greeters).map(|_| AtomicU64::new(0)).collect(),
        ended: AtomicUsize::new(0),
        certificates: AtomicU32::new(0),
    });
    let shard_counters =
        (0..shards).map(|_| Arc::new(shard::ShardCounters::default())).collect::<Vec<_>>();
    let (judge, outside) = authenticator::judge(&config, authenticator, &accounts, runtime)?;
    let listeners = places.listeners(&config);
    let current = Current::new(config.clone(), &material, &places, of_listeners);
    let core = Arc::new(Core {
        probe_username: probe_username()?,
        settings: Settings::new(current, std::mem::take(&mut degraded)),
        judge,
        observed: Observed::new(store_times, config.metrics.per_router, log_filter),
        outside,
        guests: Mutex::default(),
        accounts,
        leases: Mutex::new(leases),
        store: Arc::clone(&store),
        audit,
        sessions: Arc::clone(&sessions),
        takeovers: Mutex::new(Takeovers::new()),
        live: Mutex::default(),
        bans: Mutex::default(),
        revoked: Mutex::new(Revoked::new(config.limits.login_deadline)),
        greeters: greeter_mailboxes.clone(),
        shards: shard_mailboxes.clone(),
        shard_counters: shard_counters.clone(),
        greeting: Arc::clone(&greeting),
        events: Arc::new(EventHub::new(
            before_first(clock::unix_seconds(), reserved),
            config.limits.events,
            Box::new({
                let store = Arc::clone(&store);
                move |up_to| store.submit(vec![Change::ReserveEvents { up_to }], None)
            }),
        )),
        counts: Counters::default(),
        dials: Arc::new(Dials::new(
            kernel.then(|| Route {
                management: config.management_address,
                device: config.tun.name.clone(),
            }),
            config.limits.dials,
        )),
        recorder: Mutex::new(recorder),
    });
    core.make_room_for_events();
    let services = Arc::new(Services(Arc::clone(&core)));

    let mut threads = Threads::default();
    let budget = Budget::new(config.limits.queue_bytes_total);
    for ((index, queue), counters) in (0..).zip(queues).zip(shard_counters) {
        let shard = ShardConfig {
            index,
            count: shards,
            pool: config.pool.network,
            settings: shard_settings(&config),
            budget: Arc::clone(&budget),
        };
        let peers = shard_mailboxes.clone();
        let handle = shard::spawn(shard, queue, peers, Arc::clone(&services) as _, counters)?;
        threads.shards.push(handle);
    }
    for (index, mailbox) in greeter_mailboxes.into_iter().enumerate() {
        let limits = greeter_limits(&config);
        let services = Arc::clone(&services) as _;
        let greeting = Arc::clone(&greeting);
        let handle = greeter::spawn(index, listeners.clone(), limits, greeting, mailbox, services)?;
        threads.greeters.push(handle);
    }

    housekeeping.every("audit head", AUDIT_HEAD_EVERY, {
        let core = Arc::clone(&core);
        move || tracing::info!(target: "audit", head = %core.audit.head(), "audit trail")
    });
    housekeeping.every("bans", BANS_EVERY, {
        let core = Arc::clone(&core);
        move || core.expire_bans()
    });
    let api = Arc::new(ApiHandle {
        facts: facts(&config, shards, kernel),
        reloader: Reloader::new(Arc::clone(&core), source, greeters, places, material.prints()),
        core: Arc::clone(&core),
        changing: tokio::sync::Mutex::new(()),
        keeping,
        importing: tokio::sync::Semaphore::new(1),
        examining: tokio::sync::Mutex::new(()),
    });
    watch::start(&mut housekeeping, &api, alive_at);
    housekeeping.every("rotations", ROTATIONS_EVERY, {
        let api = Arc::clone(&api);
        move || api.end_rotations(clock::unix_seconds())
    });
    housekeeping.every("threads", PULSE_EVERY, {
        let core = Arc::clone(&core);
        move || core.look_at_threads()
    });
    threads.housekeeper = housekeeping.start()?;
    Ok(Concentrator { core, api, listening, threads })
}

/// Records of the past: written soon, pruned in small parts. Once a minute it is noted that the
/// process runs, so that the next one knows when this one ended if nobody tells.
fn keep_history(
    housekeeping: &mut Housekeeping,
    store: &Arc<dyn Store>,
    sessions: &Arc<SessionLog>,
    retention: Duration,
) {
    let sessions = Arc::clone(sessions);
    housekeeping.every("sessions", SESSIONS_EVERY, move || sessions.flush());
    let alive = Arc::clone(store);
    housekeeping.every("alive", ALIVE_EVERY, move || {
        alive.submit(vec![Change::Alive { at: clock::unix_seconds() }], None);
    });
    let pruned = Arc::clone(store);
    housekeeping.every("history", PRUNE_EVERY, move || {
        let before = clock::unix_seconds().saturating_sub(retention.as_secs());
        pruned.submit(vec![Change::PruneSessions { before, at_most: PRUNE_AT_MOST }], None);
    });
}

/// What has rested long enough needs no record any more.
fn forget_leases(store: &Arc<dyn Store>, quarantine: Duration) {
    let released_before = clock::unix_seconds().saturating_sub(quarantine.as_secs());
    store.submit(vec![Change::ForgetLeases { released_before }], None);
}

fn mailboxes<T>(count: usize, bound: usize) -> io::Result<Vec<Arc<Mailbox<T>>>> {
    (0..count).map(|_| Mailbox::new(bound).map(Arc::new)).collect()
}

fn create_state_dir(path: &Path) -> Result<(), StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StartError::StateDir { path: path.to_owned(), source })
}

#[cfg(feature = "store-sqlite")]
fn open_store(state_dir: &Path, recover: bool) -> Result<Arc<dyn Store>, StartError> {
    use crate::store::sqlite::{self, SqliteStore};
    let path = state_dir.join(super::DATABASE);
    let open = || -> Result<SqliteStore, StoreError> {
        let store = SqliteStore::open(&path)?;
        // Some damage shows only when everything is read.
        store.load()?;
        Ok(store)
    };
    let error = match open() {
        Ok(store) => return Ok(Arc::new(store)),
        Err(error) => error,
    };
    if !recover || !matches!(error, StoreError::Damaged { .. } | StoreError::Foreign { .. }) {
        return Err(error.into());
    }
    tracing::error!(%error, "starting from the newest good snapshot");
    let copies = keeping::copies(&keeping::folder_of(state_dir))
        .map_err(|source| StartError::StateDir { path: keeping::folder_of(state_dir), source })?;
    let recovered = sqlite::recover(&path, &copies, clock::unix_seconds())?;
    tracing::warn!(
        snapshot = %recovered.from.display(),
        made = %crate::control_api::types::Timestamp(recovered.copied_at),
        damaged = recovered.set_aside.as_ref().map(|path| path.display().to_string()),
        resting = recovered.resting,
        addresses_known = recovered.addresses_known,
        "recovered; what was changed after the snapshot is lost"
    );
    Ok(Arc::new(open()?))
}

#[cfg(not(feature = "store-sqlite"))]
fn open_store(_: &Path, _: bool) -> Result<Arc<dyn Store>, StartError> {
    Ok(Arc::new(crate::store::MemoryStore::new()))
}

fn load_secrets(config: &Config, snapshot: &Snapshot) -> Result<Secrets, StartError> {
    let machine_made = |secret: &StoredSecret| matches!(secret, StoredSecret::Machine { .. });
    let needed = snapshot.accounts.iter().any(|account| machine_made(&account.secret));
    Ok(Secrets::load(&config.state_dir, needed, &mut SystemRandom)?)
}

fn load_accounts(
    snapshot: &Snapshot,
    secrets: &Secrets,
    cores: usize,
) -> Result<Accounts, StartError> {
    let mut directory = Directory::new();
    for account in &snapshot.accounts {
        if let Err(error) = directory.insert(account.clone()) {
            tracing::error!(router = %account.name, %error, "this account can't be used");
        }
    }
    let key = secrets.key("router passwords");
    let accounts = Accounts::new(directory, key, secrets.key("verified passwords"), cores)?;
    for seen in &snapshot.activity {
        let username = accounts.read().get(&seen.router).map(|a| a.username.clone());
        let Some(username) = username else { continue };
        accounts.note_seen(&seen.router, seen.last_seen);
        if let Some(address) = seen.real_address {
            accounts.remember(&username, address);
        }
    }
    Ok(accounts)
}

/// An empty flight recorder that knows where routers were last seen.
fn flights_of(snapshot: &Snapshot) -> Recorder {
    let mut recorder = Recorder::new(Limits::default());
    for seen in &snapshot.activity {
        if let Some(home) = seen.real_address {
            recorder.fleet.seed(&seen.router, home);
        }
    }
    recorder
}

fn load_leases(
    config: &Config,
    snapshot: Snapshot,
    secrets: &Secrets,
    degraded: &mut Vec<Degraded>,
) -> Result<AddressBook, StartError> {
    let pool = PoolConfig {
        network: config.pool.network,
        excluded: config.pool.excluded.clone(),
        management: config.management_address,
        order_key: *secrets.key("address order").expose(),
        quarantine_seconds: config.limits.lease_quarantine.as_secs(),
    };
    let mut book = AddressBook::new(&pool, snapshot.leases)?;
    if let Some(recovery) = &snapshot.marks.recovery
        && !recovery.addresses_known
    {
        book.give_none_before(keeping::quarantine_end(recovery, config.limits.lease_quarantine));
    }
    let ignored = book.ignored().len();
    if ignored > 0 {
        degraded.push(Degraded {
            part: "pool".to_owned(),
            reason: format!(
                "{ignored} recorded addresses don't fit the pool as it is configured now; their \
                 routers get new ones"
            ),
        });
    }
    Ok(book)
}

/// The queues, and whether they are the kernel's.
type TunParts = (Vec<Box<dyn Queue>>, bool);

fn open_tun(
    config: &Config,
    source: TunSource,
    degraded: &mut Vec<Degraded>,
) -> Result<TunParts, StartError> {
    match source {
        TunSource::Queues(queues) if queues.len().is_power_of_two() => Ok((queues, false)),
        TunSource::Queues(queues) => Err(StartError::Queues(queues.len())),
        TunSource::Kernel => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let device = Device::create(&TunConfig {
                name: config.tun.name.clone(),
                queues: config.threads.shards(cores),
                mtu: config.tun.mtu,
            })?;
            let configured = device.configure(config.management_address, config.pool.network)?;
            for warning in configured.warnings {
                degraded.push(Degraded { part: "tun".to_owned(), reason: warning });
            }
            let queues = device.into_queues().into_iter();
            Ok((queues.map(|queue| Box::new(queue) as Box<dyn Queue>).collect(), true))
        }
    }
}

fn raise_descriptor_limit(config: &Config, degraded: &mut Vec<Degraded>) {
    let pool = 1u64 << (32 - u32::from(config.pool.network.prefix_len()));
    let want = config.limits.open_files.unwrap_or_else(|| pool.saturating_add(SPARE_DESCRIPTORS));
    let got = rlimit::raise_nofile(want).unwrap_or(0);
    // A pool of millions is no promise of as many tunnels: only a low limit is worth a word.
    let enough = want.min(65_536);
    if got < enough {
        degraded.push(Degraded {
            part: "descriptors".to_owned(),
            reason: format!(
                "the process may open {got} descriptors, one a tunnel; raise LimitNOFILE to {want}"
            ),
        });
    }
}

/// 128 random bits that nobody else has.
fn probe_username() -> Result<String, StartError> {
    let mut bits = [0; 16];
    let drawn = SystemRandom.fill(&mut bits);
    drawn.map_err(|_| StartError::Internal("the operating system gives no randomness"))?;
    Ok(format!("doctor-{:032x}", u128::from_be_bytes(bits)))
}

/// Who may connect.
pub(super) fn admission_limits(config: &Config, greeters: usize) -> AdmissionLimits {
    AdmissionLimits {
        total: config.limits.unauthenticated,
        per_source: config.limits.unauthenticated_per_source,
        known_for: config.limits.source_memory,
        handshakes: config.limits.handshakes_per_greeter * greeters,
    }
}

/// The budgets of one greeter.
pub(super) fn greeter_limits(config: &Config) -> GreeterLimits {
    GreeterLimits {
        login_deadline: config.limits.login_deadline,
        rekeys: config.limits.handshakes_per_greeter * REKEYS_PER_HANDSHAKE,
        buffered_each: config.limits.login_bytes,
        buffered_in_all: config.limits.login_bytes_total,
        nice: GREETER_NICE,
    }
}

/// What shards work with.
pub(super) fn shard_settings(config: &Config) -> ShardSettings {
    ShardSettings {
        policy: policy_of(config),
        queue_bytes: u32::try_from(config.limits.queue_bytes).unwrap_or(u32::MAX),
        user_timeout: config.keepalive.restart,
        suspect_after: config.keepalive.suspect,
    }
}

fn policy_of(config: &Config) -> Policy {
    let allow: Vec<AllowedPort> = config
        .allow
        .iter()
        .map(|allow| AllowedPort {
            proto: match allow.protocol {
                config::Protocol::Tcp => Proto::Tcp,
                config::Protocol::Udp => Proto::Udp,
            },
            port: allow.port,
        })
        .collect();
    Policy::new(config.management_address, &allow)
}

fn facts(config: &Config, shards: usize, kernel: bool) -> Facts {
    Facts {
        started: clock::unix_seconds(),
        tun: TunStatus {
            name: if kernel { config.tun.name.clone() } else { "memory".to_owned() },
            up: true,
            mtu: config.tun.mtu,
            queues: u32::try_from(shards).unwrap_or(u32::MAX),
        },
        routed: kernel.then_some(config.pool.network),
        management_address: config.management_address,
        pool: config.pool.network.to_string(),
    }
}
