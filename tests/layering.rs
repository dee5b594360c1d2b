//! Who may use whom. Reads the sources and fails on an import that the table below does not
//! allow, on effects in pure modules, and on `unsafe` outside `src/sys`.
//!
//! The table is the house plan of docs/ARCHITECTURE.md. A new arrow is a decision: add it here
//! together with its reason, or don't draw it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is the report"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A module of the crate and what it may use of ours. An entry may be a module or a path below
/// one; a module may always use itself.
const TABLE: &[(&str, &[&str])] = &[
    ("audit", &[]),
    ("net", &[]),
    ("sys", &[]),
    ("identity", &[]),
    ("lease", &[]),
    ("routeros", &[]),
    ("telemetry", &[]),
    ("proto", &["net"]),
    ("tls", &["proto::session"]),
    ("store", &["identity", "lease", "access"]),
    ("access", &["net", "sys"]),
    ("tun", &["net", "sys"]),
    ("greeter", &["proto", "tls", "net", "tun", "sys", "telemetry"]),
    ("shard", &["proto", "net", "tun", "sys", "telemetry"]),
    ("control_api", &["audit", "sys", "telemetry"]),
    ("config", &["proto", "net", "lease", "identity", "tls", "tun", "greeter", "shard"]),
    ("concentrator", EVERYTHING_BUT_CLI),
    // Quickstart asks for its right to a device before it writes a file, and both it and
    // check-config need the host's addresses.
    (
        "cli",
        &[
            "audit",
            "config",
            "concentrator",
            "control_api",
            "telemetry",
            "tun::check_permission",
            "tun::host_addresses",
        ],
    ),
    ("testing", EVERYTHING_BUT_CLI),
    // lib.rs and main.rs: the crate's face.
    ("", &["access", "cli", "concentrator", "config", "control_api", "identity", "telemetry"]),
];

const EVERYTHING_BUT_CLI: &[&str] = &[
    "access",
    "audit",
    "concentrator",
    "config",
    "control_api",
    "greeter",
    "identity",
    "lease",
    "net",
    "proto",
    "routeros",
    "shard",
    "store",
    "sys",
    "telemetry",
    "testing",
    "tls",
    "tun",
];

/// Modules without effects: time and randomness come in, bytes and decisions go out.
const PURE: &[&str] = &["audit", "crypto", "net", "proto", "identity", "lease", "routeros"];

/// What a pure module must not name.
const EFFECTS: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::SystemTime",
    "tokio",
    "mio",
    "socket2",
    "libc",
    "openssl",
    "rusqlite",
    "axum",
    "hyper",
    "tracing",
    "rtnetlink",
];

/// The one folder with `unsafe`.
const UNSAFE_FOLDER: &str = "sys";

#[test]
fn every_import_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut complaints = Vec::new();
    let mut files = 0;
    for (folder, in_crypto) in [("src", false), ("crypto/src", true)] {
        let sources = read_sources(&root.join(folder));
        let for_tests = test_only_files(&sources);
        for (path, text) in &sources {
            files += 1;
            if !path.ancestors().any(|part| for_tests.contains(part)) {
                let module = if in_crypto { vec!["crypto".to_owned()] } else { module_path(path) };
                for complaint in check(&module, text) {
                    complaints.push(format!("{folder}/{}: {complaint}", path.display()));
                }
            }
        }
    }
    assert!(files > 20, "the sources were not found");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_module_of_the_tree_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (path, _) in read_sources(&root) {
        let module = module_path(&path).into_iter().next().unwrap_or_default();
        assert!(allowed(&module).is_some(), "src/{module} is not in the table of this test");
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a file of ours");
    let reasons = read("docs/DEPENDENCIES.md");
    for manifest in ["Cargo.toml", "crypto/Cargo.toml", "fuzz/Cargo.toml"] {
        let mut names = 0;
        for name in dependencies(&read(manifest)) {
            names += 1;
            // Our own packages need no reason.
            if !name.starts_with("tunnelhead") {
                assert!(
                    reasons.contains(&format!("\n| `{name}` |")),
                    "{name} of {manifest} has no line in docs/DEPENDENCIES.md"
                );
            }
        }
        assert!(names > 0, "no dependency found in {manifest}");
    }
    assert_eq!(
        dependencies(
            "[package]\na = 1\n[dependencies]\n# c\nb = \"1\"\n[dev-dependencies]\nd.e = 1\n[x]\nf = 2"
        ),
        ["b", "d"]
    );
}

/// The names under every heading that ends in "dependencies]".
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside
            && let Some((name, _)) = line.split_once(['.', ' ', '='])
            && name.starts_with(|first: char| first.is_ascii_lowercase())
        {
            names.push(name);
        }
    }
    names
}

#[test]
fn planted_violations_are_found() {
    for (module, source, expected) in [
        ("net", "use crate::proto::wire;", "crate::proto::wire"),
        ("net", "use crate::{lease::Lease, net::View};", "crate::lease::Lease"),
        ("net/ipv4", "use super::super::sys::epoll;", "crate::sys::epoll"),
        ("tls/openssl", "fn f() { let x = crate::greeter::Service::new(); }", "crate::greeter"),
        ("tls", "use crate::proto::{session::TlsOp, wire::Reader};", "crate::proto::wire::Reader"),
        ("proto/session", "use std::{fs, fmt};", "std::fs"),
        ("proto/session", "let s = std::net::TcpStream::connect(a);", "std::net::TcpStream"),
        ("crypto", "use tokio::sync::Mutex;", "tokio"),
        ("lease", "use std::thread::{self, Builder};", "std::thread"),
        ("identity", "let t = ::std::time::SystemTime::now();", "std::time::SystemTime"),
        ("shard", "unsafe { libc::close(3) };", "unsafe"),
        ("crypto", "unsafe impl Send for X {}", "unsafe"),
        ("shard", "use crate::Concentrator;", "crate::Concentrator"),
        (
            "store",
            "#[cfg(test)]\nmod tests { use crate::tun; }\nuse crate::tun::Queue;",
            "crate::tun",
        ),
        ("proto", "pub(crate) use crate::net as n; // fine\nuse crate::cli;", "crate::cli"),
        ("net", "const A: char = '\"'; use crate::tls; const B: char = '\"';", "crate::tls"),
        ("net", "const A: &str = r#\"\"\"#; use crate::tls;", "crate::tls"),
        ("net", "fn f<'a>(x: &'a str) { crate::tls::x() }", "crate::tls"),
    ] {
        let module: Vec<String> = module.split('/').map(str::to_owned).collect();
        let found = check(&module, source);
        assert!(found.iter().any(|complaint| complaint.contains(expected)), "{source}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_complained_about() {
    for (module, source) in [
        ("net", "use crate::net::View; use self::x; use std::net::Ipv4Addr;"),
        ("net/ipv4", "use super::checksum; use super::super::net::View;"),
        ("tls", "use crate::proto::session::{TlsOp, TlsFacts};"),
        (
            "net",
            "// crate::tls\n/* unsafe /* nested */ crate::tls */ const S: &str = \"crate::tls\";",
        ),
        ("net", "/// [`crate::tls`] unsafe\nfn f() {}"),
        ("net", "#[cfg(test)]\nmod tests { use crate::tls; fn f() { let x = '}'; } }"),
        ("net", "#[cfg(test)]\nuse crate::tls::x;\nfn f() {}"),
        ("sys/epoll", "unsafe { libc::close(3) };"),
        ("proto", "#![forbid(unsafe_code)]"),
        ("proto", "pub(in crate::proto) fn f(environment: Env) { self.tokio.x() }"),
        ("concentrator", "use crate::{tls::X, shard::{Y, Z}}; use tokio::sync;"),
    ] {
        let module: Vec<String> = module.split('/').map(str::to_owned).collect();
        assert_eq!(check(&module, source), Vec::<String>::new(), "{source}");
    }
}

/// Every file below `root`, by its path from there.
fn read_sources(root: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a source folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                found.push((path.strip_prefix(root).expect("below the root").to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// `tls/wire.rs` is `[tls, wire]`, `tls/mod.rs` is `[tls]`, `lib.rs` is `[""]`.
fn module_path(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    match parts.last().map(String::as_str) {
        Some("mod") => drop(parts.pop()),
        Some("lib" | "main") if parts.len() == 1 => parts = vec![String::new()],
        _ => {}
    }
    parts
}

/// Files and folders that are modules under `#[cfg(test)]`: tests may use anything.
fn test_only_files(sources: &[(PathBuf, String)]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for (path, text) in sources {
        let tokens = tokenize(text);
        for window in tokens.windows(3) {
            let [module, name, end] = window else { continue };
            if module != "mod" || end != ";" {
                continue;
            }
            let kept = without_tests(&tokens);
            if !kept.windows(3).any(|kept| kept == window) {
                let folder = if path
                    .file_name()
                    .is_some_and(|file| file == "mod.rs" || file == "lib.rs" || file == "main.rs")
                {
                    path.parent().map(Path::to_owned).unwrap_or_default()
                } else {
                    path.with_extension("")
                };
                found.insert(folder.join(format!("{name}.rs")));
                found.insert(folder.join(name));
            }
        }
    }
    found
}

fn allowed(module: &str) -> Option<&'static [&'static str]> {
    TABLE.iter().find(|(name, _)| *name == module).map(|(_, uses)| *uses)
}

/// What is wrong with one file of the module `path`.
fn check(path: &[String], text: &str) -> Vec<String> {
    let own = path.first().map(String::as_str).unwrap_or_default();
    let tokens = without_tests(&tokenize(text));
    let mut complaints = Vec::new();
    if own != UNSAFE_FOLDER && tokens.iter().any(|token| token == "unsafe") {
        complaints.push("`unsafe` outside src/sys".to_owned());
    }
    for used in paths(&tokens) {
        let Some(used) = resolve(path, used) else { continue };
        let name = used.join("::");
        let below = |prefix: &str| {
            name == prefix || name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"))
        };
        if PURE.contains(&own) && EFFECTS.iter().any(|effect| below(effect)) {
            complaints.push(format!("`{name}` in a pure module"));
        }
        if own != "crypto"
            && used.first().is_some_and(|first| first == "crate")
            && let Some(target) = used.get(1)
            && target != own
            && !allowed(own)
                .unwrap_or_default()
                .iter()
                .any(|allowed| below(&format!("crate::{allowed}")))
        {
            complaints.push(format!("`{name}` is not for `{own}`"));
        }
    }
    complaints.sort();
    complaints.dedup();
    complaints
}

/// Makes a path start at `crate` or at the name of another crate; `None` if it stays inside.
fn resolve(module: &[String], mut used: Vec<String>) -> Option<Vec<String>> {
    match used.first()?.as_str() {
        "super" => {
            let ups = used.iter().take_while(|part| *part == "super").count();
            // A `super` of a module at the root is the root.
            if ups < module.len() {
                return None;
            }
            used.drain(..ups);
            used.insert(0, "crate".to_owned());
            Some(used)
        }
        "self" | "Self" => None,
        _ => Some(used),
    }
}

/// Every path of two parts or more, `use` trees written out, and single names of crates.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = at.checked_sub(1).and_then(|index| tokens.get(index)).map(String::as_str);
        let leading = before == Some("::")
            && at.checked_sub(2).and_then(|index| tokens.get(index)).is_none_or(|t| !is_name(t));
        if is_name(&tokens[at]) && before != Some(".") && (before != Some("::") || leading) {
            at = path(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path, or tree of paths, that starts at `at`; gives the position after it.
fn path(
    tokens: &[String],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut parts = prefix.to_vec();
    let token = |at: usize| tokens.get(at).map(String::as_str).unwrap_or_default();
    loop {
        if !is_name(token(at)) {
            break;
        }
        // `use a::{self}` names `a`.
        if token(at) != "self" || parts.is_empty() {
            parts.push(token(at).to_owned());
        }
        at += 1;
        if token(at) != "::" {
            break;
        }
        at += 1;
        if token(at) == "{" {
            at += 1;
            while at < tokens.len() && token(at) != "}" {
                if is_name(token(at)) {
                    at = path(tokens, at, &parts, found);
                } else {
                    at += 1;
                }
            }
            return at + 1;
        }
    }
    if parts.len() > 1 {
        found.push(parts);
    }
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens.get(at..at + MARK.len()).is_some_and(|window| window == MARK) {
            at = after_item(tokens, at + MARK.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The position after the item that starts at `at`: its `;`, or the end of its braces.
fn after_item(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0_usize;
    let in_use = tokens.get(at).is_some_and(|token| token == "use");
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && !in_use {
                    break;
                }
            }
            ";" if depth == 0 => break,
            _ => {}
        }
    }
    at
}

/// Names, `::` and single characters; comments, text and characters in quotes are gone.
fn tokenize(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let here = get(at);
        if here == '/' && get(at + 1) == '/' {
            while at < chars.len() && get(at) != '\n' {
                at += 1;
            }
        } else if here == '/' && get(at + 1) == '*' {
            let mut depth = 0_usize;
            while at < chars.len() {
                match (get(at), get(at + 1)) {
                    ('/', '*') => (depth, at) = (depth + 1, at + 2),
                    ('*', '/') => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if here == '"' {
            at += 1;
            while at < chars.len() && get(at) != '"' {
                at += if get(at) == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if here == '\'' {
            // A character, or the name of a lifetime.
            if get(at + 1) == '\\' {
                at += 3;
                while at < chars.len() && get(at) != '\'' {
                    at += 1;
                }
                at += 1;
            } else if get(at + 2) == '\'' {
                at += 3;
            } else {
                at += 2;
                while get(at).is_alphanumeric() || get(at) == '_' {
                    at += 1;
                }
            }
        } else if here.is_alphabetic() || here == '_' {
            let start = at;
            while get(at).is_alphanumeric() || get(at) == '_' {
                at += 1;
            }
            let name: String = chars[start..at].iter().collect();
            let hashes = chars[at..].iter().take_while(|next| **next == '#').count();
            if matches!(name.as_str(), "r" | "br" | "cr") && get(at + hashes) == '"' {
                at += hashes + 1;
                while at < chars.len()
                    && !(get(at) == '"' && (1..=hashes).all(|next| get(at + next) == '#'))
                {
                    at += 1;
                }
                at += hashes + 1;
            } else {
                tokens.push(name);
            }
        } else if here == ':' && get(at + 1) == ':' {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !here.is_whitespace() {
                tokens.push(here.to_string());
            }
            at += 1;
        }
    }
    tokens
}
