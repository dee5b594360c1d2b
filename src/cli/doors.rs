//! The control sockets that the configuration asks for, and who may do what behind them.

use std::os::unix::net::UnixListener;

use super::Failure;
use crate::config::{Config, Principal, Role as Word, Whom as Named};
use crate::control_api::permission::{Rule, Rules, Whom, group_id, user_id};
use crate::control_api::server::{ServerLimits, Setup};
use crate::control_api::socket::ControlSocket;
use crate::control_api::{Role, Scope};

/// Looks names up and makes the sockets. Blocks for as long as the system's name service does.
pub(super) fn open(config: &Config, inherited: Option<UnixListener>) -> Result<Setup, Failure> {
    let control = &config.control;
    let rules = rules(config)?;
    let group = control.group.as_ref().map(group_of).transpose()?;
    let read_only_group = control.read_only_group.as_ref().map(group_of).transpose()?;
    let limits = &config.limits;
    let limits = ServerLimits {
        streams: limits.control_streams,
        ..ServerLimits::new(limits.control_connections, limits.control_body_bytes)
    };
    let socket = match inherited {
        Some(listener) => ControlSocket::adopt(listener, &config.control_socket)?,
        None => ControlSocket::bind_for(&config.control_socket, group)?,
    };
    let read_only = match &control.read_only_socket {
        Some(path) => Some(ControlSocket::bind_for(path, read_only_group)?),
        None => None,
    };
    Ok(Setup { socket, read_only, rules, limits })
}

/// The rules with every name looked up.
fn rules(config: &Config) -> Result<Rules, Failure> {
    let rules = config.control.roles.iter().map(|rule| {
        let whom = match &rule.who {
            Named::User(user) => Whom::User(user_of(user)?),
            Named::Group(group) => Whom::Group(group_of(group)?),
        };
        let role = match rule.role {
            Word::Read => Role::Read,
            Word::Operate => Role::Operate,
            Word::Admin => Role::Admin,
        };
        let scope = match &rule.tenants {
            None => Scope::All,
            Some(names) => Scope::Tenants(names.iter().map(|name| name.as_str().into()).collect()),
        };
        Ok(Rule { whom, role, scope })
    });
    rules.collect::<Result<_, Failure>>().map(Rules)
}

fn user_of(user: &Principal) -> Result<u32, Failure> {
    known(user, "user", user_id)
}

fn group_of(group: &Principal) -> Result<u32, Failure> {
    known(group, "group", group_id)
}

fn known(
    principal: &Principal,
    kind: &str,
    look_up: impl Fn(&str) -> std::io::Result<Option<u32>>,
) -> Result<u32, Failure> {
    match principal {
        Principal::Id(id) => Ok(*id),
        Principal::Name(name) => match look_up(name) {
            Ok(Some(id)) => Ok(id),
            // Going on without it could leave others with more than they should have.
            Ok(None) => Err(Failure(format!(
                "[control] names the {kind} \"{name}\", which this system does not have; make it, \
                 or write its number"
            ))),
            Err(error) => Err(Failure(format!("cannot look the {kind} \"{name}\" up: {error}"))),
        },
    }
}
