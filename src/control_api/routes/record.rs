//! What the audit trail learns of a request: made in one place for every change and every refusal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use serde_json::{Map, Value};

use crate::audit::{Action, MAX_ACTOR_BYTES, MAX_DETAIL_BYTES, MAX_DETAILS, Who, bounded};
use crate::control_api::error::ErrorCode;
use crate::control_api::handle::Handle;
use crate::control_api::permission::{Door, Peer};
use crate::control_api::types::{check_name, is_unprintable};

/// Details that a handler adds to the record of its request, as an extension of its response.
#[derive(Clone, Debug, Default)]
pub(super) struct AuditDetail(pub(super) BTreeMap<String, String>);

/// Fields whose values may be in the trail. Everything else is there by name only.
const SHOWN: [&str; 17] = [
    "name",
    "disabled",
    "tenant",
    "tags",
    "address",
    "cipher",
    "auth",
    "login",
    "certificate_cn",
    "username",
    "port",
    "ban_seconds",
    "level",
    "filter",
    "grace_seconds",
    "mode",
    "segment",
];

tokio::task_local! {
    static SENT: RefCell<Sent>;
}

/// What was sent in the body.
#[derive(Default)]
struct Sent {
    fields: Vec<String>,
    detail: BTreeMap<String, String>,
}

/// Notes the fields of a body that was understood.
pub(super) fn note_body(bytes: &[u8]) {
    let Ok(Value::Object(map)) = serde_json::from_slice(bytes) else { return };
    // Outside of a recorded request there is nothing to note it for.
    let _ = SENT.try_with(|sent| sent.borrow_mut().take(&map));
}

impl Sent {
    fn take(&mut self, map: &Map<String, Value>) {
        self.fields = map.keys().take(MAX_DETAILS).map(|name| plain(name, 64)).collect();
        for (name, value) in map.iter().filter(|(name, _)| SHOWN.contains(&name.as_str())) {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Object(_) => continue,
                other => other.to_string(),
            };
            self.detail.insert(name.clone(), plain(&text, MAX_DETAIL_BYTES));
        }
    }
}

/// Runs the handler and remembers what was sent.
pub(super) async fn with_body(handler: impl Future<Output = Response>) -> Response {
    let seen = RefCell::new(Sent::default());
    SENT.scope(seen, async {
        let mut response = handler.await;
        let sent = SENT.with(RefCell::take);
        response.extensions_mut().insert(Arc::new(sent));
        response
    })
    .await
}

/// A request on its way: becomes a record when it is answered, and also when its client leaves
/// before that.
pub(super) struct Pending {
    handle: Arc<dyn Handle>,
    who: Who,
    action: Option<Action>,
    /// Recorded whatever comes of it.
    always: bool,
    /// Bound to tenants: what it can't find may be another's.
    bound: bool,
}

impl Pending {
    pub(super) fn new(
        handle: Arc<dyn Handle>,
        who: Who,
        method: &Method,
        template: &str,
        uri: &Uri,
        always: bool,
    ) -> Self {
        let mut action = Action { what: format!("{method} {template}"), ..Action::default() };
        if template.is_empty() {
            action.what = format!("{method} ?");
            action.detail.insert("path".to_owned(), bounded(uri.path(), MAX_DETAIL_BYTES));
        }
        action.router = router_of(template, uri.path());
        if let Some(query) = uri.query()
            && always
        {
            action.detail.insert("query".to_owned(), bounded(query, MAX_DETAIL_BYTES));
        }
        Self { handle, who, action: Some(action), always, bound: false }
    }

    pub(super) fn bind(&mut self) {
        self.bound = true;
    }

    /// It is answered.
    pub(super) fn answered(mut self, response: &Response) {
        let code = response.extensions().get::<ErrorCode>().copied();
        let hidden = matches!(code, Some(ErrorCode::RouterNotFound | ErrorCode::TunnelNotFound));
        let wanted = self.always || code == Some(ErrorCode::Forbidden) || (self.bound && hidden);
        let Some(mut action) = self.action.take().filter(|_| wanted) else { return };
        action.status = Some(response.status().as_u16());
        action.code = code.map(ErrorCode::name);
        if let Some(sent) = response.extensions().get::<Arc<Sent>>() {
            action.fields.clone_from(&sent.fields);
            action.detail.extend(sent.detail.clone());
            if action.router.is_none() && action.what == "POST /v1/routers" {
                action.router = sent.detail.get("name").cloned();
            }
        }
        if let Some(AuditDetail(more)) = response.extensions().get() {
            action.detail.extend(more.clone());
        }
        self.handle.note_audit(self.who.clone(), action);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Whoever asked has left; what was asked for may have been done all the same.
        if let Some(mut action) = self.action.take().filter(|_| self.always) {
            action.detail.insert("client".to_owned(), "left before the answer".to_owned());
            self.handle.note_audit(self.who.clone(), action);
        }
    }
}

/// Who is at the other end, with what it claims to be.
pub(super) fn who(peer: &Peer, door: &Door, headers: &HeaderMap) -> Who {
    Who {
        uid: Some(peer.uid),
        gid: Some(peer.gid),
        pid: peer.pid,
        socket: Some(door.path.to_string()),
        actor: actor(headers),
    }
}

/// The `X-Actor` header: printable, at most 128 bytes, believed by nobody.
fn actor(headers: &HeaderMap) -> Option<String> {
    let text = String::from_utf8_lossy(headers.get("x-actor")?.as_bytes());
    let plain: String = text.chars().map(|c| if is_unprintable(c) { '?' } else { c }).collect();
    let plain = bounded(plain.trim(), MAX_ACTOR_BYTES);
    (!plain.is_empty()).then_some(plain)
}

/// A stranger's text with nothing in it that moves a cursor or turns a line, and of bounded length.
fn plain(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in bounded(text, most).chars() {
        if is_unprintable(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    bounded(&out, most)
}

/// What stands in the path where the template has `{name}`.
fn router_of(template: &str, path: &str) -> Option<String> {
    let place = template.split('/').position(|part| part == "{name}")?;
    let name = path.split('/').nth(place)?;
    // A name that no router can have stays as it was written, percent signs and all.
    Some(if check_name(name).is_ok() { name.to_owned() } else { bounded(name, 64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_where_the_template_says() {
        assert_eq!(router_of("/v1/routers/{name}", "/v1/routers/a").as_deref(), Some("a"));
        let dial = router_of("/v1/tunnels/{name}/dial", "/v1/tunnels/b-1/dial");
        assert_eq!(dial.as_deref(), Some("b-1"));
        assert_eq!(router_of("/v1/status", "/v1/status"), None);
        let odd = router_of("/v1/routers/{name}", "/v1/routers/..%2f%0a");
        assert_eq!(odd.as_deref(), Some("..%2f%0a"));
        let long = router_of("/v1/routers/{name}", &format!("/v1/routers/{}", "x".repeat(5000)));
        assert_eq!(long.unwrap().len(), 64);
    }

    #[test]
    fn a_claimed_actor_is_printable_and_short() {
        let claimed = |value: &[u8]| {
            let value = axum::http::HeaderValue::from_bytes(value).unwrap();
            actor(&HeaderMap::from_iter([(axum::http::HeaderName::from_static("x-actor"), value)]))
        };
        assert_eq!(claimed(b"alice").as_deref(), Some("alice"));
        assert_eq!(claimed(b"a\tb").as_deref(), Some("a?b"));
        assert_eq!(claimed("a\u{202e}b".as_bytes()).as_deref(), Some("a?b"));
        assert_eq!(claimed(b"  "), None);
        assert!(claimed(&[0xff; 500]).unwrap().len() <= 128);
        assert_eq!(actor(&HeaderMap::new()), None);
    }

    #[test]
    fn secrets_are_there_by_name_only() {
        let mut sent = Sent::default();
        let body = serde_json::json!({
            "name": "a", "password": "canary-7Q2", "note": "canary-7Q3", "tags": ["x", "y"],
            "disabled": true, "unheard": {"of": "canary-7Q4"}, "address": null,
        });
        sent.take(body.as_object().unwrap());
        assert_eq!(sent.fields.len(), 7);
        let text = format!("{:?}", sent.detail);
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(sent.detail["tags"], "[\"x\",\"y\"]");
        assert_eq!(sent.detail["disabled"], "true");
    }
}
