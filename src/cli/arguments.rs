//! Commands and flags.

pub(in crate::cli) mod audit;
pub(super) mod login;
mod router;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use super::logging::LogFormat;
use crate::control_api::types::{Timestamp, check_ban, check_name};

use router::moment;
pub(super) use router::{
    AddRouter, ImportRouters, ListRouters, RotateArguments, RouterAt, RouterCommand, Sessions,
    SetRouter,
};

/// An OpenVPN-compatible tunnel concentrator for fleets of MikroTik routers.
#[derive(Debug, Parser)]
#[command(name = "tunnelhead", version, arg_required_else_help = true)]
pub(super) struct Arguments {
    /// The control socket [default: /run/tunnelhead/control.sock, or what the configuration says]
    #[arg(long, global = true, value_name = "PATH", env = "TUNNELHEAD_SOCKET")]
    pub(super) socket: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the concentrator
    Serve {
        /// The configuration; without it every default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// If the database is damaged, start from the newest good snapshot; the damaged file is kept
        #[arg(long)]
        recover: bool,
        /// The form of log lines
        #[arg(long, value_enum, default_value_t)]
        log_format: LogFormat,
    },
    /// Make everything that is needed in one folder, print what to paste on a router, and serve
    Quickstart {
        /// Where keys, certificates, the database and the scripts go
        #[arg(long, value_name = "DIR", default_value = "tunnelhead-quickstart")]
        dir: PathBuf,
        /// Where to listen instead of 0.0.0.0:8443
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// Put the CA and the check of the server's certificate into the scripts
        #[arg(long)]
        verify_server: bool,
    },
    /// Read a configuration and report every error in it
    CheckConfig {
        /// The configuration
        file: PathBuf,
    },
    /// Router accounts
    #[command(subcommand)]
    Router(RouterCommand),
    /// The router that has or had a tunnel address
    Directory {
        /// The address
        address: Ipv4Addr,
        /// When: as in 2026-11-22T02:58:00Z, or so long ago: 90m, 2h, 7d [default: now]
        #[arg(long, value_name = "TIME", value_parser = moment)]
        at: Option<Timestamp>,
    },
    /// The database: checks, copies
    #[command(subcommand)]
    Store(StoreCommand),
    /// Tunnels that are up
    #[command(subcommand)]
    Tunnel(TunnelCommand),
    /// What happens, a line an event, until interrupted; waits for a concentrator that restarts
    Events(EventsArguments),
    /// Routers that are kept out for a while
    #[command(subcommand)]
    Ban(BanCommand),
    /// Connect standard input and output to a port of a router, through its tunnel; made for
    /// ssh -o ProxyCommand='tunnelhead dial %h %p' NAME
    Dial {
        /// Name of the router
        #[arg(value_parser = name)]
        name: String,
        /// Port of the router
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// Only in this session of the router, as "tunnel show" names it
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// The audit trail: who did what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// What is logged; with FILTER it is changed until the process ends
    LogLevel {
        /// A level, or levels by module, such as info,tunnelhead::shard=debug
        filter: Option<String>,
    },
    /// Print the OpenAPI document of the control socket
    Openapi,
    /// Print the completions of a shell, as in "tunnelhead completions bash > /etc/bash_completion.d/tunnelhead"
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Why a router can't log in, or what troubles the fleet, and what mends it
    Why(login::Why),
    /// The last login attempts
    Logins(login::Logins),
    /// What crossed the wire in a router's last login, without secrets
    Capture(login::Capture),
    /// Look at everything that could keep it from working: one line each, ok or what to do; exit
    /// code 0 only if nothing needs doing
    Doctor,
    /// Read configuration, certificates and revocation lists again; no tunnel is dropped
    Reload,
    /// How the concentrator is; exit code 0 only when the TUN device and all listeners are up
    Status,
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Look for damage and contradictions while everything goes on; exit code 1 if there are any
    Check,
    /// Copy the database while everything goes on, into backups/ of the state folder
    Backup {
        /// Name of the copy: a-z, 0-9, ".", "_", "-"
        name: String,
    },
    /// Every copy
    List,
    /// Put a copy in place of the database; the concentrator must not run
    Restore {
        /// The copy
        file: PathBuf,
        /// The state folder
        #[arg(long, value_name = "DIR", default_value = "/var/lib/tunnelhead")]
        state_dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TunnelCommand {
    /// Every tunnel, or those that fit all of the filters
    List(TunnelFilters),
    /// One tunnel
    Show(Named),
    /// Cut a tunnel; without --ban its router may come back at once
    Disconnect {
        /// Name of the router
        #[arg(value_parser = name)]
        name: String,
        /// Keep the router out for so long, as in 90s, 10m, 2h, 7d
        #[arg(long, value_name = "TIME", value_parser = ban_time)]
        ban: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(super) struct TunnelFilters {
    /// Name of the router; * stands for any characters
    #[arg(long)]
    pub(super) name: Option<String>,
    /// A tag of the router
    #[arg(long)]
    pub(super) tag: Option<String>,
    /// Whose the router is
    #[arg(long)]
    pub(super) tenant: Option<String>,
    /// up or suspect
    #[arg(long, value_parser = PossibleValuesParser::new(["up", "suspect"]))]
    pub(super) state: Option<String>,
    /// The data cipher in use
    #[arg(long)]
    pub(super) cipher: Option<String>,
    /// Tunnel address or real address, or a network that holds one of them
    #[arg(long, value_name = "A")]
    pub(super) address: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum BanCommand {
    /// Every ban
    List,
    /// Keep a router out and cut its tunnel; a ban ends with the concentrator, too
    Set {
        /// Name of the router
        #[arg(value_parser = name)]
        name: String,
        /// For how long, as in 90s, 10m, 2h, 7d
        #[arg(value_parser = ban_time)]
        time: u64,
    },
    /// Let a router in again
    Lift(Named),
}

/// Seconds out of a number with a unit.
fn ban_time(text: &str) -> Result<u64, String> {
    let split = text.len().saturating_sub(1);
    let unit = match text.get(split..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        _ => return Err("write a number and a unit, as in 90s, 10m, 2h or 7d".to_owned()),
    };
    let number = text.get(..split).and_then(|number| number.parse::<u64>().ok());
    let seconds = number.and_then(|number| number.checked_mul(unit)).unwrap_or(0);
    check_ban("TIME", seconds).map_err(|error| error.message)
}

#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    /// Start after the event of this id instead of now, such as the event_id of a list
    #[arg(long, value_name = "ID")]
    pub(super) after: Option<u64>,
    /// Only these kinds, such as tunnel.up or tunnel. for all that begin so; may be repeated
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Vec<String>,
    /// Only of this router
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(super) router: Option<String>,
    /// Only of routers with this tag
    #[arg(long)]
    pub(super) tag: Option<String>,
    /// Only of routers of this tenant
    #[arg(long)]
    pub(super) tenant: Option<String>,
    /// Go on until interrupted; that is so without it too
    #[arg(long, hide = true)]
    pub(super) follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Name of the router
    #[arg(value_parser = name)]
    pub(super) name: String,
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(|error| error.message)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn socket_and_json_stand_before_and_after() {
        for line in [
            "tunnelhead --socket /s --json tunnel list",
            "tunnelhead tunnel --socket /s list --json",
            "tunnelhead tunnel list --json --socket /s",
            "tunnelhead tunnel list --socket=/s --json",
        ] {
            let arguments = parse(line).unwrap();
            assert!(arguments.json, "{line}");
            assert_eq!(arguments.socket, Some(PathBuf::from("/s")), "{line}");
        }
    }

    #[test]
    fn every_command_of_the_contract_is_there() {
        for line in [
            "tunnelhead serve",
            "tunnelhead serve --config f",
            "tunnelhead quickstart --dir d --listen 0.0.0.0:9443",
            "tunnelhead check-config f",
            "tunnelhead router add a --username u --password-stdin --address 100.64.1.2 --cipher aes-256-cbc --auth sha1 --login both --certificate-cn cn --verify-server",
            "tunnelhead router add a --cipher AES-128-GCM --auth null --login certificate",
            "tunnelhead router add a --tenant north --tag site:x --tag backup --note text",
            "tunnelhead router list",
            "tunnelhead router list --name a --tag x --tag y --tenant t --connected --disabled",
            "tunnelhead router list --not-connected --enabled --seen-after 15m",
            "tunnelhead router list --seen-before 2026-11-22T00:00:00Z",
            "tunnelhead router set a --tag x --tenant t --address 100.64.1.2 --cipher aes-256-cbc --auth sha1 --note text",
            "tunnelhead router set a --no-tags --no-tenant --no-address --no-cipher --no-auth --no-note --if-revision 7",
            "tunnelhead router readdress a --if-revision 7",
            "tunnelhead router rotate a --grace 2h --password-stdin --verify-server",
            "tunnelhead router rotate a --grace 0",
            "tunnelhead router export",
            "tunnelhead router export --output f",
            "tunnelhead router import -",
            "tunnelhead router import f --scripts --json",
            "tunnelhead router show a",
            "tunnelhead router remove a",
            "tunnelhead router disable a",
            "tunnelhead router enable a",
            "tunnelhead tunnel list",
            "tunnelhead tunnel show a",
            "tunnelhead tunnel disconnect a",
            "tunnelhead audit list --after 5 --limit 10 --router a --uid 0 --json",
            "tunnelhead audit verify --state-dir d",
            "tunnelhead audit segments",
            "tunnelhead audit seal",
            "tunnelhead audit export --dir d --seal",
            "tunnelhead audit prune --through 3",
            "tunnelhead status",
            "tunnelhead events",
            "tunnelhead events --follow --json",
            "tunnelhead events --after 7 --kind tunnel. --kind ban.set,reloaded --router a",
            "tunnelhead events --tag site=a --tenant t",
            "tunnelhead serve --recover",
            "tunnelhead router sessions a",
            "tunnelhead router sessions a --from 2h --to 2026-11-22T02:58:00+01:00 --limit 5",
            "tunnelhead directory 100.64.1.2",
            "tunnelhead directory 100.64.1.2 --at 90m",
            "tunnelhead store check",
            "tunnelhead store backup before-upgrade",
            "tunnelhead store list",
            "tunnelhead store restore f --state-dir d",
            "tunnelhead openapi",
            "tunnelhead completions bash",
            "tunnelhead why a",
            "tunnelhead why --fleet",
            "tunnelhead why --fleet --since 2h",
            "tunnelhead logins --outcome failed --source 192.0.2.1 --unknown --limit 5",
            "tunnelhead capture a -o f",
            "tunnelhead reload",
            "tunnelhead doctor",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}\n{error}"));
        }
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in [
            "tunnelhead",
            "tunnelhead router",
            "tunnelhead router add",
            "tunnelhead router add -a",
            "tunnelhead router add ../a",
            "tunnelhead router show A",
            "tunnelhead router add a --cipher bf-cbc",
            "tunnelhead router add a --auth md5",
            "tunnelhead router list --connected --not-connected",
            "tunnelhead router list --seen-after yesterday",
            "tunnelhead router list --seen-after 5x",
            "tunnelhead router set a",
            "tunnelhead router set a --tag x --no-tags",
            "tunnelhead router set a --address 100.64.1.2/24",
            "tunnelhead router rotate a --grace 8d",
            "tunnelhead router rotate a --grace -1h",
            "tunnelhead router import",
            "tunnelhead router import f --scripts",
            "tunnelhead router add a --address 100.64.1.2/32",
            "tunnelhead router add a --address 100.064.1.2",
            "tunnelhead router add a --login token",
            "tunnelhead quickstart --listen 8443",
            "tunnelhead check-config",
            "tunnelhead status now",
            "tunnelhead audit verify --head 5:ab",
            "tunnelhead audit list --router ../a",
            "tunnelhead directory",
            "tunnelhead directory 100.64.1",
            "tunnelhead directory 100.64.1.2 --at yesterday",
            "tunnelhead router sessions a --from 2",
            "tunnelhead store",
            "tunnelhead store restore",
            "tunnelhead completions csh",
            "tunnelhead events --after x",
            "tunnelhead events --router ../a",
            "tunnelhead why",
            "tunnelhead why a --fleet",
            "tunnelhead why a --since 2h",
            "tunnelhead why --fleet --since 2",
            "tunnelhead capture",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
