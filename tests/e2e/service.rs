//! A TCP service to be reached, or not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::lab::Namespace;

/// A TCP service on every address of a namespace that greets and hangs up, and counts its callers.
pub(crate) struct Service {
    callers: Arc<AtomicUsize>,
}

/// What it says.
pub(crate) const GREETING: &str = "SSH-2.0-test\r\n";

impl Service {
    pub(crate) fn start(namespace: &Namespace, port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = namespace.inside(|| TcpListener::bind(address)).expect("a service");
        let callers = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&callers);
        // It ends with the test process: `accept` has no other end.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.map(|mut stream| stream.write_all(GREETING.as_bytes()));
            }
        });
        Self { callers }
    }

    pub(crate) fn callers(&self) -> usize {
        self.callers.load(Ordering::SeqCst)
    }
}

/// Serves every caller of a port of a namespace on a thread of its own.
pub(crate) fn serve(
    namespace: &Namespace,
    port: u16,
    caller: impl Fn(TcpStream) + Clone + Send + 'static,
) {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = namespace.inside(|| TcpListener::bind(address)).expect("a service");
    // It ends with the test process: `accept` has no other end.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let caller = caller.clone();
            std::thread::spawn(move || caller(stream));
        }
    });
}

/// Connects to a port and reads what the service there says first; waits for `patience`.
pub(crate) fn greeting_within(
    patience: Duration,
    from: &Namespace,
    target: Ipv4Addr,
    port: u16,
) -> Option<String> {
    let target = SocketAddr::from((target, port));
    let mut stream = from.inside(|| TcpStream::connect_timeout(&target, patience)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a read timeout");
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The same where an answer is expected.
pub(crate) fn greeting(from: &Namespace, target: Ipv4Addr, port: u16) -> Option<String> {
    greeting_within(Duration::from_secs(10), from, target, port)
}

/// The same where silence is expected.
pub(crate) fn no_greeting(from: &Namespace, target: Ipv4Addr, port: u16) -> bool {
    greeting_within(Duration::from_millis(700), from, target, port).is_none()
}
