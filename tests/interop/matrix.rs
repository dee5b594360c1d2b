//! Cipher x digest x wrapping x login: 72 logins, each with what must come of it.

use std::time::Duration;

use crate::KEYS;
use crate::server::{Account, Listener, Login, Server, Spec};
use crate::support::client::{Client, Config, Outcome};
use crate::support::keys::Wrap;

pub(crate) const CIPHERS: [&str; 2] = ["AES-256-GCM", "AES-256-CBC"];
const DIGESTS: [&str; 3] = ["SHA1", "SHA256", "SHA512"];

/// One login that must work.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    cipher: &'static str,
    digest: &'static str,
    wrap: Wrap,
    login: Login,
}

/// All rows.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for cipher in CIPHERS {
        for digest in DIGESTS {
            for wrap in Wrap::ALL {
                for login in Login::ALL {
                    let name = format!("router-{:02}", rows.len());
                    rows.push(Row { name, cipher, digest, wrap, login });
                }
            }
        }
    }
    rows
}

/// The rows that are run again with a rekey every few seconds: each cipher with each wrapping.
pub(crate) fn rekey_rows() -> Vec<Row> {
    rows()
        .into_iter()
        .filter(|row| row.digest == "SHA256" && row.login == Login::Password)
        .collect()
}

impl Row {
    fn listener(&self) -> Listener {
        Listener { wrap: self.wrap, digest: self.digest, login: self.login, legacy: false }
    }

    fn account(&self) -> Account {
        let password = format!("Secret-of-{}", self.name);
        Account { name: self.name.clone(), password, login: self.login }
    }

    fn start(&self, server: &dyn Server, lines: &[&str]) -> Client {
        let account = self.account();
        let mut config = Config::null(server.address(&self.listener()))
            .inline("ca", &KEYS.authority.pem())
            .line(&format!("auth {}", self.digest))
            .line(&format!("data-ciphers {}", self.cipher))
            .wrap(self.wrap, &KEYS)
            .lines(lines)
            .once();
        if self.login.wants_password() {
            config = config.password(&account.name, &account.password);
        }
        if self.login.wants_certificate() {
            config = config.certificate(&KEYS.authority.client(&account.name));
        }
        config.start(&format!("{self:?}"))
    }

    fn complain(&self, what: &str, client: &Client) -> String {
        format!("{self:?}: {what}\n{}", client.process.tail(30))
    }

    /// Up, with the cipher and digest of the row.
    fn up(&self, client: &Client) -> Result<usize, String> {
        let (outcome, next) = client.outcome_after(0);
        if outcome != Outcome::Up {
            return Err(self.complain(&format!("{outcome:?}"), client));
        }
        client.process.expect_line(0, Duration::from_secs(5), "Data Channel: cipher");
        let digest = (!self.cipher.ends_with("GCM")).then(|| self.digest.to_owned());
        let agreed = client.data_channel();
        if agreed != (self.cipher.to_owned(), digest) {
            return Err(self.complain(&format!("agreed on {agreed:?}"), client));
        }
        // A 2.6 client offers both, so both are agreed on: keys from the TLS exporter, and a wrapping
        // of its own for every later key exchange.
        match client.process.count(0, "tls-ekm dyn-tls-crypt") {
            0 => Err(self.complain("no exporter keys or no dynamic tls-crypt", client)),
            _ => Ok(next),
        }
    }
}

/// A server for these rows.
pub(crate) fn spec(rows: &[Row]) -> Spec {
    let mut listeners: Vec<Listener> = Vec::new();
    for listener in rows.iter().map(Row::listener) {
        if !listeners.contains(&listener) {
            listeners.push(listener);
        }
    }
    let accounts = rows.iter().map(Row::account).collect();
    Spec { listeners, accounts, ciphers: CIPHERS.to_vec() }
}

/// Every row logs in and its data flows both ways.
pub(crate) fn check(rows: &[Row], server: &dyn Server) {
    let complaints = crate::each(rows, |row| {
        let client = row.start(server, &[]);
        let next = row.up(&client)?;
        client.expect_pings(next, 1, Duration::from_secs(15));
        Ok(())
    });
    report(rows.len(), &complaints, server);
}

/// Every row's client negotiates new keys `times` times; data flows both ways under each key.
pub(crate) fn check_rekeys(rows: &[Row], server: &dyn Server, times: usize) {
    let limit = Duration::from_secs(20);
    let complaints = crate::each(rows, |row| {
        let client = row.start(server, &["reneg-sec 2"]);
        let mut next = row.up(&client)?;
        for round in 1..=times {
            // Key ids go 1, 2, .. 7, 1: id 0 is the first key's alone.
            let key = (round - 1) % 7 + 1;
            for way in ["WRITE", "READ"] {
                let new_key = format!("kid={key} DATA");
                let data = |line: &str| line.contains(way) && line.contains(&new_key);
                if client.process.line_after(next, limit, data).is_err() {
                    return Err(row.complain(&format!("no {way} under key {key}"), &client));
                }
            }
            next = client.expect_pings(next, 1, limit);
        }
        match client.process.count(0, "Connection reset") {
            0 => Ok(()),
            _ => Err(row.complain("lost the connection", &client)),
        }
    });
    report(rows.len(), &complaints, server);
}

pub(crate) fn report(total: usize, complaints: &[String], server: &dyn Server) {
    assert!(
        complaints.is_empty(),
        "{} of {total} failed:\n{}\n{}",
        complaints.len(),
        complaints.join("\n\n"),
        server.diagnosis()
    );
}
