//! `events`.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::Remote;
use crate::cli::arguments::EventsArguments;
use crate::cli::output::{or_dash, plain};
use crate::cli::{Failure, Outcome};
use crate::control_api::client::{ClientError, Told};
use crate::control_api::types::{EventFilter, EventRecord};

/// Pauses between attempts to reach a concentrator that has gone away: the first and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Remote {
    pub(in crate::cli) async fn events(&self, arguments: EventsArguments) -> Outcome {
        let filter = filter(&arguments)?;
        let mut after = arguments.after;
        let mut pause = FIRST_PAUSE;
        let mut reached = false;
        loop {
            let error = match self.follow(&filter, &mut after, &mut reached).await {
                Ok(Ended::ReaderGone) => return Ok(ExitCode::SUCCESS),
                Ok(Ended::Closed { heard }) => {
                    if heard {
                        pause = FIRST_PAUSE;
                    }
                    None
                }
                Err(error) => Some(error),
            };
            match error {
                // Nobody was ever there, or says that we ask for the wrong thing.
                Some(error) if !reached => return Err(error.into()),
                Some(error @ (ClientError::Refused(_) | ClientError::Permission(_))) => {
                    return Err(error.into());
                }
                _ => {}
            }
            if pause == FIRST_PAUSE {
                // There is nobody left to tell if this fails.
                let _ = writeln!(io::stderr(), "the concentrator has gone away; waiting for it");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection. `after` moves with what was printed.
    async fn follow(
        &self,
        filter: &EventFilter,
        after: &mut Option<u64>,
        reached: &mut bool,
    ) -> Result<Ended, ClientError> {
        let mut following = match self.client.follow(filter, *after).await {
            Err(ClientError::EventsGone(gap)) => {
                *reached = true;
                if !self.tell(&Told::Gap(gap)) {
                    return Ok(Ended::ReaderGone);
                }
                *after = Some(gap.to);
                self.client.follow(filter, *after).await?
            }
            other => other?,
        };
        *reached = true;
        let mut heard = false;
        loop {
            let next = following.next().await;
            heard |= matches!(next, Ok(Some(_))) || following.position() > *after;
            let told = match next {
                Ok(told) => told,
                Err(error) => {
                    tracing::debug!(%error, "the stream of events broke");
                    None
                }
            };
            let Some(told) = told else {
                *after = following.position().or(*after);
                return Ok(Ended::Closed { heard });
            };
            if !self.tell(&told) {
                return Ok(Ended::ReaderGone);
            }
            *after = following.position().or(*after);
        }
    }

    /// Prints one line; false: nobody reads any more.
    fn tell(&self, told: &Told) -> bool {
        let mut text = match (told, self.json) {
            (Told::Event(event), false) => line(event),
            (Told::Event(event), true) => serde_json::to_string(event).unwrap_or_default(),
            (Told::Gap(gap), false) => format!("{gap}; look at the lists again"),
            (Told::Gap(gap), true) => {
                json!({"kind": "gap", "from": gap.from, "to": gap.to, "lost": gap.lost}).to_string()
            }
        };
        text.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
    }
}

/// How a connection ended.
enum Ended {
    /// Nobody reads what we print.
    ReaderGone,
    /// The concentrator has ended it, or it broke.
    Closed {
        /// Something came over it.
        heard: bool,
    },
}

fn filter(arguments: &EventsArguments) -> Result<EventFilter, Failure> {
    let mut filter = EventFilter {
        kinds: Vec::new(),
        router: arguments.router.clone(),
        tag: arguments.tag.clone(),
        tenant: arguments.tenant.clone(),
    };
    for list in &arguments.kind {
        if let Err(kind) = filter.add_kinds(list) {
            let kind = kind.escape_default();
            return Err(Failure(format!(
                "no event has the kind \"{kind}\"; kinds are such as tunnel.up, or tunnel. for all \
                 that begin so"
            )));
        }
    }
    Ok(filter)
}

/// "TIME  KIND  ROUTER  field=value ..."
fn line(event: &EventRecord) -> String {
    let router = or_dash(event.router.as_deref());
    let mut text = format!("{}  {:20}  {}", event.at, event.kind, router);
    for (field, value) in &event.fields {
        let value = match value {
            Value::Null => continue,
            Value::String(text) if text.chars().any(|c| c == ' ' || c == '"') => {
                format!("\"{}\"", text.replace('"', "\\\""))
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.push_str(&format!("  {field}={value}"));
    }
    plain(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let event = |text: &str| serde_json::from_str::<EventRecord>(text).unwrap();
        assert_eq!(
            line(&event(
                r#"{"id":7,"at":"2026-11-22T00:00:00.042Z","router":"branch-42","kind":"tunnel.down","address":"100.64.3.7","reason":"peer_closed","rx_bytes":null,"seconds":60}"#
            )),
            "2026-11-22T00:00:00.042Z  tunnel.down           branch-42  address=100.64.3.7  reason=peer_closed  seconds=60"
        );
        let hostile = line(&event(
            r#"{"id":7,"at":"2026-11-22T00:00:00.042Z","router":null,"kind":"login.failed","username":"a\u001b[2J\n\u202eb\" c"}"#,
        ));
        assert!(hostile.ends_with(r#"-  username="a\u{1b}[2J\n\u{202e}b\" c""#), "{hostile}");
        assert_eq!(hostile.lines().count(), 1);
    }
}
