//! Router accounts.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{
    CIPHERS, DIGESTS, MAX_COMMON_NAME_BYTES, MAX_NAME_BYTES, MAX_NOTE_BYTES, MAX_PASSWORD_BYTES,
    MAX_TAG_BYTES, MAX_TAGS, MAX_USERNAME_BYTES, Patch, SecretText, Timestamp, check_name,
    check_text, is_name, is_unprintable, known, name_matches,
};
use crate::control_api::ApiError;

/// How a router proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Login {
    /// User name and password.
    #[default]
    Password,
    /// A client certificate; the password is not looked at.
    Certificate,
    /// Both, of the same router.
    Both,
}

/// What `POST /v1/routers` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRouter {
    /// `[a-z0-9][a-z0-9._-]{0,62}`; not `export` and not `import`, which are paths.
    pub name: String,
    /// Absent: NAME if it has at most 27 characters, else generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Absent: generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretText>,
    /// A static address. Absent: the pool gives one at the first login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>, format = Ipv4))]
    pub address: Option<Ipv4Addr>,
    /// The data cipher for a router that does not negotiate and names none; see [`CIPHERS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<String>,
    /// The digest likewise; see [`DIGESTS`], or "null", which only GCM allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// How it logs in.
    #[serde(default)]
    pub login: Login,
    /// The common name of its certificate, byte for byte. Absent: NAME, where a certificate counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_cn: Option<String>,
    /// Put the CA and the check of the server's certificate into the script.
    #[serde(default)]
    pub verify_server: bool,
    /// Whose it is; the form of a name. Callers that are bound to one tenant may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Words to find it by: `[a-z0-9][a-z0-9._:=/-]{0,62}`, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What people want to remember about it: one line of at most 1,000 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl NewRouter {
    /// A router with nothing but a name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            username: None,
            password: None,
            address: None,
            cipher: None,
            auth: None,
            login: Login::Password,
            certificate_cn: None,
            verify_server: false,
            tenant: None,
            tags: Vec::new(),
            note: String::new(),
        }
    }

    /// Checks every field that can be checked alone, brings ciphers and digests into the one
    /// spelling of [`CIPHERS`] and [`DIGESTS`] ("null" for no digest) and tags into order.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`](crate::control_api::ErrorCode::Invalid) with the first field at fault.
    pub fn check(mut self) -> Result<Self, ApiError> {
        check_name(&self.name)?;
        if RESERVED.contains(&self.name.as_str()) {
            let message = format!("\"{}\" is a path of this API; choose another name", self.name);
            return Err(ApiError::invalid("name", message));
        }
        if let Some(username) = &self.username {
            check_text("username", username, MAX_USERNAME_BYTES)?;
        }
        if let Some(password) = &self.password {
            check_text("password", password.expose(), MAX_PASSWORD_BYTES)?;
        }
        if let Some(name) = &self.certificate_cn {
            check_text("certificate_cn", name, MAX_COMMON_NAME_BYTES)?;
            if self.login == Login::Password {
                return Err(ApiError::invalid(
                    "certificate_cn",
                    "a certificate counts only with login \"certificate\" or \"both\"",
                ));
            }
        }
        if let Some(cipher) = &self.cipher {
            self.cipher = Some(known("cipher", cipher, &CIPHERS)?);
        }
        if let Some(auth) = &self.auth {
            self.auth = Some(known_digest(auth)?);
        }
        check_pair(self.cipher.as_deref(), self.auth.as_deref())?;
        if let Some(tenant) = &self.tenant {
            check_tenant(tenant)?;
        }
        self.tags = check_tags(self.tags)?;
        check_note(&self.note)?;
        Ok(self)
    }
}

/// What `PATCH /v1/routers/{name}` takes: an absent field stays as it is, null clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RouterPatch {
    /// True cuts the tunnel and refuses further logins. Cannot be null.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<bool>))]
    pub disabled: Patch<bool>,
    /// All of its tags; null: none.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<Vec<String>>))]
    pub tags: Patch<Vec<String>>,
    /// Whose it is; null: nobody's in particular.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>))]
    pub tenant: Patch<String>,
    /// A static address: the old one goes to quarantine and the tunnel is cut if it changes. Null:
    /// it keeps the address as one of the pool.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>, format = Ipv4))]
    pub address: Patch<Ipv4Addr>,
    /// The data cipher, from the next login on; null: none prescribed.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>))]
    pub cipher: Patch<String>,
    /// The digest, from the next login on; null: none prescribed; "null": `auth=null`.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>))]
    pub auth: Patch<String>,
    /// What people want to remember about it; null: nothing.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>))]
    pub note: Patch<String>,
}

impl RouterPatch {
    /// Disables or enables, nothing else.
    pub fn disabled(disabled: bool) -> Self {
        Self { disabled: Patch::Set(disabled), ..Self::default() }
    }

    /// Checks every field that can be checked alone and brings it into its one spelling.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`](crate::control_api::ErrorCode::Invalid) with the first field at fault.
    pub fn check(mut self) -> Result<Self, ApiError> {
        if self.disabled == Patch::Clear {
            return Err(ApiError::invalid("disabled", "must be true or false"));
        }
        if let Patch::Set(tenant) = &self.tenant {
            check_tenant(tenant)?;
        }
        self.tags = self.tags.try_map(check_tags)?;
        self.cipher = self.cipher.try_map(|cipher| known("cipher", &cipher, &CIPHERS))?;
        self.auth = self.auth.try_map(|auth| known_digest(&auth))?;
        if let Patch::Set(note) = &self.note {
            check_note(note)?;
        }
        Ok(self)
    }
}

/// What `POST /v1/routers/{name}/rotate` takes; an empty body is an empty document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RotateRouter {
    /// For how long the old password counts beside the new one: 0 to 604,800 (7 days); absent:
    /// 86,400 (a day). A tunnel that was opened with the old password is cut when that is over, with
    /// 0 at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "control-api", schema(maximum = 604_800))]
    pub grace_seconds: Option<u64>,
    /// Absent: generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretText>,
    /// Put the CA and the check of the server's certificate into the script.
    #[serde(default)]
    pub verify_server: bool,
}

impl RotateRouter {
    /// How long both passwords count if nobody says, in seconds.
    pub const DEFAULT_GRACE: u64 = 86_400;
    /// The longest that both may count, in seconds.
    pub const MAX_GRACE: u64 = 604_800;

    /// The grace period, in seconds.
    pub fn grace(&self) -> u64 {
        self.grace_seconds.unwrap_or(Self::DEFAULT_GRACE)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`](crate::control_api::ErrorCode::Invalid) with the first field at fault.
    pub fn check(self) -> Result<Self, ApiError> {
        if self.grace() > Self::MAX_GRACE {
            let message = format!("must be 0 to {} (7 days)", Self::MAX_GRACE);
            return Err(ApiError::invalid("grace_seconds", message));
        }
        if let Some(password) = &self.password {
            check_text("password", password.expose(), MAX_PASSWORD_BYTES)?;
        }
        Ok(self)
    }
}

/// Which routers a list is about; what is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterFilter {
    /// Its name; `*` stands for any characters.
    pub name: Option<String>,
    /// Tags, all of which it has.
    pub tags: Vec<String>,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Whether it has a tunnel now.
    pub connected: Option<bool>,
    /// Whether it may not log in.
    pub disabled: Option<bool>,
    /// It was seen at this moment or later.
    pub last_seen_after: Option<Timestamp>,
    /// It was not seen at this moment or later; so of one that was never seen.
    pub last_seen_before: Option<Timestamp>,
}

impl RouterFilter {
    /// Checks that the words can match anything at all.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`](crate::control_api::ErrorCode::Invalid) with the parameter at fault.
    pub fn check(self) -> Result<Self, ApiError> {
        let bad = |field: &str, message: &str| Err(ApiError::invalid(field, message));
        let possible = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte)
        };
        if self.name.as_deref().is_some_and(|name| {
            name.is_empty() || name.len() > 2 * MAX_NAME_BYTES || !name.bytes().all(possible)
        }) {
            return bad(
                "name",
                "no name fits this: names are made of a-z, 0-9, \".\", \"_\", \"-\", and \"*\" stands \
                 for any characters",
            );
        }
        if let Err(error) = check_tags(self.tags.clone()) {
            return bad("tag", &error.message);
        }
        if self.tenant.as_deref().is_some_and(|tenant| !is_name(tenant)) {
            return bad("tenant", "no tenant has this name");
        }
        Ok(self)
    }

    /// Whether what is recorded of a router fits.
    pub fn fits_account(
        &self,
        name: &str,
        tenant: Option<&str>,
        tags: &[String],
        disabled: bool,
    ) -> bool {
        self.name.as_deref().is_none_or(|pattern| name_matches(pattern, name))
            && self.tags.iter().all(|tag| tags.contains(tag))
            && self.tenant.as_deref().is_none_or(|wanted| tenant == Some(wanted))
            && self.disabled.is_none_or(|wanted| disabled == wanted)
    }

    /// Whether what happens to a router fits.
    pub fn fits_state(&self, connected: bool, last_seen: Option<Timestamp>) -> bool {
        self.connected.is_none_or(|wanted| connected == wanted)
            && self.last_seen_after.is_none_or(|from| last_seen.is_some_and(|seen| seen >= from))
            && self.last_seen_before.is_none_or(|to| last_seen.is_none_or(|seen| seen < to))
    }
}

/// A router account; never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct RouterView {
    /// NAME.
    pub name: String,
    /// What the router sends as user name.
    pub username: String,
    /// How it logs in.
    pub login: Login,
    /// The common name that its certificate must have.
    pub certificate_cn: Option<String>,
    /// The account's data cipher; null: none prescribed.
    pub cipher: Option<String>,
    /// The account's digest, or "null" for `auth=null`; null: none prescribed.
    pub auth: Option<String>,
    /// The tunnel address it has or will have; null: not yet given.
    #[cfg_attr(feature = "control-api", schema(value_type = Option<String>, format = Ipv4))]
    pub address: Option<Ipv4Addr>,
    /// True: the address was set by hand.
    pub address_static: bool,
    /// True: it may not log in.
    pub disabled: bool,
    /// True: it has a tunnel now.
    pub connected: bool,
    /// When the account was made.
    pub created: Timestamp,
    /// When it was last connected; now, if it is; null: never, or not known.
    pub last_seen: Option<Timestamp>,
    /// Whose it is; null: nobody's in particular.
    pub tenant: Option<String>,
    /// Words to find it by, in order.
    pub tags: Vec<String>,
    /// What people want to remember about it.
    pub note: String,
    /// The password is being changed; null: only one counts.
    pub rotation: Option<RotationView>,
    /// Rises with each change of the account; the `ETag` is this number in quotes.
    pub revision: u64,
}

/// Two passwords count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct RotationView {
    /// Until when the old one counts.
    pub ends: Timestamp,
    /// True: the router logged in with the new one last. False: with the old one, or not since the
    /// rotation or the start of the concentrator.
    pub new_used: bool,
}

/// The answer to `POST /v1/routers`: the only one that holds the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
pub struct CreatedRouter {
    /// The account.
    #[serde(flatten)]
    pub router: RouterView,
    /// The password, generated or as given.
    pub password: SecretText,
    /// To be pasted into a RouterOS v7 terminal.
    pub script: SecretText,
    /// To be pasted into a RouterOS v6 terminal.
    pub script_v6: SecretText,
    /// A file for the standard OpenVPN clients.
    pub ovpn: SecretText,
}

/// Names that are paths beside `/v1/routers/{name}`.
const RESERVED: [&str; 2] = ["export", "import"];

/// Checks the form of a tenant: that of a router name.
pub(crate) fn check_tenant(tenant: &str) -> Result<(), ApiError> {
    if is_name(tenant) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "tenant",
        "a tenant has 1 to 63 characters of a-z, 0-9, \".\", \"_\" and \"-\" and starts with a \
         letter or a digit",
    ))
}

/// Checks tags and brings them into order, each once.
pub(crate) fn check_tags(mut tags: Vec<String>) -> Result<Vec<String>, ApiError> {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = |tag: &String| {
        tag.len() <= MAX_TAG_BYTES
            && tag.bytes().next().is_some_and(lower)
            && tag.bytes().all(|byte| lower(byte) || b"._:=/-".contains(&byte))
    };
    if !tags.iter().all(good) {
        return Err(ApiError::invalid(
            "tags",
            "a tag has 1 to 63 characters of a-z, 0-9 and \"._:=/-\" and starts with a letter or a \
             digit",
        ));
    }
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > MAX_TAGS {
        return Err(ApiError::invalid("tags", format!("a router has at most {MAX_TAGS} tags")));
    }
    Ok(tags)
}

pub(crate) fn check_note(note: &str) -> Result<(), ApiError> {
    if note.len() > MAX_NOTE_BYTES {
        let message = format!("must not be longer than {MAX_NOTE_BYTES} bytes");
        return Err(ApiError::invalid("note", message));
    }
    if note.chars().any(is_unprintable) {
        let message = "must be one line without control or direction characters";
        return Err(ApiError::invalid("note", message));
    }
    Ok(())
}

/// "null" needs a cipher that authenticates by itself.
pub(crate) fn check_pair(cipher: Option<&str>, auth: Option<&str>) -> Result<(), ApiError> {
    if auth == Some("null") && !cipher.is_some_and(|name| name.ends_with("-GCM")) {
        return Err(ApiError::invalid(
            "auth",
            "\"null\" is only possible with a GCM cipher; set cipher too",
        ));
    }
    Ok(())
}

fn known_digest(auth: &str) -> Result<String, ApiError> {
    if auth.eq_ignore_ascii_case("null") {
        return Ok("null".to_owned());
    }
    known("auth", auth, &DIGESTS)
}
