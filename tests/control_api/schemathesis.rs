//! The OpenAPI document against the program it describes: schemathesis (PyPI) makes requests of its
//! own, good and bad, and checks that every answer is one that the document promises.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::live::Live;

/// Streams, upgrades and lines of JSON, which it can't speak; they have tests of their own.
const STREAMS: &str = "/(events|dial|import)$";

#[test]
fn schemathesis_finds_no_violation() {
    let name = "schemathesis_finds_no_violation";
    let Some(program) = program() else {
        let _ = writeln!(io::stderr(), "SKIPPED: {name}: needs schemathesis, see tests/run");
        return;
    };
    let Some(live) = Live::start(name, "") else { return };
    let document = live.path("openapi.json");
    std::fs::write(&document, live.get("/v1/openapi").body).unwrap();
    let settings =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control_api/schemathesis.toml");
    let port = bridge(live.socket());
    let output = Command::new(program)
        .arg("--config-file")
        .arg(settings)
        .arg("run")
        .arg(document)
        .args(["--url", &format!("http://127.0.0.1:{port}")])
        .args(["--exclude-path-regex", STREAMS, "--no-color"])
        .current_dir(live.path(""))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!live.process().ended(), "it survived");
}

/// The command that `tests/run` has installed, or one of the system.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("SCHEMATHESIS").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("schemathesis"));
    let works = Command::new(&program).arg("--version").output();
    works.is_ok_and(|output| output.status.success()).then_some(program)
}

/// A loopback port whose connections end at the unix socket: schemathesis speaks TCP only.
fn bridge(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The threads end with the process of the test.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = UnixStream::connect(&socket) else { continue };
            carry(client, server);
        }
    });
    port
}

fn carry(client: TcpStream, server: UnixStream) {
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
