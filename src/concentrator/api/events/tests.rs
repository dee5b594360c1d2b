//! Who sees which events of a running concentrator.

use std::path::Path;
use std::time::Duration;

use crate::concentrator::{Concentrator, TunSource, TunnelEvent};
use crate::config::Config;
use crate::control_api::Expected;
use crate::control_api::types::{NewRouter, Page, RouterFilter, RouterPatch};
use crate::identity::Account;
#[cfg(feature = "store-sqlite")]
use crate::store::SqliteStore;
use crate::store::{MemoryStore, Store};
use crate::tun::{Queue, memory};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Without a store it makes a database in its state folder.
async fn start(dir: &Path, store: Option<Arc<dyn Store>>) -> Concentrator {
    let text = "listen = [\"127.0.0.1:0\"]\npublic_host = \"127.0.0.1\"\nstate_dir = \"state\"\n\
                [limits]\nevents = 1024\n";
    let config = Config::parse(text, dir, &[]).unwrap();
    let (queues, _) = memory::pair(1).unwrap();
    let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect();
    let mut builder = Concentrator::builder().config(config);
    if let Some(store) = store {
        builder = builder.store(store);
    }
    builder.tun(TunSource::Queues(queues)).start().await.unwrap()
}

/// Makes a router and gives it a tenant and a tag.
async fn add(head: &Concentrator, name: &str, tenant: &str, tag: &str) {
    head.handle().add_router(&Scope::All, NewRouter::named(name)).await.unwrap();
    let account = head.core.accounts.read().get(name).cloned().unwrap();
    let account = Account {
        tenant: Some(tenant.into()),
        tags: vec![tag.to_owned()],
        ..Account::clone(&account)
    };
    head.core.accounts.write().insert(account).unwrap();
}

fn changed(head: &Concentrator, name: &str) {
    head.core.tell(TunnelEvent::RouterChanged { router: name.into() });
}

/// Routers of the next events, until there is none.
async fn routers(source: &mut dyn EventSource) -> Vec<String> {
    let mut names = Vec::new();
    while let Ok(next) = tokio::time::timeout(Duration::from_millis(50), source.next()).await {
        let event = next.expect("no end").expect("no gap");
        names.push(event.what.router().map_or_else(|| "-".to_owned(), ToString::to_string));
    }
    names
}

fn tenants(names: &[&str]) -> Scope {
    Scope::Tenants(names.iter().map(|name| Arc::from(*name)).collect())
}

#[tokio::test]
async fn events_of_other_tenants_never_appear() {
    let dir = tempfile::tempdir().unwrap();
    let head = start(dir.path(), Some(Arc::new(MemoryStore::new()))).await;
    add(&head, "a", "acme", "site=1").await;
    add(&head, "b", "other", "site=1").await;
    let handle = head.handle();
    let start = handle.event_id();
    for name in ["a", "b", "absent"] {
        changed(&head, name);
    }
    head.core.tell(TunnelEvent::Reloaded);
    handle.remove_router(&Scope::All, "b", Expected::Any).await.unwrap();
    changed(&head, "a");
    let filter = |router: Option<&str>, tag: Option<&str>, tenant: Option<&str>| EventFilter {
        kinds: Vec::new(),
        router: router.map(str::to_owned),
        tag: tag.map(str::to_owned),
        tenant: tenant.map(str::to_owned),
    };
    let acme = tenants(&["acme"]);
    for (scope, filter, expected) in [
        (&Scope::All, filter(None, None, None), &["a", "b", "absent", "-", "b", "a"][..]),
        (&Scope::All, filter(None, None, Some("other")), &["b", "b"]),
        (&Scope::All, filter(None, Some("site=1"), None), &["a", "a"]),
        (&Scope::All, filter(Some("b"), None, None), &["b", "b"]),
        (&acme, filter(None, None, None), &["a", "a"]),
        (&acme, filter(Some("b"), None, None), &[]),
        (&acme, filter(Some("absent"), None, None), &[]),
        (&acme, filter(None, None, Some("other")), &[]),
        (&tenants(&["other"]), filter(None, None, None), &["b", "b"]),
        (&tenants(&[]), filter(None, None, None), &[]),
    ] {
        let mut source = handle.follow(scope, filter.clone(), Some(start)).unwrap();
        assert_eq!(routers(&mut *source).await, expected, "{scope:?} {filter:?}");
        assert_eq!(source.position(), handle.event_id());
    }
    head.shutdown().await;
}

#[tokio::test]
async fn a_router_that_is_given_to_another_tenant_leaves_its_former_one() {
    let dir = tempfile::tempdir().unwrap();
    let head = start(dir.path(), Some(Arc::new(MemoryStore::new()))).await;
    add(&head, "a", "old", "x").await;
    let handle = head.handle();
    let start = handle.event_id();
    let patch: RouterPatch = serde_json::from_str("{\"tenant\": \"new\"}").unwrap();
    handle.patch_router(&Scope::All, "a", Expected::Any, patch).await.unwrap();
    for (tenant, expected) in
        [("old", &["router.removed"][..]), ("new", &["router.added", "router.changed"])]
    {
        let scope = tenants(&[tenant]);
        let mut source = handle.follow(&scope, EventFilter::default(), Some(start)).unwrap();
        for kind in expected {
            let next = tokio::time::timeout(PATIENCE, source.next()).await.unwrap();
            assert_eq!(next.unwrap().unwrap().what.kind(), *kind, "{tenant}");
        }
        assert_eq!(routers(&mut *source).await, [""; 0]);
    }
    head.shutdown().await;
}

#[tokio::test]
async fn a_gap_tells_a_tenant_nothing_about_routers_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let head = start(dir.path(), Some(Arc::new(MemoryStore::new()))).await;
    add(&head, "a", "acme", "x").await;
    add(&head, "b", "other", "x").await;
    let handle = head.handle();
    let start = handle.event_id();
    for _ in 0..2000 {
        changed(&head, "b");
    }
    let gap = |scope: &Scope, router: Option<&str>| {
        let filter = EventFilter { router: router.map(str::to_owned), ..EventFilter::default() };
        handle.follow(scope, filter, Some(start)).err()
    };
    let all = gap(&Scope::All, None).unwrap();
    assert!(all.lost.is_some_and(|lost| lost > 900), "{all}");
    assert_eq!(gap(&Scope::All, Some("a")), None, "its last events are still there");
    assert!(gap(&Scope::All, Some("b")).is_some());
    let acme = tenants(&["acme"]);
    assert_eq!(gap(&acme, None), Some(EventGap { lost: None, ..all }));
    assert_eq!(gap(&acme, Some("b")), gap(&acme, Some("absent")));
    assert_eq!(gap(&acme, Some("a")), None);
    head.shutdown().await;
}

#[cfg(feature = "store-sqlite")]
#[tokio::test]
async fn ids_rise_over_a_restart_and_the_gap_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let head = start(dir.path(), None).await;
    let mut stream = head.events();
    add(&head, "a", "acme", "x").await;
    let kinds = [stream.recv().await.unwrap(), stream.recv().await.unwrap()];
    assert_eq!(kinds.each_ref().map(|event| event.what.kind()), ["router.added", "address.given"]);
    let listed = head
        .handle()
        .list_routers(&Scope::All, RouterFilter::default(), Page::ALL)
        .await
        .unwrap()
        .event_id;
    head.shutdown().await;
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(end) = stream.recv().await {
                break end;
            }
        }
    });
    assert_eq!(end.await.unwrap(), NoEvent::Closed);
    let store = SqliteStore::open(dir.path().join("state/tunnelhead.db")).unwrap();
    let reserved = store.load().unwrap().marks.events_reserved;
    store.close();
    drop(store);
    assert!(reserved > listed, "ids were reserved ahead of their use");

    let head = start(dir.path(), None).await;
    let handle = head.handle();
    assert!(handle.event_id() > reserved, "no id of the run before can come again");
    let gap = handle.follow(&Scope::All, EventFilter::default(), Some(listed)).err().unwrap();
    assert_eq!((gap.from, gap.lost), (listed + 1, None));
    let mut source = handle.follow(&Scope::All, EventFilter::default(), Some(gap.to)).unwrap();
    changed(&head, "a");
    assert_eq!(routers(&mut *source).await, ["a"]);
    let future = handle.event_id() + 1000;
    assert!(handle.follow(&Scope::All, EventFilter::default(), Some(future)).is_err());
    head.shutdown().await;
}
