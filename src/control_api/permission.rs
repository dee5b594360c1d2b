//! Who may steer the concentrator: the one place that decides.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::caller::{Caller, Role, Scope};
use super::error::{ApiError, ErrorCode};
use crate::sys::cred;

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

/// Who owns the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Who is behind a connection: root, the user of the process, and members of the socket's group may
/// do everything; nobody else may do anything.
///
/// # Errors
/// `forbidden`, with what to do.
pub(super) fn caller(peer: &Peer, owner: Owner, socket: &Arc<str>) -> Result<Caller, ApiError> {
    if peer.uid == 0 || peer.uid == owner.uid || peer.gids.contains(&owner.gid) {
        return Ok(Caller {
            uid: peer.uid,
            gid: peer.gid,
            pid: peer.pid,
            socket: Arc::clone(socket),
            actor: None,
            role: Role::Admin,
            scope: Scope::All,
        });
    }
    Err(ApiError::new(
        ErrorCode::Forbidden,
        format!(
            "user {} may not steer this concentrator; become a member of group {} or ask root",
            peer.uid, owner.gid
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_owner_and_the_group_may_and_nobody_else() {
        let owner = Owner { uid: 990, gid: 991 };
        for (uid, gids, allowed) in [
            (0, vec![0], true),
            (990, vec![5], true),
            (1000, vec![1000, 991], true),
            (1000, vec![991], true),
            (1000, vec![1000], false),
            (991, vec![990], false),
            (1000, vec![], false),
            (1000, vec![0], false),
        ] {
            let peer = Peer { uid, gid: 0, pid: None, gids };
            assert_eq!(caller(&peer, owner, &"s".into()).is_ok(), allowed, "{peer:?}");
        }
    }
}
