//! Starting: everything that can fail, in an order in which a failure leaves nothing behind.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;
use tunnelhead_crypto::{Secret, SystemRandom};

use crate::config::{self, CertificatePolicy, Config};
use crate::control_api::types::{
    CertificateStatus, Degraded, ListenerStatus, Timestamp, TunStatus,
};
use crate::greeter::{self, GreeterLimits, GreeterShared, Listener};
use crate::identity::{Directory, StoredSecret, Takeovers};
use crate::lease::{AddressBook, PoolConfig, PoolError};
use crate::net::admission::{Admission, Limits as AdmissionLimits};
use crate::net::flow_queue::Budget;
use crate::net::isolation::{AllowedPort, Policy, Proto};
use crate::proto::session::{SessionConfig, WrapConfig};
use crate::shard::{self, ShardConfig, ShardSettings};
use crate::store::{Change, Snapshot, Store, StoreError};
use crate::sys::mailbox::Mailbox;
use crate::sys::rlimit;
use crate::telemetry::clock;
use crate::telemetry::flight::{Limits, Recorder};
use crate::telemetry::tally::Tally;
use crate::tls::certificate;
use crate::tls::pki::{self, PkiError, PkiRequest};
use crate::tls::{
    CertAndKey, ClientCertificatePolicy, OpensslContext, ServerTlsConfig, TlsContext, TlsError,
};
use crate::tun::{Device, Queue, TunConfig, TunError};

use super::accounts::Accounts;
use super::api::{ApiHandle, Facts};
use super::authenticator;
use super::core::{Core, Counters, Services};
use super::dial::{Dials, Route};
use super::events::{EventHub, before_first};
use super::housekeeping::Housekeeping;
use super::provisioning::Provisioning;
use super::revoked::Revoked;
use super::secrets::{Secrets, SecretsError};
use super::{Builder, Concentrator, Threads, TunSource, watch};

/// Rekey handshakes in progress a greeter, as a multiple of the limit for logins: they are part of
/// tunnels that must not be lost.
const REKEYS_PER_HANDSHAKE: usize = 4;
/// How soon the end of a ban is told; it counts from its own moment.
const BANS_EVERY: Duration = Duration::from_secs(1);
/// `nice` of greeter threads: at 10, a busy greeter beside a busy shard gets about a tenth.
const GREETER_NICE: u8 = 10;
/// Time for a rekey. Source: OpenVPN hand-window.
const HAND_WINDOW: Duration = Duration::from_secs(60);
/// Life of the old key after a rekey. Source: OpenVPN tran-window.
const TRANSITION_WINDOW: Duration = Duration::from_secs(3600);
/// Life of a TLS engine after its work is done.
const LINGER: Duration = Duration::from_secs(2);
/// The same while the push reply is not acknowledged.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// Time for a client to read why it was refused. Source: OpenVPN scheduled exit.
const AUTH_FAILED_LINGER: Duration = Duration::from_secs(5);
/// Time between looks at leases that have rested long enough.
const LEASES_EVERY: Duration = Duration::from_secs(3600);
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
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
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
    let Builder { mut config, authenticator, store, tun } = builder;
    let mut degraded = Vec::new();
    create_state_dir(&config.state_dir)?;
    let store = match store {
        Some(store) => store,
        None => open_store(&config.state_dir)?,
    };
    let snapshot = store.load()?;
    let secrets = load_secrets(&config, &snapshot)?;
    let certificates = Certificates::load(&config, &mut degraded)?;
    let sockets = bind_all(&mut config, &mut degraded)?;
    let listening: Vec<SocketAddr> =
        sockets.iter().map(|socket| socket.local_addr()).collect::<Result<_, _>>()?;

    let (queues, kernel) = open_tun(&config, tun, &mut degraded)?;
    raise_descriptor_limit(&config, &mut degraded);

    let shards = queues.len();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let greeters = config.threads.greeters(cores);
    let shard_mailboxes = mailboxes(shards, shard::MAILBOX_BOUND)?;
    let greeter_mailboxes = mailboxes(greeters, greeter::MAILBOX_BOUND)?;

    let accounts = Arc::new(load_accounts(&snapshot, &secrets, cores)?);
    let mut admission = Admission::new(AdmissionLimits {
        total: config.limits.unauthenticated,
        per_source: config.limits.unauthenticated_per_source,
        known_for: config.limits.source_memory,
        handshakes: config.limits.handshakes_per_greeter * greeters,
    });
    // The whole fleet comes back after a restart: its networks are no strangers.
    for source in snapshot.activity.iter().filter_map(|seen| seen.real_address) {
        admission.succeeded(clock::now(), source);
    }
    let alive_at = snapshot.marks.alive_at;
    let reserved = snapshot.marks.events_reserved;
    let recorder = flights_of(&snapshot);
    let leases = load_leases(&config, snapshot, &secrets, &mut degraded)?;
    let mut housekeeping = Housekeeping::default();
    forget_leases(&store, config.limits.lease_quarantine);
    housekeeping.every("leases", LEASES_EVERY, {
        let (store, quarantine) = (Arc::clone(&store), config.limits.lease_quarantine);
        move || forget_leases(&store, quarantine)
    });
    let greeting = Arc::new(GreeterShared {
        admission: Mutex::new(admission),
        buffered: AtomicUsize::new(0),
        // Numbers of sessions rise over restarts too, and stay exact in JSON (below 2^53).
        next_client: AtomicU64::new(clock::unix_seconds() << 20),
        closed: Tally::default(),
        in_progress: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        certificates: AtomicU32::new(0),
    });
    let shard_counters =
        (0..shards).map(|_| Arc::new(shard::ShardCounters::default())).collect::<Vec<_>>();
    let (judge, outside) = authenticator::judge(&config, authenticator, &accounts, runtime)?;
    let core = Arc::new(Core {
        judge,
        outside,
        guests: Mutex::default(),
        accounts,
        leases: Mutex::new(leases),
        store: Arc::clone(&store),
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
    let settings = ShardSettings {
        policy: policy_of(&config),
        queue_bytes: u32::try_from(config.limits.queue_bytes).unwrap_or(u32::MAX),
        user_timeout: config.keepalive.restart,
        suspect_after: config.keepalive.suspect,
    };
    for ((index, queue), counters) in (0..).zip(queues).zip(shard_counters) {
        let shard = ShardConfig {
            index,
            count: shards,
            pool: config.pool.network,
            settings: settings.clone(),
            budget: Arc::clone(&budget),
        };
        let peers = shard_mailboxes.clone();
        let handle = shard::spawn(shard, queue, peers, Arc::clone(&services) as _, counters)?;
        threads.shards.push(handle);
    }
    let listeners = make_listeners(&config, sockets, &certificates, &secrets)?;
    let accepted = listeners.iter().map(|listener| Arc::clone(&listener.accepted)).collect();
    for (index, mailbox) in greeter_mailboxes.into_iter().enumerate() {
        let limits = GreeterLimits {
            login_deadline: config.limits.login_deadline,
            rekeys: config.limits.handshakes_per_greeter * REKEYS_PER_HANDSHAKE,
            buffered_each: config.limits.login_bytes,
            buffered_in_all: config.limits.login_bytes_total,
            nice: GREETER_NICE,
        };
        let services = Arc::clone(&services) as _;
        let greeting = Arc::clone(&greeting);
        let handle = greeter::spawn(index, listeners.clone(), limits, greeting, mailbox, services)?;
        threads.greeters.push(handle);
    }

    housekeeping.every("bans", BANS_EVERY, {
        let core = Arc::clone(&core);
        move || core.expire_bans()
    });
    let api = Arc::new(ApiHandle {
        facts: facts(&config, &listening, shards, kernel, &certificates, &mut degraded),
        provisioning: provisioning(&config, &listening, &certificates),
        accepted,
        core: Arc::clone(&core),
        changing: tokio::sync::Mutex::new(()),
    });
    watch::start(&mut housekeeping, &api, alive_at);
    threads.housekeeper = housekeeping.start()?;
    Ok(Concentrator { core, api, listening, threads })
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
fn open_store(state_dir: &Path) -> Result<Arc<dyn Store>, StartError> {
    Ok(Arc::new(crate::store::sqlite::SqliteStore::open(state_dir.join("tunnelhead.db"))?))
}

#[cfg(not(feature = "store-sqlite"))]
fn open_store(_: &Path) -> Result<Arc<dyn Store>, StartError> {
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
        if let (Some(username), Some(address)) = (username, seen.real_address) {
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
    let book = AddressBook::new(&pool, snapshot.leases)?;
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

/// Binds every listener and takes those out of the configuration that this host can't have: the
/// default names both families, and a kernel without IPv6 is no reason not to start.
fn bind_all(
    config: &mut Config,
    degraded: &mut Vec<Degraded>,
) -> Result<Vec<Arc<TcpListener>>, StartError> {
    let mut sockets = Vec::new();
    let mut bound = Vec::new();
    for listener in std::mem::take(&mut config.listeners) {
        match bind(&listener, config) {
            Ok(socket) => {
                sockets.push(socket);
                bound.push(listener);
            }
            Err(StartError::NoIpv6 { address }) => degraded.push(Degraded {
                part: "listener".to_owned(),
                reason: format!("this host has no IPv6; {address} is not listened on"),
            }),
            Err(error) => return Err(error),
        }
    }
    config.listeners = bound;
    if sockets.is_empty() {
        return Err(StartError::Internal("this host has no IPv6 and no other listener is set"));
    }
    Ok(sockets)
}

fn bind(listener: &config::Listener, config: &Config) -> Result<Arc<TcpListener>, StartError> {
    let address = listener.address;
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // An IPv4 listener on the same port stands beside it.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let backlog = i32::try_from(config.limits.listen_backlog).unwrap_or(i32::MAX);
        socket.listen(backlog)?;
        Ok(socket.into())
    };
    open().map(Arc::new).map_err(|error| {
        if address.ip().is_unspecified() && error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
            return StartError::NoIpv6 { address };
        }
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "the port is in use; stop the other program or choose another port".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this host does not have the address".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "no right to use this port; choose one above 1023".to_owned()
            }
            _ => error.to_string(),
        };
        StartError::Listen { address, reason }
    })
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

/// The server's certificates, read or made.
struct Certificates {
    pairs: Vec<CertAndKey>,
    client_ca: Option<Vec<u8>>,
    /// The CA that routers verify the server with, if it is ours.
    ca_pem: Option<String>,
    server_name: Option<String>,
}

impl Certificates {
    fn load(config: &Config, degraded: &mut Vec<Degraded>) -> Result<Self, StartError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| StartError::File { path: path.to_owned(), source })
        };
        let (host, guessed) = config.router_host(default_source());
        if guessed {
            let reason = match &host {
                Some(host) => {
                    format!("public_host is not set; scripts tell routers to dial {host}")
                }
                None => "public_host is not set and this host has no default route; set it, or \
                         put the name in place of HOST in the scripts"
                    .to_owned(),
            };
            degraded.push(Degraded { part: "public_host".to_owned(), reason });
        }
        let client_ca = config.tls.client_ca.as_deref().map(read).transpose()?;
        if !config.tls.certificates.is_empty() {
            let pairs = config
                .tls
                .certificates
                .iter()
                .map(|files| CertAndKey::read(&files.certificate, &files.key))
                .collect::<Result<_, _>>()?;
            return Ok(Self { pairs, client_ca, ca_pem: None, server_name: None });
        }
        let names: Vec<String> = host.into_iter().collect();
        let server_name = names.first().cloned();
        let made = pki::ensure(&config.state_dir.join("pki"), &PkiRequest { server_names: names })?;
        let ca = read(&made.ca_certificate)?;
        let pairs = made
            .servers
            .iter()
            .map(|pair| CertAndKey::read(&pair.certificate, &pair.key))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            pairs,
            client_ca: client_ca.or_else(|| Some(ca.clone())),
            ca_pem: String::from_utf8(ca).ok(),
            server_name,
        })
    }
}

/// The source address of the host's default route: what a router on the internet could dial.
fn default_source() -> Option<std::net::IpAddr> {
    // Connecting a datagram socket sends nothing; it asks the routing table.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

fn make_listeners(
    config: &Config,
    sockets: Vec<Arc<TcpListener>>,
    certificates: &Certificates,
    secrets: &Secrets,
) -> Result<Vec<Listener>, StartError> {
    let credential_key = secrets.key("session credentials");
    config
        .listeners
        .iter()
        .zip(sockets)
        .map(|(listener, socket)| {
            let tls = OpensslContext::server(&ServerTlsConfig {
                certificates: certificates.pairs.iter().map(CertAndKey::duplicate).collect(),
                client_ca: certificates.client_ca.clone(),
                client_certificate: match listener.client_certificate {
                    CertificatePolicy::No => ClientCertificatePolicy::No,
                    CertificatePolicy::Optional => ClientCertificatePolicy::Optional,
                    CertificatePolicy::Required => ClientCertificatePolicy::Required,
                },
                legacy: listener.legacy,
                ..ServerTlsConfig::default()
            })?;
            Ok(Listener {
                socket,
                session: Arc::new(session_config(config, listener, &credential_key)),
                tls: Arc::new(tls) as Arc<dyn TlsContext>,
                accepted: Arc::new(AtomicU64::new(0)),
                proxies: listener.proxy_protocol.clone(),
            })
        })
        .collect()
}

fn session_config(
    config: &Config,
    listener: &config::Listener,
    credential_key: &Secret<32>,
) -> SessionConfig {
    let wrap = match &listener.wrap {
        config::Wrap::None => WrapConfig::None,
        config::Wrap::TlsAuth { key, digest } => WrapConfig::TlsAuth {
            key: key.duplicate(),
            direction: tunnelhead_crypto::KeyDirection::Normal,
            digest: *digest,
        },
        config::Wrap::TlsCrypt { key } => WrapConfig::TlsCrypt { key: key.duplicate() },
        config::Wrap::TlsCryptV2 { key } => WrapConfig::TlsCryptV2 { server_key: key.duplicate() },
    };
    SessionConfig {
        wrap,
        ciphers: config.data.ciphers.clone(),
        ping: config.keepalive.ping,
        restart: config.keepalive.restart,
        management: config.management_address,
        tun_mtu: config.tun.mtu,
        hand_window: HAND_WINDOW,
        transition_window: TRANSITION_WINDOW,
        linger: LINGER,
        linger_max: LINGER_MAX,
        auth_failed_linger: AUTH_FAILED_LINGER,
        rekey_after: config.data.rekey_after,
        credential_key: credential_key.duplicate(),
        judge_rekeys: config.authenticator.rekeys,
        preauth_bytes: config.limits.login_bytes,
        frame_bytes: config.limits.frame_bytes,
    }
}

fn facts(
    config: &Config,
    listening: &[SocketAddr],
    shards: usize,
    kernel: bool,
    certificates: &Certificates,
    degraded: &mut Vec<Degraded>,
) -> Facts {
    let listeners = listening
        .iter()
        .zip(&config.listeners)
        .map(|(address, listener)| ListenerStatus {
            address: *address,
            wrap: listener.wrap.name().to_owned(),
            up: true,
            accepted: 0,
        })
        .collect();
    Facts {
        started: clock::unix_seconds(),
        tun: TunStatus {
            name: if kernel { config.tun.name.clone() } else { "memory".to_owned() },
            up: true,
            mtu: config.tun.mtu,
            queues: u32::try_from(shards).unwrap_or(u32::MAX),
        },
        routed: kernel.then_some(config.pool.network),
        listeners,
        management_address: config.management_address,
        pool: config.pool.network.to_string(),
        certificates: certificates.pairs.iter().filter_map(certificate_status).collect(),
        legacy_listener: listening
            .iter()
            .zip(&config.listeners)
            .find(|(_, listener)| listener.legacy)
            .map(|(address, _)| *address),
        ciphers: config.data.ciphers.iter().map(|cipher| cipher.name().to_owned()).collect(),
        degraded: std::mem::take(degraded),
    }
}

fn certificate_status(pair: &CertAndKey) -> Option<CertificateStatus> {
    let facts = certificate::describe(&pair.certificate_pem)?;
    Some(CertificateStatus {
        subject: facts.subject,
        key: facts.key,
        not_after: Timestamp(facts.not_after),
    })
}

fn provisioning(
    config: &Config,
    listening: &[SocketAddr],
    certificates: &Certificates,
) -> Provisioning {
    let (host, _) = config.router_host(default_source());
    let port = listening.first().map_or(8443, SocketAddr::port);
    Provisioning::new(
        config,
        host.unwrap_or_else(|| "HOST".to_owned()),
        port,
        certificates.ca_pem.clone(),
        certificates.server_name.clone(),
    )
}
