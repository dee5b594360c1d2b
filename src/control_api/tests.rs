//! The real socket, a real client, and a concentrator of cardboard.

mod dial;
mod fake;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{Client, ClientError};
use super::permission::Door;
use super::seats::{Places, Seats};
use super::server::{Connection, ServerLimits, serve};
use super::socket::ControlSocket;
use super::types::{Login, NewRouter, RouterFilter, RouterPatch, SecretText, TunnelQuery};
use super::{ApiError, ErrorCode, Handle};
use crate::sys::cred::effective_uid;
use crate::telemetry::clock;
use fake::{Fake, status, tunnel};

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    dir: tempfile::TempDir,
    path: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn start(fake: Fake, limits: ServerLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(socket, Arc::new(fake), limits, async {
            let _ = stopped.await;
        }));
        Self { dir, path, stop, server }
    }

    fn client(&self) -> Client {
        Client::new(&self.path)
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// One request on a connection of its own: status, head, body.
    async fn raw(&self, request: &[u8]) -> (u16, String, String) {
        let mut stream = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request).await;
        answer(&mut stream).await
    }

    async fn end(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.server).await.unwrap().unwrap().unwrap();
        assert!(!self.path.exists());
    }
}

/// Reads until the server closes.
async fn answer(stream: &mut UnixStream) -> (u16, String, String) {
    let mut bytes = Vec::new();
    // A reset after the answer is no news.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn request(method: &str, path: &str, kind: Option<&str>, body: &str) -> Vec<u8> {
    let kind = kind.map(|kind| format!("content-type: {kind}\r\n")).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{kind}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn a_router_lives_from_add_to_remove() {
    let running = Running::start(Fake::default(), ServerLimits::default());
    let client = running.client();
    let mut new = NewRouter::named("branch-42");
    new.password = Some(SecretText("given".into()));
    new.cipher = Some("aes-256-cbc".into());
    let made = client.add_router(&new).await.unwrap();
    assert_eq!(made.password.expose(), "given");
    assert_eq!(made.router.cipher.as_deref(), Some("AES-256-CBC"));
    assert_eq!(
        client.routers(&RouterFilter::default()).await.unwrap(),
        std::slice::from_ref(&made.router)
    );
    assert_eq!(client.router("branch-42").await.unwrap(), made.router);
    let patch = RouterPatch::disabled(true);
    assert!(client.patch_router("branch-42", Some(1), &patch).await.unwrap().disabled);
    client.remove_router("branch-42", None).await.unwrap();
    match client.router("branch-42").await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::RouterNotFound),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.status().await.unwrap(), status());
    client.disconnect("r0", None).await.unwrap();
    assert_eq!(client.tunnel("r0").await.unwrap(), tunnel("r0"));
    running.end().await;
}

#[tokio::test]
async fn the_documents_have_their_promised_fields() {
    let running = Running::start(Fake { tunnels: 1, ..Fake::default() }, ServerLimits::default());
    let body = r#"{"name":"a","login":"both","certificate_cn":"A"}"#;
    let (code, head, text) = running
        .raw(&request("POST", "/v1/routers", Some("application/json; charset=utf-8"), body))
        .await;
    assert_eq!(code, 201);
    assert!(
        head.contains("location: /v1/routers/a") && head.contains("content-type: application/json")
    );
    let made: Value = serde_json::from_str(&text).unwrap();
    for key in ["name", "username", "password", "script", "script_v6", "ovpn", "login", "created"] {
        assert!(made[key].is_string(), "{key} in {text}");
    }
    let (code, _, text) = running.raw(&request("GET", "/v1/tunnels", None, "")).await;
    assert_eq!(code, 200);
    let list: Value = serde_json::from_str(&text).unwrap();
    assert!(list["next"].is_null() && list.as_object().unwrap().contains_key("event_id"));
    let one = &list["items"][0];
    assert_eq!(one["address"], "100.64.1.2");
    assert_eq!(one["real_address"], "192.0.2.1:40000");
    assert_eq!(one["since"], "2026-11-22T00:00:00Z");
    assert!(one["rx_bytes"].is_u64() && one["tx_bytes"].is_u64());
    let (code, _, text) = running.raw(&request("GET", "/v1/routers", None, "")).await;
    assert_eq!(code, 200);
    assert!(!text.contains("password") && !text.contains("generated"), "{text}");
    let (code, _, text) = running.raw(&request("DELETE", "/v1/routers/a", None, "")).await;
    assert_eq!((code, text.as_str()), (204, ""));
    running.end().await;
}

#[tokio::test]
async fn every_refusal_has_its_status_code_and_field() {
    let running = Running::start(Fake::default(), ServerLimits::default());
    let json = Some("application/json");
    let long_name = format!("/v1/routers/{}", "x".repeat(3000));
    let deep = format!(r#"{{"name":{}"#, "[".repeat(5000));
    assert_eq!(running.raw(&request("POST", "/v1/routers", json, r#"{"name":"a"}"#)).await.0, 201);
    for (method, path, kind, body, code, word, field) in [
        ("GET", "/", None, "", 404, "not_found", None),
        ("GET", "/v2/status", None, "", 404, "not_found", None),
        ("GET", "/v1/status/", None, "", 404, "not_found", None),
        ("PUT", "/v1/status", None, "", 405, "method_not_allowed", None),
        ("POST", "/v1/tunnels", json, "{}", 405, "method_not_allowed", None),
        ("GET", "/v1/status?verbose=1", None, "", 400, "bad_request", Some("verbose")),
        ("GET", "/v1/routers/b", None, "", 404, "router_not_found", None),
        ("GET", "/v1/routers/..", None, "", 404, "router_not_found", None),
        ("GET", "/v1/routers/..%2f..%2fetc%2fpasswd", None, "", 404, "router_not_found", None),
        ("GET", "/v1/routers/-a", None, "", 404, "router_not_found", None),
        ("GET", "/v1/routers/a%0a%1b%5b31m%e2%80%ae", None, "", 404, "router_not_found", None),
        ("GET", "/v1/routers/%ff%fe", None, "", 400, "bad_request", None),
        ("GET", &long_name, None, "", 404, "router_not_found", None),
        ("DELETE", "/v1/routers/b", None, "", 404, "router_not_found", None),
        ("PATCH", "/v1/routers/b", json, "{}", 404, "router_not_found", None),
        ("GET", "/v1/tunnels/b", None, "", 404, "tunnel_not_found", None),
        ("GET", "/v1/tunnels/A", None, "", 404, "tunnel_not_found", None),
        ("DELETE", "/v1/tunnels/b", None, "", 404, "tunnel_not_found", None),
        ("POST", "/v1/routers", json, r#"{"name":"a"}"#, 409, "router_exists", Some("name")),
        ("POST", "/v1/routers", None, r#"{"name":"b"}"#, 415, "unsupported_media_type", None),
        (
            "POST",
            "/v1/routers",
            Some("text/plain"),
            r#"{"name":"b"}"#,
            415,
            "unsupported_media_type",
            None,
        ),
        ("POST", "/v1/routers", json, "", 400, "bad_request", None),
        ("POST", "/v1/routers", json, "{\"name\":", 400, "bad_request", None),
        ("POST", "/v1/routers", json, "[]", 400, "bad_request", None),
        ("POST", "/v1/routers", json, "{}", 400, "bad_request", Some("name")),
        ("POST", "/v1/routers", json, r#"{"name":"b"} x"#, 400, "bad_request", None),
        ("POST", "/v1/routers", json, r#"{"name":7}"#, 400, "bad_request", None),
        ("POST", "/v1/routers", json, &deep, 400, "bad_request", None),
        ("POST", "/v1/routers", json, "{\"name\":\"\u{0}\"}", 400, "bad_request", None),
        (
            "POST",
            "/v1/routers",
            json,
            r#"{"name":"b","name":"c"}"#,
            400,
            "bad_request",
            Some("name"),
        ),
        (
            "POST",
            "/v1/routers",
            json,
            r#"{"name":"b","colour":1}"#,
            400,
            "bad_request",
            Some("colour"),
        ),
        (
            "POST",
            "/v1/routers",
            json,
            r#"{"name":"b","a\nb":1}"#,
            400,
            "bad_request",
            Some("a\\nb"),
        ),
        (
            "POST",
            "/v1/routers",
            json,
            r#"{"name":"b","address":"010.0.0.1"}"#,
            400,
            "bad_request",
            None,
        ),
        ("POST", "/v1/routers", json, r#"{"name":"../b"}"#, 422, "invalid", Some("name")),
        ("POST", "/v1/routers", json, r#"{"name":"b\n"}"#, 422, "invalid", Some("name")),
        (
            "POST",
            "/v1/routers",
            json,
            r#"{"name":"b","cipher":"BF-CBC"}"#,
            422,
            "invalid",
            Some("cipher"),
        ),
        ("POST", "/v1/routers", json, r#"{"name":"b","auth":"md5"}"#, 422, "invalid", Some("auth")),
        ("PATCH", "/v1/routers/a", json, r#"{"disabled":"yes"}"#, 400, "bad_request", None),
        (
            "PATCH",
            "/v1/routers/a",
            json,
            r#"{"enabled":true}"#,
            400,
            "bad_request",
            Some("enabled"),
        ),
    ] {
        let shown: String = format!("{method} {path} {body}").chars().take(200).collect();
        let (got, head, text) = running.raw(&request(method, path, kind, body)).await;
        assert_eq!(got, code, "{shown}: {text}");
        assert!(head.contains("content-type: application/json"), "{shown}: {head}");
        let error: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "field", "message"], "{shown}");
        assert_eq!(error["code"], word, "{shown}: {text}");
        assert_eq!(error["field"].as_str(), field, "{shown}: {text}");
        let message = error["message"].as_str().unwrap();
        assert!(
            !message.is_empty() && message.len() < 300 && message.is_ascii(),
            "{shown}: {message}"
        );
        assert!(!message.contains('\n') && !message.contains('\u{1b}'), "{shown}: {message}");
    }
    // None of it has left a trace.
    assert_eq!(running.client().routers(&RouterFilter::default()).await.unwrap().len(), 1);
    running.end().await;
}

#[tokio::test]
async fn a_wrong_password_type_is_not_quoted_back() {
    let running = Running::start(Fake::default(), ServerLimits::default());
    let body = r#"{"name":"a","password":["canary-7Q2"],"login":"canary-7Q2"}"#;
    let (code, _, text) =
        running.raw(&request("POST", "/v1/routers", Some("application/json"), body)).await;
    assert_eq!(code, 400);
    assert!(!text.contains("canary"), "{text}");
    running.end().await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let running = Running::start(Fake::default(), ServerLimits::new(16, 1000));
    let head = "POST /v1/routers HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    // A gigabyte announced, nothing sent.
    let announced = format!("{head}content-length: 1073741824\r\n\r\n");
    let (code, _, text) = running.raw(announced.as_bytes()).await;
    assert_eq!(code, 413, "{text}");
    assert!(text.contains("\"too_large\""));
    // Not announced.
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}");
    assert_eq!(running.raw(chunked.as_bytes()).await.0, 413);
    // At the limit it is read.
    let body = format!("{:<1000}", r#"{"name":"a"}"#);
    assert_eq!(
        running.raw(&request("POST", "/v1/routers", Some("application/json"), &body)).await.0,
        201
    );
    assert_eq!(
        running
            .raw(&request("POST", "/v1/routers", Some("application/json"), &(body + " ")))
            .await
            .0,
        413
    );
    running.end().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let running = Running::start(Fake::default(), ServerLimits::default());
    let long =
        format!("GET /v1/status HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(100_000));
    let (code, _, _) = running.raw(long.as_bytes()).await;
    assert!(code == 431 || code == 0, "{code}");
    running.client().status().await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn slow_and_silent_clients_are_let_go() {
    let short = Duration::from_millis(100);
    let limits = ServerLimits { head: short, body: short, ..ServerLimits::default() };
    let running = Running::start(Fake::default(), limits);
    // Nothing at all, and half a head.
    for start in ["", "GET /v1/status HTTP/1.1\r\nhost"] {
        let mut stream = running.connect().await;
        stream.write_all(start.as_bytes()).await.unwrap();
        answer(&mut stream).await;
    }
    // A connection that is kept and not used.
    let mut stream = running.connect().await;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 200);
    // Half a body.
    let mut stream = running.connect().await;
    let head = "POST /v1/routers HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (code, _, text) = answer(&mut stream).await;
    assert_eq!(code, 408);
    assert!(text.contains("\"request_timeout\""));
    running.end().await;
}

#[tokio::test]
async fn a_concentrator_that_hangs_is_reported() {
    let limits = ServerLimits { answer: Duration::from_millis(50), ..ServerLimits::default() };
    let running = Running::start(Fake { stuck: true, ..Fake::default() }, limits);
    let (code, _, text) = running.raw(&request("GET", "/v1/status", None, "")).await;
    assert_eq!(code, 504);
    assert!(text.contains("\"timeout\""));
    running.end().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_let_go() {
    let limits = ServerLimits { write: Duration::from_millis(100), ..ServerLimits::new(4, 1000) };
    let running = Running::start(Fake { tunnels: 20_000, ..Fake::default() }, limits);
    // Both places of this user, until the server takes them back.
    let mut greedy = Vec::new();
    for _ in 0..2 {
        let mut stream = running.connect().await;
        stream.write_all(b"GET /v1/tunnels HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        greedy.push(stream);
    }
    let answered = tokio::time::timeout(PATIENCE, async {
        loop {
            match running.client().tunnels(&TunnelQuery::default()).await {
                Ok(tunnels) => break tunnels.len(),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(answered.await.unwrap(), 20_000);
    drop(greedy);
    running.end().await;
}

#[tokio::test]
async fn more_requests_at_once_than_allowed_are_answered_busy() {
    let limits = ServerLimits { answer: PATIENCE, ..ServerLimits::new(8, 1000) };
    let running = Running::start(Fake { stuck: true, ..Fake::default() }, limits);
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = running.connect().await;
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        held.push(stream);
    }
    // Each of the four is at work sooner or later; then nobody can make room.
    let (text, head) = tokio::time::timeout(PATIENCE, async {
        loop {
            let (code, head, text) = running.raw(b"").await;
            if code == 503 {
                break (text, head);
            }
        }
    })
    .await
    .unwrap();
    assert!(head.contains("content-type: application/json"), "{head}");
    let error: ApiError = serde_json::from_str(&text).unwrap();
    assert_eq!(error.code, ErrorCode::Busy);
    drop(held);
    running.end().await;
}

#[tokio::test]
async fn a_thousand_idle_connections_keep_nobody_out() {
    let running = Running::start(Fake::default(), ServerLimits::new(16, 1000));
    let mut idle = Vec::new();
    for number in 0..1000 {
        let mut stream = running.connect().await;
        if number % 2 == 0 {
            // Half of them have begun a request.
            let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost").await;
        }
        idle.push(stream);
    }
    for _ in 0..50 {
        running.client().status().await.unwrap();
    }
    // The first one has made room long ago.
    answer(idle.first_mut().unwrap()).await;
    running.end().await;
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_finishes_requests() {
    let running = Running::start(Fake::default(), ServerLimits::default());
    let mut idle = running.connect().await;
    idle.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.unwrap();
    let path = running.path.clone();
    running.end().await;
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(UnixStream::connect(&path).await.is_err());
}

#[tokio::test]
async fn a_client_says_what_to_do_when_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let sentence = |path: &Path| {
        let client = Client::new(path);
        async move { client.status().await.unwrap_err().to_string() }
    };
    let absent = sentence(&path).await;
    assert!(absent.contains("not running") && absent.contains("tunnelhead serve"), "{absent}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let stale = sentence(&path).await;
    assert!(stale.contains("nobody answers"), "{stale}");
    // Somebody who speaks another language.
    fs::remove_file(&path).unwrap();
    let other = tokio::net::UnixListener::bind(&path).unwrap();
    let asked = tokio::spawn(sentence(&path));
    let (mut stream, _) = other.accept().await.unwrap();
    stream.write_all(b"220 mail ready\r\n").await.unwrap();
    drop(stream);
    let foreign = asked.await.unwrap();
    assert!(foreign.contains("no proper answer") && foreign.lines().count() == 1, "{foreign}");
    // A name that is no name is not sent.
    let refused = Client::new(&path).router("../status").await.unwrap_err().to_string();
    assert!(refused.starts_with("name: "), "{refused}");
}

#[tokio::test]
async fn curl_works() {
    if Command::new("curl").arg("--version").output().is_err() {
        skip("curl_works: needs curl");
        return;
    }
    let running = Running::start(Fake::default(), ServerLimits::default());
    let socket = running.path.clone();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--unix-socket"])
            .arg(&socket)
            .args(["-H", "Content-Type: application/json", "-d", r#"{"name":"a"}"#])
            .arg("http://localhost/v1/routers")
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["password"], "generated");
    running.end().await;
}

/// Loudly: the harness keeps what `println!` says in a passing test to itself.
fn skip(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

const CHILD_SOCKET: &str = "TUNNELHEAD_TEST_SOCKET";

/// Not a test of its own: what the next test runs as another user.
#[test]
fn child_prints_the_answer() {
    use std::io::{Read, Write};
    let Some(path) = std::env::var_os(CHILD_SOCKET) else { return };
    let text = match std::os::unix::net::UnixStream::connect(path) {
        Err(error) => format!("{:?}", error.kind()),
        Ok(mut stream) => {
            stream.write_all(&request("GET", "/v1/status", None, "")).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        }
    };
    println!("ANSWER {}", text.replace(['\r', '\n'], " "));
}

/// Asks for the status as another user.
async fn ask_as(path: &Path, uid: u32, gid: u32) -> String {
    let path = path.to_owned();
    let run = move || {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "control_api::tests::child_prints_the_answer", "--nocapture"]);
        command
            .env(CHILD_SOCKET, path)
            .env("RUST_BACKTRACE", "0")
            .current_dir("/")
            .uid(uid)
            .gid(gid);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // The harness may have put its own words on the line before.
        text.split_once("ANSWER ").map_or_else(
            || panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)),
            |(_, answer)| answer.lines().next().unwrap_or("").to_owned(),
        )
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn other_users_are_refused_and_members_of_the_group_are_not() {
    if effective_uid() != 0 {
        skip("other_users_are_refused_and_members_of_the_group_are_not: needs root");
        return;
    }
    let (nobody, group) = (65_534, 54_321);
    let running = Running::start(Fake::default(), ServerLimits::default());
    let open =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(running.dir.path(), 0o755);
    // The mode of the file keeps others out already.
    assert_eq!(ask_as(&running.path, nobody, nobody).await, "PermissionDenied");
    chown(&running.path, None, Some(group)).unwrap();
    let member = ask_as(&running.path, nobody, group).await;
    assert!(member.contains("200 OK"), "{member}");
    // If somebody opens the file to all, the check still holds.
    open(&running.path, 0o666);
    let refused = ask_as(&running.path, nobody, nobody).await;
    assert!(refused.contains("403 Forbidden") && refused.contains("\"forbidden\""), "{refused}");
    let member = ask_as(&running.path, nobody, group).await;
    assert!(member.contains("200 OK"), "{member}");
    assert_eq!(fs::metadata(&running.path).unwrap().gid(), group);
    running.end().await;
}

#[tokio::test]
async fn nothing_is_answered_before_the_permission_check() {
    let fake = Fake::default();
    let app = super::routes::router(super::routes::Shared {
        handle: Arc::new(fake),
        rules: Arc::default(),
        limits: ServerLimits::default(),
        stopped: tokio::sync::watch::channel(false).1,
    });
    let peer = super::permission::Peer { uid: 54_321, gid: 54_321, pid: None, gids: vec![54_321] };
    let door = Door { path: "/s".into(), uid: 990, gid: 991, read_only: false };
    let places = Places { requests: 4, streams: 2 };
    let seat = Seats::new(places, clock::now()).enter(54_321, clock::now()).unwrap();
    let connection = Connection { peer: Arc::new(peer), door: Arc::new(door), seat };
    let app = app.layer(axum::Extension(connection));
    for (method, path) in [
        ("GET", "/v1/status"),
        ("GET", "/v1/routers"),
        ("POST", "/v1/routers"),
        ("GET", "/v1/routers/a"),
        ("PATCH", "/v1/routers/a"),
        ("DELETE", "/v1/routers/a"),
        ("GET", "/v1/tunnels"),
        ("GET", "/v1/tunnels/a"),
        ("DELETE", "/v1/tunnels/a"),
        ("GET", "/v1/tunnels/a/dial?port=22"),
        ("POST", "/v1/tunnels/a/dial?port=22"),
        ("GET", "/v1/bans"),
        ("PUT", "/v1/bans/a"),
        ("DELETE", "/v1/bans/a"),
        ("GET", "/v1/events"),
        ("GET", "/nowhere"),
        ("PUT", "/v1/status"),
        ("GET", "/v1/status?x=1"),
    ] {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .body(axum::body::Body::empty())
            .unwrap();
        let response = hyper::service::Service::call(
            &hyper_util::service::TowerToHyperService::new(app.clone()),
            request,
        )
        .await
        .unwrap();
        assert_eq!(response.status(), 403, "{method} {path}");
    }
}

/// The handle may lend its answer from itself and from nothing else.
#[test]
fn a_handle_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + ?Sized>() {}
    shared::<dyn Handle>();
    assert_eq!(Login::default(), Login::Password);
}
