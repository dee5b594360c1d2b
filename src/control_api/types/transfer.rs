//! Router accounts as JSON lines: what an export writes and an import reads.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Login, NewRouter, SecretText, Timestamp};
use crate::control_api::{ApiError, ErrorCode};

/// One line of an export or an import: the fields of a new router, and what it takes to bring an
/// existing one back so that it logs in as before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RouterRecord {
    /// NAME.
    pub name: String,
    /// What the router sends as user name. Absent: NAME if it has at most 27 characters, else
    /// generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For import only: a password that a person chose. Hashing it takes some ten milliseconds, so
    /// at most 1,000 lines may have one. Absent, and no `secret`: generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretText>,
    /// How it logs in.
    #[serde(default)]
    pub login: Login,
    /// The common name of its certificate. Absent: NAME, where a certificate counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_cn: Option<String>,
    /// The data cipher that is prescribed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<String>,
    /// The digest that is prescribed, or "null".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// A static address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>, format = Ipv4))]
    pub address: Option<Ipv4Addr>,
    /// The address that the pool gave it; to be kept. Absent, and no `address`: the pool gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>, format = Ipv4))]
    pub pool_address: Option<Ipv4Addr>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What people want to remember about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// True: it may not log in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// When the account was made. Absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The password in its stored form: a hash. One of a generated password is worth nothing
    /// without the `server.secret` file of the concentrator that exported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretText>,
    /// Likewise, the password from before the last rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret: Option<SecretText>,
    /// Until when that one counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
    /// Which `server.secret` file `secret` and `previous_secret` depend on; an import on a host
    /// with another one is refused. Absent: they depend on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_key: Option<String>,
}

impl RouterRecord {
    /// A new router with nothing but a name.
    pub fn named(name: &str) -> Self {
        Self::from(NewRouter::named(name))
    }

    /// Checks every field that can be checked alone and brings it into its one spelling.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`] with the first field at fault.
    pub fn check(self) -> Result<Self, ApiError> {
        let both = |field: &str, other: &str| {
            Err(ApiError::invalid(field, format!("cannot be together with {other}")))
        };
        if self.password.is_some() && self.secret.is_some() {
            return both("password", "secret");
        }
        if self.address.is_some() && self.pool_address.is_some() {
            return both("pool_address", "address");
        }
        if self.previous_secret.is_some() != self.previous_until.is_some() {
            let message = "previous_secret and previous_until come together";
            return Err(ApiError::invalid("previous_until", message));
        }
        if self.previous_secret.is_some() && self.secret.is_none() {
            return Err(ApiError::invalid("previous_secret", "needs secret too"));
        }
        let new = NewRouter {
            name: self.name,
            username: self.username,
            password: self.password,
            address: self.address,
            cipher: self.cipher,
            auth: self.auth,
            login: self.login,
            certificate_cn: self.certificate_cn,
            verify_server: false,
            tenant: self.tenant,
            tags: self.tags,
            note: self.note,
        };
        let checked = Self::from(new.check()?);
        Ok(Self {
            pool_address: self.pool_address,
            disabled: self.disabled,
            created: self.created,
            secret: self.secret,
            previous_secret: self.previous_secret,
            previous_until: self.previous_until,
            server_key: self.server_key,
            ..checked
        })
    }
}

impl From<NewRouter> for RouterRecord {
    fn from(new: NewRouter) -> Self {
        Self {
            name: new.name,
            username: new.username,
            password: new.password,
            login: new.login,
            certificate_cn: new.certificate_cn,
            cipher: new.cipher,
            auth: new.auth,
            address: new.address,
            pool_address: None,
            tenant: new.tenant,
            tags: new.tags,
            note: new.note,
            disabled: false,
            created: None,
            secret: None,
            previous_secret: None,
            previous_until: None,
            server_key: None,
        }
    }
}

/// One line of the answer to an import, in the order of the lines that were sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct ImportedRouter {
    /// Its line, from 1 on.
    pub line: u64,
    /// NAME.
    pub name: String,
    /// What the router sends as user name.
    pub username: String,
    /// Its tunnel address.
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>, format = Ipv4))]
    pub address: Option<Ipv4Addr>,
    /// The password, generated or as given; null: the one that it had before.
    pub password: Option<SecretText>,
    /// To be pasted into a RouterOS v7 terminal; if `scripts` was asked for and the password is
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<SecretText>,
    /// To be pasted into a RouterOS v6 terminal; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_v6: Option<SecretText>,
    /// A file for the standard OpenVPN clients; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ovpn: Option<SecretText>,
}

/// Why one line of an import cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct LineError {
    /// The line, from 1 on.
    pub line: u64,
    /// What kind; stable.
    pub code: ErrorCode,
    /// One sentence for people.
    pub message: String,
    /// The field at fault, if one is.
    pub field: Option<String>,
}

impl LineError {
    /// The refusal of this line.
    pub fn new(line: u64, error: ApiError) -> Self {
        Self { line, code: error.code, message: error.message, field: error.field }
    }
}

/// Most lines that are named in a refusal; more are counted.
pub const MAX_LINE_ERRORS: usize = 100;

/// An import that was refused; nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct ImportRefused {
    /// That of the first wrong line.
    pub code: ErrorCode,
    /// One sentence for people.
    pub message: String,
    /// The field of the first wrong line, if one is at fault.
    pub field: Option<String>,
    /// The wrong lines, the first 100 of them.
    pub lines: Vec<LineError>,
    /// How many lines are wrong.
    pub refused: u64,
}

impl ImportRefused {
    /// Collects refusals, in the order of their lines.
    pub fn of(lines: Vec<LineError>, refused: u64) -> Self {
        let first = lines.first();
        let message = match first {
            Some(first) => {
                let field = first.field.as_deref().map(|field| format!("{field}: "));
                let (line, field) = (first.line, field.unwrap_or_default());
                let more = match refused.saturating_sub(1) {
                    0 => String::new(),
                    more => format!("; {more} more wrong"),
                };
                format!("line {line}: {field}{}{more}; nothing was imported", first.message)
            }
            None => "nothing was imported".to_owned(),
        };
        Self {
            code: first.map_or(ErrorCode::Invalid, |first| first.code),
            message,
            field: first.and_then(|first| first.field.clone()),
            lines,
            refused,
        }
    }
}

impl From<ApiError> for ImportRefused {
    fn from(error: ApiError) -> Self {
        let ApiError { code, message, field } = error;
        Self { code, message, field, lines: Vec::new(), refused: 0 }
    }
}
