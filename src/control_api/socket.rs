//! The path of the control socket: made safely, replaced only when nobody answers behind it.
//!
//! The socket is bound under a name of its own and then renamed, so that the path leads to a
//! listening socket with the right mode or to nothing of ours. A lock file beside it, held for life,
//! keeps two processes from replacing each other's. Source of the rules: threats T69.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::sys::cred;

const SOCKET_MODE: u32 = 0o660;
const FOLDER_MODE: u32 = 0o750;
/// Bytes of a path that fit into `sockaddr_un` with its NUL. Source: unix(7).
const MAX_PATH_BYTES: usize = 107;

/// Why there is no control socket: one sentence each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody answers.
    #[error("a concentrator already listens on {0}; stop it first or use another --socket")]
    Running(PathBuf),
    /// Something else lies there.
    #[error("{path} is {what}; remove it or use another --socket")]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The folder could be used to take the path away.
    #[error("the folder {folder} {what}; use a folder that only you or root can write to")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Longer than the kernel takes.
    #[error("{0} is too long for a socket; use a path of at most 107 bytes")]
    TooLong(PathBuf),
    /// The system refused.
    #[error("cannot make the control socket {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A listening control socket. The path is removed when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our socket, so that a successor's is not removed.
    own: (u64, u64),
    uid: u32,
    gid: u32,
    /// The service manager's: it stays.
    adopted: bool,
    /// Held until the end.
    _lock: File,
}

impl ControlSocket {
    /// Makes the socket with mode 0660, and its folder with 0750 if it is missing.
    ///
    /// # Errors
    /// See [`BindError`]; nothing that was there before is lost.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Self::bind_for(path, None)
    }

    /// The same for the members of this group: the socket is given to it, and its folder if that
    /// is made.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind_for(path: &Path, group: Option<u32>) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(failed)?;
        let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(BindError::Foreign { path: absolute, what: "a folder" });
        };
        let temporary = folder.join(format!(".{}", std::process::id()));
        if absolute.as_os_str().len().max(temporary.as_os_str().len()) > MAX_PATH_BYTES {
            return Err(BindError::TooLong(absolute));
        }
        make_folder(folder, group)?;
        look_at(&absolute)?;
        let mut lock_name = std::ffi::OsString::from(".");
        lock_name.push(name);
        lock_name.push(".lock");
        let lock = lock(&folder.join(lock_name), &absolute)?;
        // Again, now that nobody of ours can come between.
        look_at(&absolute)?;
        if UnixStream::connect(&absolute).is_ok() {
            return Err(BindError::Running(absolute));
        }
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&temporary).map_err(failed)?;
        // The group first: with the mode it could be opened by the wrong one.
        let made = group
            .map_or(Ok(()), |group| chown(&temporary, None, Some(group)))
            .and_then(|()| fs::set_permissions(&temporary, Permissions::from_mode(SOCKET_MODE)))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| fs::symlink_metadata(&temporary))
            .and_then(|facts| fs::rename(&temporary, &absolute).map(|()| facts));
        let facts = made.map_err(|error| {
            // Best effort: the first error is the one that matters.
            let _ = fs::remove_file(&temporary);
            failed(error)
        })?;
        Ok(Self {
            listener,
            path: absolute,
            own: (facts.dev(), facts.ino()),
            uid: facts.uid(),
            gid: facts.gid(),
            adopted: false,
            _lock: lock,
        })
    }

    /// Takes a socket that the service manager listens on at this path. Its mode and group are the
    /// service manager's, and it stays when this is dropped.
    ///
    /// # Errors
    /// Another socket stands at the path, or another process serves it.
    pub fn adopt(listener: UnixListener, path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        if bound.as_pathname() != Some(&*absolute) {
            return Err(BindError::Foreign {
                path: absolute,
                what: "not where the service manager listens",
            });
        }
        let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(BindError::Foreign { path: absolute, what: "a folder" });
        };
        let mut lock_name = std::ffi::OsString::from(".");
        lock_name.push(name);
        lock_name.push(".lock");
        let lock = lock(&folder.join(lock_name), &absolute)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let facts = fs::symlink_metadata(&absolute).map_err(failed)?;
        // Whoever made it, we serve it: our own user steers it.
        let uid = cred::effective_uid();
        let own = (facts.dev(), facts.ino());
        let gid = facts.gid();
        Ok(Self { listener, path: absolute, own, uid, gid, adopted: true, _lock: lock })
    }

    /// The path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening socket, non-blocking.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// The user this process made the socket as.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// The group whose members may connect: the file's present one, as an administrator may have
    /// given it to another group.
    pub(super) fn gid(&self) -> u32 {
        match fs::symlink_metadata(&self.path) {
            Ok(facts) if (facts.dev(), facts.ino()) == self.own => facts.gid(),
            _ => self.gid,
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if !self.adopted
            && fs::symlink_metadata(&self.path).is_ok_and(|f| (f.dev(), f.ino()) == self.own)
        {
            // Nothing to be done if it fails: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The folder exists afterwards and nobody but root and us can take names away in it.
fn make_folder(folder: &Path, group: Option<u32>) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: folder.to_owned(), source };
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above).map_err(failed)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        Err(_) => {}
        Ok(()) => chown(folder, None, group).map_err(failed)?,
    }
    let facts = fs::metadata(folder).map_err(failed)?;
    let wrong = |what| Err(BindError::Folder { folder: folder.to_owned(), what });
    if !facts.is_dir() {
        return wrong("is not a folder");
    }
    if facts.uid() != 0 && facts.uid() != cred::effective_uid() {
        return wrong("belongs to another user");
    }
    let (writable, sticky) = (facts.mode() & 0o002 != 0, facts.mode() & 0o1000 != 0);
    if writable && !sticky {
        return wrong("can be written to by everybody");
    }
    Ok(())
}

/// Refuses what we would not replace.
fn look_at(path: &Path) -> Result<(), BindError> {
    let foreign = |what| Err(BindError::Foreign { path: path.to_owned(), what });
    let facts = match fs::symlink_metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::Io { path: path.to_owned(), source }),
    };
    let kind = facts.file_type();
    if kind.is_symlink() {
        return foreign("a symbolic link");
    }
    if facts.uid() != cred::effective_uid() {
        return foreign("another user's file");
    }
    if kind.is_dir() {
        return foreign("a folder");
    }
    if !kind.is_socket() {
        return foreign("not a socket");
    }
    Ok(())
}

fn lock(file: &Path, socket: &Path) -> Result<File, BindError> {
    let failed = |source| BindError::Io { path: file.to_owned(), source };
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(file)
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BindError::Running(socket.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn refusal(path: &Path) -> String {
        let error = ControlSocket::bind(path).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    }

    #[test]
    fn makes_the_socket_and_its_folder_with_narrow_modes() {
        let dir = folder();
        let path = dir.path().join("run/control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        // Nothing but the lock file stays.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn replaces_a_stale_socket() {
        let dir = folder();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(socket.path()).unwrap();
    }

    #[test]
    fn refuses_a_live_socket_of_anybody() {
        let dir = folder();
        let (ours, others) = (dir.path().join("a"), dir.path().join("b"));
        let socket = ControlSocket::bind(&ours).unwrap();
        assert!(refusal(&ours).contains("already listens"));
        let _other = UnixListener::bind(&others).unwrap();
        assert!(refusal(&others).contains("already listens"));
        assert!(others.exists());
        drop(socket);
        ControlSocket::bind(&ours).unwrap();
    }

    #[test]
    fn refuses_what_is_not_a_socket_and_leaves_it_alone() {
        let dir = folder();
        let path = dir.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(refusal(&path).contains("is not a socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refusal(&path).contains("is a folder"));
        fs::remove_dir(&path).unwrap();
        let target = dir.path().join("target");
        drop(UnixListener::bind(&target).unwrap());
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(refusal(&path).contains("is a symbolic link"));
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink() && target.exists());
    }

    #[test]
    fn refuses_a_folder_that_everybody_can_write_to() {
        let dir = folder();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(refusal(&dir.path().join("s")).contains("can be written to by everybody"));
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        ControlSocket::bind(&dir.path().join("s")).unwrap();
    }

    #[test]
    fn refuses_paths_and_folders_of_another_user() {
        if cred::effective_uid() != 0 {
            let line = b"SKIPPED: refuses_paths_and_folders_of_another_user: needs root\n";
            let _ = io::Write::write_all(&mut io::stderr(), line);
            return;
        }
        let dir = folder();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        chown(&path, Some(65_534), None).unwrap();
        assert!(refusal(&path).contains("is another user's file"));
        assert!(path.exists());
        let theirs = dir.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(65_534), None).unwrap();
        assert!(refusal(&theirs.join("s")).contains("belongs to another user"));
    }

    #[test]
    fn refuses_a_path_that_does_not_fit() {
        let dir = folder();
        assert!(refusal(&dir.path().join("x".repeat(120))).contains("at most 107 bytes"));
    }

    #[test]
    fn a_lock_file_that_is_a_link_is_not_followed() {
        let dir = folder();
        let precious = dir.path().join("precious");
        fs::write(&precious, "data").unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join(".s.lock")).unwrap();
        assert!(refusal(&dir.path().join("s")).contains("cannot make"));
        assert_eq!(fs::read(&precious).unwrap(), b"data");
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let dir = folder();
        let path = dir.path().join("s");
        let socket = ControlSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
