//! As little HTTP as it takes, so that what is measured is the other side.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// A connection to the control socket.
pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(crate) fn open(socket: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(socket).expect("the control socket")))
    }

    pub(crate) fn get(&mut self, path: &str) -> Vec<u8> {
        self.ask("GET", path, 200)
    }

    pub(crate) fn delete(&mut self, path: &str) {
        self.ask("DELETE", path, 204);
    }

    /// Asks for a page of a list; where the next one begins.
    pub(crate) fn page(&mut self, path: &str) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.get(path)).expect("a list");
        assert!(!body["items"].as_array().expect("items").is_empty());
        body["next"].as_str().map(str::to_owned)
    }

    fn ask(&mut self, method: &str, path: &str, expected: u16) -> Vec<u8> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("a request");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        let status: u16 = line.split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("a header");
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        assert_eq!(status, expected, "{method} {path}: {}", String::from_utf8_lossy(&body));
        body
    }
}

/// Imports so many routers; the name, which is the user name too, and the password of each.
pub(crate) fn import(socket: &Path, count: usize) -> Vec<(String, String)> {
    let mut lines = String::new();
    for number in 0..count {
        lines.push_str(&format!("{{\"name\":\"router-{number:06}\"}}\n"));
    }
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    let head = format!(
        "POST /v1/routers/import HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        lines.len()
    );
    stream.write_all(head.as_bytes()).expect("a head");
    stream.write_all(lines.as_bytes()).expect("a body");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", answer.chars().take(400).collect::<String>());
    // The lines may come in chunks; a line of JSON is one however the rest is framed.
    let accounts: Vec<(String, String)> = answer
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| {
            let text = |key: &str| line[key].as_str().map(str::to_owned);
            Some((text("name")?, text("password")?))
        })
        .collect();
    assert_eq!(accounts.len(), count, "every line was answered");
    accounts
}
