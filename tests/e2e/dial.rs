//! From the control socket to a port of a router.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::lab::{Lab, Namespace, ready};
use crate::service::serve;
use crate::site::Router;
use crate::support::client::{LOGIN, write_private};
use crate::support::process::Process;
use crate::support::{eventually, missing_tools, run, skip};
use crate::tunnelhead_process::Tunnelhead;

const SOON: Duration = Duration::from_secs(20);

/// Sends everything back, and once the caller has closed its half, a last word.
fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
    let _ = stream.write_all(b"bye");
}

/// `tunnelhead dial`, to speak with.
struct Dial {
    child: Child,
}

impl Dial {
    fn start(head: &Tunnelhead<'_>, arguments: &[&str]) -> Self {
        let mut command = head.command();
        command.arg("dial").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().expect("tunnelhead dial") }
    }

    /// Says something and reads as much of an answer.
    fn exchange(&mut self, text: &str) -> String {
        self.child.stdin.as_mut().expect("its input").write_all(text.as_bytes()).expect("a write");
        let mut answer = vec![0; text.len()];
        self.child.stdout.as_mut().expect("its output").read_exact(&mut answer).expect("an answer");
        String::from_utf8(answer).expect("text")
    }

    /// Its exit code, the rest of its output and its complaint.
    fn end(self) -> (i32, String, String) {
        let output = self.child.wait_with_output().expect("its end");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn a_router_is_reached_and_every_refusal_says_what_is_wrong() {
    if !ready("a_router_is_reached_and_every_refusal_says_what_is_wrong") {
        return;
    }
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "");
    let router = Router::connect(&lab, 0, head.add("branch", &[]).config());
    serve(router.namespace, 22, echo);

    let mut dial = Dial::start(&head, &["branch", "22"]);
    assert_eq!(dial.exchange("hello"), "hello");
    let open = head.tunnel("branch").expect("the tunnel");
    assert_eq!((&open["dials_open"], &open["dials_total"]), (&1.into(), &1.into()), "{open}");
    // The end of the input closes one half; the last word still comes.
    drop(dial.child.stdin.take());
    assert_eq!(dial.end(), (0, "bye".to_owned(), String::new()));
    let closed = eventually("end of the dial", SOON, || {
        head.tunnel("branch").filter(|tunnel| tunnel["dials_open"] == 0)
    });
    assert_eq!((&closed["dial_rx_bytes"], &closed["dial_tx_bytes"]), (&8.into(), &5.into()));
    let generation = closed["generation"].as_u64().expect("a generation");
    let right = generation.to_string();
    let mut dial = Dial::start(&head, &["branch", "22", "--generation", &right]);
    assert_eq!(dial.exchange("again"), "again");

    // A firewall that drops, on the router.
    let drop = "add table ip t; add chain ip t in { type filter hook input priority 0; }; \
                add rule ip t in tcp dport 24 drop";
    run(router.namespace.command("nft").arg(drop));
    let wrong = (generation + 1).to_string();
    for (arguments, code, what) in [
        (vec!["branch", "23"], 1, "refuses the connection"),
        (vec!["branch", "24"], 1, "did not answer on port 24"),
        (vec!["nobody", "22"], 1, "has no tunnel now"),
        (vec!["branch", "22", "--generation", &wrong], 1, "another session"),
        (vec!["branch", "0"], 2, "0 is not in 1..=65535"),
        (vec!["-branch", "22"], 2, "unexpected argument"),
    ] {
        let (exit, output, complaint) = Dial::start(&head, &arguments).end();
        assert_eq!((exit, output.as_str()), (code, ""), "{arguments:?}: {complaint}");
        assert!(complaint.contains(what), "{arguments:?}: {complaint}");
    }
}

#[test]
fn whatever_ends_the_session_ends_its_dials_at_once() {
    if !ready("whatever_ends_the_session_ends_its_dials_at_once") {
        return;
    }
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "");
    let account = head.add("branch", &[]);
    let router = Router::connect(&lab, 0, account.config());
    let (ended, ends) = mpsc::sync_channel(16);
    serve(router.namespace, 22, move |mut stream| {
        let mut buffer = [0; 64];
        let end = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break "orderly".to_owned(),
                Ok(n) => stream.write_all(&buffer[..n]).expect("an answer"),
                Err(error) => break error.kind().to_string(),
            }
        };
        ended.send(end).expect("somebody listens");
    });
    let mut client = Some(router.client);
    let address = router.address;
    let cuts: [&[&str]; 4] = [
        &["tunnel", "disconnect", "branch"],
        &["tunnel", "disconnect", "branch", "--ban", "1s"],
        &["router", "disable", "branch"],
        &["router", "remove", "branch"],
    ];
    for (number, cut) in cuts.into_iter().enumerate() {
        eventually("answer to a ping", LOGIN, || {
            lab.concentrator.ping("-c 1 -W 0.2", address).ok()
        });
        let mut dial = eventually("a session to dial into", LOGIN, || {
            head.tunnel("branch").map(|_| Dial::start(&head, &["branch", "22"]))
        });
        assert_eq!(dial.exchange("hello"), "hello", "before {cut:?}");
        head.run(cut);
        let (exit, output, complaint) = dial.end();
        assert_eq!((exit, output.as_str()), (0, ""), "{cut:?}: {complaint}");
        if number == 2 {
            head.run(&["router", "enable", "branch"]);
            // The stock client gives up after it was refused; a router would not.
            drop(client.take());
            client = Some(Router::connect(&lab, 0, account.config()).client);
        }
    }
    drop(ends);
}

#[test]
fn a_banned_router_stays_out_until_the_ban_is_lifted() {
    if !ready("a_banned_router_stays_out_until_the_ban_is_lifted") {
        return;
    }
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "");
    let account = head.add("branch", &[]);
    let router = Router::connect(&lab, 0, account.config());
    head.run(&["tunnel", "disconnect", "branch", "--ban", "1h"]);
    assert!(head.tunnel("branch").is_none());
    let bans = head.json(&["ban", "list"]);
    assert_eq!(bans[0]["router"], "branch", "{bans}");
    // It dials again by itself and is refused before its password is looked at.
    eventually("a refused login", LOGIN, || {
        let status = head.json(&["status"]);
        let counters = status["counters"].as_object().expect("counters").clone();
        let refused = counters.iter().any(|(name, count)| {
            name.contains("banned") && name.starts_with("login_") && count.as_u64() > Some(0)
        });
        refused.then_some(())
    });
    assert!(head.tunnel("branch").is_none());
    head.run(&["ban", "lift", "branch"]);
    drop(router);
    let _again = Router::connect(&lab, 0, account.config());
    assert_eq!(head.json(&["ban", "list"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn a_thousand_dials_are_open_at_once() {
    const MANY: usize = 1000;
    if !ready("a_thousand_dials_are_open_at_once") {
        return;
    }
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "");
    let router = Router::connect(&lab, 0, head.add("branch", &[]).config());
    let callers = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&callers);
    serve(router.namespace, 22, move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        echo(stream);
    });
    let socket = head.socket();
    let dial = |number: usize| {
        let mut stream = UnixStream::connect(&socket).expect("the control socket");
        let request = "GET /v1/tunnels/branch/dial?port=22 HTTP/1.1\r\nHost: x\r\n\
                       Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("a request");
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "dial {number}: {head}");
        stream
    };
    let mut streams: Vec<UnixStream> = (0..MANY).map(dial).collect();
    assert_eq!(head.json(&["status"])["counters"]["dials_open"], MANY, "not all are open");
    // All at work at once, each with its own bytes.
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("dial {number:05}").as_bytes()).expect("a write");
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, format!("dial {number:05}").as_bytes());
    }
    assert_eq!(callers.load(Ordering::SeqCst), MANY);
    // They take nothing from whoever asks something else.
    assert!(head.tunnel("branch").is_some());
    head.run(&["tunnel", "disconnect", "branch"]);
    for mut stream in streams {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the end");
        assert!(rest.is_empty());
    }
    eventually("end of all dials", SOON, || {
        (head.json(&["status"])["counters"]["dials_open"] == 0).then_some(())
    });
}

/// Up to the empty line.
fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("an answer") == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("a head in ASCII")
}

#[test]
fn the_first_bytes_may_come_with_the_request_and_the_client_may_close_first() {
    let name = "the_first_bytes_may_come_with_the_request_and_the_client_may_close_first";
    if !ready(name) {
        return;
    }
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "");
    let router = Router::connect(&lab, 0, head.add("branch", &[]).config());
    serve(router.namespace, 22, echo);
    let request = "POST /v1/tunnels/branch/dial?port=22 HTTP/1.1\r\nHost: x\r\n\
                   Connection: keep-alive, Upgrade\r\nUpgrade: TCP\r\n\r\nearly";
    let mut stream = UnixStream::connect(head.socket()).expect("the control socket");
    stream.write_all(request.as_bytes()).expect("a request");
    stream.shutdown(Shutdown::Write).expect("one half closed");
    let answer = read_head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the answer");
    assert_eq!(rest, "earlybye");

    for (change, status) in [
        (("Connection: keep-alive, Upgrade\r\n", ""), "426 "),
        (("Upgrade: TCP", "Upgrade: websocket"), "426 "),
        (("port=22", "port=65536"), "422 "),
        (("port=22", "prt=22"), "400 "),
        (("port=22", "port=22&generation=1"), "409 "),
        (("branch", "nobody"), "404 "),
        (("Upgrade: TCP\r\n", "Upgrade: TCP\r\nContent-Length: 5\r\n"), "400 "),
    ] {
        let mut stream = UnixStream::connect(head.socket()).expect("the control socket");
        stream.write_all(request.replace(change.0, change.1).as_bytes()).expect("a request");
        let answer = read_head(&mut stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{change:?}: {answer}");
    }
}

#[test]
fn the_real_ssh_goes_through_a_dial() {
    let name = "the_real_ssh_goes_through_a_dial";
    if !ready(name) {
        return;
    }
    let missing = missing_tools(&["ssh", "sshd", "ssh-keygen"]);
    if !missing.is_empty() {
        return skip(name, &format!("not installed: {}", missing.join(", ")));
    }
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "");
    let router = Router::connect(&lab, 0, head.add("branch-42", &[]).config());
    let folder = tempfile::tempdir().expect("a folder");
    let _sshd = start_sshd(router.namespace, folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let proxy = format!(
        "ProxyCommand={} --socket {} dial %h %p",
        env!("CARGO_BIN_EXE_tunnelhead"),
        head.socket().display()
    );
    let ssh = |command: &str, input: &str| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-i", &path("user"), "-o", &proxy, "-o", "BatchMode=yes"]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        ssh.args(["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20", "branch-42", command]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ssh.spawn().expect("ssh");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(input.as_bytes()).expect("a write");
        drop(stdin);
        let output = child.wait_with_output().expect("its end");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(ssh("cat; echo done", "typed\n").1, "typed\ndone\n", "{:?}", ssh("true", ""));
    assert_eq!(ssh("exit 7", "").0, Some(7));
    // A megabyte each way.
    let many = "x".repeat(1 << 20);
    assert_eq!(ssh("cat", &many).1.len(), many.len());
}

/// An ssh server in a router's namespace, for the user that runs the test.
fn start_sshd(namespace: &Namespace, folder: &std::path::Path) -> Process {
    let path = |name: &str| folder.join(name).display().to_string();
    for key in ["host", "user"] {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]));
    }
    let config = format!(
        "Port 22\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPidFile none\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\n",
        path("host"),
        path("user.pub"),
    );
    write_private(&folder.join("sshd.config"), &config);
    std::fs::create_dir_all("/run/sshd").expect("the folder that sshd wants");
    let mut command = namespace.command("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f", &path("sshd.config")]);
    let process = Process::spawn("sshd", &mut command);
    process.expect_line(0, SOON, "Server listening on 0.0.0.0 port 22");
    process
}
