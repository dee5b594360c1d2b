//! The command line: a client of the control socket, and the process around a concentrator.
//!
//! Exit codes: 0 it is done (and for `status`: TUN and listeners are up); 1 it is not, with one
//! sentence on standard error; 2 the command line is wrong.

mod arguments;
mod doors;
mod logging;
mod output;
mod quickstart;
mod remote;
mod restore;
mod running;
mod serve;
mod service;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

use arguments::{Arguments, Command, StoreCommand};

/// Where the control socket is unless somebody says otherwise.
const DEFAULT_SOCKET: &str = "/run/tunnelhead/control.sock";

/// How long work in the background may take after the command has ended.
const LAST_WORK: Duration = Duration::from_secs(2);

/// What went wrong, in one sentence.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Whether a command that has run is a success.
type Outcome = Result<ExitCode, Failure>;

/// Reads the process's arguments, runs the command, and says how it went.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(dispatch(arguments));
            // Work that hangs must not keep a process that has said why it ends.
            runtime.shutdown_timeout(LAST_WORK);
            outcome
        });
    outcome.unwrap_or_else(|Failure(sentence)| {
        // There is nobody left to tell if this fails.
        let _ = writeln!(std::io::stderr(), "error: {sentence}");
        ExitCode::FAILURE
    })
}

async fn dispatch(arguments: Arguments) -> Outcome {
    let Arguments { socket, json, command } = arguments;
    let remote = |path: Option<PathBuf>| {
        remote::Remote::new(path.as_deref().unwrap_or_else(|| Path::new(DEFAULT_SOCKET)), json)
    };
    match command {
        Command::Serve { config, recover, log_format } => {
            serve::serve(config.as_deref(), recover, socket, log_format).await
        }
        Command::Quickstart { dir, listen, verify_server } => {
            quickstart::quickstart(&dir, listen, verify_server, socket, json).await
        }
        Command::CheckConfig { file } => serve::check_config(&file, json),
        Command::Router(command) => remote(socket).router(command).await,
        Command::Directory { address, at } => remote(socket).directory(address, at).await,
        Command::Store(StoreCommand::Check) => remote(socket).check_store().await,
        Command::Store(StoreCommand::Backup { name }) => remote(socket).back_up_store(name).await,
        Command::Store(StoreCommand::List) => remote(socket).backups().await,
        Command::Store(StoreCommand::Restore { file, state_dir }) => {
            restore::restore(&file, &state_dir, json)
        }
        Command::Tunnel(command) => remote(socket).tunnel(command).await,
        Command::Events(arguments) => remote(socket).events(arguments).await,
        Command::Ban(command) => remote(socket).ban(command).await,
        Command::Dial { name, port, generation } => {
            remote(socket).dial(&name, port, generation).await
        }
        Command::Audit(command) => remote(socket).audit(command).await,
        Command::LogLevel { filter } => remote(socket).log_level(filter).await,
        Command::Openapi => {
            output::print_json(&crate::control_api::openapi())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tunnelhead", &mut text);
            output::print(&String::from_utf8_lossy(&text))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Why(command) => remote(socket).why(command).await,
        Command::Logins(command) => remote(socket).logins(command).await,
        Command::Capture(command) => remote(socket).capture(command).await,
        Command::Doctor => remote(socket).doctor().await,
        Command::Reload => remote(socket).reload().await,
        Command::Status => remote(socket).status().await,
    }
}
