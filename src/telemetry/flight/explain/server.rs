//! What is decided or missing on our side.

use super::{Explanation, Record, Setting};

pub(super) fn explain(
    cause: &'static str,
    record: &Record,
    setting: &Setting<'_>,
) -> Option<Explanation> {
    let name = setting.account.map_or("NAME", |account| account.name);
    Some(match cause {
        "disabled" | "account_disabled" | "revoked_meanwhile" => {
            Explanation::new(cause, "The account is disabled.")
                .shell(format!("tunnelhead router enable {name}"))
        }
        "account_removed" => Explanation::new(cause, "The account was deleted."),
        "banned" => Explanation::new(
            cause,
            "The router is banned for a while: an operator disconnected it with a time.",
        )
        .shell(format!("tunnelhead router show {name}")),
        "back_off" => Explanation::new(
            cause,
            format!(
                "There were too many failed logins from {} of late, so even a right password waits \
                 there for some minutes; look at the attempts before this one.",
                record.source.ip()
            ),
        )
        .shell(format!("tunnelhead why {name}")),
        "clone" => Explanation::new(
            cause,
            format!(
                "Another router is logged in with the same account and stays: this one, at {}, has \
                 a copy of its configuration and needs an account of its own.",
                record.source.ip()
            ),
        )
        .router(format!("{} user=NAME password=PASSWORD", super::SET))
        .shell("tunnelhead router add NEWNAME"),
        "authenticator_unavailable" | "deadline_verdict" | "left_before_verdict" => {
            Explanation::new(
                cause,
                "The authenticator gave no answer in time, or failed; the router is not at fault.",
            )
            .shell("tunnelhead status")
        }
        "pool_full" => Explanation::new(
            cause,
            "Every address of the pool is taken or in quarantine: enlarge pool.network, or delete \
             routers that are gone.",
        )
        .shell("tunnelhead status"),
        "store_degraded" | "deadline_address" => Explanation::new(
            cause,
            "The address of a new router could not be recorded: the disk is full, read-only or \
             broken.",
        )
        .shell("tunnelhead store check"),
        "no_place" => Explanation::new(
            cause,
            "Too many handshakes were in progress; the router tries again by itself.",
        )
        .shell("tunnelhead status"),
        "buffers_full" | "no_descriptors" | "no_randomness" | "internal" => Explanation::new(
            cause,
            "The concentrator is short of memory, descriptors or randomness.",
        )
        .shell("tunnelhead doctor"),
        "disconnected_by_operator" => Explanation::new(
            cause,
            "An operator disconnected it before its first packet; it may come back.",
        ),
        "replaced_by_new_login" => {
            Explanation::new(cause, "The router logged in again; the newer login counts.")
        }
        "stopping" | "shut_down" => Explanation::new(cause, "The concentrator was being stopped."),
        "wrap_mismatch" => wrap(cause, setting),
        _ => return None,
    })
}

fn wrap(cause: &'static str, setting: &Setting<'_>) -> Explanation {
    let (address, wrap) = match setting.listener {
        Some(listener) => (listener.address.to_string(), listener.wrap),
        None => ("this listener".to_owned(), "none"),
    };
    let sentence = match wrap {
        "none" => format!(
            "The first packet can't be read on {address}, which uses no tls-auth and no tls-crypt: \
             the client has such a key. Remove it, or let the client dial a listener with that key."
        ),
        wrap => format!(
            "The first packet can't be opened on {address}, which uses {wrap}: the client has no \
             key for it, or another one. Import this server's .ovpn file."
        ),
    };
    let name = setting.account.map_or("NAME", |account| account.name);
    let made = Explanation::new(cause, sentence);
    if wrap == "none" {
        made.shell(format!("tunnelhead router rotate {name}"))
    } else {
        made.router("/interface ovpn-client import-ovpn-configuration file-name=FILE.ovpn")
            .shell(format!("tunnelhead router rotate {name}"))
    }
}
