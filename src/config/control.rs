//! `[control]` and `[audit]`: who may steer the concentrator, and for how long it is remembered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::section::Section;
use super::values;

/// `[control]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Group that the socket is given to. None: the process's own.
    pub group: Option<Principal>,
    /// A second socket, on which nobody is more than a reader.
    pub read_only_socket: Option<PathBuf>,
    /// Group that the second socket is given to. None: the process's own.
    pub read_only_group: Option<Principal>,
    /// Who may do what; the first rule that matches counts. Empty: members of the socket's group
    /// may do everything.
    pub roles: Vec<RoleRule>,
}

/// A user or a group, by name or by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Numeric id.
    Id(u32),
    /// To be looked up when the sockets are made.
    Name(String),
}

/// `[[control.role]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRule {
    /// Whom it is about.
    pub who: Whom,
    /// What they may do.
    pub role: Role,
    /// What they may see. None: every router.
    pub tenants: Option<Vec<String>>,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// One user.
    User(Principal),
    /// The members of a group, primary or supplementary.
    Group(Principal),
}

/// What a user may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Look.
    Read,
    /// And reach routers and cut tunnels.
    Operate,
    /// And change everything.
    Admin,
}

/// `[audit]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// An exported segment is pruned when its last record is this old. None: never.
    pub retention: Option<Duration>,
}

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

impl Control {
    pub(super) fn read(mut section: Section<'_>, base: &Path) -> Self {
        let group = section.optional_text("group", principal);
        let read_only_socket = section.file("read_only_socket", base);
        let read_only_group = section.optional_text("read_only_group", principal);
        if read_only_group.is_some() && read_only_socket.is_none() {
            section.problem("read_only_group", "belongs to read_only_socket, which is not set");
        }
        let roles = section.sections("role", rule);
        section.finish();
        Self { group, read_only_socket, read_only_group, roles }
    }
}

impl Audit {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let retention = section.text("retention", |text| match text {
            "never" => Ok(None),
            text => match values::duration(text)? {
                time if time < DAY => Err("must be at least 1d, or \"never\"".to_owned()),
                time => Ok(Some(time)),
            },
        });
        section.finish();
        Self { retention: retention.unwrap_or(Some(YEAR)) }
    }
}

fn rule(section: &mut Section<'_>) -> Option<RoleRule> {
    let (has_user, has_group, has_role) =
        (section.has("user"), section.has("group"), section.has("role"));
    let user = section.text("user", principal).map(Whom::User);
    let group = section.text("group", principal).map(Whom::Group);
    match (has_user, has_group) {
        (false, false) => section.problem("user", "is missing; name a user or a group"),
        (true, true) => section.problem("group", "stands beside user; write a rule for each"),
        _ => {}
    }
    if !has_role {
        section.problem("role", "is missing; write \"read\", \"operate\" or \"admin\"");
    }
    // What is refused must not become more than it was meant to be.
    let words = [("read", Role::Read), ("operate", Role::Operate), ("admin", Role::Admin)];
    let role = section.word("role", &words, Role::Read);
    let tenants = section.texts("tenants", tenant);
    if tenants.as_ref().is_some_and(Vec::is_empty) {
        section.problem("tenants", "is empty; name a tenant, or remove it for every router");
    }
    Some(RoleRule { who: user.or(group)?, role, tenants })
}

/// "1000" is a number, everything else a name.
fn principal(text: &str) -> Result<Principal, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The last one means "nobody" to the kernel.
        return match text.parse() {
            Ok(id) if id != u32::MAX => Ok(Principal::Id(id)),
            _ => Err(format!("\"{}\" is too large for an id", values::show(text))),
        };
    }
    let good = (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b':' | b'/' | b','));
    if good {
        return Ok(Principal::Name(text.to_owned()));
    }
    Err(format!("\"{}\" is not the name or number of a user or group", values::show(text)))
}

fn tenant(text: &str) -> Result<String, String> {
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if good {
        return Ok(text.to_owned());
    }
    Err(format!("\"{}\" is not the name of a tenant", values::show(text)))
}
