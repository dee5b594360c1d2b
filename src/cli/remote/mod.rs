//! Commands that ask a running concentrator: one file a group.

mod audit;
mod dial;
mod events;
mod history;
mod login;
mod operations;
mod router;
mod store;
mod transfer;
mod tunnel;

use std::path::Path;

use super::Failure;
use super::output::{print, print_json};
use crate::control_api::client::Client;

/// The other end of a control socket and how to show what it says.
pub(in crate::cli) struct Remote {
    client: Client,
    json: bool,
}

impl Remote {
    pub(in crate::cli) fn new(socket: &Path, json: bool) -> Self {
        Self { client: Client::new(socket), json }
    }

    fn done(&self, document: &impl serde::Serialize, sentence: &str) -> Result<(), Failure> {
        if self.json {
            print_json(document)?
        } else {
            print(&format!("{sentence}\n"))?
        }
        Ok(())
    }
}
