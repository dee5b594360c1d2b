//! All accounts in memory, found by name, user name or common name.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{Account, AccountError};

/// All accounts in memory. No two share a name, a user name, a common name or a static address.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    by_name: HashMap<Arc<str>, Arc<Account>>,
    by_username: HashMap<Vec<u8>, Arc<Account>>,
    by_common_name: HashMap<Vec<u8>, Arc<Account>>,
    by_address: HashMap<std::net::Ipv4Addr, Arc<str>>,
    /// The keys of `by_name` in order, so that a list can go on where it stopped.
    names: BTreeSet<Arc<str>>,
    slow: usize,
    twice_slow: usize,
    rotating: usize,
}

impl Directory {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the account, or replaces the one of the same name, which is handed back.
    ///
    /// # Errors
    /// The account breaks a rule or clashes with another one; the directory is as it was.
    pub fn insert(&mut self, account: Account) -> Result<Option<Arc<Account>>, DirectoryError> {
        self.check(&account)?;
        let old = self.remove(&account.name);
        let account = Arc::new(account);
        let slow = slow_secrets(&account);
        self.slow = self.slow.saturating_add(usize::from(slow > 0));
        self.twice_slow = self.twice_slow.saturating_add(usize::from(slow > 1));
        self.rotating = self.rotating.saturating_add(usize::from(account.previous.is_some()));
        self.by_username.insert(account.username.clone().into_bytes(), Arc::clone(&account));
        if let Some(common_name) = &account.certificate_cn {
            self.by_common_name.insert(common_name.clone().into_bytes(), Arc::clone(&account));
        }
        if let Some(address) = account.address {
            self.by_address.insert(address, Arc::clone(&account.name));
        }
        self.names.insert(Arc::clone(&account.name));
        self.by_name.insert(Arc::clone(&account.name), account);
        Ok(old)
    }

    /// Checks whether [`Self::insert`] would take the account.
    ///
    /// # Errors
    /// The account breaks a rule or clashes with another one.
    pub fn check(&self, account: &Account) -> Result<(), DirectoryError> {
        account.check()?;
        let foreign = |owner: Option<&Arc<Account>>| owner.is_some_and(|o| o.name != account.name);
        if foreign(self.by_username(account.username.as_bytes())) {
            return Err(DirectoryError::UsernameTaken);
        }
        if let Some(common_name) = &account.certificate_cn
            && foreign(self.by_common_name(common_name.as_bytes()))
        {
            return Err(DirectoryError::CommonNameTaken);
        }
        if let Some(address) = account.address
            && self.by_address.get(&address).is_some_and(|owner| *owner != account.name)
        {
            return Err(DirectoryError::AddressTaken);
        }
        Ok(())
    }

    /// Removes the account and hands it back.
    pub fn remove(&mut self, name: &str) -> Option<Arc<Account>> {
        let account = self.by_name.remove(name)?;
        self.names.remove(name);
        let slow = slow_secrets(&account);
        self.slow = self.slow.saturating_sub(usize::from(slow > 0));
        self.twice_slow = self.twice_slow.saturating_sub(usize::from(slow > 1));
        self.rotating = self.rotating.saturating_sub(usize::from(account.previous.is_some()));
        self.by_username.remove(account.username.as_bytes());
        if let Some(common_name) = &account.certificate_cn {
            self.by_common_name.remove(common_name.as_bytes());
        }
        if let Some(address) = account.address {
            self.by_address.remove(&address);
        }
        Some(account)
    }

    /// The account with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }

    /// The account with exactly this user name.
    pub fn by_username(&self, username: &[u8]) -> Option<&Arc<Account>> {
        self.by_username.get(username)
    }

    /// The account with exactly this common name.
    pub fn by_common_name(&self, common_name: &[u8]) -> Option<&Arc<Account>> {
        self.by_common_name.get(common_name)
    }

    /// Every account, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.by_name.values()
    }

    /// Every account whose name comes after `name`, by name in byte order; `None`: from the first
    /// on.
    pub fn after<'a>(&'a self, name: Option<&str>) -> impl Iterator<Item = &'a Arc<Account>> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names.range::<str, _>((from, Bound::Unbounded));
        names.filter_map(|name| self.by_name.get(name))
    }

    /// How many accounts there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True if there is no account.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many accounts have one secret or more that takes a slow hash to verify.
    pub fn slow_secrets(&self) -> usize {
        self.slow
    }

    /// How many accounts have two: the one of now and the one from before the last rotation.
    pub fn twice_slow(&self) -> usize {
        self.twice_slow
    }

    /// How many accounts have a secret from before their last rotation, whether or not it counts.
    pub fn rotating(&self) -> usize {
        self.rotating
    }
}

fn slow_secrets(account: &Account) -> usize {
    let previous = account.previous.as_ref().is_some_and(|previous| previous.secret.is_slow());
    usize::from(account.secret.is_slow()).saturating_add(usize::from(previous))
}

/// Why an account can not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The account by itself is not valid.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// Another account has the user name.
    #[error("the user name belongs to another router")]
    UsernameTaken,
    /// Another account has the common name.
    #[error("the common name belongs to another router")]
    CommonNameTaken,
    /// Another account has the static address.
    #[error("the address belongs to another router")]
    AddressTaken,
}

#[cfg(test)]
mod tests {
    use super::super::{LoginMode, PreviousSecret, StoredSecret};
    use super::*;

    fn account(name: &str) -> Account {
        Account {
            name: name.into(),
            username: format!("{name}-user"),
            secret: StoredSecret::Machine { tag: [7; 32] },
            login: LoginMode::Both,
            certificate_cn: Some(format!("{name}-cn")),
            cipher: None,
            auth: None,
            disabled: false,
            address: None,
            created_at: 0,
            tenant: None,
            tags: Vec::new(),
            note: String::new(),
            previous: None,
            revision: 0,
        }
    }

    #[test]
    fn finds_accounts_byte_for_byte_only() {
        let mut directory = Directory::new();
        directory.insert(account("a")).unwrap();
        assert_eq!(&*directory.by_username(b"a-user").unwrap().name, "a");
        assert_eq!(&*directory.by_common_name(b"a-cn").unwrap().name, "a");
        for near in [&b"A-user"[..], b"a-user ", b" a-user", b"a-user\0", b"a-use", b"", b"a-cn"] {
            assert!(directory.by_username(near).is_none(), "{near:?}");
        }
        for near in [&b"A-cn"[..], b"a-cn\0", b"a-cn\0.evil", b" a-cn", b"", b"a", b"a-user"] {
            assert!(directory.by_common_name(near).is_none(), "{near:?}");
        }
    }

    #[test]
    fn lists_in_order_from_any_name_on() {
        let mut directory = Directory::new();
        for name in ["b", "a", "c-1", "c", "0"] {
            directory.insert(account(name)).unwrap();
        }
        directory.insert(account("c")).unwrap();
        directory.remove("b").unwrap();
        let after = |name: Option<&str>| -> Vec<String> {
            directory.after(name).map(|account| account.name.to_string()).collect()
        };
        assert_eq!(after(None), ["0", "a", "c", "c-1"]);
        assert_eq!(after(Some("a")), ["c", "c-1"]);
        assert_eq!(after(Some("b")), ["c", "c-1"], "a name that is gone");
        assert_eq!(after(Some("c-1")), [""; 0]);
        assert_eq!(after(Some("zzz")), [""; 0]);
    }

    #[test]
    fn refuses_a_second_owner_of_anything_that_must_be_unique() {
        let mut directory = Directory::new();
        let mut first = account("a");
        first.address = Some([100, 64, 1, 2].into());
        directory.insert(first).unwrap();
        let clash = |change: &dyn Fn(&mut Account)| {
            let mut second = account("b");
            change(&mut second);
            directory.clone().insert(second).unwrap_err()
        };
        assert_eq!(clash(&|b| b.username = "a-user".into()), DirectoryError::UsernameTaken);
        assert_eq!(
            clash(&|b| b.certificate_cn = Some("a-cn".into())),
            DirectoryError::CommonNameTaken
        );
        assert_eq!(
            clash(&|b| b.address = Some([100, 64, 1, 2].into())),
            DirectoryError::AddressTaken
        );
        assert!(matches!(clash(&|b| b.username.clear()), DirectoryError::Account(_)));
    }

    #[test]
    fn replacing_an_account_forgets_what_it_was() {
        let mut directory = Directory::new();
        directory.insert(account("a")).unwrap();
        let mut changed = account("a");
        changed.username = "new".into();
        changed.certificate_cn = Some("new-cn".into());
        changed.secret = StoredSecret::Argon2id(String::new());
        let previous = StoredSecret::Argon2id(String::new());
        changed.previous = Some(PreviousSecret { secret: previous, until: 9 });
        assert_eq!(directory.insert(changed).unwrap().unwrap().username, "a-user");
        assert!(directory.by_username(b"a-user").is_none());
        assert!(directory.by_common_name(b"a-cn").is_none());
        assert!(directory.by_username(b"new").is_some());
        assert_eq!((directory.len(), directory.slow_secrets(), directory.twice_slow()), (1, 1, 1));
        assert_eq!(directory.rotating(), 1);
        directory.remove("a").unwrap();
        assert!(directory.is_empty() && directory.by_username(b"new").is_none());
        assert_eq!((directory.slow_secrets(), directory.twice_slow()), (0, 0));
        assert_eq!(directory.rotating(), 0);
        assert!(directory.remove("a").is_none());
    }
}
