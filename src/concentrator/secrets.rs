//! The server's own secret: one file beside the database, from which every key is derived.
//!
//! It is outside the database so that a copy of the database alone verifies no password.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tunnelhead_crypto::{Secret, SecureRandom, credential_tag};

/// Name of the file in the state folder.
const FILE: &str = "server.secret";
/// Bytes of the file.
const LENGTH: usize = 32;

/// The keys that are derived from the server's secret.
pub(super) struct Secrets {
    master: Secret<LENGTH>,
}

/// The secret can't be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretsError {
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} has {found} bytes instead of {LENGTH}; restore it from a backup", path.display())]
    Length { path: PathBuf, found: usize },
    #[error(
        "{} is missing, but the database has routers whose passwords depend on it; restore it from \
         a backup",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("the operating system gives no randomness")]
    Random,
}

impl Secrets {
    /// Reads the secret of the state folder. Without one, makes it, unless `needed`: accounts
    /// exist that depend on the one that is gone.
    pub(super) fn load(
        state_dir: &Path,
        needed: bool,
        rng: &mut dyn SecureRandom,
    ) -> Result<Self, SecretsError> {
        let path = state_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                let found = bytes.len();
                let master = bytes.try_into().map_err(|_| SecretsError::Length { path, found })?;
                Ok(Self { master: Secret::new(master) })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && needed => {
                Err(SecretsError::Missing { path })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::create(&path, rng),
            Err(source) => Err(SecretsError::File { what: "read", path, source }),
        }
    }

    /// A secret that lives as long as the process.
    pub(super) fn ephemeral(rng: &mut dyn SecureRandom) -> Result<Self, SecretsError> {
        let mut master = [0; LENGTH];
        rng.fill(&mut master).map_err(|_| SecretsError::Random)?;
        Ok(Self { master: Secret::new(master) })
    }

    fn create(path: &Path, rng: &mut dyn SecureRandom) -> Result<Self, SecretsError> {
        let secrets = Self::ephemeral(rng)?;
        let file = |what| {
            let path = path.to_owned();
            move |source| SecretsError::File { what, path, source }
        };
        // Written aside and renamed: a half-written secret never has the name.
        let aside = path.with_extension("new");
        let mut out = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .map_err(file("create"))?;
        out.write_all(secrets.master.expose()).map_err(file("write"))?;
        out.sync_all().map_err(file("write"))?;
        fs::rename(&aside, path).map_err(file("create"))?;
        Ok(secrets)
    }

    /// The key for one purpose.
    pub(super) fn key(&self, purpose: &str) -> Secret<32> {
        Secret::new(credential_tag(&self.master, &[purpose.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tunnelhead_crypto::SystemRandom;

    use super::*;

    #[test]
    fn the_secret_stays_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::load(dir.path(), false, &mut SystemRandom).unwrap();
        let second = Secrets::load(dir.path(), true, &mut SystemRandom).unwrap();
        assert_eq!(first.key("a").expose(), second.key("a").expose());
        assert_ne!(first.key("a").expose(), first.key("b").expose());
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lost_or_damaged_secret_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let lost = Secrets::load(dir.path(), true, &mut SystemRandom);
        assert!(matches!(lost, Err(SecretsError::Missing { .. })));
        fs::write(dir.path().join(FILE), [1; 31]).unwrap();
        let damaged = Secrets::load(dir.path(), false, &mut SystemRandom);
        assert!(matches!(damaged, Err(SecretsError::Length { found: 31, .. })));
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), [1; 31]);
    }
}
