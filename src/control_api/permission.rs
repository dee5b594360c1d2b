//! Who may steer the concentrator: the one place that decides.
//!
//! A connection has the identity that the kernel noted when it was opened; whoever gets the
//! descriptor later has the rights of its opener and no others. Source: unix(7), `SO_PEERCRED`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::caller::{Caller, Role, Scope};
use super::error::{ApiError, ErrorCode};
use crate::sys::cred;

pub use crate::sys::names::{group_id, user_id};

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// One user id.
    User(u32),
    /// The members of a group, primary or supplementary.
    Group(u32),
}

/// What a user or the members of a group may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub whom: Whom,
    /// What they may do.
    pub role: Role,
    /// What they may see.
    pub scope: Scope,
}

/// The rules, in order: the first one that matches counts. Without any, members of the socket's
/// group may do everything. Root and the user of the process always may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(pub Vec<Rule>);

/// The other end of a connection, as the kernel knows it from the moment it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    /// Primary group.
    pub(super) gid: u32,
    pub(super) pid: Option<i32>,
    /// Primary and supplementary groups.
    pub(super) gids: Vec<u32>,
}

impl Peer {
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let known = cred::peer_cred(fd)?;
        // Kernels before 4.13 cannot tell; then the primary group has to do.
        let mut gids = cred::peer_groups(fd).unwrap_or_default();
        gids.push(known.gid);
        let pid = (known.pid != 0).then_some(known.pid);
        Ok(Self { uid: known.uid, gid: known.gid, pid, gids })
    }
}

/// The socket that a connection came through.
#[derive(Clone, Debug)]
pub(super) struct Door {
    /// Its path.
    pub(super) path: Arc<str>,
    /// Who owns it.
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Nobody is more than a reader behind it.
    pub(super) read_only: bool,
}

/// What a peer may do behind a door.
///
/// # Errors
/// `forbidden`, with what to do.
pub(super) fn caller(peer: &Peer, door: &Door, rules: &Rules) -> Result<Caller, ApiError> {
    let judged = judge(peer, door, rules);
    // The file's mode has decided who may open it; a rule can only narrow what is seen.
    let (role, scope) = match (judged, door.read_only) {
        (Some((_, scope)), true) => (Role::Read, scope),
        (None, true) => (Role::Read, Scope::All),
        (Some(judged), false) => judged,
        (None, false) => return Err(refusal(peer, door, rules)),
    };
    Ok(Caller {
        uid: peer.uid,
        gid: peer.gid,
        pid: peer.pid,
        socket: Arc::clone(&door.path),
        actor: None,
        role,
        scope,
    })
}

fn judge(peer: &Peer, door: &Door, rules: &Rules) -> Option<(Role, Scope)> {
    let member = |gid: u32| peer.gids.contains(&gid);
    let own = peer.uid == 0 || peer.uid == door.uid;
    if own || (rules.0.is_empty() && !door.read_only && member(door.gid)) {
        return Some((Role::Admin, Scope::All));
    }
    let rule = rules.0.iter().find(|rule| match rule.whom {
        Whom::User(uid) => uid == peer.uid,
        Whom::Group(gid) => member(gid),
    });
    rule.map(|rule| (rule.role, rule.scope.clone()))
}

fn refusal(peer: &Peer, door: &Door, rules: &Rules) -> ApiError {
    let message = if rules.0.is_empty() {
        format!(
            "user {} may not steer this concentrator; become a member of group {} or ask root",
            peer.uid, door.gid
        )
    } else {
        format!(
            "no [[control.role]] of the configuration is about user {}; add one or ask root",
            peer.uid
        )
    };
    ApiError::new(ErrorCode::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(read_only: bool) -> Door {
        Door { path: "/s".into(), uid: 990, gid: 991, read_only }
    }

    fn peer(uid: u32, gids: &[u32]) -> Peer {
        Peer { uid, gid: gids.first().copied().unwrap_or(uid), pid: Some(7), gids: gids.to_vec() }
    }

    fn scope(names: &[&str]) -> Scope {
        Scope::Tenants(names.iter().map(|name| Arc::from(*name)).collect())
    }

    fn rule(whom: Whom, role: Role, tenants: Option<&[&str]>) -> Rule {
        Rule { whom, role, scope: tenants.map_or(Scope::All, scope) }
    }

    fn got(uid: u32, gids: &[u32], rules: &Rules, read_only: bool) -> Option<(Role, Scope)> {
        let caller = caller(&peer(uid, gids), &door(read_only), rules);
        caller.ok().map(|caller| (caller.role, caller.scope))
    }

    #[test]
    fn without_rules_root_the_owner_and_the_group_may_and_nobody_else() {
        let rules = Rules::default();
        for (uid, gids, allowed) in [
            (0, &[0][..], true),
            (990, &[5], true),
            (1000, &[1000, 991], true),
            (1000, &[991], true),
            (1000, &[1000], false),
            (991, &[990], false),
            (1000, &[], false),
            (1000, &[0], false),
        ] {
            let expected = allowed.then_some((Role::Admin, Scope::All));
            assert_eq!(got(uid, gids, &rules, false), expected, "{uid} {gids:?}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = Rules(vec![
            rule(Whom::User(1000), Role::Read, Some(&["a"])),
            rule(Whom::Group(50), Role::Operate, None),
            rule(Whom::User(1001), Role::Admin, None),
            rule(Whom::User(1000), Role::Admin, None),
            rule(Whom::Group(51), Role::Admin, Some(&["b", "c"])),
        ]);
        for (uid, gids, expected) in [
            // Not the most powerful one that matches, in either direction.
            (1000, &[1000, 50][..], Some((Role::Read, scope(&["a"])))),
            (1001, &[1001, 50], Some((Role::Operate, Scope::All))),
            (1001, &[1001], Some((Role::Admin, Scope::All))),
            (1002, &[51], Some((Role::Admin, scope(&["b", "c"])))),
            // With rules, the socket's group alone is nothing any more.
            (1002, &[1002, 991], None),
            // A group id is no user id.
            (50, &[1000], None),
            // No rule takes anything from these two.
            (0, &[0, 50], Some((Role::Admin, Scope::All))),
            (990, &[50], Some((Role::Admin, Scope::All))),
        ] {
            assert_eq!(got(uid, gids, &rules, false), expected, "{uid} {gids:?}");
        }
    }

    #[test]
    fn behind_the_second_socket_nobody_is_more_than_a_reader() {
        let rules = Rules(vec![
            rule(Whom::User(1000), Role::Admin, Some(&["a"])),
            rule(Whom::Group(50), Role::Operate, None),
        ]);
        for (uid, gids, expected) in [
            (0, &[0][..], Scope::All),
            (990, &[990], Scope::All),
            (1000, &[1000], scope(&["a"])),
            (1001, &[50], Scope::All),
            (1002, &[991], Scope::All),
        ] {
            assert_eq!(got(uid, gids, &rules, true), Some((Role::Read, expected.clone())), "{uid}");
            if uid == 1002 || uid == 0 {
                let none = Rules::default();
                assert_eq!(got(uid, gids, &none, true), Some((Role::Read, expected)), "{uid}");
            }
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let error = |rules| caller(&peer(1000, &[1000]), &door(false), &rules).unwrap_err();
        assert!(error(Rules::default()).message.contains("group 991"));
        let rules = Rules(vec![rule(Whom::User(1), Role::Read, None)]);
        let error = error(rules);
        assert_eq!(error.code, ErrorCode::Forbidden);
        assert!(error.message.contains("[[control.role]]") && !error.message.contains("991"));
    }
}
