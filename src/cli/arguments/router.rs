//! `router ...`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{Named, name};
use crate::control_api::types::{Login, RotateRouter, Timestamp};
use crate::telemetry::clock;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RouterCommand {
    /// Make an account and print its script; the password is shown only now
    Add(AddRouter),
    /// Every account, or those that fit
    List(ListRouters),
    /// One account
    Show(Named),
    /// The tunnels that it had and has, newest first
    Sessions(Sessions),
    /// Change an account
    Set(Box<SetRouter>),
    /// Delete an account and cut its tunnel
    Remove(RouterAt),
    /// Cut its tunnel and refuse its logins
    Disable(RouterAt),
    /// Accept its logins again
    Enable(RouterAt),
    /// Give it another address of the pool and cut its tunnel
    Readdress(RouterAt),
    /// Make a new password and print its script; the old one counts too for a while
    Rotate(RotateArguments),
    /// Write every account as JSON lines, with passwords in hashed form
    Export {
        /// The file; without it standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make the accounts of a file of JSON lines, all or none; passwords are shown only now
    Import(ImportRouters),
}

/// A router, and the revision that a change of it is meant for.
#[derive(Debug, Args)]
pub(in crate::cli) struct RouterAt {
    /// Name of the router
    #[arg(value_parser = name)]
    pub(in crate::cli) name: String,
    /// Do it only if the account has this revision, as "show" printed it
    #[arg(long, value_name = "N")]
    pub(in crate::cli) if_revision: Option<u64>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Sessions {
    /// Name of the router
    #[arg(value_parser = name)]
    pub(in crate::cli) name: String,
    /// Those that were up at this time or later: 2026-11-22T02:58:00Z, or so long ago: 90m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(in crate::cli) from: Option<Timestamp>,
    /// Those that began at this time or earlier
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(in crate::cli) to: Option<Timestamp>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(in crate::cli) limit: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AddRouter {
    /// Name of the router: a-z, 0-9, ".", "_", "-"
    #[arg(value_parser = name)]
    pub(in crate::cli) name: String,
    /// User name instead of NAME (RouterOS takes at most 27 characters)
    #[arg(long, value_name = "U")]
    pub(in crate::cli) username: Option<String>,
    /// Read the password from standard input instead of making one
    #[arg(long)]
    pub(in crate::cli) password_stdin: bool,
    /// A tunnel address of its own instead of one from the pool
    #[arg(long, value_name = "A")]
    pub(in crate::cli) address: Option<Ipv4Addr>,
    /// Data cipher for a router that does not negotiate
    #[arg(long, ignore_case = true, value_parser = ciphers())]
    pub(in crate::cli) cipher: Option<String>,
    /// Digest likewise; null only with a GCM cipher
    #[arg(long, ignore_case = true, value_parser = digests())]
    pub(in crate::cli) auth: Option<String>,
    /// How the router proves who it is
    #[arg(long, value_enum, default_value_t = LoginArgument::Password)]
    pub(in crate::cli) login: LoginArgument,
    /// Common name of the router's certificate instead of NAME
    #[arg(long, value_name = "CN")]
    pub(in crate::cli) certificate_cn: Option<String>,
    /// Put the CA and the check of the server's certificate into the scripts
    #[arg(long)]
    pub(in crate::cli) verify_server: bool,
    /// Whose it is
    #[arg(long, value_name = "T")]
    pub(in crate::cli) tenant: Option<String>,
    /// A word to find it by; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(in crate::cli) tags: Vec<String>,
    /// What to remember about it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(in crate::cli) note: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListRouters {
    /// Only those whose name fits; "*" stands for any characters
    #[arg(long, value_name = "PATTERN")]
    pub(in crate::cli) name: Option<String>,
    /// Only those with this tag; repeated: with all of them
    #[arg(long = "tag", value_name = "TAG")]
    pub(in crate::cli) tags: Vec<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "T")]
    pub(in crate::cli) tenant: Option<String>,
    /// Only those that have a tunnel now
    #[arg(long, conflicts_with = "not_connected")]
    pub(in crate::cli) connected: bool,
    /// Only those that have none
    #[arg(long)]
    pub(in crate::cli) not_connected: bool,
    /// Only those that may not log in
    #[arg(long, conflicts_with = "enabled")]
    pub(in crate::cli) disabled: bool,
    /// Only those that may
    #[arg(long)]
    pub(in crate::cli) enabled: bool,
    /// Only those seen since: 15m, 6h, 2d ago, or a moment like 2026-11-22T00:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(in crate::cli) seen_after: Option<Timestamp>,
    /// Only those not seen since then, also those never seen
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(in crate::cli) seen_before: Option<Timestamp>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args([
    "tags", "no_tags", "tenant", "no_tenant", "address", "no_address", "cipher", "no_cipher", "auth",
    "no_auth", "note", "no_note",
])))]
pub(in crate::cli) struct SetRouter {
    #[command(flatten)]
    pub(in crate::cli) at: RouterAt,
    /// All of its tags, one each time
    #[arg(long = "tag", value_name = "TAG", conflicts_with = "no_tags")]
    pub(in crate::cli) tags: Vec<String>,
    /// Take all its tags off
    #[arg(long)]
    pub(in crate::cli) no_tags: bool,
    /// Whose it is
    #[arg(long, value_name = "T", conflicts_with = "no_tenant")]
    pub(in crate::cli) tenant: Option<String>,
    /// Make it nobody's in particular
    #[arg(long)]
    pub(in crate::cli) no_tenant: bool,
    /// A static address; its tunnel is cut if that is another one
    #[arg(long, value_name = "A", conflicts_with = "no_address")]
    pub(in crate::cli) address: Option<Ipv4Addr>,
    /// Its address is one of the pool again
    #[arg(long)]
    pub(in crate::cli) no_address: bool,
    /// Data cipher, from its next login on
    #[arg(long, ignore_case = true, value_parser = ciphers(), conflicts_with = "no_cipher")]
    pub(in crate::cli) cipher: Option<String>,
    /// Prescribe no cipher
    #[arg(long)]
    pub(in crate::cli) no_cipher: bool,
    /// Digest, from its next login on; null only with a GCM cipher
    #[arg(long, ignore_case = true, value_parser = digests(), conflicts_with = "no_auth")]
    pub(in crate::cli) auth: Option<String>,
    /// Prescribe no digest
    #[arg(long)]
    pub(in crate::cli) no_auth: bool,
    /// What to remember about it
    #[arg(long, value_name = "TEXT", conflicts_with = "no_note")]
    pub(in crate::cli) note: Option<String>,
    /// Forget the note
    #[arg(long)]
    pub(in crate::cli) no_note: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RotateArguments {
    #[command(flatten)]
    pub(in crate::cli) at: RouterAt,
    /// For how long the old password counts too: 0, 30m, 24h, at most 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = grace)]
    pub(in crate::cli) grace: u64,
    /// Read the password from standard input instead of making one
    #[arg(long)]
    pub(in crate::cli) password_stdin: bool,
    /// Put the CA and the check of the server's certificate into the scripts
    #[arg(long)]
    pub(in crate::cli) verify_server: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportRouters {
    /// The file; "-" for standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// Also what to paste on each router; needs --json
    #[arg(long, requires = "json")]
    pub(in crate::cli) scripts: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum LoginArgument {
    Password,
    Certificate,
    Both,
}

impl From<LoginArgument> for Login {
    fn from(argument: LoginArgument) -> Self {
        match argument {
            LoginArgument::Password => Self::Password,
            LoginArgument::Certificate => Self::Certificate,
            LoginArgument::Both => Self::Both,
        }
    }
}

fn ciphers() -> PossibleValuesParser {
    PossibleValuesParser::new([
        "aes-256-cbc",
        "aes-192-cbc",
        "aes-128-cbc",
        "aes-256-gcm",
        "aes-192-gcm",
        "aes-128-gcm",
    ])
}

fn digests() -> PossibleValuesParser {
    PossibleValuesParser::new(["sha1", "sha256", "sha384", "sha512", "null"])
}

/// Seconds of "0", "90s", "15m", "6h", "2d".
fn seconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = text.get(..text.len().checked_sub(1)?)?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(unit)
}

pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Some(ago) = seconds(text) {
        return Ok(Timestamp(clock::unix_seconds().saturating_sub(ago)));
    }
    serde_json::from_value(text.into()).map_err(|_| {
        "say how long ago, like 15m, 6h or 2d, or when, like 2026-11-22T00:00:00Z".to_owned()
    })
}

fn grace(text: &str) -> Result<u64, String> {
    seconds(text)
        .filter(|seconds| *seconds <= RotateRouter::MAX_GRACE)
        .ok_or_else(|| "say 0, 30m, 24h, at most 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("24h", Some(86_400)),
            ("7d", Some(604_800)),
            ("", None),
            ("d", None),
            ("5", None),
            ("+5m", None),
            ("-5m", None),
            ("5 m", None),
            ("1.5h", None),
            ("5\u{b5}", None),
            ("99999999999999999999d", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
        assert_eq!(grace("7d"), Ok(604_800));
        assert!(grace("8d").is_err() && grace("24").is_err());
        assert_eq!(moment("1970-01-01T00:01:00Z"), Ok(Timestamp(60)));
        assert!(moment("1970-01-01").is_err());
    }
}
