//! A connection that becomes another one.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fake::Fake;
use super::{PATIENCE, Running};
use crate::control_api::client::ClientError;
use crate::control_api::error::ErrorCode;
use crate::control_api::server::ServerLimits;
use crate::control_api::types::DialQuery;

const SSH: DialQuery = DialQuery { port: 22, generation: None };

#[tokio::test]
async fn a_dial_is_audited_when_it_begins_and_when_it_ends() {
    let fake = Fake::default();
    let (dialled, audited) = (Arc::clone(&fake.dialled), Arc::clone(&fake.audited));
    let running = Running::start(fake, ServerLimits::default());
    let mut client = running.client().dial("r0", SSH).await.unwrap();
    let (mut router, end) = dialled.lock().unwrap().pop().unwrap();
    assert!(client.early.is_empty());
    client.stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    router.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    router.write_all(b"there").await.unwrap();
    client.stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there");
    {
        let trail = audited.lock().unwrap();
        assert_eq!(trail.len(), 1, "{trail:?}");
        assert_eq!(trail[0].what, "GET /v1/tunnels/{name}/dial");
        assert_eq!((trail[0].router.as_deref(), trail[0].status), (Some("r0"), Some(101)));
        assert_eq!(trail[0].detail["generation"], "7");
    }
    // The session ends although both ends are silent.
    end.send("banned").unwrap();
    assert_eq!(client.stream.read(&mut heard).await.unwrap(), 0);
    let ended = async {
        while audited.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    let last = audited.lock().unwrap()[1].clone();
    assert_eq!((last.what.as_str(), last.router.as_deref()), ("dial.ended", Some("r0")));
    assert_eq!((last.detail["end"].as_str(), last.detail["port"].as_str()), ("banned", "22"));
    running.end().await;
}

#[tokio::test]
async fn a_slow_reader_of_a_dial_is_not_cut_for_being_slow() {
    let fake = Fake::default();
    let dialled = Arc::clone(&fake.dialled);
    // Any other answer would be given up after this time.
    let limits = ServerLimits { write: Duration::from_millis(50), ..ServerLimits::default() };
    let running = Running::start(fake, limits);
    let mut client = running.client().dial("r0", SSH).await.unwrap();
    let (mut router, _end) = dialled.lock().unwrap().pop().unwrap();
    let flood = tokio::spawn(async move {
        router.write_all(&vec![7; 4 << 20]).await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!flood.is_finished(), "nothing holds the router up");
    let mut heard = Vec::new();
    client.stream.read_to_end(&mut heard).await.unwrap();
    flood.await.unwrap();
    assert_eq!(heard.len(), 4 << 20);
    running.end().await;
}

#[tokio::test]
async fn a_refused_dial_is_an_answer_and_the_connection_goes_on() {
    let running = Running::start(Fake::default(), ServerLimits::default());
    match running.client().dial("r1", SSH).await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::DialRefused),
        other => panic!("{other:?}"),
    }
    match running.client().dial("r1", DialQuery { port: 0, generation: None }).await {
        Err(ClientError::Refused(error)) => assert_eq!(error.field.as_deref(), Some("port")),
        other => panic!("{other:?}"),
    }
    let request = b"GET /v1/tunnels/r0/dial?port=22 HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (status, head, rest) = running.raw(request).await;
    assert_eq!(status, 426, "{head}");
    assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
    running.end().await;
}

#[tokio::test]
async fn the_end_of_the_server_is_the_end_of_its_dials() {
    let fake = Fake::default();
    let dialled = Arc::clone(&fake.dialled);
    let running = Running::start(fake, ServerLimits::default());
    let mut client = running.client().dial("r0", SSH).await.unwrap();
    let (mut router, _end) = dialled.lock().unwrap().pop().unwrap();
    running.end().await;
    assert_eq!(client.stream.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(router.read(&mut [0; 8]).await.unwrap(), 0);
}
