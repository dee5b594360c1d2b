//! `router`.

use std::io::Read as _;
use std::process::ExitCode;

use serde_json::json;

use super::Remote;
use crate::cli::arguments::{AddRouter, Named, RouterCommand};
use crate::cli::output::{facts, or_dash, print, print_json, table};
use crate::cli::{Failure, Outcome};
use crate::control_api::types::{
    CreatedRouter, Login, MAX_PASSWORD_BYTES, NewRouter, RouterPatch, RouterView, SecretText,
};

impl Remote {
    pub(in crate::cli) async fn router(&self, command: RouterCommand) -> Outcome {
        match command {
            RouterCommand::Add(add) => {
                let made = self.client.add_router(&new_router(add)?).await?;
                if self.json { print_json(&made)? } else { print(&created(&made))? }
            }
            RouterCommand::List => {
                let all = self.client.routers().await?;
                if self.json { print_json(&all)? } else { print(&routers(&all))? }
            }
            RouterCommand::Show(Named { name }) => {
                let one = self.client.router(&name).await?;
                if self.json { print_json(&one)? } else { print(&router(&one))? }
            }
            RouterCommand::Sessions(asked) => return self.sessions(asked).await,
            RouterCommand::Remove(Named { name }) => {
                self.client.remove_router(&name).await?;
                self.done(&json!({"name": name, "removed": true}), &format!("{name} is removed"))?;
            }
            RouterCommand::Disable(Named { name }) => self.set_disabled(&name, true).await?,
            RouterCommand::Enable(Named { name }) => self.set_disabled(&name, false).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn set_disabled(&self, name: &str, disabled: bool) -> Result<(), Failure> {
        let patch = RouterPatch { disabled: Some(disabled) };
        let router = self.client.patch_router(name, &patch).await?;
        let word = if router.disabled { "disabled" } else { "enabled" };
        self.done(&router, &format!("{name} is {word}"))
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
    }
    .check()?)
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
            ]
        })
        .collect();
    table(&["NAME", "STATE", "ADDRESS", "USERNAME", "LOGIN", "LAST SEEN"], &rows)
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
    ])
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
