//! One router account and what its fields may hold.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use super::StoredSecret;

/// Longest account name, in bytes.
pub const MAX_NAME: usize = 63;
/// Longest user name, in bytes; what a peer may present (design section 5).
pub const MAX_USERNAME: usize = 128;
/// Longest common name, in bytes. Source: X.520 `ub-common-name`.
pub const MAX_COMMON_NAME: usize = 64;

/// Longest tag, in bytes.
pub const MAX_TAG: usize = 63;
/// Most tags of one account.
pub const MAX_TAGS: usize = 32;
/// Longest note, in bytes.
pub const MAX_NOTE: usize = 1000;

/// What a router has to present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginMode {
    /// User name and password.
    Password,
    /// The client certificate; user name and password are not looked at.
    Certificate,
    /// User name, password and the client certificate, all of one account.
    Both,
}

impl LoginMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Password, Self::Certificate, Self::Both];

    /// The word used on the command line, in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Certificate => "certificate",
            Self::Both => "both",
        }
    }

    /// True if an account in this mode is found by its user name.
    pub fn wants_password(self) -> bool {
        matches!(self, Self::Password | Self::Both)
    }

    /// True if an account in this mode needs a client certificate.
    pub fn wants_certificate(self) -> bool {
        matches!(self, Self::Certificate | Self::Both)
    }
}

impl fmt::Display for LoginMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LoginMode {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(AccountError::LoginMode)
    }
}

/// One router account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// NAME: who the router is, everywhere.
    pub name: Arc<str>,
    /// What the router sends as user name.
    pub username: String,
    /// How its password is verified.
    pub secret: StoredSecret,
    /// What it has to present.
    pub login: LoginMode,
    /// The common name of its client certificate.
    pub certificate_cn: Option<String>,
    /// The data cipher it must use, by its OpenVPN name.
    pub cipher: Option<String>,
    /// The digest it must use, by its OpenVPN name, or `null`.
    pub auth: Option<String>,
    /// True if it may not log in.
    pub disabled: bool,
    /// Its static tunnel address, if it has one.
    pub address: Option<Ipv4Addr>,
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// Whose it is; callers that are bound to tenants see theirs only.
    pub tenant: Option<Arc<str>>,
    /// Words to find it by, sorted, each once.
    pub tags: Vec<String>,
    /// What people want to remember about it.
    pub note: String,
    /// The secret before the last rotation, while it still counts.
    pub previous: Option<PreviousSecret>,
    /// Rises with each change.
    pub revision: u64,
}

/// A secret that has been replaced and still counts for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousSecret {
    /// How it is verified.
    pub secret: StoredSecret,
    /// When it ends, in seconds since 1970-01-01 UTC.
    pub until: u64,
}

impl Account {
    /// A plain account that logs in with a password.
    pub fn named(name: &str, username: &str, secret: StoredSecret) -> Self {
        Self {
            name: name.into(),
            username: username.to_owned(),
            secret,
            login: LoginMode::Password,
            certificate_cn: None,
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

    /// The secret from before the last rotation, if it still counts at `unix` (seconds since
    /// 1970-01-01 UTC).
    pub fn previous_at(&self, unix: u64) -> Option<&StoredSecret> {
        self.previous.as_ref().filter(|previous| unix < previous.until).map(|kept| &kept.secret)
    }

    /// Checks the account by itself; [`super::Directory::insert`] checks it against the others.
    ///
    /// # Errors
    /// The first rule that the account breaks.
    pub fn check(&self) -> Result<(), AccountError> {
        if !valid_name(&self.name) {
            return Err(AccountError::Name);
        }
        if !valid_username(&self.username) {
            return Err(AccountError::Username);
        }
        match &self.certificate_cn {
            Some(name) if !valid_common_name(name) => return Err(AccountError::CommonName),
            None if self.login.wants_certificate() => return Err(AccountError::CommonNameMissing),
            _ => {}
        }
        if self.tenant.as_deref().is_some_and(|tenant| !valid_name(tenant)) {
            return Err(AccountError::Tenant);
        }
        let ordered = self.tags.is_sorted_by(|a, b| a < b);
        if !ordered || self.tags.len() > MAX_TAGS || !self.tags.iter().all(|tag| valid_tag(tag)) {
            return Err(AccountError::Tags);
        }
        if !valid_note(&self.note) {
            return Err(AccountError::Note);
        }
        Ok(())
    }
}

/// Why an account can not be as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// See [`valid_name`].
    #[error(
        "the name must be 1 to 63 characters of a-z 0-9 . _ - and begin with a letter or a digit"
    )]
    Name,
    /// See [`valid_username`].
    #[error("the user name must be 1 to 128 visible ASCII characters without blanks")]
    Username,
    /// See [`valid_common_name`].
    #[error(
        "the common name must be 1 to 64 printable ASCII characters without blanks at its ends"
    )]
    CommonName,
    /// The login mode wants a certificate and none is named.
    #[error("logins with a certificate need the common name of the certificate")]
    CommonNameMissing,
    /// See [`valid_name`]; a tenant has the same form.
    #[error("the tenant must have the form of a router name")]
    Tenant,
    /// See [`valid_tag`].
    #[error(
        "an account has at most 32 different tags of 1 to 63 characters of a-z 0-9 . _ : = / - each"
    )]
    Tags,
    /// See [`valid_note`].
    #[error("the note must be at most 1000 bytes without control characters")]
    Note,
    /// Not a login mode.
    #[error("the login mode must be password, certificate or both")]
    LoginMode,
}

/// True for `[a-z0-9][a-z0-9._-]{0,62}`.
pub fn valid_name(name: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(lower)
        && name.bytes().all(|byte| lower(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

/// True for 1 to [`MAX_USERNAME`] visible ASCII characters (no blanks).
pub fn valid_username(username: &str) -> bool {
    (1..=MAX_USERNAME).contains(&username.len())
        && username.bytes().all(|byte| byte.is_ascii_graphic())
}

/// True for 1 to [`MAX_COMMON_NAME`] printable ASCII characters, no blank first or last.
pub fn valid_common_name(name: &str) -> bool {
    (1..=MAX_COMMON_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && name.trim_ascii() == name
}

/// True for `[a-z0-9][a-z0-9._:=/-]{0,62}`.
pub fn valid_tag(tag: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(lower)
        && tag.bytes().all(|byte| lower(byte) || b"._:=/-".contains(&byte))
}

/// True for at most [`MAX_NOTE`] bytes without control characters.
pub fn valid_note(note: &str) -> bool {
    note.len() <= MAX_NOTE && !note.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account::named("branch-42", "branch-42", StoredSecret::Machine { tag: [7; 32] })
    }

    #[test]
    fn accepts_names_of_the_rule_and_refuses_all_others() {
        for good in ["a", "0", "branch-42", "a.b_c-d", &"x".repeat(63)] {
            assert!(valid_name(good), "{good:?}");
        }
        let long = "x".repeat(64);
        for bad in [
            "",
            ".",
            "-a",
            "_a",
            "..",
            "../x",
            "a/b",
            "/etc/x",
            "A",
            "aB",
            "a b",
            " a",
            "a ",
            "a\0",
            "a\n",
            "ä",
            "a\u{430}",
            long.as_str(),
        ] {
            assert!(!valid_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn accepts_visible_user_names_only() {
        for good in ["a", "Branch/42@site", &"u".repeat(128)] {
            assert!(valid_username(good), "{good:?}");
        }
        let long = "u".repeat(129);
        for bad in ["", " ", "a b", "a\0b", "a\u{7f}", "ü", "a\n", long.as_str()] {
            assert!(!valid_username(bad), "{bad:?}");
        }
    }

    #[test]
    fn accepts_plain_common_names_only() {
        for good in ["router 42", "CN", &"c".repeat(64)] {
            assert!(valid_common_name(good), "{good:?}");
        }
        let long = "c".repeat(65);
        for bad in ["", " a", "a ", "a\0", "a\tb", "é", long.as_str()] {
            assert!(!valid_common_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_account_that_wants_a_certificate_must_name_one() {
        let mut account = account();
        assert_eq!(account.check(), Ok(()));
        for mode in [LoginMode::Certificate, LoginMode::Both] {
            account.login = mode;
            account.certificate_cn = None;
            assert_eq!(account.check(), Err(AccountError::CommonNameMissing));
            account.certificate_cn = Some("router".into());
            assert_eq!(account.check(), Ok(()));
            account.certificate_cn = Some("router ".into());
            assert_eq!(account.check(), Err(AccountError::CommonName));
        }
        account.name = "Branch".into();
        assert_eq!(account.check(), Err(AccountError::Name));
    }

    #[test]
    fn tenant_tags_and_note_have_their_rules() {
        let with = |change: &dyn Fn(&mut Account)| {
            let mut account = account();
            change(&mut account);
            account.check()
        };
        let tags = |tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            with(&|account| account.tags.clone_from(&tags))
        };
        let long = "t".repeat(64);
        assert_eq!(
            tags(&["0", "a", "a/b", "site:north", "x=1.2_3-4", &long[1..]]),
            Err(AccountError::Tags)
        );
        assert_eq!(tags(&["0", "a", "a/b", "site:north", &long[1..], "x=1.2_3-4"]), Ok(()));
        for bad in ["", "A", "-a", ":a", "a b", "a\n", "ä", "a,b", long.as_str()] {
            assert_eq!(tags(&[bad]), Err(AccountError::Tags), "{bad:?}");
        }
        assert_eq!(tags(&["a", "a"]), Err(AccountError::Tags));
        let many: Vec<String> = (0..33).map(|n| format!("t{n:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(tags(&many[..32]), Ok(()));
        assert_eq!(tags(&many), Err(AccountError::Tags));
        for (tenant, good) in [("north", true), ("North", false), ("", false), ("../x", false)] {
            assert_eq!(with(&|a| a.tenant = Some(tenant.into())).is_ok(), good, "{tenant}");
        }
        for (note, good) in
            [("", true), ("Büro, 2. Stock", true), ("a\nb", false), ("\u{1b}[m", false)]
        {
            assert_eq!(with(&|a| a.note = note.into()).is_ok(), good, "{note:?}");
        }
        assert_eq!(with(&|a| a.note = "x".repeat(1000)), Ok(()));
        assert_eq!(with(&|a| a.note = "x".repeat(1001)), Err(AccountError::Note));
    }

    #[test]
    fn login_modes_read_back() {
        for mode in LoginMode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        assert_eq!("Password".parse::<LoginMode>(), Err(AccountError::LoginMode));
        assert_eq!("".parse::<LoginMode>(), Err(AccountError::LoginMode));
    }

    #[test]
    fn an_account_does_not_print_its_secret() {
        let text = format!("{:?}", account());
        assert!(!text.contains("07") && !text.contains("[7"), "{text}");
    }
}
