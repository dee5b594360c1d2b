//! `router`.

use std::io::Read as _;
use std::process::ExitCode;

use serde_json::json;

use super::Remote;
use crate::cli::arguments::{
    AddRouter, ListRouters, Named, RotateArguments, RouterAt, RouterCommand, SetRouter,
};
use crate::cli::output::{facts, or_dash, print, print_json, table};
use crate::cli::{Failure, Outcome};
use crate::control_api::types::{
    CreatedRouter, Login, MAX_PASSWORD_BYTES, NewRouter, Patch, RotateRouter, RotationView,
    RouterFilter, RouterPatch, RouterView, SecretText,
};

impl Remote {
    pub(in crate::cli) async fn router(&self, command: RouterCommand) -> Outcome {
        match command {
            RouterCommand::Add(add) => {
                let made = self.client.add_router(&new_router(add)?).await?;
                if self.json { print_json(&made)? } else { print(&created(&made))? }
            }
            RouterCommand::List(which) => {
                let all = self.client.routers(&filter(which)).await?;
                if self.json { print_json(&all)? } else { print(&routers(&all))? }
            }
            RouterCommand::Show(Named { name }) => {
                let one = self.client.router(&name).await?;
                if self.json { print_json(&one)? } else { print(&router(&one))? }
            }
            RouterCommand::Sessions(asked) => return self.sessions(asked).await,
            RouterCommand::Set(set) => {
                let RouterAt { name, if_revision } = &set.at;
                let patch = patch(&set);
                let one = self.client.patch_router(name, *if_revision, &patch).await?;
                if self.json { print_json(&one)? } else { print(&router(&one))? }
            }
            RouterCommand::Remove(RouterAt { name, if_revision }) => {
                self.client.remove_router(&name, if_revision).await?;
                self.done(&json!({"name": name, "removed": true}), &format!("{name} is removed"))?;
            }
            RouterCommand::Disable(at) => self.set_disabled(&at, true).await?,
            RouterCommand::Enable(at) => self.set_disabled(&at, false).await?,
            RouterCommand::Readdress(RouterAt { name, if_revision }) => {
                let one = self.client.readdress_router(&name, if_revision).await?;
                let address = or_dash(one.address);
                self.done(
                    &one,
                    &format!("{name} has the address {address} from its next login on"),
                )?;
            }
            RouterCommand::Rotate(arguments) => self.rotate(arguments).await?,
            RouterCommand::Export { output } => self.export(output.as_deref()).await?,
            RouterCommand::Import(import) => self.import(&import).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn set_disabled(&self, at: &RouterAt, disabled: bool) -> Result<(), Failure> {
        let name = &at.name;
        let router = self.client.set_disabled(name, at.if_revision, disabled).await?;
        let word = if router.disabled { "disabled" } else { "enabled" };
        self.done(&router, &format!("{name} is {word}"))
    }

    async fn rotate(&self, arguments: RotateArguments) -> Result<(), Failure> {
        let RouterAt { name, if_revision } = arguments.at;
        let stdin = arguments.password_stdin;
        let rotate = RotateRouter {
            grace_seconds: Some(arguments.grace),
            password: if stdin { Some(read_password(std::io::stdin())?) } else { None },
            verify_server: arguments.verify_server,
        };
        let made = self.client.rotate_router(&name, if_revision, &rotate).await?;
        if self.json {
            return Ok(print_json(&made)?);
        }
        let ends = match &made.router.rotation {
            Some(rotation) => format!("The old password counts until {}.\n", rotation.ends),
            None => "The old password counts no more.\n".to_owned(),
        };
        Ok(print(&format!("{}{ends}", created(&made)))?)
    }
}

fn new_router(add: AddRouter) -> Result<NewRouter, Failure> {
    let password = if add.password_stdin { Some(read_password(std::io::stdin())?) } else { None };
    Ok(NewRouter {
        name: add.name,
        username: add.username,
        password,
        address: add.address,
        cipher: add.cipher,
        auth: add.auth,
        login: Login::from(add.login),
        certificate_cn: add.certificate_cn,
        verify_server: add.verify_server,
        tenant: add.tenant,
        tags: add.tags,
        note: add.note,
    }
    .check()?)
}

fn filter(which: ListRouters) -> RouterFilter {
    let either = |yes: bool, no: bool| (yes || no).then_some(yes);
    RouterFilter {
        name: which.name,
        tags: which.tags,
        tenant: which.tenant,
        connected: either(which.connected, which.not_connected),
        disabled: either(which.disabled, which.enabled),
        last_seen_after: which.seen_after,
        last_seen_before: which.seen_before,
    }
}

fn patch(set: &SetRouter) -> RouterPatch {
    fn field<T: Clone>(value: Option<&T>, clear: bool) -> Patch<T> {
        match value {
            Some(value) => Patch::Set(value.clone()),
            None if clear => Patch::Clear,
            None => Patch::Keep,
        }
    }
    RouterPatch {
        disabled: Patch::Keep,
        tags: field((!set.tags.is_empty()).then_some(&set.tags), set.no_tags),
        tenant: field(set.tenant.as_ref(), set.no_tenant),
        address: field(set.address.as_ref(), set.no_address),
        cipher: field(set.cipher.as_ref(), set.no_cipher),
        auth: field(set.auth.as_ref(), set.no_auth),
        note: field(set.note.as_ref(), set.no_note),
    }
}

/// The whole input; one newline at its end belongs to whoever typed it, not to the password.
fn read_password(input: impl std::io::Read) -> Result<SecretText, Failure> {
    let most = u64::try_from(MAX_PASSWORD_BYTES).unwrap_or(u64::MAX).saturating_add(2);
    let mut text = String::new();
    input.take(most).read_to_string(&mut text).map_err(|error| {
        Failure(format!("cannot read the password from standard input: {error}"))
    })?;
    if text.ends_with('\n') {
        text.pop();
    }
    let password = SecretText(text);
    match password.expose().len() {
        0 => Err(Failure("standard input holds no password".into())),
        length if length > MAX_PASSWORD_BYTES => {
            Err(Failure(format!("the password is longer than {MAX_PASSWORD_BYTES} bytes")))
        }
        _ => Ok(password),
    }
}

fn created(made: &CreatedRouter) -> String {
    let head = facts(&[
        ("router", made.router.name.clone()),
        ("username", made.router.username.clone()),
        ("password", format!("{}  (shown only now)", made.password.expose())),
        ("address", or_dash(made.router.address)),
    ]);
    format!(
        "{head}\nPaste this into a terminal of RouterOS 7.9 or later:\n\n{}\n\
         With --json the answer also has a script for RouterOS v6 and a .ovpn file.\n",
        made.script.expose()
    )
}

fn login(login: Login) -> &'static str {
    match login {
        Login::Password => "password",
        Login::Certificate => "certificate",
        Login::Both => "both",
    }
}

fn state(router: &RouterView) -> &'static str {
    match (router.disabled, router.connected) {
        (true, _) => "disabled",
        (false, true) => "up",
        (false, false) => "down",
    }
}

fn routers(all: &[RouterView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            vec![
                one.name.clone(),
                state(one).to_owned(),
                or_dash(one.address),
                one.username.clone(),
                login(one.login).to_owned(),
                or_dash(one.last_seen),
                or_dash(one.tenant.as_deref()),
                one.tags.join(","),
            ]
        })
        .collect();
    table(&["NAME", "STATE", "ADDRESS", "USERNAME", "LOGIN", "LAST SEEN", "TENANT", "TAGS"], &rows)
}

fn router(one: &RouterView) -> String {
    let kind = match (one.address, one.address_static) {
        (Some(_), true) => " (set by hand)",
        _ => "",
    };
    facts(&[
        ("name", one.name.clone()),
        ("state", state(one).to_owned()),
        ("address", format!("{}{kind}", or_dash(one.address))),
        ("username", one.username.clone()),
        ("login", login(one.login).to_owned()),
        ("certificate", or_dash(one.certificate_cn.as_deref())),
        ("cipher", or_dash(one.cipher.as_deref())),
        ("auth", or_dash(one.auth.as_deref())),
        ("created", one.created.to_string()),
        ("last seen", or_dash(one.last_seen)),
        ("tenant", or_dash(one.tenant.as_deref())),
        ("tags", or_dash((!one.tags.is_empty()).then(|| one.tags.join(" ")))),
        ("note", or_dash((!one.note.is_empty()).then_some(&one.note))),
        ("rotation", or_dash(one.rotation.as_ref().map(rotation))),
        ("revision", one.revision.to_string()),
    ])
}

fn rotation(rotation: &RotationView) -> String {
    let used = if rotation.new_used { "has used" } else { "has not used" };
    format!("the old password counts until {}; the router {used} the new one", rotation.ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_newline_is_not_part_of_a_password() {
        for (input, password) in [
            ("secret", "secret"),
            ("secret\n", "secret"),
            ("secret\n\n", "secret\n"),
            ("secret\r\n", "secret\r"),
            (" s e \n", " s e "),
        ] {
            assert_eq!(read_password(input.as_bytes()).unwrap().expose(), password);
        }
    }

    #[test]
    fn unusable_passwords_are_refused_with_a_sentence() {
        let long = "x".repeat(5000);
        let inputs: [&[u8]; 4] = [b"", b"\n", long.as_bytes(), &[0xff, 0xfe]];
        for input in inputs {
            let Failure(sentence) = read_password(input).unwrap_err();
            assert!(!sentence.is_empty() && !sentence.contains("xxx"));
        }
        assert!(read_password("x".repeat(1000).as_bytes()).is_ok());
        assert!(read_password(format!("{}\n", "x".repeat(1000)).as_bytes()).is_ok());
        assert!(read_password("x".repeat(1001).as_bytes()).is_err());
    }
}
