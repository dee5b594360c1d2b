//! Router accounts without a socket: scopes, a disk that fails, and rotations in virtual time.

use std::path::Path;
use std::sync::Arc;

use crate::concentrator::{Concentrator, TunSource};
use crate::config::Config;
use crate::control_api::types::{
    NewRouter, Page, Patch, RotateRouter, RouterFilter, RouterPatch, RouterRecord,
};
use crate::control_api::{ApiError, ErrorCode, Expected, Handle, Scope};
use crate::identity::{Judgement, Presented, judge};
use crate::store::MemoryStore;
use crate::telemetry::clock;
use crate::tun::{Queue, memory};

async fn start(dir: &Path, store: Arc<MemoryStore>) -> Concentrator {
    let text = "listen = [\"127.0.0.1:0\"]\npublic_host = \"127.0.0.1\"\nstate_dir = \"state\"\n";
    let config = Config::parse(text, dir, &[]).unwrap();
    let (queues, _) = memory::pair(1).unwrap();
    let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect();
    let builder = Concentrator::builder().config(config).store(store);
    builder.tun(TunSource::Queues(queues)).start().await.unwrap()
}

fn of(tenant: &str) -> NewRouter {
    NewRouter { tenant: Some(tenant.to_owned()), ..NewRouter::named(&format!("{tenant}-1")) }
}

fn scope(tenants: &[&str]) -> Scope {
    Scope::Tenants(tenants.iter().map(|tenant| Arc::from(*tenant)).collect())
}

/// Every way to name a router, and what it answers.
async fn ask(handle: &Arc<dyn Handle>, scope: &Scope, name: &str) -> Vec<ApiError> {
    let any = || Expected::Any;
    let note = RouterPatch { note: Patch::Set("x".to_owned()), ..RouterPatch::default() };
    let stale = Expected::Revisions(vec![1]);
    vec![
        handle.get_router(scope, name).await.unwrap_err(),
        handle.patch_router(scope, name, any(), note.clone()).await.unwrap_err(),
        handle.patch_router(scope, name, stale, note).await.unwrap_err(),
        handle.readdress_router(scope, name, any()).await.unwrap_err(),
        handle.rotate_router(scope, name, any(), RotateRouter::default()).await.unwrap_err(),
        handle.remove_router(scope, name, any()).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn a_router_of_another_tenant_answers_like_an_unknown_one() {
    let dir = tempfile::tempdir().unwrap();
    let head = start(dir.path(), Arc::default()).await;
    let handle = head.handle();
    for new in [of("north"), of("south"), NewRouter::named("nobodys")] {
        handle.add_router(&Scope::All, new).await.unwrap();
    }
    let north = scope(&["north"]);
    let unknown = ask(&handle, &north, "absent-1").await;
    for name in ["south-1", "nobodys"] {
        let got = ask(&handle, &north, name).await;
        for (got, unknown) in got.into_iter().zip(&unknown) {
            let text = serde_json::to_string(&got).unwrap().replace(name, "absent-1");
            assert_eq!(text, serde_json::to_string(unknown).unwrap());
        }
    }
    let list = |scope: Scope| {
        let list = handle.list_routers(&scope, RouterFilter::default(), Page::ALL);
        async move {
            let items = list.await.unwrap().items;
            items.into_iter().map(|one| one.name).collect::<Vec<_>>()
        }
    };
    assert_eq!(list(north.clone()).await, ["north-1"]);
    assert_eq!(list(scope(&[])).await, [""; 0]);
    assert_eq!(list(scope(&["north", "south"])).await, ["north-1", "south-1"]);
    let exported = handle.export_routers(&north).await.unwrap();
    assert_eq!(exported.map(|one| one.name).collect::<Vec<_>>(), ["north-1"]);

    // What is made and changed stays in sight of who does it.
    let made = handle.add_router(&north, NewRouter::named("north-2")).await.unwrap();
    assert_eq!(made.router.tenant.as_deref(), Some("north"));
    assert_eq!(handle.add_router(&north, of("west")).await.unwrap_err().code, ErrorCode::Invalid);
    for tenant in [Patch::Clear, Patch::Set("south".to_owned())] {
        let patch = RouterPatch { tenant, ..RouterPatch::default() };
        let moved = handle.patch_router(&north, "north-1", Expected::Any, patch).await;
        assert_eq!(moved.unwrap_err().field.as_deref(), Some("tenant"));
    }
    let record =
        RouterRecord { tenant: Some("south".to_owned()), ..RouterRecord::named("imported") };
    let Err(refused) = handle.import_routers(&north, vec![(1, record)], false).await.unwrap()
    else {
        panic!("imported into another tenant");
    };
    assert_eq!(refused.field.as_deref(), Some("tenant"));
    head.shutdown().await;
}

#[tokio::test]
async fn a_change_that_is_not_recorded_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let head = start(dir.path(), Arc::clone(&store)).await;
    let handle = head.handle();
    handle.add_router(&Scope::All, NewRouter::named("a")).await.unwrap();
    let before = handle.get_router(&Scope::All, "a").await.unwrap();
    let addresses = || {
        let leases = head.core.leases();
        (leases.in_use(), leases.quarantined())
    };
    assert_eq!(addresses(), (1, 0));
    store.set_degraded(Some("the disk is full".to_owned()));
    let fixed = RouterPatch {
        address: Patch::Set([100, 64, 50, 50].into()),
        note: Patch::Set("x".to_owned()),
        ..RouterPatch::default()
    };
    let records = (1..).zip(["b", "c"].map(RouterRecord::named)).collect();
    let refusals = [
        handle.patch_router(&Scope::All, "a", Expected::Any, fixed).await.err(),
        handle.readdress_router(&Scope::All, "a", Expected::Any).await.err(),
        handle.rotate_router(&Scope::All, "a", Expected::Any, RotateRouter::default()).await.err(),
        handle.remove_router(&Scope::All, "a", Expected::Any).await.err(),
        handle.add_router(&Scope::All, NewRouter::named("b")).await.err(),
        handle.import_routers(&Scope::All, records, false).await.err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap().code, ErrorCode::StoreDegraded);
    }
    assert_eq!(handle.get_router(&Scope::All, "a").await.unwrap(), before);
    let list = handle.list_routers(&Scope::All, RouterFilter::default(), Page::ALL);
    assert_eq!(list.await.unwrap().items.len(), 1);
    assert_eq!(addresses(), (1, 0));
    store.set_degraded(None);
    handle.readdress_router(&Scope::All, "a", Expected::Any).await.unwrap();
    head.shutdown().await;
}

/// Whether a password opens the account at this moment.
fn opens(head: &Concentrator, password: &str, unix: u64) -> bool {
    let accounts = &head.core.accounts;
    let presented =
        Presented { username: b"a", password: password.as_bytes(), certificate_cn: None };
    match judge(&accounts.read(), accounts.key(), presented, unix) {
        Judgement::Accepted(_) => true,
        Judgement::Refused(_) => false,
        Judgement::NeedsSlowHash(check) => check.verify(password.as_bytes()).is_ok(),
    }
}

#[tokio::test]
async fn both_passwords_count_until_the_grace_period_ends() {
    let dir = tempfile::tempdir().unwrap();
    let head = start(dir.path(), Arc::default()).await;
    let handle = head.handle();
    let rotate = |password: Option<&str>, grace: u64| {
        let rotate = RotateRouter {
            grace_seconds: Some(grace),
            password: password.map(|text| crate::control_api::types::SecretText(text.to_owned())),
            verify_server: false,
        };
        handle.rotate_router(&Scope::All, "a", Expected::Any, rotate)
    };
    let first = handle.add_router(&Scope::All, NewRouter::named("a")).await.unwrap().password;
    let made = rotate(None, 3600).await.unwrap();
    let second = made.password;
    let rotation = made.router.rotation.unwrap();
    let (ends, now) = (rotation.ends.0, clock::unix_seconds());
    assert!((now + 3590..=now + 3600).contains(&ends) && !rotation.new_used);
    for (unix, old) in [(now, true), (ends - 1, true), (ends, false), (ends + 9, false)] {
        assert_eq!(opens(&head, first.expose(), unix), old, "{unix}");
        assert!(opens(&head, second.expose(), unix));
    }
    // The answer was lost: a second rotation must not lock out who only knows the first password.
    let third = rotate(Some("chosen by hand"), 7200).await.unwrap().password;
    assert!(opens(&head, first.expose(), now) && opens(&head, third.expose(), now));
    assert!(!opens(&head, second.expose(), now));
    // Housekeeping forgets what is over, and nothing else.
    let api = Arc::clone(&head.api);
    let sweep = move |unix| {
        let api = Arc::clone(&api);
        tokio::task::spawn_blocking(move || api.end_rotations(unix))
    };
    sweep(now + 7100).await.unwrap();
    assert!(opens(&head, first.expose(), now));
    let revision = handle.get_router(&Scope::All, "a").await.unwrap().revision;
    sweep(now + 7300).await.unwrap();
    assert!(!opens(&head, first.expose(), now) && opens(&head, third.expose(), now));
    let view = handle.get_router(&Scope::All, "a").await.unwrap();
    assert_eq!((view.rotation, view.revision), (None, revision));
    // Without a grace period only the new one counts at once.
    let fourth = rotate(None, 0).await.unwrap();
    assert!(fourth.router.rotation.is_none());
    assert!(!opens(&head, third.expose(), now) && opens(&head, fourth.password.expose(), now));
    let error = rotate(None, RotateRouter::MAX_GRACE + 1).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("grace_seconds"));
    head.shutdown().await;
}
