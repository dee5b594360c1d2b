//! `quickstart`: from nothing to a running concentrator with one router, in one folder.
//!
//! The folder holds the configuration, the state and the router's files; it can be moved. Running
//! it again changes nothing that is there and prints the same secrets.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::logging::{self, LogFormat};
use super::output::{print, print_json};
use super::running::{self, Signals};
use super::{Failure, Outcome};
use crate::concentrator::{self, Concentrator};
use crate::config::{Config, ConfigError, Listener, LocalAddress};
use crate::control_api::types::{CreatedRouter, NewRouter};
use crate::control_api::{ErrorCode, Scope};

const CONFIG: &str = "tunnelhead.toml";
const DEFAULT_LISTEN: &str = "0.0.0.0:8443";
const ROUTER: &str = "router-1";

pub(super) async fn quickstart(
    dir: &Path,
    listen: Option<SocketAddr>,
    verify_server: bool,
    socket: Option<PathBuf>,
    json: bool,
) -> Outcome {
    let signals = Signals::take()?;
    let log_filter = logging::start(LogFormat::Human);
    concentrator::check_tun_permission()?;
    let dir = std::path::absolute(dir)?;
    make_folder(&dir)?;
    let file = dir.join(CONFIG);
    if !file.exists() {
        write_private(&file, &first_config(listen))?;
    }
    let local = running::local_addresses()?;
    let load = {
        let file = file.clone();
        move |local: &[LocalAddress]| -> Result<Config, ConfigError> {
            let mut config = Config::load(&file, local)?;
            if let Some(address) = listen {
                // The file may say otherwise since an earlier run; the command line counts.
                config.listeners = vec![Listener::new(address)];
                config.check(local)?;
            }
            if let Some(socket) = &socket {
                config.control_socket.clone_from(socket);
            }
            Ok(config)
        }
    };
    let config = load(&local)?;
    let builder = Concentrator::builder()
        .reload_from(move || load(&concentrator::local_addresses().unwrap_or_default()));
    let socket = config.control_socket.clone();
    running::run(builder.log_filter(log_filter), config, signals, async |head| {
        let addresses = head.local_addresses().to_vec();
        let router = first_router(head, &dir, verify_server).await?;
        if json {
            let document = serde_json::json!({
                "dir": dir, "config": file, "socket": socket, "listen": addresses, "router": router,
            });
            return Ok(print_json(&document)?);
        }
        let notes =
            head.handle().status().await?.degraded.into_iter().map(|one| one.reason).collect();
        Ok(print(&Welcome { dir, file, socket, addresses, router, notes }.text())?)
    })
    .await
}

fn first_config(listen: Option<SocketAddr>) -> String {
    let listen = listen.map_or_else(|| DEFAULT_LISTEN.to_owned(), |address| address.to_string());
    format!(
        "# Made by \"tunnelhead quickstart\". docs/CONFIG.md describes every key.\n\
         listen = [\"{listen}\"]\n\
         # The name or address that routers dial, if it is not this host's own:\n\
         # public_host = \"vpn.example.net\"\n\
         state_dir = \"state\"\n\
         control_socket = \"control.sock\"\n"
    )
}

/// The account and its files, made once.
async fn first_router(
    head: &Concentrator,
    dir: &Path,
    verify_server: bool,
) -> Result<CreatedRouter, Failure> {
    let known = dir.join(format!("{ROUTER}.json"));
    let handle = head.handle();
    let router = match handle.get_router(&Scope::All, ROUTER).await {
        Ok(_) => {
            let saved = read_router(&known)?;
            let verified = saved.script.expose().contains("verify-server-certificate=yes");
            // Written anew: the port or the name to dial may be another one than last time.
            head.provision(ROUTER, saved.password, verify_server || verified)?
        }
        Err(error) if error.code == ErrorCode::RouterNotFound => {
            let mut new = NewRouter::named(ROUTER);
            new.verify_server = verify_server;
            handle.add_router(&Scope::All, new).await?
        }
        Err(error) => return Err(error.into()),
    };
    let document = serde_json::to_string_pretty(&router)?;
    write_private(&known, &document)?;
    write_private(&dir.join(format!("{ROUTER}.rsc")), router.script.expose())?;
    write_private(&dir.join(format!("{ROUTER}-v6.rsc")), router.script_v6.expose())?;
    write_private(&dir.join(format!("{ROUTER}.ovpn")), router.ovpn.expose())?;
    Ok(router)
}

fn read_router(file: &Path) -> Result<CreatedRouter, Failure> {
    let lost = |reason: &dyn std::fmt::Display| {
        Failure(format!(
            "the account {ROUTER} exists but its password is not in {} any more ({reason}); start \
             with \"serve --config\", remove the router with \"router remove {ROUTER}\", and run \
             quickstart again",
            file.display()
        ))
    };
    let text = fs::read_to_string(file).map_err(|error| lost(&error))?;
    serde_json::from_str(&text).map_err(|error| lost(&error))
}

struct Welcome {
    dir: PathBuf,
    file: PathBuf,
    socket: PathBuf,
    addresses: Vec<SocketAddr>,
    router: CreatedRouter,
    notes: Vec<String>,
}

impl Welcome {
    fn text(&self) -> String {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let program = std::env::args().next().unwrap_or_else(|| "tunnelhead".to_owned());
        let socket = shell(&self.socket.display().to_string());
        let command = format!("{} --socket {socket}", shell(&program));
        let listening: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let mut text = format!(
            "Listening on     {}\n\
             Control socket   {}\n\
             Configuration    {}\n\
             Secrets and state are in {}; keep it to yourself.\n",
            listening.join(", "),
            self.socket.display(),
            self.file.display(),
            self.dir.display(),
        );
        for note in &self.notes {
            text.push_str(&format!("Note: {note}\n"));
        }
        text.push_str(&format!(
            "\nPaste these lines into a terminal of RouterOS 7.9 or later:\n\n{}\n\
             The same for RouterOS v6   {}\n\
             For an OpenVPN client      {}\n\n\
             Next, in another terminal:\n\n  \
             {command} status\n  \
             {command} tunnel list\n  \
             {command} router add branch-2\n\n\
             Serving; Ctrl-C stops.\n",
            self.router.script.expose(),
            at(&format!("{ROUTER}-v6.rsc")),
            at(&format!("{ROUTER}.ovpn")),
        ));
        text
    }
}

/// One word of a shell command line.
fn shell(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Only the owner looks into a new folder; an existing one keeps its mode.
fn make_folder(dir: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure(format!("cannot make {}: {error}", dir.display()));
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        result => result.map_err(failed),
    }
}

/// The file has the whole text or does not change, and only its owner reads it.
fn write_private(file: &Path, text: &str) -> Result<(), Failure> {
    let temporary = file.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut open = OpenOptions::new();
        let mut out = open.write(true).create_new(true).mode(0o600).open(&temporary)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&temporary, file)
    };
    write().map_err(|error| Failure(format!("cannot write {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_configuration_is_good() {
        for listen in [None, Some("[::1]:0".parse().unwrap())] {
            let config = Config::parse(&first_config(listen), Path::new("/q"), &[]).unwrap();
            assert_eq!(config.listeners.len(), 1);
            assert_eq!(config.state_dir, Path::new("/q/state"));
            assert_eq!(config.control_socket, Path::new("/q/control.sock"));
        }
    }

    #[test]
    fn private_files_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        write_private(&file, "one").unwrap();
        write_private(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let Failure(sentence) = write_private(&dir.path().join("no/a"), "x").unwrap_err();
        assert!(sentence.starts_with("cannot write "), "{sentence}");
    }

    #[test]
    fn words_for_a_shell_are_quoted_when_they_need_it() {
        assert_eq!(shell("/a/b.sock"), "/a/b.sock");
        assert_eq!(shell("/a b/it's"), "'/a b/it'\\''s'");
        assert_eq!(shell(""), "''");
    }

    #[test]
    fn a_lost_password_is_explained() {
        let Failure(sentence) = read_router(Path::new("/nowhere/router-1.json")).unwrap_err();
        assert!(sentence.contains("router remove router-1"), "{sentence}");
    }
}
