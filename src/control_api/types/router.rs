//! Router accounts.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{
    CIPHERS, DIGESTS, MAX_COMMON_NAME_BYTES, MAX_PASSWORD_BYTES, MAX_USERNAME_BYTES, SecretText,
    Timestamp, check_name, check_text, known,
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
    /// `[a-z0-9][a-z0-9._-]{0,62}`.
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
        }
    }

    /// Checks every field that can be checked alone and brings ciphers and digests into the one
    /// spelling of [`CIPHERS`] and [`DIGESTS`] ("null" for no digest).
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`](crate::control_api::ErrorCode::Invalid) with the first field at fault.
    pub fn check(mut self) -> Result<Self, ApiError> {
        check_name(&self.name)?;
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
            self.auth = Some(if auth.eq_ignore_ascii_case("null") {
                if !self.cipher.as_deref().is_some_and(|name| name.ends_with("-GCM")) {
                    return Err(ApiError::invalid(
                        "auth",
                        "\"null\" is only possible with a GCM cipher; set cipher too",
                    ));
                }
                "null".to_owned()
            } else {
                known("auth", auth, &DIGESTS)?
            });
        }
        Ok(self)
    }
}

/// What `PATCH /v1/routers/{name}` takes; an absent field stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RouterPatch {
    /// True cuts the tunnel and refuses further logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
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
