//! A concentrator of cardboard.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::DuplexStream;
use tokio::sync::oneshot;

use crate::audit::{Action, Who};

use crate::control_api::handle::{Dialled, EventSource, NextEvent};
use crate::control_api::types::{
    CreatedRouter, DialTo, EventFilter, EventGap, Finding, ImportRefused, ImportedRouter, List,
    NewRouter, Page, PoolStatus, ReloadReport, RotateRouter, RouterFilter, RouterPatch,
    RouterRecord, RouterView, SecretText, Status, StoreStatus, Timestamp, TunStatus, TunnelFilter,
    TunnelView,
};
use crate::control_api::{
    Answer, ApiError, Audit, ErrorCode, Events, Expected, History, Logins, Observation, Operations,
    Routers, Rows, Scope, StoreKeeping, Tunnels,
};

/// The router's end of a dial, and what ends the session with a reason.
type FarEnd = (DuplexStream, oneshot::Sender<&'static str>);

#[derive(Default)]
pub(super) struct Fake {
    pub(super) routers: Mutex<BTreeMap<String, RouterView>>,
    /// `status` never answers.
    pub(super) stuck: bool,
    /// Entries that `list_tunnels` makes up.
    pub(super) tunnels: usize,
    /// The other ends of what `dial` gives, and what ends the session.
    pub(super) dialled: Arc<Mutex<Vec<FarEnd>>>,
    /// What the audit trail was told.
    pub(super) audited: Arc<Mutex<Vec<Action>>>,
}

fn view(new: &NewRouter) -> RouterView {
    RouterView {
        name: new.name.clone(),
        username: new.username.clone().unwrap_or_else(|| new.name.clone()),
        login: new.login,
        certificate_cn: new.certificate_cn.clone(),
        cipher: new.cipher.clone(),
        auth: new.auth.clone(),
        address: new.address,
        address_static: new.address.is_some(),
        disabled: false,
        connected: false,
        created: Timestamp(1_795_305_600),
        last_seen: None,
        tenant: new.tenant.clone(),
        tags: new.tags.clone(),
        note: new.note.clone(),
        rotation: None,
        revision: 1,
    }
}

pub(super) fn tunnel(router: &str) -> TunnelView {
    TunnelView {
        router: router.to_owned(),
        generation: 1,
        tenant: None,
        tags: Vec::new(),
        address: Ipv4Addr::new(100, 64, 1, 2),
        real_address: "192.0.2.1:40000".parse().unwrap(),
        state: "up".into(),
        since: Timestamp(1_795_305_600),
        last_heard: None,
        cipher: "AES-256-CBC".into(),
        auth: "SHA1".into(),
        tls_version: None,
        tls_suite: None,
        key_age_seconds: 3,
        rx_bytes: 10,
        tx_bytes: 20,
        rx_packets: 1,
        tx_packets: 2,
        drops: BTreeMap::new(),
        queued_bytes: 0,
        rtt_us: None,
        retransmits: None,
        silent_ms: None,
        dials_open: 0,
        dials_total: 0,
        dial_rx_bytes: 0,
        dial_tx_bytes: 0,
    }
}

pub(super) fn status() -> Status {
    Status {
        version: "1.2.3".into(),
        pid: 1,
        started: Timestamp(0),
        uptime_seconds: 5,
        ready: true,
        tun: TunStatus { name: "t0".into(), up: true, mtu: 1500, queues: 1 },
        listeners: Vec::new(),
        management_address: Ipv4Addr::new(100, 127, 255, 254),
        routers: 0,
        tunnels: 0,
        logins_in_progress: 0,
        pool: PoolStatus {
            network: "100.64.0.0/10".into(),
            capacity: 1,
            in_use: 0,
            quarantined: 0,
        },
        shards: Vec::new(),
        store: StoreStatus { ok: true, reason: None },
        certificates: Vec::new(),
        crls: Vec::new(),
        degraded: Vec::new(),
        counters: BTreeMap::new(),
    }
}

impl Observation for Fake {}

impl Operations for Fake {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async {
            if self.stuck {
                std::future::pending::<()>().await;
            }
            Ok(status())
        })
    }

    fn reload(&self) -> Answer<'_, ReloadReport> {
        Box::pin(async {
            Ok(ReloadReport {
                at: Timestamp(1_795_305_600),
                applied: vec!["tls.crl".into()],
                needs_restart: vec!["pool".into()],
                tunnels_cut: 1,
                warnings: Vec::new(),
            })
        })
    }

    fn doctor(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async {
            Ok(vec![
                Finding::ok("clock", "right"),
                Finding::warn("backlog", "it is short", "make it longer"),
            ])
        })
    }
}

impl Routers for Fake {
    fn add_router(&self, _: &Scope, new: NewRouter) -> Answer<'_, CreatedRouter> {
        Box::pin(async move {
            let router = view(&new);
            let mut routers = self.routers.lock().unwrap();
            if routers.contains_key(&new.name) {
                return Err(ApiError::field(ErrorCode::RouterExists, "name", "exists"));
            }
            routers.insert(new.name.clone(), router.clone());
            let text = |text: &str| SecretText(text.to_owned());
            Ok(CreatedRouter {
                router,
                password: new.password.unwrap_or_else(|| text("generated")),
                script: text("v7"),
                script_v6: text("v6"),
                ovpn: text("client"),
            })
        })
    }

    fn list_routers(
        &self,
        _: &Scope,
        filter: RouterFilter,
        page: Page,
    ) -> Answer<'_, List<RouterView>> {
        let all: Vec<_> = self.routers.lock().unwrap().values().cloned().collect();
        let fitting = all.into_iter().filter(move |one| {
            page.is_ahead(&one.name)
                && filter.fits_account(&one.name, one.tenant.as_deref(), &one.tags, one.disabled)
        });
        let list = List::complete(0, fitting.collect());
        Box::pin(async { Ok(list) })
    }

    fn get_router(&self, _: &Scope, name: &str) -> Answer<'_, RouterView> {
        let found = self.routers.lock().unwrap().get(name).cloned();
        let result = found.ok_or_else(|| ApiError::router_not_found(name));
        Box::pin(async { result })
    }

    fn patch_router(
        &self,
        _: &Scope,
        name: &str,
        expected: Expected,
        patch: RouterPatch,
    ) -> Answer<'_, RouterView> {
        let mut routers = self.routers.lock().unwrap();
        let result = match routers.get_mut(name) {
            None => Err(ApiError::router_not_found(name)),
            Some(router) => expected.check(router.revision).map(|()| {
                router.disabled = patch.disabled.apply(None).unwrap_or(router.disabled);
                router.revision += 1;
                router.clone()
            }),
        };
        Box::pin(async { result })
    }

    fn readdress_router(&self, _: &Scope, name: &str, _: Expected) -> Answer<'_, RouterView> {
        self.get_router(&Scope::All, name)
    }

    fn rotate_router(
        &self,
        _: &Scope,
        name: &str,
        _: Expected,
        _: RotateRouter,
    ) -> Answer<'_, CreatedRouter> {
        let error = ApiError::router_not_found(name);
        Box::pin(async { Err(error) })
    }

    fn export_routers(&self, _: &Scope) -> Answer<'_, Rows<RouterRecord>> {
        Box::pin(async { Ok(Box::new(std::iter::empty()) as Rows<RouterRecord>) })
    }

    fn import_routers(
        &self,
        _: &Scope,
        _: Vec<(u64, RouterRecord)>,
        _: bool,
    ) -> Answer<'_, Result<Rows<ImportedRouter>, ImportRefused>> {
        Box::pin(async { Ok(Ok(Box::new(std::iter::empty()) as Rows<ImportedRouter>)) })
    }

    fn remove_router(&self, _: &Scope, name: &str, _: Expected) -> Answer<'_, ()> {
        let removed = self.routers.lock().unwrap().remove(name);
        let result = removed.map(drop).ok_or_else(|| ApiError::router_not_found(name));
        Box::pin(async { result })
    }
}

impl Tunnels for Fake {
    fn dial(&self, _: &Scope, name: &str, _: DialTo) -> Answer<'_, Dialled> {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (end, ended) = oneshot::channel();
        let answer = if name == "r0" {
            self.dialled.lock().unwrap().push((theirs, end));
            Ok(Dialled {
                connection: Box::new(ours),
                generation: 7,
                session_end: Box::pin(async { ended.await.unwrap_or("gone") }),
                traffic: Arc::default(),
            })
        } else {
            Err(ApiError::new(ErrorCode::DialRefused, "no"))
        };
        Box::pin(async { answer })
    }

    fn list_tunnels(&self, _: &Scope, _: TunnelFilter) -> Answer<'_, List<TunnelView>> {
        Box::pin(async {
            Ok(List::complete(0, (0..self.tunnels).map(|n| tunnel(&format!("r{n}"))).collect()))
        })
    }

    fn get_tunnel(&self, _: &Scope, name: &str) -> Answer<'_, TunnelView> {
        let result =
            if name == "r0" { Ok(tunnel(name)) } else { Err(ApiError::tunnel_not_found(name)) };
        Box::pin(async { result })
    }

    fn disconnect(&self, _: &Scope, name: &str, _: Option<u64>) -> Answer<'_, ()> {
        let result = if name == "r0" { Ok(()) } else { Err(ApiError::tunnel_not_found(name)) };
        Box::pin(async { result })
    }
}

impl History for Fake {}

impl Events for Fake {
    fn event_id(&self) -> u64 {
        0
    }

    fn follow(
        &self,
        _: &Scope,
        _: EventFilter,
        _: Option<u64>,
    ) -> Result<Box<dyn EventSource>, EventGap> {
        Ok(Box::new(Silence))
    }
}

/// Nothing ever happens.
struct Silence;

impl EventSource for Silence {
    fn next(&mut self) -> NextEvent<'_> {
        Box::pin(std::future::pending())
    }

    fn position(&self) -> u64 {
        0
    }
}

impl Logins for Fake {}

impl Audit for Fake {
    fn note_audit(&self, _: Who, action: Action) {
        self.audited.lock().unwrap().push(action);
    }
}

impl StoreKeeping for Fake {}
