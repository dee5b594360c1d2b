//! Who may steer the concentrator: the one place that decides.

use std::io;
use std::os::fd::BorrowedFd;

use super::error::{ApiError, ErrorCode};
use crate::sys::cred;

/// The other end of a connection, as the kernel knows it from the moment it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    /// Primary and supplementary groups.
    pub(super) gids: Vec<u32>,
}

impl Peer {
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let known = cred::peer_cred(fd)?;
        // Kernels before 4.13 cannot tell; then the primary group has to do.
        let mut gids = cred::peer_groups(fd).unwrap_or_default();
        gids.push(known.gid);
        Ok(Self { uid: known.uid, gids })
    }
}

/// Who owns the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Root, the user of the process, and members of the socket's group may do everything; nobody else
/// may do anything.
pub(super) fn check(peer: &Peer, owner: Owner) -> Result<(), ApiError> {
    if peer.uid == 0 || peer.uid == owner.uid || peer.gids.contains(&owner.gid) {
        return Ok(());
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
            let peer = Peer { uid, gids };
            assert_eq!(check(&peer, owner).is_ok(), allowed, "{peer:?}");
        }
    }
}
