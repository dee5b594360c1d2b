//! The endpoint's side is scripted byte for byte: what it may say, and what it does instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tunnelhead_crypto::SecretBytes;

use super::super::{Accept, LoginKind};
use super::*;
use crate::proto::control::{OptionsString, PeerInfo};
use crate::proto::session::AuthRequest;

const PATIENCE: Duration = Duration::from_secs(20);
const YES: &str = r#"{"accept": true, "router": "branch-1"}"#;

fn login(username: &str) -> LoginRequest {
    LoginRequest {
        kind: LoginKind::Login,
        request: Box::new(AuthRequest {
            username: username.as_bytes().to_vec(),
            password: SecretBytes::from(b"secret".to_vec()),
            too_long: false,
            certificate: None,
            options: OptionsString::parse(""),
            peer_info: PeerInfo::parse(""),
        }),
        source: "203.0.113.9:50123".parse().unwrap(),
        listener: None,
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// What the scripted endpoint has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    heads: Mutex<Vec<String>>,
    /// Requests that are answered only when told so.
    release: Notify,
}

/// What the endpoint does with a request.
#[derive(Clone)]
enum Script {
    /// Answers and keeps the connection.
    Say(String),
    /// Answers and closes.
    SayAndClose(String),
    /// Answers when released.
    Wait,
    /// Reads and closes.
    Close,
}

struct Scripted {
    seen: Arc<Seen>,
    endpoint: Endpoint,
    _folder: tempfile::TempDir,
}

impl Scripted {
    fn start(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("auth.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, script.clone(), Arc::clone(&shared)));
            }
        });
        let endpoint = Endpoint::Unix { socket, path: "/login".to_owned() };
        Self { seen, endpoint, _folder: folder }
    }

    fn client(&self, connections: usize) -> HttpAuthenticator {
        HttpAuthenticator::new(self.endpoint.clone(), connections, Some("hush")).unwrap()
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
    seen: Arc<Seen>,
) {
    seen.connections.fetch_add(1, Ordering::Relaxed);
    let mut held = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let Some(end) = held.windows(4).position(|part| part == b"\r\n\r\n") else {
            match stream.read(&mut chunk).await {
                Ok(n) if n > 0 => held.extend_from_slice(&chunk[..n]),
                _ => return,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&held[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        while held.len() < end + 4 + length {
            let n = stream.read(&mut chunk).await.unwrap();
            held.extend_from_slice(&chunk[..n]);
        }
        held.drain(..end + 4 + length);
        seen.heads.lock().unwrap().push(head);
        seen.requests.fetch_add(1, Ordering::SeqCst);
        match &script {
            Script::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Script::SayAndClose(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return;
            }
            Script::Wait => {
                seen.release.notified().await;
                stream.write_all(ok(YES).as_bytes()).await.unwrap();
            }
            Script::Close => return,
        }
    }
}

async fn ask(client: &HttpAuthenticator) -> Result<Decision, AuthenticatorError> {
    let login = login("u");
    tokio::time::timeout(PATIENCE, client.authenticate(&login)).await.expect("an answer")
}

#[tokio::test]
async fn asks_over_a_unix_socket_and_keeps_the_connection() {
    let scripted = Scripted::start(Script::Say(ok(YES)));
    let client = scripted.client(4);
    for _ in 0..5 {
        assert_eq!(ask(&client).await, Ok(Decision::Accept(Accept::new("branch-1"))));
    }
    assert_eq!(scripted.seen.connections.load(Ordering::Relaxed), 1);
    let heads = scripted.seen.heads.lock().unwrap();
    assert!(heads[0].starts_with("post /login http/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("authorization: bearer hush"), "{}", heads[0]);
}

#[tokio::test]
async fn asks_over_loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let no = r#"{"accept": false, "reason": "not paid"}"#;
        converse(stream, Script::Say(ok(no)), Arc::default()).await;
    });
    let endpoint = Endpoint::Loopback { address, path: "/".to_owned() };
    let client = HttpAuthenticator::new(endpoint, 1, None).unwrap();
    assert_eq!(ask(&client).await, Ok(Decision::Refuse(Refusal::new("not paid"))));
}

#[tokio::test]
async fn an_endpoint_that_closes_after_each_answer_is_asked_anew() {
    let scripted = Scripted::start(Script::SayAndClose(ok(YES)));
    let client = scripted.client(2);
    for _ in 0..5 {
        assert!(ask(&client).await.is_ok());
    }
    assert_eq!(scripted.seen.connections.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn everything_else_is_an_error() {
    let long = format!(r#"{{"accept": true, "router": "{}"}}"#, "x".repeat(MAX_ANSWER_BYTES));
    let headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    for (what, script) in [
        ("closes", Script::Close),
        ("500", Script::Say(format!("HTTP/1.1 500 Oops\r\ncontent-length: 38\r\n\r\n{YES}"))),
        ("201", Script::Say(format!("HTTP/1.1 201 Made\r\ncontent-length: 38\r\n\r\n{YES}"))),
        (
            "moved",
            Script::Say("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".into()),
        ),
        ("not HTTP", Script::SayAndClose(YES.to_owned())),
        ("too long", Script::Say(ok(&long))),
        ("cut", Script::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 38\r\n\r\n{\"acc".into())),
        ("no body", Script::Say(ok(""))),
        (
            "many headers",
            Script::Say(format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n")),
        ),
        (
            "long head",
            Script::SayAndClose(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000))),
        ),
        (
            "chunks without end",
            Script::Say(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}",
                format!("1000\r\n{}\r\n", "z".repeat(4096)).repeat(8)
            )),
        ),
    ] {
        let scripted = Scripted::start(script);
        let client = scripted.client(2);
        let answer = ask(&client).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
        // And it does not spoil the next question.
        assert!(ask(&client).await.is_err(), "{what}");
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nobody.sock");
    let endpoint = Endpoint::Unix { socket, path: "/".to_owned() };
    assert!(ask(&HttpAuthenticator::new(endpoint, 1, None).unwrap()).await.is_err());
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let scripted = Scripted::start(Script::Wait);
    let client = Arc::new(scripted.client(3));
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { ask(&client).await })
        })
        .collect();
    let seen = &scripted.seen;
    for done in 1..=10 {
        // Each answer makes room for one question.
        let open = |_: usize| seen.requests.load(Ordering::SeqCst);
        tokio::time::timeout(PATIENCE, async {
            while open(done) < (done + 2).min(10) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the next question");
        assert!(open(done) <= done + 2);
        seen.release.notify_one();
    }
    for one in asked {
        assert!(one.await.unwrap().is_ok());
    }
    assert!(seen.connections.load(Ordering::Relaxed) <= 3);
}

#[tokio::test]
async fn a_question_that_is_given_up_leaves_its_place() {
    let scripted = Scripted::start(Script::Wait);
    let client = scripted.client(1);
    for _ in 0..3 {
        let login = login("u");
        let asked = client.authenticate(&login);
        assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err());
    }
    scripted.seen.release.notify_waiters();
    let again = async {
        let answer = ask(&client).await;
        assert!(answer.is_ok(), "{answer:?}");
    };
    let release = async {
        loop {
            scripted.seen.release.notify_one();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = again => {}
        () = release => {}
    }
}

#[test]
fn a_secret_that_breaks_the_header_is_refused() {
    let endpoint = Endpoint::parse("http://127.0.0.1:1/").unwrap();
    assert!(HttpAuthenticator::new(endpoint, 1, Some("a\r\nX-Admin: yes")).is_err());
}
