//! Over the loop-back device, which plays the TUN device.

use std::net::{Ipv4Addr, TcpListener as StdListener};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn dials_plain(most: usize) -> Dials {
    let route = Route { management: LOCAL, device: "lo".to_owned() };
    Dials::new(Some(route), most)
}

fn dials(most: usize) -> Arc<Dials> {
    Arc::new(dials_plain(most))
}

fn session() -> Arc<Session> {
    Arc::new(Session::new(7, LOCAL))
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port on which nobody answers: its listener's backlog is full.
fn deaf() -> (StdListener, Vec<std::net::TcpStream>, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((LOCAL, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener: StdListener = socket.into();
    let at = listener.local_addr().unwrap();
    let waiting = Duration::from_millis(200);
    let mut inside = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&at, waiting) {
        inside.push(stream);
        assert!(inside.len() < 100, "the backlog never fills");
    }
    (listener, inside, at.port())
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_half_closes_alone() {
    let (dials, session, (listener, port)) = (dials(4), session(), listener().await);
    let mut stream = dials.connect(&session, port).await.unwrap();
    let (mut router, from) = listener.accept().await.unwrap();
    assert_eq!((from.ip(), stream.generation()), (LOCAL.into(), 7));
    assert_eq!(stream.local_addr().unwrap(), from);
    assert_eq!((dials.open(), session.open(), session.total()), (1, 1, 1));

    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    router.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"hello");
    router.write_all(b"good day").await.unwrap();
    drop(router);
    heard.clear();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"good day");

    let traffic = stream.traffic();
    drop(stream);
    assert_eq!((traffic.from_router(), traffic.to_router()), (8, 5));
    assert_eq!((session.traffic().from_router(), session.traffic().to_router()), (8, 5));
    assert_eq!((dials.open(), session.open(), session.total()), (0, 0, 1));
    let expected = [
        ("dials", 1),
        ("dials_open", 0),
        ("dials_failed", 0),
        ("dials_over_limit", 0),
        ("dials_cut", 0),
        ("dial_rx_bytes", 8),
        ("dial_tx_bytes", 5),
    ];
    assert_eq!(dials.counters(), expected);
}

#[tokio::test]
async fn what_waits_when_the_session_ends_is_never_delivered() {
    let (dials, session, (listener, port)) = (dials(4), session(), listener().await);
    let mut stream = dials.connect(&session, port).await.unwrap();
    let (mut router, _) = listener.accept().await.unwrap();
    // Until neither side's kernel takes more: a tail waits on ours.
    let chunk = vec![1; 64 * 1024];
    let mut sent = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(300), stream.write(&chunk)).await {
        sent += n.unwrap();
    }
    let end = stream.session_end();
    session.cut("replaced_by_new_login");
    session.cut("too late to be the reason");
    assert_eq!((session.open(), end.await), (0, "replaced_by_new_login"));

    for error in [
        stream.write_all(b"more").await.unwrap_err(),
        stream.read(&mut [0; 10]).await.unwrap_err(),
        stream.read(&mut [0; 10]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(error.to_string(), "replaced_by_new_login");
    }
    let mut heard = Vec::new();
    let error = router.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(heard.len() < sent, "{} of {sent} bytes", heard.len());
    drop(stream);
    assert_eq!((dials.open(), dials.counters()[4]), (0, ("dials_cut", 1)));
}

#[tokio::test]
async fn a_reader_that_waits_is_woken_by_the_end_of_the_session() {
    let (dials, session, (listener, port)) = (dials(4), session(), listener().await);
    let mut stream = dials.connect(&session, port).await.unwrap();
    let _router = listener.accept().await.unwrap();
    let reading = tokio::spawn(async move { stream.read(&mut [0; 10]).await.unwrap_err() });
    tokio::task::yield_now().await;
    session.cut("account_disabled");
    assert_eq!(reading.await.unwrap().to_string(), "account_disabled");
}

#[tokio::test]
async fn an_ended_session_is_not_dialled() {
    let (dials, session, (listener, port)) = (dials(4), session(), listener().await);
    session.cut("account_removed");
    let error = dials.connect(&session, port).await.unwrap_err();
    assert!(matches!(error, DialError::Cut("account_removed")), "{error}");
    let accepted = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(accepted.is_err(), "somebody was called");
    assert_eq!((dials.open(), dials.counters()[2]), (0, ("dials_failed", 1)));
}

#[tokio::test]
async fn a_session_that_ends_while_its_router_is_called_is_not_waited_for() {
    let (_listener, _inside, port) = deaf();
    let (dials, session) = (dials(4), session());
    let (calling, at) = (Arc::clone(&dials), Arc::clone(&session));
    let call = tokio::spawn(async move { calling.connect(&at, port).await });
    while dials.open() == 0 {
        tokio::task::yield_now().await;
    }
    session.cut("banned");
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, DialError::Cut("banned")), "{error}");
}

#[tokio::test]
async fn a_router_that_does_not_answer_is_not_called_for_ever() {
    let (_listener, _inside, port) = deaf();
    let impatient = Dials { patience: Duration::from_millis(50), ..dials_plain(4) };
    let error = Arc::new(impatient).connect(&session(), port).await.unwrap_err();
    assert!(matches!(error, DialError::TimedOut { port: at } if at == port), "{error}");
}

#[tokio::test]
async fn every_refusal_says_what_is_wrong() {
    let (listener, port) = listener().await;
    let (dials, session) = (dials(1), session());
    let error = dials.connect(&session, 0).await.unwrap_err();
    assert!(matches!(error, DialError::BadPort), "{error}");
    let held = dials.connect(&session, port).await.unwrap();
    let error = dials.connect(&session, port).await.unwrap_err();
    assert!(matches!(error, DialError::TooMany(1)), "{error}");
    drop((held, listener));
    let error = dials.connect(&session, port).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { port: at } if at == port), "{error}");
    assert_eq!(dials.open(), 0);

    let none = Arc::new(Dials::new(None, 4));
    let error = none.connect(&session, 22).await.unwrap_err();
    assert!(error.to_string().contains("no TUN device of the kernel"), "{error}");
    let gone = Route { management: LOCAL, device: "no-such-device".to_owned() };
    let gone = Arc::new(Dials::new(Some(gone), 4));
    let error = gone.connect(&session, 22).await.unwrap_err();
    assert!(matches!(error, DialError::Host(_)), "{error}");
    // An address of the host that the device doesn't lead to.
    let away = Arc::new(Session::new(8, Ipv4Addr::new(192, 0, 2, 77)));
    assert!(dials.connect(&away, 22).await.is_err());
}

#[tokio::test]
async fn a_slow_reader_holds_a_bounded_number_of_bytes_and_hurts_nobody_else() {
    let (dials, session, (listener, port)) = (dials(4), session(), listener().await);
    let slow = dials.connect(&session, port).await.unwrap();
    let (mut flood, _) = listener.accept().await.unwrap();
    let chunk = vec![1; 64 * 1024];
    let mut taken = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(300), flood.write(&chunk)).await {
        taken += n.unwrap();
        assert!(taken < 64 << 20, "the router is never slowed down");
    }
    let mut other = dials.connect(&session, port).await.unwrap();
    let (mut router, _) = listener.accept().await.unwrap();
    router.write_all(b"at once").await.unwrap();
    let mut heard = [0; 7];
    other.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"at once");
    drop(slow);
}
