//! `store restore`: works on the files of a concentrator that does not run.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::Outcome;
use super::output::{plain, print, print_json};
use crate::concentrator;
use crate::control_api::types::Timestamp;

pub(super) fn restore(file: &Path, state_dir: &Path, as_json: bool) -> Outcome {
    let restored = concentrator::restore_store(file, state_dir)?;
    let aside = restored.set_aside.as_ref().map(|path| path.display().to_string());
    if as_json {
        print_json(&json!({
            "restored": file.display().to_string(),
            "copied_at": Timestamp(restored.copied_at),
            "set_aside": aside,
            "addresses_known": restored.addresses_known,
            "resting": restored.resting,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("the state is now that of {}\n", Timestamp(restored.copied_at));
    if let Some(aside) = aside {
        text.push_str(&format!("what was there is kept as {}\n", plain(&aside)));
    }
    text.push_str(&if restored.addresses_known {
        format!("{} addresses that were given later rest\n", restored.resting)
    } else {
        "it is not known which addresses were given later: until limits.lease_quarantine is over, \
         new routers get one only with --address\n"
            .to_owned()
    });
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
